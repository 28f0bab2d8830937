use core::fmt;

/// A positive scale `m · 2^-c`, normalised: `2^30 ≤ m < 2^31`, `1 ≤ c ≤ 62`; or zero (`m = 0`, `c = 1`).
///
/// Source: HAWQ-V3 (Yao et al. 2021), with a fixed 31-bit numerator.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Dyadic {
    m: i32,
    c: u8,
}

/// Why a pair is no [`Dyadic`] number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DyadicError {
    /// The ratio is at least 2^30: no shift in 1..=62 represents it.
    TooLarge,
    /// The ratio is negative, infinite or not a number.
    NotPositive,
    /// `m` or `c` lies outside the normalised range.
    NotNormalised,
}

impl fmt::Display for DyadicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "a scale of 2^30 or more cannot be written as m/2^c with c ≥ 1",
            Self::NotPositive => "a scale must be a finite number that is not negative",
            Self::NotNormalised => "a dyadic number needs 2^30 ≤ m < 2^31 and 1 ≤ c ≤ 62",
        })
    }
}

impl core::error::Error for DyadicError {}

impl Dyadic {
    /// Zero.
    pub const ZERO: Self = Self { m: 0, c: 1 };
    /// One: `2^30 · 2^-30`.
    pub const ONE: Self = Self { m: 1 << 30, c: 30 };

    /// `m · 2^-c` from its normalised parts.
    ///
    /// # Errors
    /// [`DyadicError::NotNormalised`] outside `2^30 ≤ m < 2^31`, `1 ≤ c ≤ 62`, unless both stand for zero.
    pub fn new(m: i32, c: u8) -> Result<Self, DyadicError> {
        let zero = m == 0 && c == 1;
        if zero || (m >= 1 << 30 && (1..=62).contains(&c)) {
            Ok(Self { m, c })
        } else {
            Err(DyadicError::NotNormalised)
        }
    }

    /// The numerator: 0, or in `2^30..2^31`.
    pub fn m(self) -> i32 {
        self.m
    }

    /// The shift, in `1..=62`.
    pub fn c(self) -> u8 {
        self.c
    }

    /// Whether this is zero.
    pub fn is_zero(self) -> bool {
        self.m == 0
    }
}

impl fmt::Display for Dyadic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/2^{}", self.m, self.c)
    }
}
