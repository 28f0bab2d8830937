use serde::{Deserialize, Serialize};

use super::{OpError, Operation, arity, checked, infer_of};
use crate::derive::{Adjoint, Derivatives, Differentiable};
use crate::{DType, Stage, Tensor, Type};

/// Converts the element type: floats to integers towards zero, integers to narrower ones by wrapping, anything to
/// `bool` by comparing with 0.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Cast {
    /// The new element type.
    pub to: DType,
}

impl Operation for Cast {
    const NAME: &'static str = "cast";
    const STAGES: &'static [Stage] = &[Stage::Float];

    fn infer(&self, inputs: &[&Type]) -> Result<Type, OpError> {
        arity(inputs, 1..=1, "1")?;
        checked(self.to, inputs[0].shape.clone())
    }

    fn eval(&self, inputs: &[&Tensor]) -> Result<Tensor, OpError> {
        infer_of(self, inputs)?;
        let (x, shape) = (inputs[0], inputs[0].shape());
        if x.dtype() == self.to {
            return Ok(x.clone());
        }
        if self.to.is_float() {
            return Ok(Tensor::from_f64(self.to, shape, x.to_f64()));
        }
        if !x.dtype().is_float() {
            let wide = x
                .to_i64()
                .ok_or_else(|| OpError::Value("an integer beyond 2^63".into()))?;
            return Ok(Tensor::from_i64(self.to, shape, wide));
        }
        let wide = x.to_f64().into_iter();
        Ok(match self.to {
            DType::Bool => Tensor::new(shape, wide.map(|x| x != 0.0).collect::<Vec<bool>>()),
            DType::U64 => Tensor::new(shape, wide.map(|x| x as u64).collect()),
            to => Tensor::from_i64(to, shape, wide.map(|x| x as i64).collect()),
        })
    }
}

impl Differentiable for Cast {
    fn gradient(&self, at: &mut Adjoint<'_>) -> Derivatives {
        let to = at.emit.dtype(at.inputs[0]);
        if !self.to.is_float() || !to.is_float() {
            return Ok(vec![None]);
        }
        Ok(vec![Some(at.emit.push(Self { to }, &[at.seed])?)])
    }

    fn relevance(&self, at: &mut Adjoint<'_>) -> Derivatives {
        at.passed()
    }
}
