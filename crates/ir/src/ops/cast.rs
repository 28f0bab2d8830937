use serde::{Deserialize, Serialize};

use super::{OpError, Operation};
use crate::{DType, Stage, Tensor, Type};

/// Converts the element type: floats to integers towards zero, integers to narrower ones by wrapping, anything to
/// `bool` by comparing with 0.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Cast {
    /// The new element type.
    pub to: DType,
}

impl Operation for Cast {
    const NAME: &'static str = "cast";
    const STAGES: &'static [Stage] = &[Stage::Float];

    fn infer(&self, _inputs: &[&Type]) -> Result<Type, OpError> {
        Err(OpError::shape("no shape rule"))
    }

    fn eval(&self, _inputs: &[&Tensor]) -> Result<Tensor, OpError> {
        Err(OpError::shape("no body"))
    }
}
