use lowbit_num::{Dyadic, requantize, requantize_hi};
use serde::{Deserialize, Serialize};

use super::OpError;
use crate::{DType, Tensor};

/// How a per-tensor accumulator becomes a code.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rescale {
    /// [`requantize_hi`] with these constants.
    High {
        /// `round(scale · 2^32)`.
        m: i32,
        /// Zero-point and rounding, in units of the accumulator.
        b: i32,
    },
    /// [`requantize`] with this scale.
    Exact {
        /// Numerator, see [`Dyadic`].
        m: i32,
        /// Shift, see [`Dyadic`].
        c: u8,
        /// The code of zero.
        zero_point: i32,
    },
}

impl Rescale {
    /// The code of an accumulator, limited to `lo..=hi`.
    ///
    /// # Panics
    /// When an exact rescale holds no [`Dyadic`] number.
    pub fn apply(self, acc: i32, lo: i32, hi: i32) -> i32 {
        match self {
            Self::High { m, b } => requantize_hi(acc, b, m, lo, hi),
            Self::Exact { m, c, zero_point } => {
                let scale = Dyadic::new(m, c).expect("a rescale holds a dyadic number");
                requantize(acc.into(), scale, zero_point, lo, hi)
            }
        }
    }
}

/// The codes that a result may take.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Codes {
    /// Element type of the result: `u8`, `i16` or `i32`.
    pub dtype: DType,
    /// Lowest code.
    pub lo: i32,
    /// Highest code.
    pub hi: i32,
}

impl Codes {
    /// All 256 codes of `u8`.
    pub const U8: Self = Self {
        dtype: DType::U8,
        lo: 0,
        hi: 255,
    };
    /// All codes of `i16`.
    pub const I16: Self = Self {
        dtype: DType::I16,
        lo: i16::MIN as i32,
        hi: i16::MAX as i32,
    };
    /// All codes of `i32`.
    pub const I32: Self = Self {
        dtype: DType::I32,
        lo: i32::MIN,
        hi: i32::MAX,
    };

    pub(crate) fn check(self) -> Result<(), OpError> {
        let range = match self.dtype {
            DType::U8 => (0, 255),
            DType::I16 => (i16::MIN.into(), i16::MAX.into()),
            DType::I32 => (i32::MIN, i32::MAX),
            found => {
                return Err(OpError::Value(format!(
                    "codes are u8, i16 or i32, not {found}"
                )));
            }
        };
        if self.lo > self.hi || self.lo < range.0 || self.hi > range.1 {
            return Err(OpError::Value(format!(
                "codes {}..={} do not fit {}",
                self.lo, self.hi, self.dtype
            )));
        }
        Ok(())
    }

    pub(crate) fn tensor(self, shape: &[usize], codes: Vec<i32>) -> Tensor {
        match self.dtype {
            DType::U8 => Tensor::new(shape, codes.into_iter().map(|x| x as u8).collect()),
            DType::I16 => Tensor::new(shape, codes.into_iter().map(|x| x as i16).collect()),
            _ => Tensor::new(shape, codes),
        }
    }
}

/// Codes of any integer type as `i32`.
pub(crate) fn codes_of(tensor: &Tensor) -> Vec<i32> {
    let wide = tensor.to_i64().expect("codes are integers");
    wide.into_iter().map(|x| x as i32).collect()
}
