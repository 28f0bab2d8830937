use serde::{Deserialize, Serialize};

use super::{OpError, Operation, Slice, arity, checked, infer_of};
use crate::derive::{Adjoint, Derivatives, Differentiable};
use crate::{Element, Stage, Tensor, Type, with_data};

/// Joins one or more operands along an axis.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Concat {
    /// The axis.
    pub axis: usize,
}

impl Operation for Concat {
    const NAME: &'static str = "concat";
    const STAGES: &'static [Stage] = &[Stage::Float, Stage::Integer];

    fn infer(&self, inputs: &[&Type]) -> Result<Type, OpError> {
        arity(inputs, 1..=usize::MAX, "1 or more")?;
        let first = inputs[0];
        if self.axis >= first.rank() {
            return Err(OpError::shape(format!("{first} has no axis {}", self.axis)));
        }
        let mut shape = first.shape.clone();
        for ty in &inputs[1..] {
            let fits = ty.dtype == first.dtype
                && ty.rank() == first.rank()
                && (0..ty.rank()).all(|a| a == self.axis || ty.shape[a] == first.shape[a]);
            if !fits {
                return Err(OpError::shape(format!(
                    "{first} and {ty} cannot be joined along axis {}",
                    self.axis
                )));
            }
            shape[self.axis] = shape[self.axis].saturating_add(ty.shape[self.axis]);
        }
        checked(first.dtype, shape)
    }

    fn eval(&self, inputs: &[&Tensor]) -> Result<Tensor, OpError> {
        let shape = infer_of(self, inputs)?.shape;
        let outer: usize = shape[..self.axis].iter().product();
        Ok(with_data!(inputs[0].data(), v => joined(v, inputs, outer, &shape)))
    }
}

fn joined<T: Element>(_: &[T], inputs: &[&Tensor], outer: usize, shape: &[usize]) -> Tensor {
    let mut y = Vec::with_capacity(shape.iter().product());
    for o in 0..outer {
        for x in inputs {
            let block = x.len() / outer;
            y.extend_from_slice(&x.as_slice::<T>()[o * block..][..block]);
        }
    }
    Tensor::new(shape, y)
}

impl Differentiable for Concat {
    fn gradient(&self, at: &mut Adjoint<'_>) -> Derivatives {
        let mut from = 0;
        let mut parts = Vec::with_capacity(at.inputs.len());
        for (operand, &v) in at.inputs.iter().enumerate() {
            let len = at.emit.shape(v);
            let mut start = vec![0; len.len()];
            start[self.axis] = from;
            from += len[self.axis];
            let step = vec![1; len.len()];
            parts.push(match at.wants(operand) {
                true => Some(at.emit.push(Slice { start, len, step }, &[at.seed])?),
                false => None,
            });
        }
        Ok(parts)
    }

    fn relevance(&self, at: &mut Adjoint<'_>) -> Derivatives {
        self.gradient(at)
    }
}
