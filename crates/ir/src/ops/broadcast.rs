use serde::{Deserialize, Serialize};

use super::{OpError, Operation};
use crate::{Stage, Tensor, Type};

/// Repeats an operand to a larger shape by NumPy's rule.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Broadcast {
    /// The new shape.
    pub shape: Vec<usize>,
}

impl Operation for Broadcast {
    const NAME: &'static str = "broadcast";
    const STAGES: &'static [Stage] = &[Stage::Float];

    fn infer(&self, _inputs: &[&Type]) -> Result<Type, OpError> {
        Err(OpError::shape("no shape rule"))
    }

    fn eval(&self, _inputs: &[&Tensor]) -> Result<Tensor, OpError> {
        Err(OpError::shape("no body"))
    }
}
