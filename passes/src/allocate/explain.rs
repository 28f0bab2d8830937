use std::fmt;

use lowbit_report::Sensitivity;
use serde::Serialize;

use super::Refusal;
use super::budget::{Budget, Limits};
use super::problem::{Problem, Row};
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
    /// The layers that take most of the least value, with their shares of it.
    pub layers: Vec<(String, f64)>,
}

/// The first layer of each group with what it adds to a sum.
type Parts = Vec<(usize, f64)>;

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
            "{budget} {asked} was asked for, {alone} is the smallest that can be had"
        )?;
        match self.with_others {
            Some(least) if least > *alone => write!(f, ", {least} within the other budgets")?,
            _ => {}
        }
        let share = |(name, share): &(String, f64)| format!("'{name}' ({:.0} %)", 100.0 * share);
        let layers: Vec<String> = self.layers.iter().map(share).collect();
        write!(f, ", most of it in {}", layers.join(", "))
    }
}

/// Finds the least value of each budget, alone and within the others.
pub(crate) fn explain(
    problem: &Problem,
    table: &Sensitivity,
    limits: &Limits,
) -> Result<Infeasible, Refusal> {
    let row = |r: usize| {
        let budget = problem.rows[r].budget;
        let unit = budget.unit(&table.layers);
        let (alone, shares) = least(problem, r, &[])?.ok_or_else(none)?;
        let others: Vec<usize> = (0..problem.rows.len()).filter(|&o| o != r).collect();
        let within = least(problem, r, &others)?;
        Ok(Least {
            budget,
            asked: limits.of(budget).unwrap_or(f64::INFINITY),
            alone: alone / unit,
            with_others: within.map(|(sum, _)| sum / unit),
            layers: named(table, &shares),
        })
    };
    let least: Result<Vec<Least>, Refusal> = (0..problem.rows.len()).map(row).collect();
    Ok(Infeasible { least: least? })
}

fn none() -> Refusal {
    Refusal::Solver("it finds no plan even without a budget".into())
}

/// The least sum of a row's costs with the limits of other rows kept, and each layer's part of it.
fn least(problem: &Problem, row: usize, others: &[usize]) -> Result<Option<(f64, Parts)>, Refusal> {
    let mut program = problem.clone();
    program.rows = others
        .iter()
        .map(|&o| problem.rows[o])
        .collect::<Vec<Row>>();
    for choice in program.groups.iter_mut().flat_map(|g| &mut g.options) {
        choice.loss = choice.costs[row];
        choice.costs = others.iter().map(|&o| choice.costs[o]).collect();
    }
    let solved = match solve(&program) {
        Ok(solved) => solved,
        Err(Failure::Infeasible) => return Ok(None),
        Err(Failure::Solver(message)) => return Err(Refusal::Solver(message)),
    };
    let part = |(g, &p): (&super::problem::Group, &usize)| (g.layers[0], g.options[p].loss);
    let parts = program.groups.iter().zip(&solved.picks).map(part).collect();
    Ok(Some((program.loss(&solved.picks), parts)))
}

fn named(table: &Sensitivity, parts: &[(usize, f64)]) -> Vec<(String, f64)> {
    let sum: f64 = parts.iter().map(|p| p.1).sum();
    let mut parts = parts.to_vec();
    parts.sort_by(|a, b| b.1.total_cmp(&a.1));
    let name = |&(layer, part): &(usize, f64)| {
        let share = if sum > 0.0 { part / sum } else { 0.0 };
        (table.layers[layer].name.clone(), share)
    };
    parts.iter().take(NAMED).map(name).collect()
}
