//! `lowbit allocate`: from a sensitivity file to a plan.

use std::path::Path;

use lowbit_passes::allocate::{Allocation, Limits, Pin, Refusal};
use lowbit_report::{Plan, Sensitivity, read_sensitivity};

use crate::Error;
use crate::error::Infeasible;
use crate::plan::plan;

/// A plan with its table and proof.
pub struct Allocated {
    /// What was chosen from.
    pub table: Sensitivity,
    /// The choices.
    pub allocation: Allocation,
    /// The choices as formats, with reasons.
    pub plan: Plan,
}

/// Reads a sensitivity file and finds the plan of least loss within the limits.
///
/// # Errors
/// The file cannot be read or used, or no plan keeps the limits.
pub fn allocate(path: &Path, limits: &Limits, pins: &[Pin]) -> Result<Allocated, Error> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::file("read", path, e))?;
    let named = |e: &dyn std::fmt::Display| Error::Other(format!("{}: {e}", path.display()));
    let table = read_sensitivity(&text).map_err(|e| named(&format!("no sensitivity file: {e}")))?;
    let allocation = match lowbit_passes::allocate::allocate(&table, limits, pins) {
        Ok(allocation) => allocation,
        Err(Refusal::Table(e)) if !e.is_contradiction() => return Err(named(&e)),
        Err(other) => return Err(other.into()),
    };
    let plan = plan(&table, &allocation, pins, &|_| None);
    Ok(Allocated {
        table,
        allocation,
        plan,
    })
}

impl From<Refusal> for Error {
    fn from(e: Refusal) -> Self {
        match e {
            Refusal::Infeasible(found) => Self::Infeasible(Infeasible {
                message: found.to_string(),
                least: found.least,
            }),
            other if other.is_infeasible() => Self::Infeasible(other.to_string().into()),
            other => Self::Other(other.to_string()),
        }
    }
}
