use serde::{Deserialize, Serialize};

use super::{OpError, Operation};
use crate::{Stage, Tensor, Type};

/// The same elements in the same order under another shape.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Reshape {
    /// The new shape.
    pub shape: Vec<usize>,
}

impl Operation for Reshape {
    const NAME: &'static str = "reshape";
    const STAGES: &'static [Stage] = &[Stage::Float];

    fn infer(&self, _inputs: &[&Type]) -> Result<Type, OpError> {
        Err(OpError::shape("no shape rule"))
    }

    fn eval(&self, _inputs: &[&Tensor]) -> Result<Tensor, OpError> {
        Err(OpError::shape("no body"))
    }
}
