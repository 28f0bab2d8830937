use serde::{Deserialize, Serialize};

use super::{OpError, Operation};
use crate::{Real, Stage, Tensor, Type};

/// `(x − mean) / √(variance + epsilon)` over axes, mean and biased variance taken over the same axes. The scale and
/// shift of a layer, instance or group normalisation are a product and a sum beside it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Normalize {
    /// The axes, ascending.
    pub axes: Vec<usize>,
    /// Added to the variance.
    pub epsilon: Real,
}

impl Operation for Normalize {
    const NAME: &'static str = "normalize";
    const STAGES: &'static [Stage] = &[Stage::Float];

    fn infer(&self, _inputs: &[&Type]) -> Result<Type, OpError> {
        Err(OpError::shape("no shape rule"))
    }

    fn eval(&self, _inputs: &[&Tensor]) -> Result<Tensor, OpError> {
        Err(OpError::shape("no body"))
    }
}
