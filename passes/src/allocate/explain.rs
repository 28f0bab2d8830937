use std::fmt;

use lowbit_report::Sensitivity;
use serde::Serialize;

use super::Refusal;
use super::budget::{Budget, Limits, within};
use super::problem::{Group, Pin, Problem, Row, rows};
use super::solve::{Failure, solve};

/// No plan keeps the limits; says what would be kept.
#[derive(Clone, Debug, PartialEq, Serialize, thiserror::Error)]
#[error("the budget cannot be met: {}", list(.least))]
pub struct Infeasible {
    /// The least value of each budget that was given.
    pub least: Vec<Least>,
}

/// The least value of a budget that a plan can have.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Least {
    /// The budget.
    pub budget: Budget,
    /// What was asked for.
    pub asked: f64,
    /// The least value of any plan.
    pub alone: f64,
    /// The least value of a plan that keeps all other budgets; `None` where there is none.
    pub with_others: Option<f64>,
    /// The layers that take most of the least value, with their shares of it; for memory the steps that need most.
    pub layers: Vec<(String, f64)>,
}

/// What adds to a sum, by name.
type Parts = Vec<(String, f64)>;

/// How many layers are named.
const NAMED: usize = 3;

fn list(least: &[Least]) -> String {
    let all: Vec<String> = least.iter().map(ToString::to_string).collect();
    all.join("; ")
}

impl fmt::Display for Least {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            budget,
            asked,
            alone,
            ..
        } = self;
        write!(
            f,
            "{budget} {asked} was asked for, {} is the smallest that can be had",
            budget.least(*alone)
        )?;
        match self.with_others {
            Some(least) if least > *alone => {
                write!(f, ", {} within the other budgets", budget.least(least))?;
            }
            _ => {}
        }
        let share = |(name, share): &(String, f64)| format!("'{name}' ({:.0} %)", 100.0 * share);
        let layers: Vec<String> = self.layers.iter().map(share).collect();
        let layers = layers.join(", ");
        match budget {
            Budget::Ram => write!(f, ", needed most while these are computed: {layers}"),
            _ => write!(f, ", most of it in {layers}"),
        }
    }
}

/// Finds the least value of each budget, alone and within the others.
pub(crate) fn explain(
    table: &Sensitivity,
    limits: &Limits,
    pins: &[Pin],
) -> Result<Infeasible, Refusal> {
    let problem = Problem::with_rows(table, rows(table, limits, false), pins)?;
    let row = |(budget, asked): (Budget, f64)| {
        let unit = budget.unit(&table.layers);
        let least = |others: &[Row]| match budget {
            Budget::Ram => least_memory(&problem, table, others),
            _ => least_sum(&problem, table, budget, others),
        };
        let (alone, parts) = least(&[])?.ok_or_else(none)?;
        let others = problem.rows.iter().filter(|r| r.budget != budget);
        let others: Vec<Row> = others.copied().collect();
        let within = least(&others)?;
        Ok(Least {
            budget,
            asked,
            alone: alone / unit,
            with_others: within.map(|(sum, _)| sum / unit),
            layers: named(alone, parts),
        })
    };
    let least: Result<Vec<Least>, Refusal> = limits.given().map(row).collect();
    Ok(Infeasible { least: least? })
}

fn none() -> Refusal {
    Refusal::Solver("it finds no plan even without a budget".into())
}

/// The program with some of its rows, and the losses that are given by option.
fn narrowed(problem: &Problem, kept: &[Row], loss: impl Fn(&[f64]) -> f64) -> Problem {
    let same = |a: &Row, b: &Row| a.budget == b.budget && a.step == b.step;
    let find = |row: &Row| problem.rows.iter().position(|r| same(r, row));
    let indices: Vec<usize> = kept.iter().filter_map(find).collect();
    let mut program = problem.clone();
    program.rows = kept.to_vec();
    for choice in program.groups.iter_mut().flat_map(|g| &mut g.options) {
        choice.loss = loss(&choice.costs);
        choice.costs = indices.iter().map(|&i| choice.costs[i]).collect();
    }
    program
}

