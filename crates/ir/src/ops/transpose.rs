use serde::{Deserialize, Serialize};

use super::scalar::{strides, view};
use super::{OpError, Operation, arity, infer_of};
use crate::derive::{Adjoint, Derivatives, Differentiable};
use crate::{Stage, Tensor, Type};

/// Permutes axes: axis `i` of the result is axis `perm[i]` of the operand.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Transpose {
    /// A permutation of the axes.
    pub perm: Vec<usize>,
}

impl Operation for Transpose {
    const NAME: &'static str = "transpose";
    const STAGES: &'static [Stage] = &[Stage::Float, Stage::Integer];

    fn infer(&self, inputs: &[&Type]) -> Result<Type, OpError> {
        arity(inputs, 1..=1, "1")?;
        let mut sorted = self.perm.clone();
        sorted.sort_unstable();
        if !sorted.iter().copied().eq(0..inputs[0].rank()) {
            return Err(OpError::shape(format!(
                "{:?} is no permutation of the axes of {}",
                self.perm, inputs[0]
            )));
        }
        Ok(Type::new(
            inputs[0].dtype,
            self.perm
                .iter()
                .map(|&p| inputs[0].shape[p])
                .collect::<Vec<_>>(),
        ))
    }

    fn eval(&self, inputs: &[&Tensor]) -> Result<Tensor, OpError> {
        let shape = infer_of(self, inputs)?.shape;
        let own = strides(inputs[0].shape());
        let steps: Vec<isize> = self.perm.iter().map(|&p| own[p] as isize).collect();
        Ok(view(inputs[0], &shape, steps, 0))
    }
}

impl Differentiable for Transpose {
    fn gradient(&self, at: &mut Adjoint<'_>) -> Derivatives {
        let mut inverse = vec![0; self.perm.len()];
        for (i, &p) in self.perm.iter().enumerate() {
            inverse[p] = i;
        }
        Ok(vec![Some(at.emit.transpose(at.seed, &inverse)?)])
    }

    fn relevance(&self, at: &mut Adjoint<'_>) -> Derivatives {
        self.gradient(at)
    }
}
