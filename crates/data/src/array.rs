//! Tensors at the border of the compiler, and the element types that files hold.

use half::f16;

/// A dense tensor of real values, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Length of each axis; a scalar has none.
    pub shape: Vec<usize>,
    /// The values, as many as the product of the shape.
    pub data: Vec<f32>,
}

/// A dense tensor of integer codes, row-major.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Codes {
    /// Length of each axis; a scalar has none.
    pub shape: Vec<usize>,
    /// The codes, as many as the product of the shape.
    pub data: Vec<i64>,
}

/// One input of a model, which every sample must fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputSpec {
    /// The ONNX input's name.
    pub name: String,
    /// The ONNX input's whole shape, the batch axis included, every axis at least 1.
    pub shape: Vec<usize>,
    /// The ONNX input's element type. Samples are handed out as `f32` whatever it is; random samples depend on it.
    pub dtype: Dtype,
}

/// Element type of a stored array or of a model's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// One byte, 0 or 1.
    Bool,
    /// 8 bits, signed.
    I8,
    /// 16 bits, signed.
    I16,
    /// 32 bits, signed.
    I32,
    /// 64 bits, signed.
    I64,
    /// 8 bits, unsigned.
    U8,
    /// 16 bits, unsigned.
    U16,
    /// 32 bits, unsigned.
    U32,
    /// 64 bits, unsigned.
    U64,
    /// IEEE half precision.
    F16,
    /// IEEE single precision.
    F32,
    /// IEEE double precision.
    F64,
}

impl Dtype {
    /// Size of one element in bytes, 1 to 8.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::Bool | Self::I8 | Self::U8 => 1,
            Self::I16 | Self::U16 | Self::F16 => 2,
            Self::I32 | Self::U32 | Self::F32 => 4,
            Self::I64 | Self::U64 | Self::F64 => 8,
        }
    }

    /// Whether the elements are floating-point numbers.
    #[must_use]
    pub fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::F32 | Self::F64)
    }

    /// Little-endian elements as `f32`, rounded to nearest where the type is wider.
    pub(crate) fn to_f32(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Self::Bool | Self::U8 => bytes.iter().map(|&b| f32::from(b)).collect(),
            Self::I8 => elements(bytes, |b| f32::from(i8::from_le_bytes(b))),
            Self::I16 => elements(bytes, |b| f32::from(i16::from_le_bytes(b))),
            Self::U16 => elements(bytes, |b| f32::from(u16::from_le_bytes(b))),
            Self::I32 => elements(bytes, |b| i32::from_le_bytes(b) as f32),
            Self::U32 => elements(bytes, |b| u32::from_le_bytes(b) as f32),
            Self::I64 => elements(bytes, |b| i64::from_le_bytes(b) as f32),
            Self::U64 => elements(bytes, |b| u64::from_le_bytes(b) as f32),
            Self::F16 => elements(bytes, |b| f16::from_le_bytes(b).to_f32()),
            Self::F32 => elements(bytes, f32::from_le_bytes),
            Self::F64 => elements(bytes, |b| f64::from_le_bytes(b) as f32),
        }
    }

    /// Little-endian elements as integers; the index of the first that is not a whole number of 64 bits, if one is not.
    pub(crate) fn to_i64(self, bytes: &[u8]) -> Result<Vec<i64>, usize> {
        let codes = match self {
            Self::Bool | Self::U8 => bytes.iter().map(|&b| i64::from(b)).collect(),
            Self::I8 => elements(bytes, |b| i64::from(i8::from_le_bytes(b))),
            Self::I16 => elements(bytes, |b| i64::from(i16::from_le_bytes(b))),
            Self::U16 => elements(bytes, |b| i64::from(u16::from_le_bytes(b))),
            Self::I32 => elements(bytes, |b| i64::from(i32::from_le_bytes(b))),
            Self::U32 => elements(bytes, |b| i64::from(u32::from_le_bytes(b))),
            Self::I64 => elements(bytes, i64::from_le_bytes),
            Self::U64 => {
                let wide = elements(bytes, u64::from_le_bytes);
                return whole(wide.into_iter().map(|v| i64::try_from(v).ok()));
            }
            Self::F16 => {
                let real = elements(bytes, |b| f16::from_le_bytes(b).to_f64());
                return whole(real.into_iter().map(exact));
            }
            Self::F32 => {
                let real = elements(bytes, |b| f64::from(f32::from_le_bytes(b)));
                return whole(real.into_iter().map(exact));
            }
            Self::F64 => {
                let real = elements(bytes, f64::from_le_bytes);
                return whole(real.into_iter().map(exact));
            }
        };
        Ok(codes)
    }
}

fn elements<const N: usize, T>(bytes: &[u8], decode: impl Fn([u8; N]) -> T) -> Vec<T> {
    let (chunks, _) = bytes.as_chunks::<N>();
    chunks.iter().map(|chunk| decode(*chunk)).collect()
}

fn whole(values: impl Iterator<Item = Option<i64>>) -> Result<Vec<i64>, usize> {
    values
        .enumerate()
        .map(|(index, value)| value.ok_or(index))
        .collect()
}

fn exact(value: f64) -> Option<i64> {
    let limit = 9_007_199_254_740_992.0;
    (value.trunc() == value && value.abs() <= limit).then_some(value as i64)
}

/// Number of elements of a shape; `None` where it does not fit the address space.
pub(crate) fn count(shape: &[usize]) -> Option<usize> {
    shape
        .iter()
        .try_fold(1_usize, |product, &axis| product.checked_mul(axis))
}
