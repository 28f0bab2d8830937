use serde::{Deserialize, Serialize};

use super::{OpError, Operation};
use crate::{Stage, Tensor, Type};

/// Pooling over windows of a channels-last tensor `[N, H, W, C]`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Pool {
    /// What is computed over a window.
    pub kind: PoolKind,
    /// Height and width of the window.
    pub kernel: [usize; 2],
    /// Step along height and width, at least 1.
    pub stride: [usize; 2],
    /// Distance of taps along height and width, at least 1.
    pub dilation: [usize; 2],
    /// Rows and columns before and after, for height and width. A maximum ignores them.
    pub pad: [[usize; 2]; 2],
}

/// The functions of [`Pool`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolKind {
    /// The largest element.
    Max,
    /// Sum of the elements inside the tensor, divided by how many there are.
    Mean,
    /// Sum divided by the number of taps that lie inside the tensor or its padding as the model declares it: the
    /// first `declared` rows and columns after the end count, overhang from rounding the extent up does not.
    PaddedMean {
        /// Rows and columns after the end that count as padding.
        declared: [usize; 2],
    },
}

impl Operation for Pool {
    const NAME: &'static str = "pool";
    const STAGES: &'static [Stage] = &[Stage::Float];

    fn infer(&self, _inputs: &[&Type]) -> Result<Type, OpError> {
        Err(OpError::shape("no shape rule"))
    }

    fn eval(&self, _inputs: &[&Tensor]) -> Result<Tensor, OpError> {
        Err(OpError::shape("no body"))
    }
}
