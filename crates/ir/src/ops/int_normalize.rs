use lowbit_num::{clamp, isqrt};
use serde::{Deserialize, Serialize};

use super::int_rescale::{Codes, codes_of};
use super::{OpError, Operation, arity};
use crate::{DType, Stage, Tensor, Type};

/// Layer normalisation over the last axis of `n` elements, with scale and shift, in integers.
///
/// `S1 = Σ x`, `v = n · Σ x² − S1² + epsilon`; `V = (v << e) >> 32` with the even `e` that brings the leading one of v to
/// bit 62 or 63; `q = ⌊(2^32 − 1) / ⌊√V⌋⌋`; `z_i = ((n · x_i − S1) · q) >> (36 − e/2)` is the normalised value in steps of
/// 2^-12; the result is `clamp((z_i · m_i + b_i) >> c)`.
///
/// Operands: x (`u8` or `i16`) `[…, n]`, m `i32` `[n]`, b `i64` `[n]`. `n ≤ 4096` for `u8`, 256 for `i16`, so that no step
/// leaves 63 bits. The structure is I-BERT's (Kim et al. 2021); the root is exact to 15 bits.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct IntNormalize {
    /// `max(1, round(epsilon · n² / s_x²))`.
    pub epsilon: u64,
    /// Shift of the result, 12 and the fraction bits of m.
    pub c: u8,
    /// The codes of the result.
    pub out: Codes,
}

/// Reciprocal root of a row: `z = (d · q) >> shift`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReciprocalRoot {
    /// At most 2^17.
    pub q: u32,
    /// In `5..=36`.
    pub shift: u32,
}

impl ReciprocalRoot {
    /// Of `v ≥ 1`; see [`IntNormalize`].
    pub fn new(v: u64) -> Self {
        let e = v.leading_zeros() & !1;
        let root = isqrt((v << e) >> 32) as u32;
        Self {
            q: u32::MAX / root,
            shift: 36 - e / 2,
        }
    }
}

impl IntNormalize {
    fn row(&self, x: &[i32], m: &[i32], b: &[i64]) -> Vec<i32> {
        let n = x.len() as i64;
        let s1: i64 = x.iter().map(|&x| i64::from(x)).sum();
        let s2: i64 = x.iter().map(|&x| i64::from(x) * i64::from(x)).sum();
        let root = ReciprocalRoot::new((n * s2 - s1 * s1) as u64 + self.epsilon);
        let Codes { lo, hi, .. } = self.out;
        x.iter()
            .zip(m.iter().zip(b))
            .map(|(&x, (&m, &b))| {
                let z = ((n * i64::from(x) - s1) * i64::from(root.q)) >> root.shift;
                clamp((z * i64::from(m) + b) >> self.c, lo, hi)
            })
            .collect()
    }
}

impl Operation for IntNormalize {
    const NAME: &'static str = "int_normalize";
    const STAGES: &'static [Stage] = &[Stage::Integer];

    fn infer(&self, inputs: &[&Type]) -> Result<Type, OpError> {
        arity(inputs, 3..=3, "3")?;
        self.out.check()?;
        if self.epsilon == 0 || self.c > 62 {
            return Err(OpError::Value(format!("unsupported attributes {self:?}")));
        }
        let longest = match inputs[0].dtype {
            DType::U8 => 4096,
            DType::I16 => 256,
            found => {
                return Err(OpError::DType {
                    operand: 0,
                    expected: "u8 or i16",
                    found,
                });
            }
        };
        let n = inputs[0].shape.last().copied().unwrap_or(0);
        if n == 0 || n > longest {
            return Err(OpError::shape(format!(
                "a last axis of 1 to {longest}, found {n}"
            )));
        }
        for (operand, dtype) in [(1, DType::I32), (2, DType::I64)] {
            if inputs[operand].dtype != dtype || inputs[operand].shape != [n] {
                let found = inputs[operand];
                return Err(OpError::shape(format!(
                    "operand {operand} is {found}, expected {dtype}[{n}]"
                )));
            }
        }
        Ok(Type::new(self.out.dtype, inputs[0].shape.clone()))
    }

    fn eval(&self, inputs: &[&Tensor]) -> Result<Tensor, OpError> {
        let codes = codes_of(inputs[0]);
        let (m, b) = (inputs[1].as_slice::<i32>(), inputs[2].as_slice::<i64>());
        let result = codes
            .chunks_exact(m.len())
            .flat_map(|row| self.row(row, m, b))
            .collect();
        Ok(self.out.tensor(inputs[0].shape(), result))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_close_to_the_real_normalisation() {
        let x: Vec<u8> = (0..128).map(|i| (i * 71 % 200) as u8).collect();
        let scale_out = 0.02;
        let m = ((1.5 / scale_out) * 1024.0) as i32;
        let b = ((128.5 + 0.25 / scale_out) * 4096.0 * 1024.0) as i64;
        let op = IntNormalize {
            epsilon: 1,
            c: 22,
            out: Codes::U8,
        };
        let y = op
            .eval(&[
                &Tensor::new([128], x.clone()),
                &Tensor::new([128], vec![m; 128]),
                &Tensor::new([128], vec![b; 128]),
            ])
            .unwrap();
        let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / 128.0;
        let variance = x
            .iter()
            .map(|&x| (f64::from(x) - mean).powi(2))
            .sum::<f64>()
            / 128.0;
        for (&y, &x) in y.as_slice::<u8>().iter().zip(&x) {
            let real = (f64::from(x) - mean) / variance.sqrt() * 1.5 + 0.25;
            let expected = (real / scale_out + 128.0).clamp(0.0, 255.0);
            assert!((f64::from(y) - expected).abs() <= 0.6, "{y} for {expected}");
        }
    }

    #[test]
    fn a_constant_row_gives_the_shift() {
        let op = IntNormalize {
            epsilon: 1,
            c: 12,
            out: Codes::U8,
        };
        let y = op.eval(&[
            &Tensor::new([4], vec![9u8; 4]),
            &Tensor::new([4], vec![1000; 4]),
            &Tensor::new([4], vec![77i64 << 12; 4]),
        ]);
        assert_eq!(y.unwrap().as_slice::<u8>(), [77; 4]);
    }
}
