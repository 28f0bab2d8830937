use lowbit_num::clamp;
use serde::{Deserialize, Serialize};

use super::int_rescale::{Codes, codes_of};
use super::{OpError, Operation, arity};
use crate::{Stage, Tensor, Type, broadcast_shapes};

/// Weighted sum of stored tensors, rounded once: `clamp((Σ x_i · m_i + k) >> c)` in 64 bits.
///
/// Operands: one or two tensors of codes (`u8`, `i16`, `i32`), broadcast by NumPy's rule. With one operand it changes
/// scale and zero-point. The constant k folds zero-points and rounding.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct IntSum {
    /// A multiplier for each operand.
    pub m: Vec<i32>,
    /// Zero-points and rounding.
    pub k: i64,
    /// The shift, `0..=62`.
    pub c: u8,
    /// The codes of the result.
    pub out: Codes,
}

impl Operation for IntSum {
    const NAME: &'static str = "int_sum";
    const STAGES: &'static [Stage] = &[Stage::Integer];

    fn infer(&self, inputs: &[&Type]) -> Result<Type, OpError> {
        arity(inputs, 1..=2, "1 or 2")?;
        self.out.check()?;
        if self.m.len() != inputs.len() || self.c > 62 {
            return Err(OpError::Value(
                "a multiplier for each operand and a shift up to 62".into(),
            ));
        }
        let mut shape = inputs[0].shape.clone();
        for ty in &inputs[1..] {
            shape = broadcast_shapes(&shape, &ty.shape).ok_or_else(|| {
                OpError::shape(format!("{} and {ty} do not broadcast", inputs[0]))
            })?;
        }
        if let Some(operand) = inputs
            .iter()
            .position(|t| t.dtype.integer_range().is_none())
        {
            let found = inputs[operand].dtype;
            return Err(OpError::DType {
                operand,
                expected: "an integer type",
                found,
            });
        }
        Ok(Type::new(self.out.dtype, shape))
    }

    fn eval(&self, inputs: &[&Tensor]) -> Result<Tensor, OpError> {
        let types: Vec<Type> = inputs.iter().map(|t| t.ty()).collect();
        let ty = self.infer(&types.iter().collect::<Vec<_>>())?;
        let mut sums = vec![self.k; ty.elements()];
        for (x, &m) in inputs.iter().zip(&self.m) {
            let codes = codes_of(x);
            let index = Broadcaster::new(x.shape(), &ty.shape);
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum += i64::from(codes[index.at(i)]) * i64::from(m);
            }
        }
        let Codes { lo, hi, .. } = self.out;
        let codes = sums
            .into_iter()
            .map(|s| clamp(s >> self.c, lo, hi))
            .collect();
        Ok(self.out.tensor(&ty.shape, codes))
    }
}

/// Finds the element of a broadcast operand that belongs to an element of the result.
pub(crate) struct Broadcaster {
    axes: Vec<(usize, usize, usize)>,
    dense: bool,
}

impl Broadcaster {
    pub(crate) fn new(operand: &[usize], result: &[usize]) -> Self {
        let missing = result.len() - operand.len();
        let (mut inner, mut stride) = (1, 1);
        let mut axes = Vec::new();
        for (i, &extent) in result.iter().enumerate().rev() {
            let own = i.checked_sub(missing).map_or(1, |k| operand[k]);
            axes.push((inner, extent.max(1), if own == 1 { 0 } else { stride }));
            inner *= extent;
            stride *= own;
        }
        Self {
            axes,
            dense: operand == result,
        }
    }

    pub(crate) fn at(&self, i: usize) -> usize {
        if self.dense {
            return i;
        }
        self.axes
            .iter()
            .map(|&(inner, extent, stride)| i / inner % extent * stride)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_operand_changes_scale_and_two_add() {
        let half = IntSum {
            m: vec![1 << 20],
            k: 1 << 20,
            c: 21,
            out: Codes::U8,
        };
        let x = Tensor::new([3], vec![0u8, 3, 255]);
        assert_eq!(half.eval(&[&x]).unwrap().as_slice::<u8>(), [0, 2, 128]);
        let add = IntSum {
            m: vec![2, -1],
            k: 0,
            c: 0,
            out: Codes::U8,
        };
        let y = Tensor::new([2, 1], vec![1u8, 2]);
        let sum = add.eval(&[&x, &y]).unwrap();
        assert_eq!(sum.shape(), [2, 3]);
        assert_eq!(sum.as_slice::<u8>(), [0, 5, 255, 0, 4, 255]);
    }
}
