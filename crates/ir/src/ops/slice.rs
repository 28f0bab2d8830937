use serde::{Deserialize, Serialize};

use super::scalar::{strides, view};
use super::{OpError, Operation, Pad, PadMode, arity, infer_of};
use crate::derive::{Adjoint, Derivatives, Differentiable};
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

impl Slice {
    fn fits(&self, axis: usize, extent: usize) -> bool {
        let (start, len, step) = (self.start[axis], self.len[axis], self.step[axis]);
        if len == 0 {
            return true;
        }
        let last = (len as isize - 1)
            .checked_mul(step)
            .and_then(|d| d.checked_add(start as isize));
        start < extent && step != 0 && last.is_some_and(|l| l >= 0 && (l as usize) < extent)
    }
}

impl Operation for Slice {
    const NAME: &'static str = "slice";
    const STAGES: &'static [Stage] = &[Stage::Float, Stage::Integer];

    fn infer(&self, inputs: &[&Type]) -> Result<Type, OpError> {
        arity(inputs, 1..=1, "1")?;
        let (x, rank) = (inputs[0], inputs[0].rank());
        let ranks = [self.start.len(), self.len.len(), self.step.len()];
        if ranks != [rank; 3] || !(0..rank).all(|a| self.fits(a, x.shape[a])) {
            return Err(OpError::shape(format!("{x} has no slice {self:?}")));
        }
        Ok(Type::new(x.dtype, self.len.clone()))
    }

    fn eval(&self, inputs: &[&Tensor]) -> Result<Tensor, OpError> {
        let shape = infer_of(self, inputs)?.shape;
        let own = strides(inputs[0].shape());
        let start: usize = self.start.iter().zip(&own).map(|(&s, &t)| s * t).sum();
        let steps: Vec<isize> = self
            .step
            .iter()
            .zip(&own)
            .map(|(&s, &t)| s * t as isize)
            .collect();
        Ok(view(inputs[0], &shape, steps, start as isize))
    }
}

impl Differentiable for Slice {
    fn gradient(&self, at: &mut Adjoint<'_>) -> Derivatives {
        let shape = at.emit.shape(at.inputs[0]);
        if self.len.contains(&0) {
            return Ok(vec![Some(at.emit.zeros(at.inputs[0])?)]);
        }
        let backwards: Vec<usize> = (0..shape.len()).filter(|&a| self.step[a] < 0).collect();
        let forwards = at.emit.flip(at.seed, &backwards)?;
        Ok(vec![Some(
            self.spread(&shape).emit(&mut at.emit, forwards)?,
        )])
    }

    fn relevance(&self, at: &mut Adjoint<'_>) -> Derivatives {
        self.gradient(at)
    }
}

impl Slice {
    /// The adjoint for a seed in ascending order: puts what was taken back to its places in `shape`, zeros between.
    pub(crate) fn spread(&self, shape: &[usize]) -> Pad {
        let reach = |a: usize| (self.len[a] as isize - 1) * self.step[a];
        let low = |a: usize| self.start[a] as isize + reach(a).min(0);
        let axes = 0..shape.len();
        let interior = axes.clone().map(|a| match self.len[a] {
            1 => 0,
            _ => self.step[a].unsigned_abs() - 1,
        });
        Pad {
            low: axes.clone().map(low).collect(),
            high: axes
                .clone()
                .map(|a| shape[a] as isize - low(a) - reach(a).abs() - 1)
                .collect(),
            interior: interior.collect(),
            mode: PadMode::Constant,
        }
    }
}
