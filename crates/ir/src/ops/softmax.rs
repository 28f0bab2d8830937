use serde::{Deserialize, Serialize};

use super::{OpError, Operation};
use crate::{Stage, Tensor, Type};

/// `exp(x − max) / Σ exp(x − max)` along one axis.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Softmax {
    /// The axis.
    pub axis: usize,
}

impl Operation for Softmax {
    const NAME: &'static str = "softmax";
    const STAGES: &'static [Stage] = &[Stage::Float];

    fn infer(&self, _inputs: &[&Type]) -> Result<Type, OpError> {
        Err(OpError::shape("no shape rule"))
    }

    fn eval(&self, _inputs: &[&Tensor]) -> Result<Tensor, OpError> {
        Err(OpError::shape("no body"))
    }
}
