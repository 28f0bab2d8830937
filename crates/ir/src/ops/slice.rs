use serde::{Deserialize, Serialize};

use super::{OpError, Operation};
use crate::{Stage, Tensor, Type};

/// Takes `len` elements from `start` on in steps of `step` along each axis; a negative step walks backwards.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Slice {
    /// First index of each axis.
    pub start: Vec<usize>,
    /// Elements taken of each axis.
    pub len: Vec<usize>,
    /// Step of each axis, not 0.
    pub step: Vec<isize>,
}

impl Operation for Slice {
    const NAME: &'static str = "slice";
    const STAGES: &'static [Stage] = &[Stage::Float];

    fn infer(&self, _inputs: &[&Type]) -> Result<Type, OpError> {
        Err(OpError::shape("no shape rule"))
    }

    fn eval(&self, _inputs: &[&Tensor]) -> Result<Tensor, OpError> {
        Err(OpError::shape("no body"))
    }
}
