//! Allocation: which choice each layer takes, so that the sum of losses is least and every budget holds.
//!
//! A table of losses and costs ([`lowbit_report::Sensitivity`]) and [`Limits`] become an integer program with one binary
//! variable a choice ([`Problem`]). Its linear relaxation prices the budgets: with `λ ≥ 0` a unit of each, no plan can
//! lose less than `Σ_layers min_choice (loss + λ·cost) − λ·limits`. That bound needs no trust in a solver; the exact search
//! branches on it and lists halves of plans that stay near it. HiGHS searches where layers share tensors, and where that
//! takes long. The result is checked by [`check`](check()), which reads the table alone.

mod branch;
mod budget;
mod check;
mod explain;
#[cfg(test)]
mod instances;
mod meet;
mod policy;
mod problem;
mod relax;
mod solve;
mod swaps;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use lowbit_report::Sensitivity;
use serde::Serialize;
use solve::{Failure, Solved};

pub use budget::{Budget, Limits, step_bytes, weight_bits};
pub use check::{Breach, check};
pub use explain::{Infeasible, Least};
pub use policy::{Search, search};
pub use problem::{Pin, Problem, TableError};
pub use swaps::{Scored, swaps};

/// The best plan with what proves it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Allocation {
    /// Sum of the losses of the choices.
    pub objective: f64,
    /// No plan within the budgets loses less: the search was exhaustive.
    pub bound: f64,
    /// Index of the choice of each layer.
    pub choice: Vec<usize>,
    /// What the plan costs, by the name of the cost, where the table tells it for every layer.
    pub totals: BTreeMap<&'static str, f64>,
    /// A bound that can be checked by hand.
    pub certificate: Certificate,
}

/// Prices of the budgets: loss that one more unit would save, at most.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Certificate {
    /// Price of each budget that was given, in loss per unit of the layers' costs.
    pub prices: Vec<(Budget, f64)>,
    /// Price of memory by the step of the schedule, in loss per byte, where a budget of memory was given.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<(String, f64)>,
    /// `Σ_layers min_choice (loss + price·cost) − price·limit`, a lower bound of every plan's loss.
    pub bound: f64,
}

/// Why there is no allocation.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// The table cannot be used.
    #[error(transparent)]
    Table(#[from] TableError),
    /// No plan keeps the budgets.
    #[error(transparent)]
    Infeasible(#[from] Infeasible),
    /// The solver gave up.
    #[error("the solver of the integer program failed: {0}")]
    Solver(String),
}

impl Refusal {
    /// Whether other limits, pins or ties could be kept: the table is sound and the solver did its work.
    pub fn is_infeasible(&self) -> bool {
        match self {
            Self::Infeasible(_) => true,
            Self::Table(e) => e.is_contradiction(),
            Self::Solver(_) => false,
        }
    }
}

/// The plan of least loss within the limits; ties go to the solver, always in the same way.
///
/// # Errors
/// The table is at fault, or no plan keeps the limits.
///
/// # Panics
/// When the checker finds the result wrong.
pub fn allocate(table: &Sensitivity, limits: &Limits, pins: &[Pin]) -> Result<Allocation, Refusal> {
    let problem = Problem::new(table, limits, pins)?;
    let solved = match solve::solve(&problem) {
        Ok(solved) => solved,
        Err(Failure::Infeasible) => return Err(explain::explain(table, limits, pins)?.into()),
        Err(Failure::Solver(message)) => return Err(Refusal::Solver(message)),
    };
    let found = allocation(&problem, table, limits, pins, &solved);
    if let Err(breach) = check(table, limits, pins, &found) {
        panic!("the allocation is wrong: {breach}");
    }
    Ok(found)
}

fn allocation(
    problem: &Problem,
    table: &Sensitivity,
    limits: &Limits,
    pins: &[Pin],
    solved: &Solved,
) -> Allocation {
    let rows = || problem.rows.iter().zip(solved.prices.iter().copied());
    let whole = rows().filter(|(r, _)| r.step.is_none());
    let steps = rows().filter_map(|(r, price)| Some((table.steps[r.step?].name.clone(), price)));
    let mut certificate = Certificate {
        prices: whole.map(|(r, price)| (r.budget, price)).collect(),
        steps: steps.collect(),
        bound: 0.0,
    };
    certificate.bound = check::bound(table, limits, pins, &certificate);
    let objective = problem.loss(&solved.picks);
    Allocation {
        objective,
        bound: objective,
        totals: totals(table, &problem.spread(&solved.picks)),
        choice: problem.spread(&solved.picks),
        certificate,
    }
}

/// What a plan costs, by the name of the cost, where the table tells it for every layer. What a budget of memory bounds is
/// the step that needs most.
pub fn totals(table: &Sensitivity, choice: &[usize]) -> BTreeMap<&'static str, f64> {
    let layers = &table.layers;
    let total = |&budget: &Budget| {
        let each = layers.iter().zip(choice);
        let sum: Option<f64> = each.map(|(l, &c)| budget.cost(l, &l.choices[c])).sum();
        let unit = if budget == Budget::Bits {
            budget.unit(layers)
        } else {
            1.0
        };
        Some((budget.total(), (sum? + budget.fixed(table)) / unit))
    };
    let mut totals: BTreeMap<&'static str, f64> = Budget::ALL.iter().filter_map(total).collect();
    let live = table.steps.iter().map(|s| {
        let picks = layers.iter().zip(choice);
        s.bytes
            + picks
                .map(|(l, &c)| step_bytes(s, &l.choices[c]))
                .sum::<f64>()
    });
    if let Some(most) = live.reduce(f64::max) {
        totals.insert(Budget::Ram.total(), most);
    }
    totals
}
