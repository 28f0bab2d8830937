use serde::{Deserialize, Serialize};

use super::scalar::{Positions, Scalar, broadcast_strides, product, with_float};
use super::{OpError, Operation, arity, checked, floats, infer_of};
use crate::derive::{Adjoint, Derivatives, Differentiable};
use crate::{Stage, Tensor, Type, broadcast_shapes};

/// Matrix product of the last two axes, the axes before them broadcast: `[…, M, K] · […, K, N] → […, M, N]`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct MatMul;

impl Operation for MatMul {
    const NAME: &'static str = "matmul";
    const STAGES: &'static [Stage] = &[Stage::Float];

    fn infer(&self, inputs: &[&Type]) -> Result<Type, OpError> {
        arity(inputs, 2..=2, "2")?;
        floats(inputs)?;
        let misfit = || OpError::shape(format!("{} and {} do not fit", inputs[0], inputs[1]));
        let [a, b] = [&inputs[0].shape, &inputs[1].shape];
        let (Some((&ka, front_a)), Some((&n, front_b))) = (a.split_last(), b.split_last()) else {
            return Err(misfit());
        };
        let (Some((&m, batch_a)), Some((&kb, batch_b))) =
            (front_a.split_last(), front_b.split_last())
        else {
            return Err(misfit());
        };
        let mut shape = broadcast_shapes(batch_a, batch_b)
            .filter(|_| ka == kb)
            .ok_or_else(misfit)?;
        shape.extend([m, n]);
        checked(inputs[0].dtype, shape)
    }

    fn eval(&self, inputs: &[&Tensor]) -> Result<Tensor, OpError> {
        let ty = infer_of(self, inputs)?;
        with_float!(inputs[0], S => Ok(body::<S>(inputs, &ty.shape)), else unreachable!("infer has checked it"))
    }
}

fn body<S: Scalar>(inputs: &[&Tensor], shape: &[usize]) -> Tensor {
    let (a, b) = (inputs[0].as_slice::<S>(), inputs[1].as_slice::<S>());
    let k = *inputs[0]
        .shape()
        .last()
        .expect("infer has checked the rank");
    let (batches, matrix) = shape.split_at(shape.len() - 2);
    let (m, n) = (matrix[0], matrix[1]);
    let starts = |i: usize| {
        let own = inputs[i].shape();
        let (front, matrix) = own.split_at(own.len() - 2);
        let size = matrix.iter().product::<usize>();
        let strides = broadcast_strides(front, batches);
        let positions: Vec<usize> = Positions::new(batches, &strides, 0)
            .map(|p| p * size)
            .collect();
        positions
    };
    let mut y = vec![S::ZERO; shape.iter().product()];
    let (at, bt) = (starts(0), starts(1));
    for (batch, y) in y.chunks_exact_mut((m * n).max(1)).enumerate() {
        product(
            &a[at[batch]..][..m * k],
            &b[bt[batch]..][..k * n],
            y,
            [m, n, k],
        );
    }
    Tensor::new(shape, y)
}

impl Differentiable for MatMul {
    fn gradient(&self, at: &mut Adjoint<'_>) -> Derivatives {
        let (a, b, g) = (at.inputs[0], at.inputs[1], at.seed);
        let left = at.broadcast_to(0, |at| {
            let b = at.emit.matrix_transpose(b)?;
            at.emit.matmul(g, b)
        })?;
        let right = at.broadcast_to(1, |at| {
            let a = at.emit.matrix_transpose(a)?;
            at.emit.matmul(a, g)
        })?;
        Ok(vec![left, right])
    }

    /// Two activations get half each of what the generic rule gives them.
    fn relevance(&self, at: &mut Adjoint<'_>) -> Derivatives {
        let shares = at.proportional(self)?;
        at.halved(shares)
    }
}