fn solved(program: &Problem) -> Result<Option<Vec<usize>>, Refusal> {
    match solve(program) {
        Ok(solved) => Ok(Some(solved.picks)),
        Err(Failure::Infeasible) => Ok(None),
        Err(Failure::Solver(message)) => Err(Refusal::Solver(message)),
    }
}

/// The least sum of a budget's costs with the limits of other rows kept, and each layer's part of it.
fn least_sum(
    problem: &Problem,
    table: &Sensitivity,
    budget: Budget,
    others: &[Row],
) -> Result<Option<(f64, Parts)>, Refusal> {
    let own = problem.rows.iter().position(|r| r.budget == budget);
    let own = own.expect("the budget was given");
    let program = narrowed(problem, others, |costs| costs[own]);
    let Some(picks) = solved(&program)? else {
        return Ok(None);
    };
    let part = |(g, &p): (&Group, &usize)| {
        let layer = &table.layers[g.layers[0]];
        (layer.name.clone(), g.options[p].loss)
    };
    let parts = program.groups.iter().zip(&picks).map(part).collect();
    let sum = program.loss(&picks) + budget.fixed(table);
    Ok(Some((sum, parts)))
}

/// The least arena with the limits of other rows kept, and what lives during each step.
fn least_memory(
    problem: &Problem,
    table: &Sensitivity,
    others: &[Row],
) -> Result<Option<(f64, Parts)>, Refusal> {
    let steps: Vec<usize> = (0..problem.rows.len())
        .filter(|&r| problem.rows[r].step.is_some())
        .collect();
    let base = |r: usize| table.steps[problem.rows[r].step.unwrap_or(0)].bytes;
    let live = |picks: &[usize]| -> Vec<f64> {
        let costs = problem.costs(picks);
        steps.iter().map(|&r| base(r) + costs[r]).collect()
    };
    let most = |live: &[f64]| live.iter().copied().fold(0.0, f64::max);
    let within_arena = |bytes: f64| -> Result<Option<Vec<usize>>, Refusal> {
        let memory = steps.iter().map(|&r| Row {
            limit: bytes - base(r),
            ..problem.rows[r]
        });
        let kept: Vec<Row> = others.iter().copied().chain(memory).collect();
        solved(&narrowed(problem, &kept, |_| 0.0))
    };
    let floor = |r: usize| {
        let least = |g: &Group| {
            let costs = g.options.iter().map(|c| c.costs[r]);
            costs.fold(f64::INFINITY, f64::min)
        };
        base(r) + problem.groups.iter().map(least).sum::<f64>()
    };
    let mut low = steps.iter().map(|&r| floor(r)).fold(0.0, f64::max);
    let mut best = match within_arena(low)? {
        Some(picks) => return Ok(Some((low, step_parts(table, &live(&picks))))),
        None => match within_arena(f64::MAX)? {
            Some(picks) => live(&picks),
            None => return Ok(None),
        },
    };
    // bytes are whole
    while most(&best) - low > 1.0 && !within(most(&best), low) {
        let middle = f64::midpoint(low, most(&best));
        match within_arena(middle)? {
            Some(picks) => best = live(&picks),
            None => low = middle,
        }
    }
    Ok(Some((most(&best), step_parts(table, &best))))
}

fn step_parts(table: &Sensitivity, live: &[f64]) -> Parts {
    let names = table.steps.iter().map(|s| s.name.clone());
    names.zip(live.iter().copied()).collect()
}

/// The largest parts with their shares of the whole.
fn named(whole: f64, mut parts: Parts) -> Vec<(String, f64)> {
    parts.sort_by(|a, b| b.1.total_cmp(&a.1));
    let share = |(name, part)| (name, if whole > 0.0 { part / whole } else { 0.0 });
    parts.into_iter().take(NAMED).map(share).collect()
}
