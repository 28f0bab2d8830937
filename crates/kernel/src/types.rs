//! Scalars and vectors: signless integers, as the machine has them.

use std::fmt;
use std::str::FromStr;

/// Width of one lane. Lanes carry no sign; operations say how they read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scalar {
    /// 8 bits.
    I8,
    /// 16 bits.
    I16,
    /// 32 bits.
    I32,
    /// 64 bits.
    I64,
}

impl Scalar {
    /// Every scalar, narrow to wide.
    pub const ALL: [Self; 4] = [Self::I8, Self::I16, Self::I32, Self::I64];

    /// Width in bits.
    pub const fn bits(self) -> u32 {
        match self {
            Self::I8 => 8,
            Self::I16 => 16,
            Self::I32 => 32,
            Self::I64 => 64,
        }
    }

    /// Width in bytes.
    pub const fn bytes(self) -> usize {
        self.bits() as usize / 8
    }

    /// `x` modulo 2^bits, sign-extended: the canonical form of a lane in the interpreter.
    pub const fn wrap(self, x: i64) -> i64 {
        let spare = 64 - self.bits();
        (x << spare) >> spare
    }

    /// The unsigned reading of a canonical lane.
    pub const fn unsigned(self, x: i64) -> u64 {
        let spare = 64 - self.bits();
        ((x as u64) << spare) >> spare
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "i{}", self.bits())
    }
}

impl FromStr for Scalar {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|t| t.to_string() == s)
            .ok_or_else(|| format!("`{s}` is no scalar type: i8, i16, i32 or i64"))
    }
}

/// A scalar (`lanes` = 1) or a vector of 2 to [`Type::MAX_LANES`] lanes. Text: `i32`, `i8x64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Type {
    /// What one lane is.
    pub scalar: Scalar,
    /// Number of lanes, at least 1.
    pub lanes: u16,
}

impl Type {
    /// More lanes than this are refused.
    pub const MAX_LANES: u16 = 1024;
    /// Scalar of 8 bits.
    pub const I8: Self = Self::new(Scalar::I8, 1);
    /// Scalar of 16 bits.
    pub const I16: Self = Self::new(Scalar::I16, 1);
    /// Scalar of 32 bits.
    pub const I32: Self = Self::new(Scalar::I32, 1);
    /// Scalar of 64 bits.
    pub const I64: Self = Self::new(Scalar::I64, 1);

    /// A type of `lanes` lanes.
    pub const fn new(scalar: Scalar, lanes: u16) -> Self {
        assert!(lanes >= 1 && lanes <= Self::MAX_LANES);
        Self { scalar, lanes }
    }

    /// The same scalar with `lanes` lanes: `Type::I8.x(64)` is `i8x64`.
    pub const fn x(self, lanes: u16) -> Self {
        Self::new(self.scalar, lanes)
    }

    /// The same number of lanes of another scalar.
    pub const fn with(self, scalar: Scalar) -> Self {
        Self::new(scalar, self.lanes)
    }

    /// Type of one lane.
    pub const fn lane(self) -> Self {
        Self::new(self.scalar, 1)
    }

    /// Size in memory in bytes; vectors are packed.
    pub const fn bytes(self) -> usize {
        self.scalar.bytes() * self.lanes as usize
    }

    /// Whether this is a vector.
    pub const fn is_vector(self) -> bool {
        self.lanes > 1
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lanes {
            1 => write!(f, "{}", self.scalar),
            n => write!(f, "{}x{n}", self.scalar),
        }
    }
}

impl FromStr for Type {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let (scalar, lanes) = s.split_once('x').unwrap_or((s, "1"));
        let lanes = lanes
            .parse()
            .ok()
            .filter(|n| (1..=Self::MAX_LANES).contains(n));
        let lanes =
            lanes.ok_or_else(|| format!("`{s}` has no lane count in 1..={}", Self::MAX_LANES))?;
        Ok(Self::new(scalar.parse()?, lanes))
    }
}
