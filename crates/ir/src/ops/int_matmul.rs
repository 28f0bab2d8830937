use serde::{Deserialize, Serialize};

use super::int_rescale::{Codes, Rescale};
use super::{OpError, Operation, arity};
use crate::{DType, Stage, Tensor, Type, broadcast_shapes};

/// Product of two activations: `Σ_k (a − za) · (b − zb)`, rescaled.
///
/// Operands: a `u8` `[…, M, K]`, b `u8` `[…, N, K]`: both with the summed axis last. Result `[…, M, N]`; the axes in
/// front broadcast.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct IntMatMul {
    /// Zero-points of a and b.
    pub zero_points: [u8; 2],
    /// How the accumulator becomes a code.
    pub rescale: Rescale,
    /// The codes of the result.
    pub out: Codes,
}

impl Operation for IntMatMul {
    const NAME: &'static str = "int_matmul";
    const STAGES: &'static [Stage] = &[Stage::Integer];

    fn infer(&self, inputs: &[&Type]) -> Result<Type, OpError> {
        arity(inputs, 2..=2, "2")?;
        self.out.check()?;
        for (operand, ty) in inputs.iter().enumerate() {
            if ty.dtype != DType::U8 {
                return Err(OpError::DType {
                    operand,
                    expected: "u8",
                    found: ty.dtype,
                });
            }
        }
        let misfit = || OpError::shape(format!("{} and {} do not fit", inputs[0], inputs[1]));
        let (a, b) = (&inputs[0].shape, &inputs[1].shape);
        let (Some((ka, fa)), Some((kb, fb))) = (a.split_last(), b.split_last()) else {
            return Err(misfit());
        };
        let (Some((&m, batch_a)), Some((&n, batch_b))) = (fa.split_last(), fb.split_last()) else {
            return Err(misfit());
        };
        let mut shape = broadcast_shapes(batch_a, batch_b)
            .filter(|_| ka == kb)
            .ok_or_else(misfit)?;
        shape.extend([m, n]);
        Ok(Type::new(self.out.dtype, shape))
    }

    fn eval(&self, inputs: &[&Tensor]) -> Result<Tensor, OpError> {
        let types = [inputs[0].ty(), inputs[1].ty()];
        let ty = self.infer(&[&types[0], &types[1]])?;
        let [a, b] = [0, 1].map(|i| self.centred(inputs[i], i));
        let (rank, k) = (
            ty.rank(),
            *inputs[0]
                .shape()
                .last()
                .expect("infer has checked the rank"),
        );
        let (m, n) = (ty.shape[rank - 2], ty.shape[rank - 1]);
        let batches = &ty.shape[..rank - 2];
        let mut codes = Vec::with_capacity(ty.elements());
        for batch in 0..batches.iter().product() {
            let [at, bt] = [0, 1].map(|i| offset(batches, inputs[i].shape(), batch));
            for row in a[at..][..m * k].chunks_exact(k.max(1)) {
                for column in b[bt..][..n * k].chunks_exact(k.max(1)) {
                    let pairs = row.iter().zip(column);
                    let acc = pairs.map(|(&x, &y)| i32::from(x) * i32::from(y)).sum();
                    codes.push(self.rescale.apply(acc, self.out.lo, self.out.hi));
                }
            }
        }
        Ok(self.out.tensor(&ty.shape, codes))
    }
}

impl IntMatMul {
    fn centred(&self, tensor: &Tensor, operand: usize) -> Vec<i16> {
        let zero = i16::from(self.zero_points[operand]);
        tensor
            .as_slice::<u8>()
            .iter()
            .map(|&x| i16::from(x) - zero)
            .collect()
    }
}

/// Where the matrix of a broadcast operand starts for the `batch`-th matrix of the result.
fn offset(batches: &[usize], shape: &[usize], mut batch: usize) -> usize {
    let (front, matrix) = shape.split_at(shape.len() - 2);
    let mut stride: usize = matrix.iter().product();
    let mut at = 0;
    for (i, &extent) in batches.iter().enumerate().rev() {
        let index = batch % extent;
        batch /= extent;
        if let Some(axis) = (i + front.len()).checked_sub(batches.len()) {
            at += if front[axis] == 1 { 0 } else { index * stride };
            stride *= front[axis];
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcasts_batches_and_centres_both_operands() {
        let op = IntMatMul {
            zero_points: [3, 5],
            rescale: Rescale::Exact {
                m: 1 << 30,
                c: 30,
                zero_point: 0,
            },
            out: Codes::I32,
        };
        let a = Tensor::new([2, 1, 2], vec![4u8, 5, 6, 7]);
        let b = Tensor::new([3, 2], vec![5u8, 6, 7, 8, 4, 3]);
        let y = op.eval(&[&a, &b]).unwrap();
        assert_eq!(y.shape(), [2, 1, 3]);
        assert_eq!(y.as_slice::<i32>(), [2, 8, -5, 4, 18, -11]);
    }
}
