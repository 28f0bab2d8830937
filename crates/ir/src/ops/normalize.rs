use serde::{Deserialize, Serialize};

use super::scalar::{Positions, Scalar, strides, with_float};
use super::{OpError, Operation, ReduceFn, UnaryFn, arity, floats, infer_of};
use crate::derive::{Adjoint, Derivatives, Differentiable};
use crate::{Real, Stage, Tensor, Type};

/// `(x − mean) / √(variance + epsilon)` over axes, mean and biased variance taken over the same axes. The scale and
/// shift of a layer, instance or group normalisation are a product and a sum beside it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Normalize {
    /// The axes, ascending.
    pub axes: Vec<usize>,
    /// Added to the variance.
    pub epsilon: Real,
}

impl Operation for Normalize {
    const NAME: &'static str = "normalize";
    const STAGES: &'static [Stage] = &[Stage::Float];

    fn infer(&self, inputs: &[&Type]) -> Result<Type, OpError> {
        arity(inputs, 1..=1, "1")?;
        floats(inputs)?;
        let ascending = self.axes.windows(2).all(|w| w[0] < w[1]);
        let inside = self.axes.last().is_some_and(|&a| a < inputs[0].rank());
        if !ascending || !inside || self.axes.iter().any(|&a| inputs[0].shape[a] == 0) {
            return Err(OpError::shape(format!(
                "axes {:?} do not fit {}",
                self.axes, inputs[0]
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

impl Normalize {
    fn body<S: Scalar>(&self, x: &Tensor) -> Tensor {
        let shape = x.shape();
        let own = strides(shape);
        let part = |inside: bool| -> Vec<usize> {
            let axes: Vec<usize> = (0..shape.len())
                .filter(|a| self.axes.contains(a) == inside)
                .collect();
            let extents: Vec<usize> = axes.iter().map(|&a| shape[a]).collect();
            let steps: Vec<isize> = axes.iter().map(|&a| own[a] as isize).collect();
            Positions::new(&extents, &steps, 0).collect()
        };
        let (outer, inner) = (part(false), part(true));
        let mut y = x.as_slice::<S>().to_vec();
        let n = inner.len() as f64;
        for o in outer {
            let values = || inner.iter().map(|&i| o + i);
            let mean = values().map(|p| y[p].wide()).sum::<f64>() / n;
            let variance = values().map(|p| (y[p].wide() - mean).powi(2)).sum::<f64>() / n;
            let scale = 1.0 / libm::sqrt(variance + self.epsilon.get());
            for p in values().collect::<Vec<_>>() {
                y[p] = S::real((y[p].wide() - mean) * scale);
            }
        }
        Tensor::new(shape, y)
    }
}

impl Differentiable for Normalize {
    fn gradient(&self, at: &mut Adjoint<'_>) -> Derivatives {
        let (x, y, g, e) = (at.inputs[0], at.output, at.seed, &mut at.emit);
        let mean = e.reduce(ReduceFn::Mean, x, &self.axes)?;
        let centred = e.sub(x, mean)?;
        let square = e.mul(centred, centred)?;
        let variance = e.reduce(ReduceFn::Mean, square, &self.axes)?;
        let shifted = e.shift(variance, self.epsilon.get())?;
        let deviation = e.unary(UnaryFn::Sqrt, shifted)?;
        let along = e.mul(g, y)?;
        let mean_along = e.reduce(ReduceFn::Mean, along, &self.axes)?;
        let mean_g = e.reduce(ReduceFn::Mean, g, &self.axes)?;
        let radial = e.mul(y, mean_along)?;
        let flat = e.sub(g, mean_g)?;
        let rest = e.sub(flat, radial)?;
        Ok(vec![Some(e.div(rest, deviation)?)])
    }

    fn relevance(&self, at: &mut Adjoint<'_>) -> Derivatives {
        at.passed()
    }
}
