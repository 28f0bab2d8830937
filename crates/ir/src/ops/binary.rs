use serde::{Deserialize, Serialize};

use super::{OpError, Operation};
use crate::{Stage, Tensor, Type};

/// An elementwise function of two operands of one element type, broadcast by NumPy's rule.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Binary(pub BinaryFn);

/// The functions of [`Binary`]. Comparisons give `bool`; `And`, `Or`, `Xor` take `bool`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names are the field's")]
pub enum BinaryFn {
    Add,
    Sub,
    Mul,
    /// Integers divide towards zero.
    Div,
    Max,
    Min,
    Pow,
    Equal,
    Greater,
    GreaterOrEqual,
    And,
    Or,
    Xor,
}

impl Operation for Binary {
    const NAME: &'static str = "binary";
    const STAGES: &'static [Stage] = &[Stage::Float];

    fn infer(&self, _inputs: &[&Type]) -> Result<Type, OpError> {
        Err(OpError::shape("no shape rule"))
    }

    fn eval(&self, _inputs: &[&Tensor]) -> Result<Tensor, OpError> {
        Err(OpError::shape("no body"))
    }
}
