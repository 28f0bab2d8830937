use serde::{Deserialize, Serialize};

use super::{OpError, Operation};
use crate::{Stage, Tensor, Type};

/// Reduces over axes.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Reduce {
    /// What is computed over the axes.
    pub f: ReduceFn,
    /// The axes, ascending, without repetition.
    pub axes: Vec<usize>,
    /// Whether the axes stay with extent 1.
    pub keep: bool,
}

/// The functions of [`Reduce`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names say it")]
pub enum ReduceFn {
    Sum,
    Mean,
    Max,
    Min,
}

impl Operation for Reduce {
    const NAME: &'static str = "reduce";
    const STAGES: &'static [Stage] = &[Stage::Float];

    fn infer(&self, _inputs: &[&Type]) -> Result<Type, OpError> {
        Err(OpError::shape("no shape rule"))
    }

    fn eval(&self, _inputs: &[&Tensor]) -> Result<Tensor, OpError> {
        Err(OpError::shape("no body"))
    }
}
