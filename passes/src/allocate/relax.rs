//! The linear relaxation: prices of the budgets, the bound that they prove, and a good plan to start from.

use good_lp::solvers::DualValues;
use good_lp::{
    Constraint, Expression, ProblemVariables, SolutionWithDual, SolverModel, Variable, constraint,
    variable, variables,
};

use super::budget::within;
use super::problem::{Choice, Group, Problem};
use super::solve::{Failure, highs};

/// Prices of a unit of each row's cost, none negative.
pub(crate) type Prices = Vec<f64>;

/// One variable a choice, between 0 and 1, `binary` or not.
pub(crate) fn one_hot(problem: &Problem, binary: bool) -> (ProblemVariables, Vec<Vec<Variable>>) {
    let mut vars = variables!();
    let mut add = |_: &Choice| {
        let v = variable().min(0.0).max(1.0);
        vars.add(if binary { v.integer() } else { v })
    };
    let each = problem.groups.iter();
    let all = each
        .map(|g| g.options.iter().map(&mut add).collect())
        .collect();
    (vars, all)
}

/// `Σ factor · x` over all choices; choices whose factor is 0 are left out.
pub(crate) fn weighted(
    problem: &Problem,
    x: &[Vec<Variable>],
    factor: impl Fn(&Group, &Choice) -> f64,
) -> Expression {
    let mut sum = Expression::with_capacity(x.len() * 8);
    for (group, x) in problem.groups.iter().zip(x) {
        for (choice, &x) in group.options.iter().zip(x) {
            let f = factor(group, choice);
            if f != 0.0 {
                sum.add_mul(f, x);
            }
        }
    }
    sum
}

/// One choice a group, and the same activation format for all readers of a tensor.
pub(crate) fn structure(problem: &Problem, x: &[Vec<Variable>]) -> Vec<Constraint> {
    let one = |x: &Vec<Variable>| constraint!(x.iter().sum::<Expression>() == 1.0);
    let mut all: Vec<Constraint> = x.iter().map(one).collect();
    for link in &problem.links {
        let share = |&(group, layer): &(usize, usize), format: usize| -> Expression {
            let options = problem.groups[group].options.iter().zip(&x[group]);
            let takes = options.filter(|(c, _)| problem.activations[layer][c.index] == format);
            takes.map(|(_, &x)| x).sum()
        };
        let (first, rest) = link.members.split_first().expect("a link has members");
        let mut formats = problem.activations[first.1].clone();
        formats.sort_unstable();
        formats.dedup();
        for format in formats {
            for other in rest {
                all.push(constraint!(share(first, format) == share(other, format)));
            }
        }
    }
    all
}

/// A row in units in which its limit is [`LIMIT`], with the least cost of each group taken off.
pub(crate) struct ScaledRow {
    row: usize,
    least: Vec<f64>,
    scale: f64,
    limit: f64,
}

/// The solver's tolerance, one in ten million, is then one in ten thousand millions of a budget.
const LIMIT: f64 = 1000.0;

pub(crate) fn least_cost(group: &Group, row: usize) -> f64 {
    let costs = group.options.iter().map(|c| c.costs[row]);
    costs.fold(f64::INFINITY, f64::min)
}

/// The rows that can be broken, scaled.
pub(crate) fn scaled(problem: &Problem) -> Result<Vec<ScaledRow>, Failure> {
    let mut rows = Vec::new();
    for (row, r) in problem.rows.iter().enumerate() {
        let least: Vec<f64> = problem.groups.iter().map(|g| least_cost(g, row)).collect();
        let sum: f64 = least.iter().sum();
        if !within(sum, r.limit) {
            return Err(Failure::Infeasible);
        }
        let most = |g: &Group| g.options.iter().map(|c| c.costs[row]).fold(0.0, f64::max);
        if within(problem.groups.iter().map(most).sum(), r.limit) {
            continue;
        }
        let slack = (r.limit - sum).max(0.0);
        let spread = problem.groups.iter().zip(&least).map(|(g, l)| most(g) - l);
        let scale = LIMIT / slack.max(spread.fold(0.0, f64::max));
        rows.push(ScaledRow {
            row,
            least,
            scale,
            limit: slack * scale,
        });
    }
    Ok(rows)
}

impl ScaledRow {
    pub(crate) fn constraint(&self, problem: &Problem, x: &[Vec<Variable>]) -> Constraint {
        let mut sum = Expression::with_capacity(x.len() * 8);
        for ((group, x), least) in problem.groups.iter().zip(x).zip(&self.least) {
            for (choice, &x) in group.options.iter().zip(x) {
                let cost = (choice.costs[self.row] - least) * self.scale;
                if cost != 0.0 {
                    sum.add_mul(cost, x);
                }
            }
        }
        sum.leq(self.limit)
    }
}

