use serde::{Deserialize, Serialize};

use super::{OpError, Operation};
use crate::{Stage, Tensor, Type};

/// Matrix product of the last two axes, the axes before them broadcast: `[…, M, K] · […, K, N] → […, M, N]`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct MatMul;

impl Operation for MatMul {
    const NAME: &'static str = "matmul";
    const STAGES: &'static [Stage] = &[Stage::Float];

    fn infer(&self, _inputs: &[&Type]) -> Result<Type, OpError> {
        Err(OpError::shape("no shape rule"))
    }

    fn eval(&self, _inputs: &[&Tensor]) -> Result<Tensor, OpError> {
        Err(OpError::shape("no body"))
    }
}
