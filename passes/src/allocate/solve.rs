//! The exact search: branch and bound, or HiGHS with a gap of zero on what the bound leaves of the program.

use good_lp::solvers::highs::HighsProblem;
use good_lp::variable::UnsolvedProblem;
use good_lp::{Expression, ResolutionError, Solution, SolutionStatus, SolverModel, Variable};

use super::branch::{MOST_ROWS, branch};
use super::problem::Problem;
use super::relax;

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Failure {
    /// No plan keeps the limits.
    Infeasible,
    /// What the solver says.
    Solver(String),
}

impl From<ResolutionError> for Failure {
    fn from(e: ResolutionError) -> Self {
        match e {
            ResolutionError::Infeasible => Self::Infeasible,
            other => Self::Solver(other.to_string()),
        }
    }
}

/// Work of our own search before HiGHS is asked, for each row that binds: most of a second. The more rows bind, the better
/// it does beside HiGHS.
const WORK: usize = 33_000_000;

/// The best plan of a program, by group, and the prices of its rows.
pub(crate) struct Solved {
    pub(crate) picks: Vec<usize>,
    pub(crate) prices: Vec<f64>,
}

/// HiGHS on one thread with no gap: the same program gives the same plan.
pub(crate) fn highs(program: UnsolvedProblem) -> HighsProblem {
    good_lp::highs(program)
        .set_threads(1)
        .set_parallel(good_lp::solvers::highs::HighsParallelType::Off)
        .set_option("mip_rel_gap", 0.0)
        .set_option("mip_abs_gap", 0.0)
        .set_option("mip_feasibility_tolerance", 1e-9)
}

pub(crate) fn solve(problem: &Problem) -> Result<Solved, Failure> {
    let prices = relax::prices(problem)?;
    let start = relax::start(problem, &prices);
    let known = start.as_ref().map(|s| problem.loss(s));
    let searches = problem.links.is_empty() && problem.rows.len() <= MOST_ROWS;
    let binding = prices.iter().filter(|&&p| p > 0.0).count();
    let found = searches.then(|| branch(problem, &prices, known, WORK * binding.max(1)));
    let complete = found.as_ref().is_some_and(|f| f.complete);
    let mut best = found.and_then(|f| f.best).or(start);
    if !complete {
        best = exhausted(problem, &prices, best)?;
    }
    let picks = best.ok_or(Failure::Infeasible)?;
    Ok(Solved { picks, prices })
}

/// The best plan as HiGHS finds it.
fn exhausted(
    problem: &Problem,
    prices: &[f64],
    start: Option<Vec<usize>>,
) -> Result<Option<Vec<usize>>, Failure> {
    let (core, kept) = match &start {
        Some(start) => core(problem, prices, problem.loss(start)),
        None => (problem.clone(), identity(problem)),
    };
    let found = search(&core)?.map(|picks| spread(&kept, &picks));
    let both = [found, start].into_iter().flatten();
    Ok(both.min_by(|a, b| problem.loss(a).total_cmp(&problem.loss(b))))
}

fn identity(problem: &Problem) -> Vec<Vec<usize>> {
    let all = |g: &super::problem::Group| (0..g.options.len()).collect();
    problem.groups.iter().map(all).collect()
}

fn spread(kept: &[Vec<usize>], picks: &[usize]) -> Vec<usize> {
    kept.iter().zip(picks).map(|(k, &p)| k[p]).collect()
}

/// The program without choices that no plan better than `known` can have: the bound with the choice forced is above it.
/// With it, where its choices stood.
fn core(problem: &Problem, prices: &[f64], known: f64) -> (Problem, Vec<Vec<usize>>) {
    let (bound, least) = relax::bound(problem, prices);
    let room = (known - bound).max(0.0) + 1e-9 * (known.abs() + bound.abs());
    let kept: Vec<Vec<usize>> = problem
        .groups
        .iter()
        .zip(&least)
        .map(|(g, least)| {
            let near = |&o: &usize| relax::priced(&g.options[o], prices) - least <= room;
            (0..g.options.len()).filter(near).collect()
        })
        .collect();
    let mut core = problem.clone();
    for (group, kept) in core.groups.iter_mut().zip(&kept) {
        group.options = kept.iter().map(|&o| group.options[o].clone()).collect();
    }
    (core, kept)
}

/// The best plan; a plan that breaks a limit by the solver's tolerance is ruled out and the search repeated. `None`
/// where no plan is left.
fn search(problem: &Problem) -> Result<Option<Vec<usize>>, Failure> {
    let mut refused: Vec<Vec<usize>> = Vec::new();
    loop {
        let Some(picks) = once(problem, &refused)? else {
            return Ok(None);
        };
        if problem.admits(&picks) {
            return Ok(Some(picks));
        }
        refused.push(picks);
    }
}

fn once(problem: &Problem, refused: &[Vec<usize>]) -> Result<Option<Vec<usize>>, Failure> {
    let rows = match relax::scaled(problem) {
        Err(Failure::Infeasible) => return Ok(None),
        rows => rows?,
    };
    let (vars, x) = relax::one_hot(problem, true);
    let scale = relax::loss_scale(problem);
    let objective = relax::weighted(problem, &x, |g, c| (c.loss - least(g)) * scale);
    let mut model = highs(vars.minimise(objective));
    for c in relax::structure(problem, &x) {
        model.add_constraint(c);
    }
    for row in &rows {
        model.add_constraint(row.constraint(problem, &x));
    }
    for picks in refused {
        let same: Expression = x.iter().zip(picks).map(|(x, &p)| x[p]).sum();
        model.add_constraint(same.leq(picks.len() as f64 - 1.0));
    }
    let solution = match model.solve().map_err(Failure::from) {
        Err(Failure::Infeasible) => return Ok(None),
        solution => solution?,
    };
    // with gaps of zero, what is left of the gap at the end is rounding
    if matches!(solution.status(), SolutionStatus::TimeLimit) {
        return Err(Failure::Solver("it stopped before its proof".into()));
    }
    let largest = |x: &Vec<Variable>| {
        let by_value =
            |a: &usize, b: &usize| solution.value(x[*a]).total_cmp(&solution.value(x[*b]));
        (0..x.len()).max_by(by_value).expect("a group has options")
    };
    Ok(Some(x.iter().map(largest).collect()))
}

fn least(group: &super::problem::Group) -> f64 {
    group
        .options
        .iter()
        .map(|c| c.loss)
        .fold(f64::INFINITY, f64::min)
}
