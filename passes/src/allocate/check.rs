use std::collections::HashMap;

use lowbit_report::{SensitiveChoice, SensitiveLayer, Sensitivity};

use super::budget::{Budget, Limits, step_bytes, within};
use super::{Allocation, Certificate, Pin};

/// What is wrong with an allocation.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Breach {
    /// It has another number of layers than the table, or a choice that does not exist.
    #[error("a choice that the table does not have")]
    Choice,
    /// Tied layers differ.
    #[error("layer '{0}' differs from the layers that it is tied to")]
    Tie(String),
    /// A layer has not what it is pinned to.
    #[error("layer '{0}' has not the format that it is pinned to")]
    Pin(String),
    /// Readers of one tensor want it in different formats.
    #[error("layer '{0}' reads its tensor in another format than its other readers")]
    Reads(String),
    /// A budget is exceeded.
    #[error("{0} is exceeded: {1} of {2}")]
    Budget(&'static str, f64, f64),
    /// A step needs more memory than there is.
    #[error("--ram is exceeded at step '{0}': {1} of {2}")]
    Step(String, f64, f64),
    /// The objective is not the sum of losses.
    #[error("the objective {0} is not the sum of losses {1}")]
    Objective(f64, f64),
    /// A bound is not what it says, or above the objective.
    #[error("the bound {0} does not hold under the objective {1}")]
    Bound(f64, f64),
}

/// Checks an allocation against the table alone: choices, pins, ties, readers, budgets, sums, and the certificate's
/// bound.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(
    table: &Sensitivity,
    limits: &Limits,
    pins: &[Pin],
    found: &Allocation,
) -> Result<(), Breach> {
    let layers = &table.layers;
    if found.choice.len() != layers.len() {
        return Err(Breach::Choice);
    }
    let pick = |(l, &c): (&SensitiveLayer, &usize)| l.choices.get(c).cloned();
    let picks: Option<Vec<SensitiveChoice>> = layers.iter().zip(&found.choice).map(pick).collect();
    let picks = picks.ok_or(Breach::Choice)?;
    let kept = |(l, c): &(&SensitiveLayer, &SensitiveChoice)| !leaves(pins, l, c);
    if let Some((l, _)) = layers.iter().zip(&picks).find(kept) {
        return Err(Breach::Pin(l.name.clone()));
    }
    agree(layers, &found.choice, &picks)?;
    kept_limits(table, limits, &picks)?;
    let loss: f64 = picks.iter().map(|c| c.loss).sum();
    let scale: f64 = picks.iter().map(|c| c.loss.abs()).sum();
    if (loss - found.objective).abs() > 1e-9 * scale {
        return Err(Breach::Objective(found.objective, loss));
    }
    let bound = bound(table, limits, pins, &found.certificate);
    let slack = 1e-9 * (scale + bound.abs());
    let claimed = found.certificate.bound;
    if (bound - claimed).abs() > slack || bound > loss + slack {
        return Err(Breach::Bound(claimed, loss));
    }
    if found.bound > loss + slack || found.bound < bound - slack {
        return Err(Breach::Bound(found.bound, loss));
    }
    Ok(())
}

fn kept_limits(
    table: &Sensitivity,
    limits: &Limits,
    picks: &[SensitiveChoice],
) -> Result<(), Breach> {
    let layers = &table.layers;
    for (budget, limit) in limits.given().filter(|l| l.0 != Budget::Ram) {
        let costs = layers.iter().zip(picks).map(|(l, c)| budget.cost(l, c));
        let sum: f64 = costs.sum::<Option<f64>>().ok_or(Breach::Choice)?;
        let (sum, limit) = (sum + budget.fixed(table), limit * budget.unit(layers));
        if !within(sum, limit) {
            return Err(Breach::Budget(budget.flag(), sum, limit));
        }
    }
    let Some(ram) = limits.ram else {
        return Ok(());
    };
    for step in &table.steps {
        let added = picks.iter().map(|c| step_bytes(step, c));
        let live = step.bytes + added.sum::<f64>();
        if !within(live, ram) {
            return Err(Breach::Step(step.name.clone(), live, ram));
        }
    }
    Ok(())
}

fn agree(
    layers: &[SensitiveLayer],
    choice: &[usize],
    picks: &[SensitiveChoice],
) -> Result<(), Breach> {
    let mut ties = HashMap::new();
    let mut tensors = HashMap::new();
    for ((l, &c), pick) in layers.iter().zip(choice).zip(picks) {
        if l.tie
            .as_ref()
            .is_some_and(|t| *ties.entry(t).or_insert(c) != c)
        {
            return Err(Breach::Tie(l.name.clone()));
        }
        let format = &pick.activation;
        let reads = l.reads.as_ref();
        if reads.is_some_and(|t| *tensors.entry(t).or_insert(format) != format) {
            return Err(Breach::Reads(l.name.clone()));
        }
    }
    Ok(())
}

/// Whether the pins leave a choice to a layer.
fn leaves(pins: &[Pin], layer: &SensitiveLayer, choice: &SensitiveChoice) -> bool {
    let fits = |want: &Option<String>, have: &String| want.as_ref().is_none_or(|w| w == have);
    let own = pins.iter().filter(|p| p.layer == layer.name);
    let mut fit =
        own.map(|p| fits(&p.weight, &choice.weight) && fits(&p.activation, &choice.activation));
    fit.all(|f| f)
}

/// The bound that prices prove. Ties and readers only take plans away, so leaving them out keeps it a bound.
pub(crate) fn bound(
    table: &Sensitivity,
    limits: &Limits,
    pins: &[Pin],
    certificate: &Certificate,
) -> f64 {
    let step = |name: &String| table.steps.iter().find(|s| &s.name == name);
    let steps = certificate.steps.iter();
    let steps: Vec<_> = steps
        .filter_map(|(name, price)| Some((step(name)?, price.max(0.0))))
        .collect();
    let priced = |l: &SensitiveLayer, c: &SensitiveChoice| {
        let paid = certificate.prices.iter();
        let costs = paid.map(|(b, price)| price.max(0.0) * b.cost(l, c).unwrap_or(0.0));
        let memory = steps.iter().map(|(s, price)| price * step_bytes(s, c));
        c.loss + costs.sum::<f64>() + memory.sum::<f64>()
    };
    let least = |l: &SensitiveLayer| {
        let left = l.choices.iter().filter(|c| leaves(pins, l, c));
        left.map(|c| priced(l, c)).fold(f64::INFINITY, f64::min)
    };
    let paid = |(b, price): &(Budget, f64)| {
        let limit = limits.of(*b).map_or(f64::INFINITY, |l| {
            l * b.unit(&table.layers) - b.fixed(table)
        });
        price.max(0.0) * limit
    };
    let ram = limits.ram.unwrap_or(f64::INFINITY);
    let memory = steps.iter().filter(|s| s.1 > 0.0);
    let memory: f64 = memory.map(|(s, price)| price * (ram - s.bytes)).sum();
    let layers: f64 = table.layers.iter().map(least).sum();
    let budgets = certificate.prices.iter().filter(|p| p.1 > 0.0);
    layers - budgets.map(paid).sum::<f64>() - memory
}
