use serde::{Deserialize, Serialize};

use super::{OpError, Operation};
use crate::{Stage, Tensor, Type};

/// Adds elements before, after and between those of each axis. Operands: x, and for [`PadMode::Constant`] a scalar of
/// the same element type.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Pad {
    /// Elements before, for each axis; a negative count crops.
    pub low: Vec<isize>,
    /// Elements after, for each axis; a negative count crops.
    pub high: Vec<isize>,
    /// Elements between neighbours, for each axis; only with [`PadMode::Constant`].
    pub interior: Vec<usize>,
    /// What the new elements hold.
    pub mode: PadMode,
}

/// What [`Pad`] adds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PadMode {
    /// The scalar operand.
    Constant,
    /// The nearest element.
    Edge,
    /// The mirror image without the border element.
    Reflect,
    /// The elements from the other end.
    Wrap,
}

impl Operation for Pad {
    const NAME: &'static str = "pad";
    const STAGES: &'static [Stage] = &[Stage::Float];

    fn infer(&self, _inputs: &[&Type]) -> Result<Type, OpError> {
        Err(OpError::shape("no shape rule"))
    }

    fn eval(&self, _inputs: &[&Tensor]) -> Result<Tensor, OpError> {
        Err(OpError::shape("no body"))
    }
}
