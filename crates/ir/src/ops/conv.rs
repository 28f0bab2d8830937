use serde::{Deserialize, Serialize};

use super::{OpError, Operation};
use crate::{Stage, Tensor, Type};

/// Two-dimensional cross-correlation, channels last. A one-dimensional one has height 1.
///
/// Operands: x `[N, H, W, C]`, weights `[O, KH, KW, C / groups]`, optionally bias `[O]`.
/// Result: `[N, H', W', O]` with `H' = (H + pad − dilation·(KH − 1) − 1) / stride + 1`, rounded down.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Conv {
    /// Step along height and width, at least 1.
    pub stride: [usize; 2],
    /// Distance of taps along height and width, at least 1.
    pub dilation: [usize; 2],
    /// Zeros before and after, for height and width.
    pub pad: [[usize; 2]; 2],
    /// Channel groups; the channel counts of input and output are multiples of it.
    pub groups: usize,
}

impl Operation for Conv {
    const NAME: &'static str = "conv";
    const STAGES: &'static [Stage] = &[Stage::Float];

    fn infer(&self, _inputs: &[&Type]) -> Result<Type, OpError> {
        Err(OpError::shape("no shape rule"))
    }

    fn eval(&self, _inputs: &[&Tensor]) -> Result<Tensor, OpError> {
        Err(OpError::shape("no body"))
    }
}
