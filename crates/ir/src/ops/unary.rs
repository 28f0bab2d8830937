use serde::{Deserialize, Serialize};

use super::{OpError, Operation};
use crate::{Stage, Tensor, Type};

/// An elementwise function of one operand. What can be written with other operations is no variant here.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Unary(pub UnaryFn);

/// The functions of [`Unary`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names are the field's")]
pub enum UnaryFn {
    Abs,
    Ceil,
    Cos,
    /// Gauss error function.
    Erf,
    Exp,
    Floor,
    Log,
    Neg,
    /// Boolean negation.
    Not,
    /// `1 / x`.
    Reciprocal,
    Relu,
    /// Rounds half to even.
    Round,
    Sigmoid,
    Sign,
    Sin,
    Sqrt,
    Tanh,
}

impl Operation for Unary {
    const NAME: &'static str = "unary";
    const STAGES: &'static [Stage] = &[Stage::Float];

    fn infer(&self, _inputs: &[&Type]) -> Result<Type, OpError> {
        Err(OpError::shape("no shape rule"))
    }

    fn eval(&self, _inputs: &[&Tensor]) -> Result<Tensor, OpError> {
        Err(OpError::shape("no body"))
    }
}
