use serde::{Deserialize, Serialize};

use super::scalar::{broadcast_strides, view};
use super::{OpError, Operation, arity, checked, infer_of};
use crate::derive::{Adjoint, Derivatives, Differentiable};
use crate::{Stage, Tensor, Type, broadcast_shapes};

/// Repeats an operand to a larger shape by NumPy's rule.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Broadcast {
    /// The new shape.
    pub shape: Vec<usize>,
}

impl Operation for Broadcast {
    const NAME: &'static str = "broadcast";
    const STAGES: &'static [Stage] = &[Stage::Float, Stage::Integer];

    fn infer(&self, inputs: &[&Type]) -> Result<Type, OpError> {
        arity(inputs, 1..=1, "1")?;
        if broadcast_shapes(&inputs[0].shape, &self.shape).as_ref() != Some(&self.shape) {
            return Err(OpError::shape(format!(
                "{} does not broadcast to {:?}",
                inputs[0], self.shape
            )));
        }
        checked(inputs[0].dtype, self.shape.clone())
    }

    fn eval(&self, inputs: &[&Tensor]) -> Result<Tensor, OpError> {
        let shape = infer_of(self, inputs)?.shape;
        let steps = broadcast_strides(inputs[0].shape(), &shape);
        Ok(view(inputs[0], &shape, steps, 0))
    }
}

impl Differentiable for Broadcast {
    fn gradient(&self, at: &mut Adjoint<'_>) -> Derivatives {
        let shape = at.emit.shape(at.inputs[0]);
        Ok(vec![Some(at.emit.sum_to(at.seed, &shape)?)])
    }

    fn relevance(&self, at: &mut Adjoint<'_>) -> Derivatives {
        self.gradient(at)
    }
}
