use serde::{Deserialize, Serialize};

use super::int_rescale::codes_of;
use super::{OpError, Operation, arity};
use crate::{DType, Stage, Tensor, Type};

/// Softmax over the last axis in integers.
///
/// With `d = max − x`: `u = min((d · m) >> c, 65535)` is the exponent in steps of 2^-12, `e = (t1[u >> 8] · t2[u & 255]) >> 15`
/// its exponential in steps of 2^-15, from two tables of 256 entries of at most 2^15. With `S = Σ e`, `z` its leading
/// zeros in 32 bits and `R = ⌊(2^32 − 1) / ((S << z) >> 16)⌋`, the result is
/// `min(((e·R >> (h − 1)) + 1) >> 1, 2^bits − 1)`, `h = min(48 − z − bits, 32)`.
///
/// Operands: x (`u8`, `i16`, `i32`), t1 and t2 (`u16` `[256]`). Result: `u8` or `u16`, scale `2^-bits`, zero-point 0.
/// The last axis has at most 2^16 elements. After I-BERT's softmax (Kim et al. 2021), with tables in place of its polynomial.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct IntSoftmax {
    /// Multiplier of a difference of codes, positive.
    pub m: i32,
    /// Shift of a difference of codes, `0..=62`.
    pub c: u8,
    /// Bits of the result: 8 or 16.
    pub bits: u8,
}

impl IntSoftmax {
    /// The exponential of a difference `d = max − x ≥ 0`, in steps of 2^-15.
    pub fn exponential(&self, d: i64, t1: &[u16], t2: &[u16]) -> u32 {
        let u = ((i128::from(d) * i128::from(self.m)) >> self.c).min(65535) as usize;
        (u32::from(t1[u >> 8]) * u32::from(t2[u & 255])) >> 15
    }

    fn row(&self, x: &[i32], t1: &[u16], t2: &[u16]) -> Vec<i32> {
        let max = x.iter().copied().max().map_or(0, i64::from);
        let e: Vec<u32> = x
            .iter()
            .map(|&x| self.exponential(max - i64::from(x), t1, t2))
            .collect();
        let sum: u32 = e.iter().sum();
        let zeros = sum.leading_zeros();
        let reciprocal = u32::MAX / ((sum << zeros) >> 16);
        let h = (48 - zeros - u32::from(self.bits)).min(32);
        let top = (1u32 << self.bits) - 1;
        e.iter()
            .map(|&e| (((e * reciprocal) >> (h - 1)).div_ceil(2)).min(top) as i32)
            .collect()
    }
}

impl Operation for IntSoftmax {
    const NAME: &'static str = "int_softmax";
    const STAGES: &'static [Stage] = &[Stage::Integer];

    fn infer(&self, inputs: &[&Type]) -> Result<Type, OpError> {
        arity(inputs, 3..=3, "3")?;
        if self.m <= 0 || self.c > 62 || !matches!(self.bits, 8 | 16) {
            return Err(OpError::Value(format!("unsupported attributes {self:?}")));
        }
        if inputs[0].dtype.integer_range().is_none() {
            let found = inputs[0].dtype;
            return Err(OpError::DType {
                operand: 0,
                expected: "an integer type",
                found,
            });
        }
        if !inputs[1..]
            .iter()
            .all(|t| t.dtype == DType::U16 && t.shape == [256])
        {
            return Err(OpError::shape("the tables have 256 entries of u16 each"));
        }
        match inputs[0].shape.last() {
            Some(1..=65536) => {}
            _ => {
                return Err(OpError::shape(
                    "the last axis must have 1 to 65536 elements",
                ));
            }
        }
        let dtype = if self.bits == 8 {
            DType::U8
        } else {
            DType::U16
        };
        Ok(Type::new(dtype, inputs[0].shape.clone()))
    }

    fn eval(&self, inputs: &[&Tensor]) -> Result<Tensor, OpError> {
        let codes = codes_of(inputs[0]);
        let (t1, t2) = (inputs[1].as_slice::<u16>(), inputs[2].as_slice::<u16>());
        let n = *inputs[0]
            .shape()
            .last()
            .expect("infer has checked the rank");
        let rows = codes.chunks_exact(n).flat_map(|row| self.row(row, t1, t2));
        let shape = inputs[0].shape();
        Ok(if self.bits == 8 {
            Tensor::new(shape, rows.map(|x| x as u8).collect())
        } else {
            Tensor::new(shape, rows.map(|x| x as u16).collect())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables() -> [Tensor; 2] {
        [16.0, 4096.0].map(|step: f64| {
            let entry = |i: i32| (libm::exp(-f64::from(i) / step) * 32768.0 + 0.5) as u16;
            Tensor::new([256], (0..256).map(entry).collect())
        })
    }

    #[test]
    fn is_close_to_the_real_softmax() {
        let scale = 0.07_f64;
        let d = lowbit_num::real::dyadic(scale * 4096.0).unwrap();
        let op = IntSoftmax {
            m: d.m(),
            c: d.c(),
            bits: 16,
        };
        let [t1, t2] = tables();
        for n in [1usize, 2, 10, 1001] {
            let x: Vec<u8> = (0..n).map(|i| (i * 97 % 256) as u8).collect();
            let y = op.eval(&[&Tensor::new([n], x.clone()), &t1, &t2]).unwrap();
            let e: Vec<f64> = x.iter().map(|&x| libm::exp(f64::from(x) * scale)).collect();
            let sum: f64 = e.iter().sum();
            for (y, e) in y.as_slice::<u16>().iter().zip(&e) {
                let expected = e / sum;
                let error = (f64::from(*y) / 65536.0 - expected).abs();
                assert!(error < 3e-5 + 2e-3 * expected, "{n}: {y} for {expected}");
            }
        }
    }
}
