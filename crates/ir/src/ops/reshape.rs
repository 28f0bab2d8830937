use serde::{Deserialize, Serialize};

use super::{OpError, Operation, arity, infer_of};
use crate::derive::{Adjoint, Derivatives, Differentiable};
use crate::{Stage, Tensor, Type, elements};

/// The same elements in the same order under another shape.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Reshape {
    /// The new shape.
    pub shape: Vec<usize>,
}

impl Operation for Reshape {
    const NAME: &'static str = "reshape";
    const STAGES: &'static [Stage] = &[Stage::Float, Stage::Integer];

    fn infer(&self, inputs: &[&Type]) -> Result<Type, OpError> {
        arity(inputs, 1..=1, "1")?;
        if elements(&self.shape) != elements(&inputs[0].shape) {
            return Err(OpError::shape(format!(
                "{} does not have the elements of {:?}",
                inputs[0], self.shape
            )));
        }
        Ok(Type::new(inputs[0].dtype, self.shape.clone()))
    }

    fn eval(&self, inputs: &[&Tensor]) -> Result<Tensor, OpError> {
        infer_of(self, inputs)?;
        Ok(inputs[0].reshaped(self.shape.clone()))
    }
}

impl Differentiable for Reshape {
    fn gradient(&self, at: &mut Adjoint<'_>) -> Derivatives {
        let shape = at.emit.shape(at.inputs[0]);
        Ok(vec![Some(at.emit.reshape(at.seed, &shape)?)])
    }

    fn relevance(&self, at: &mut Adjoint<'_>) -> Derivatives {
        self.gradient(at)
    }
}