/// The unit in which losses are given to the solver.
pub(crate) fn loss_scale(problem: &Problem) -> f64 {
    let spread = |g: &Group| {
        let losses = || g.options.iter().map(|c| c.loss);
        losses().fold(f64::NEG_INFINITY, f64::max) - losses().fold(f64::INFINITY, f64::min)
    };
    let largest = problem.groups.iter().map(spread).fold(0.0, f64::max);
    if largest > 0.0 { 1e4 / largest } else { 1.0 }
}

/// Prices at which the relaxation is solved, for all rows.
pub(crate) fn prices(problem: &Problem) -> Result<Prices, Failure> {
    let rows = scaled(problem)?;
    let mut prices = vec![0.0; problem.rows.len()];
    if rows.is_empty() {
        return Ok(prices);
    }
    let (vars, x) = one_hot(problem, false);
    let scale = loss_scale(problem);
    let objective = weighted(problem, &x, |_, c| c.loss * scale);
    let mut model = highs(vars.minimise(objective));
    for c in structure(problem, &x) {
        model.add_constraint(c);
    }
    let references: Vec<_> = rows
        .iter()
        .map(|r| model.add_constraint(r.constraint(problem, &x)))
        .collect();
    let mut solution = model.solve().map_err(Failure::from)?;
    let dual = solution.compute_dual();
    for (row, reference) in rows.iter().zip(references) {
        prices[row.row] = (-dual.dual(reference)).max(0.0) * row.scale / scale;
    }
    Ok(prices)
}

/// Loss with costs paid at their prices.
pub(crate) fn priced(choice: &Choice, prices: &[f64]) -> f64 {
    let costs = choice.costs.iter().zip(prices).map(|(c, p)| c * p);
    choice.loss + costs.sum::<f64>()
}

/// A lower bound of every plan's loss, and the least priced loss of each group.
pub(crate) fn bound(problem: &Problem, prices: &[f64]) -> (f64, Vec<f64>) {
    let least = |g: &Group| {
        let all = g.options.iter().map(|c| priced(c, prices));
        all.fold(f64::INFINITY, f64::min)
    };
    let least: Vec<f64> = problem.groups.iter().map(least).collect();
    let paid = problem.rows.iter().zip(prices).map(|(r, p)| r.limit * p);
    (least.iter().sum::<f64>() - paid.sum::<f64>(), least)
}

/// A plan from the prices: the cheapest choices, repaired until they keep the limits, then improved one group at a time.
pub(crate) fn start(problem: &Problem, prices: &[f64]) -> Option<Vec<usize>> {
    let cheapest = |g: &Group| {
        let by_price = |a: &usize, b: &usize| {
            priced(&g.options[*a], prices).total_cmp(&priced(&g.options[*b], prices))
        };
        (0..g.options.len())
            .min_by(by_price)
            .expect("a group has options")
    };
    let mut picks: Vec<usize> = problem.groups.iter().map(cheapest).collect();
    repair(problem, &mut picks)?;
    improve(problem, &mut picks);
    problem.admits(&picks).then_some(picks)
}

/// How far sums exceed their limits, in shares of the limits.
fn excess(problem: &Problem, costs: &[f64]) -> f64 {
    let over = costs.iter().zip(&problem.rows).map(|(&c, r)| {
        if within(c, r.limit) {
            0.0
        } else {
            (c - r.limit) / r.limit.abs().max(1e-300)
        }
    });
    over.sum()
}

fn moved(costs: &[f64], from: &Choice, to: &Choice) -> Vec<f64> {
    let change = from.costs.iter().zip(&to.costs);
    costs
        .iter()
        .zip(change)
        .map(|(c, (f, t))| c - f + t)
        .collect()
}

/// A change saves something where it takes this share of the excess away; less may be rounding.
const LEAST_SAVED: f64 = 1e-9;

fn repair(problem: &Problem, picks: &mut [usize]) -> Option<()> {
    loop {
        let costs = problem.costs(picks);
        let now = excess(problem, &costs);
        if now == 0.0 {
            return Some(());
        }
        let mut best: Option<(f64, usize, usize)> = None;
        for (g, group) in problem.groups.iter().enumerate() {
            let from = &group.options[picks[g]];
            for (o, to) in group.options.iter().enumerate() {
                let saved = now - excess(problem, &moved(&costs, from, to));
                if saved > LEAST_SAVED * now {
                    let rate = (to.loss - from.loss) / saved;
                    if best.is_none_or(|b| rate < b.0) {
                        best = Some((rate, g, o));
                    }
                }
            }
        }
        let (_, g, o) = best?;
        picks[g] = o;
    }
}

fn improve(problem: &Problem, picks: &mut [usize]) {
    loop {
        let costs = problem.costs(picks);
        let mut best: Option<(f64, usize, usize)> = None;
        for (g, group) in problem.groups.iter().enumerate() {
            let from = &group.options[picks[g]];
            for (o, to) in group.options.iter().enumerate() {
                let gain = from.loss - to.loss;
                if gain > best.map_or(0.0, |b| b.0)
                    && excess(problem, &moved(&costs, from, to)) == 0.0
                {
                    best = Some((gain, g, o));
                }
            }
        }
        let Some((_, g, o)) = best else { return };
        picks[g] = o;
    }
}
