use serde::{Deserialize, Serialize};

use super::scalar::{Scalar, with_float};
use super::{OpError, Operation, ReduceFn, arity, floats, infer_of};
use crate::derive::{Adjoint, Derivatives, Differentiable};
use crate::{Stage, Tensor, Type};

/// `exp(x − max) / Σ exp(x − max)` along one axis.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Softmax {
    /// The axis.
    pub axis: usize,
}

impl Operation for Softmax {
    const NAME: &'static str = "softmax";
    const STAGES: &'static [Stage] = &[Stage::Float];

    fn infer(&self, inputs: &[&Type]) -> Result<Type, OpError> {
        arity(inputs, 1..=1, "1")?;
        floats(inputs)?;
        if self.axis >= inputs[0].rank() {
            return Err(OpError::shape(format!(
                "{} has no axis {}",
                inputs[0], self.axis
            )));
        }
        Ok(Type::new(inputs[0].dtype, inputs[0].shape.clone()))
    }

    fn eval(&self, inputs: &[&Tensor]) -> Result<Tensor, OpError> {
        infer_of(self, inputs)?;
        Ok(
            with_float!(inputs[0], S => self.body::<S>(inputs[0]), else unreachable!("infer has checked it")),
        )
    }
}

impl Softmax {
    fn body<S: Scalar>(&self, x: &Tensor) -> Tensor {
        let shape = x.shape();
        let (n, inner) = (
            shape[self.axis],
            shape[self.axis + 1..].iter().product::<usize>(),
        );
        let mut y = x.as_slice::<S>().to_vec();
        for block in y.chunks_exact_mut((n * inner).max(1)) {
            for i in 0..inner {
                let largest = (0..n)
                    .map(|k| block[k * inner + i])
                    .fold(S::LOWEST, |a, b| if b > a { b } else { a });
                let mut sum = 0.0;
                for k in 0..n {
                    let e = (block[k * inner + i] - largest).exp();
                    block[k * inner + i] = e;
                    sum += e.wide();
                }
                (0..n).for_each(|k| block[k * inner + i] = block[k * inner + i] / S::real(sum));
            }
        }
        Tensor::new(shape, y)
    }
}

impl Differentiable for Softmax {
    fn gradient(&self, at: &mut Adjoint<'_>) -> Derivatives {
        let (y, g, e) = (at.output, at.seed, &mut at.emit);
        let weighted = e.mul(g, y)?;
        let mean = e.reduce(ReduceFn::Sum, weighted, &[self.axis])?;
        let centred = e.sub(g, mean)?;
        Ok(vec![Some(e.mul(centred, y)?)])
    }

    fn relevance(&self, at: &mut Adjoint<'_>) -> Derivatives {
        at.passed()
    }
}
