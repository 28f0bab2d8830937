use std::fmt;

use lowbit_num::Dyadic;
use serde::{Deserialize, Serialize};

use crate::QuantId;

/// Element type of a tensor.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
#[serde(rename_all = "lowercase")]
pub enum DType {
    F32,
    F64,
    Bool,
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
}

impl DType {
    /// Every element type.
    pub const ALL: &'static [Self] = &[
        Self::F32,
        Self::F64,
        Self::Bool,
        Self::I8,
        Self::U8,
        Self::I16,
        Self::U16,
        Self::I32,
        Self::U32,
        Self::I64,
        Self::U64,
    ];

    /// The name in the text form: `f32`, `u8`, …
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::Bool => "bool",
            Self::I8 => "i8",
            Self::U8 => "u8",
            Self::I16 => "i16",
            Self::U16 => "u16",
            Self::I32 => "i32",
            Self::U32 => "u32",
            Self::I64 => "i64",
            Self::U64 => "u64",
        }
    }

    /// The type with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|d| d.name() == name)
    }

    /// Bytes an element takes.
    pub fn bytes(self) -> usize {
        match self {
            Self::Bool | Self::I8 | Self::U8 => 1,
            Self::I16 | Self::U16 => 2,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F64 | Self::I64 | Self::U64 => 8,
        }
    }

    /// Whether elements are `f32` or `f64`.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F64)
    }

    /// The lowest and highest value of an integer type; `None` for floats. `Bool` counts as 0..=1.
    pub fn integer_range(self) -> Option<(i128, i128)> {
        Some(match self {
            Self::F32 | Self::F64 => return None,
            Self::Bool => (0, 1),
            Self::I8 => (i8::MIN.into(), i8::MAX.into()),
            Self::U8 => (0, u8::MAX.into()),
            Self::I16 => (i16::MIN.into(), i16::MAX.into()),
            Self::U16 => (0, u16::MAX.into()),
            Self::I32 => (i32::MIN.into(), i32::MAX.into()),
            Self::U32 => (0, u32::MAX.into()),
            Self::I64 => (i64::MIN.into(), i64::MAX.into()),
            Self::U64 => (0, u64::MAX.into()),
        })
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Element type, static shape and quantisation of a value.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Type {
    /// Element type.
    pub dtype: DType,
    /// Extent of each axis; empty for a scalar.
    pub shape: Vec<usize>,
    /// How the codes map to real values; `None` outside the integer stage and for indices and multipliers.
    pub quant: Option<QuantId>,
}

impl Type {
    /// A type without quantisation.
    pub fn new(dtype: DType, shape: impl Into<Vec<usize>>) -> Self {
        Self {
            dtype,
            shape: shape.into(),
            quant: None,
        }
    }

    /// The same type with another shape.
    pub fn with_shape(&self, shape: impl Into<Vec<usize>>) -> Self {
        Self {
            shape: shape.into(),
            ..self.clone()
        }
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// Bytes of a dense tensor of this type.
    pub fn bytes(&self) -> usize {
        self.elements() * self.dtype.bytes()
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.dtype)?;
        for (i, d) in self.shape.iter().enumerate() {
            write!(f, "{}{d}", if i > 0 { "," } else { "" })?;
        }
        f.write_str("]")?;
        self.quant.map_or(Ok(()), |q| write!(f, ":{q}"))
    }
}

/// How codes map to real values: `scale · (code − zero_point)`, with one scale, or one for each index of `axis`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Quant {
    /// One scale, or one a channel.
    pub scales: Vec<Dyadic>,
    /// The axis that the scales run along; `None` for one scale.
    pub axis: Option<usize>,
    /// The code of zero.
    pub zero_point: i32,
}

impl Quant {
    /// One scale for the whole tensor.
    pub fn per_tensor(scale: Dyadic, zero_point: i32) -> Self {
        Self {
            scales: vec![scale],
            axis: None,
            zero_point,
        }
    }

    /// The scale of a per-tensor quantisation.
    ///
    /// # Panics
    /// When the scales run along an axis.
    pub fn scale(&self) -> Dyadic {
        assert!(
            self.axis.is_none(),
            "a per-axis quantisation has no single scale"
        );
        self.scales[0]
    }
}

/// A float attribute of an operation, compared and hashed by its bits so that operations are `Eq` and `Hash`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "f64", into = "f64")]
pub struct Real(u64);

impl Real {
    /// The value.
    pub fn get(self) -> f64 {
        f64::from_bits(self.0)
    }
}

impl From<f64> for Real {
    fn from(x: f64) -> Self {
        Self(x.to_bits())
    }
}

impl From<Real> for f64 {
    fn from(x: Real) -> Self {
        x.get()
    }
}

impl fmt::Debug for Real {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// Number of elements of a shape, or `None` where it overflows.
pub fn elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
}

/// The common shape of two by NumPy's broadcasting rule, or `None` where they do not fit.
pub fn broadcast_shapes(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let extent = |s: &[usize], i: usize| (i + s.len()).checked_sub(rank).map_or(1, |k| s[k]);
    (0..rank)
        .map(|i| match (extent(a, i), extent(b, i)) {
            (x, y) if x == y => Some(x),
            (1, y) => Some(y),
            (x, 1) => Some(x),
            _ => None,
        })
        .collect()
}
