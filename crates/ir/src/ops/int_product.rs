use serde::{Deserialize, Serialize};

use super::int_rescale::{Codes, Rescale, codes_of};
use super::int_sum::Broadcaster;
use super::{OpError, Operation, arity};
use crate::{DType, Stage, Tensor, Type, broadcast_shapes};

/// Elementwise product of two stored tensors: `(a − za) · (b − zb)`, rescaled. Operands `u8`, broadcast.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct IntProduct {
    /// Zero-points of a and b.
    pub zero_points: [u8; 2],
    /// How the product becomes a code.
    pub rescale: Rescale,
    /// The codes of the result.
    pub out: Codes,
}

impl Operation for IntProduct {
    const NAME: &'static str = "int_product";
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
        let shape = broadcast_shapes(&inputs[0].shape, &inputs[1].shape).ok_or_else(|| {
            OpError::shape(format!("{} and {} do not broadcast", inputs[0], inputs[1]))
        })?;
        Ok(Type::new(self.out.dtype, shape))
    }

    fn eval(&self, inputs: &[&Tensor]) -> Result<Tensor, OpError> {
        let types = [inputs[0].ty(), inputs[1].ty()];
        let ty = self.infer(&[&types[0], &types[1]])?;
        let [a, b] = [0, 1].map(|i| codes_of(inputs[i]));
        let [ia, ib] = [0, 1].map(|i| Broadcaster::new(inputs[i].shape(), &ty.shape));
        let [za, zb] = self.zero_points.map(i32::from);
        let codes = (0..ty.elements())
            .map(|i| {
                let product = (a[ia.at(i)] - za) * (b[ib.at(i)] - zb);
                self.rescale.apply(product, self.out.lo, self.out.hi)
            })
            .collect();
        Ok(self.out.tensor(&ty.shape, codes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn centres_both_operands() {
        let rescale = Rescale::Exact {
            m: 1 << 30,
            c: 31,
            zero_point: 10,
        };
        let op = IntProduct {
            zero_points: [100, 7],
            rescale,
            out: Codes::U8,
        };
        let a = Tensor::new([1, 2], vec![101u8, 90]);
        let b = Tensor::new([2, 1], vec![9u8, 6]);
        let y = op.eval(&[&a, &b]).unwrap();
        assert_eq!(y.as_slice::<u8>(), [11, 0, 10, 15]);
    }
}
