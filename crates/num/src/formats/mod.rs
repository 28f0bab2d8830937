//! Number formats of stored codes, one file each, and how codes are packed.
//!
//! A level is an integer on an even grid: `lo + step · field`, where the field is an unsigned number of the format's
//! bits. What is stored is the field, so that unpacking is the same few operations for every format. Codes are levels;
//! those of floats with two bits of exponent lie further apart from a knee on, and are integers all the same.

mod binary;
mod e2m1;
mod e2m2;
mod e2m3;
mod int2;
mod int3;
mod int4;
mod int5;
mod int6;
mod int8;
mod odd2;
mod odd3;
mod planes;
mod ternary;

use core::fmt;

pub use planes::{Plane, Run};

/// What a format is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spec {
    /// Name in plans and reports.
    name: &'static str,
    /// Bits that a code takes in the object.
    bits: u32,
    /// Lowest level.
    lo: i32,
    /// Distance of neighbouring levels.
    step: i32,
    /// Number of levels.
    levels: i32,
    /// For floats: up to this size codes are levels, up to twice as large ones are 2 apart, and those above 4.
    knee: Option<i32>,
}

impl Spec {
    #[inline]
    fn code(&self, level: i32) -> i32 {
        let over = |start: i32| (level.abs() - start).max(0);
        let added = self.knee.map_or(0, |h| over(h) + 2 * over(h + h / 2));
        level + level.signum() * added
    }

    /// Inverse of [`Spec::code`]; nothing for what is no code.
    fn level(&self, code: i32) -> Option<i32> {
        if self.knee.is_none() && self.step == 1 {
            return (self.lo..self.lo + self.levels)
                .contains(&code)
                .then_some(code);
        }
        let size = code.abs();
        let level = match self.knee {
            Some(h) if size > 2 * h => h + h / 2 + (size - 2 * h) / 4,
            Some(h) if size > h => h + (size - h) / 2,
            _ => size,
        };
        let level = code.signum() * level;
        let field = level - self.lo;
        let inside = (0..self.step * self.levels).contains(&field) && field % self.step == 0;
        (inside && self.code(level) == code).then_some(level)
    }
}

/// A format that weights or activations are stored in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Format {
    /// Symmetric 8 bits, −127…127.
    Int8,
    /// 6 bits, −32…31.
    Int6,
    /// 6 bits: floats with 2 bits of exponent and 3 of mantissa, in eighths −60…60.
    E2M3,
    /// 5 bits, −16…15.
    Int5,
    /// 5 bits: floats with 2 bits of exponent and 2 of mantissa, in quarters −28…28.
    E2M2,
    /// 4 bits, −8…7.
    Int4,
    /// 4 bits: floats with 2 bits of exponent and 1 of mantissa, in halves −12…12.
    E2M1,
    /// 3 bits, −4…3.
    Int3,
    /// 3 bits without zero: −7, −5 … 5, 7.
    Odd3,
    /// 2 bits, −2…1.
    Int2,
    /// 2 bits without zero: −3, −1, 1, 3.
    Odd2,
    /// −1, 0, 1 in 2 bits.
    Ternary,
    /// −1, 1 in 1 bit.
    Binary,
}

impl Format {
    /// Every format, widest first.
    pub const ALL: &'static [Self] = &[
        Self::Int8,
        Self::Int6,
        Self::E2M3,
        Self::Int5,
        Self::E2M2,
        Self::Int4,
        Self::E2M1,
        Self::Int3,
        Self::Odd3,
        Self::Int2,
        Self::Odd2,
        Self::Ternary,
        Self::Binary,
    ];

    #[inline]
    fn spec(self) -> &'static Spec {
        match self {
            Self::Int8 => &int8::INT8,
            Self::Int6 => &int6::INT6,
            Self::E2M3 => &e2m3::E2M3,
            Self::Int5 => &int5::INT5,
            Self::E2M2 => &e2m2::E2M2,
            Self::Int4 => &int4::INT4,
            Self::E2M1 => &e2m1::E2M1,
            Self::Int3 => &int3::INT3,
            Self::Odd3 => &odd3::ODD3,
            Self::Int2 => &int2::INT2,
            Self::Odd2 => &odd2::ODD2,
            Self::Ternary => &ternary::TERNARY,
            Self::Binary => &binary::BINARY,
        }
    }

    /// The name that plans and reports use.
    pub fn name(self) -> &'static str {
        self.spec().name
    }

    /// Bits that one code takes in the object.
    pub fn bits(self) -> u32 {
        self.spec().bits
    }

    /// The lowest and highest code.
    #[inline]
    pub fn range(self) -> (i32, i32) {
        let spec = self.spec();
        let (lo, hi) = self.levels();
        (spec.code(lo), spec.code(hi))
    }

    /// The lowest and highest level.
    #[inline]
    pub fn levels(self) -> (i32, i32) {
        let Spec {
            lo, step, levels, ..
        } = *self.spec();
        (lo, lo + step * (levels - 1))
    }

    /// Distance of neighbouring levels, the least of neighbouring codes: 1, or 2 where only odd numbers are codes.
    #[inline]
    pub fn step(self) -> i32 {
        self.spec().step
    }

    /// The grid without zero of as many bits.
    pub fn odd(self) -> Option<Self> {
        match self {
            Self::Int3 => Some(Self::Odd3),
            Self::Int2 => Some(Self::Odd2),
            _ => None,
        }
    }

    /// The grid with zero that stands for both in plans; other formats stand for themselves.
    pub fn family(self) -> Self {
        match self {
            Self::Odd3 => Self::Int3,
            Self::Odd2 => Self::Int2,
            other => other,
        }
    }

    /// For floats with two bits of exponent: codes up to this size are 1 apart, up to twice as large ones 2, above that 4.
    /// A level `t ≥ 0` stands for the code `t + max(0, t − knee) + 2 · max(0, t − 1½ knee)`.
    #[inline]
    pub fn knee(self) -> Option<i32> {
        self.spec().knee
    }

    /// Every code, ascending.
    pub fn codes(self) -> impl DoubleEndedIterator<Item = i32> + Clone {
        let spec = self.spec();
        (0..spec.levels).map(|k| spec.code(spec.lo + spec.step * k))
    }

    /// Whether a number is a code.
    pub fn admits(self, code: i32) -> bool {
        self.spec().level(code).is_some()
    }

    /// The number stored for a code: unsigned, of [`Format::bits`] bits.
    ///
    /// # Panics
    /// What is no code of the format has none.
    pub fn field(self, code: i8) -> u8 {
        let spec = self.spec();
        let level = spec.level(code.into()).expect("a code of the format");
        ((level - spec.lo) / spec.step) as u8
    }

    /// The code of a stored number; inverse of [`Format::field`].
    pub fn code(self, field: u8) -> i8 {
        let spec = self.spec();
        spec.code(spec.lo + spec.step * i32::from(field)) as i8
    }

    /// The format with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|f| f.name() == name)
    }

    /// Bytes that `n` codes take: `n · bits / 8`, `n` rounded up to whole groups of at most 8 codes.
    pub fn packed_len(self, n: usize) -> usize {
        planes::packed_len(self.bits(), n)
    }

    /// Packs codes into `out`, [`Format::packed_len`] bytes, for vectors of `width` bytes; see [`Format::runs`].
    pub fn pack(self, codes: &[i8], width: usize, out: &mut [u8]) {
        out.fill(0);
        for run in self.runs(codes.len(), width) {
            for (i, &code) in codes[run.code..].iter().take(run.codes()).enumerate() {
                let field = self.field(code);
                for (byte, bit, plane) in run.parts(i) {
                    out[byte] |= (field >> plane.shift & plane.mask()) << bit;
                }
            }
        }
    }

    /// Unpacks codes; inverse of [`Format::pack`].
    pub fn unpack(self, packed: &[u8], width: usize, out: &mut [i8]) {
        for run in self.runs(out.len(), width) {
            for (i, code) in out[run.code..].iter_mut().take(run.codes()).enumerate() {
                let part = |(byte, bit, plane): (usize, u32, Plane)| {
                    (packed[byte] >> bit & plane.mask()) << plane.shift
                };
                *code = self.code(run.parts(i).map(part).sum());
            }
        }
    }

    /// How `n` packed codes lie in memory, for vectors of `width` bytes, a power of two.
    pub fn runs(self, n: usize, width: usize) -> impl Iterator<Item = Run> {
        planes::runs(self.bits(), n, width)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDTHS: [usize; 5] = [1, 4, 16, 32, 64];

    #[test]
    fn names_are_unique() {
        for &format in Format::ALL {
            assert_eq!(Format::from_name(format.name()), Some(format));
        }
    }

    #[test]
    fn fields_are_the_codes_in_order_and_fit_the_bits() {
        for &format in Format::ALL {
            let (lo, hi) = format.range();
            assert_eq!(format.codes().next(), Some(lo));
            assert_eq!(format.codes().next_back(), Some(hi));
            for (k, code) in format.codes().enumerate() {
                assert!(format.admits(code), "{format}: {code}");
                assert_eq!(usize::from(format.field(code as i8)), k, "{format}: {code}");
                assert_eq!(i32::from(format.code(k as u8)), code, "{format}");
                assert!(k < 1 << format.bits(), "{format}: {k}");
            }
            let codes = (-300..300).filter(|&c| format.admits(c)).count();
            assert_eq!(codes, format.codes().count(), "{format}");
        }
    }

    #[test]
    fn encoding_takes_the_nearest_code() {
        for &format in Format::ALL {
            for i in -1400..1400 {
                let x = f64::from(i) / 10.0;
                let distance = |c: i32| (f64::from(c) - x).abs();
                let found = crate::real::encode(x, format);
                assert!(format.admits(found), "{format}: {x} became {found}");
                let least = format.codes().map(distance).fold(f64::INFINITY, f64::min);
                assert!(
                    distance(found) < least + 1e-9,
                    "{format}: {x} became {found}"
                );
            }
        }
    }

    /// Codes that run through the format in an order that no layout follows.
    fn mixed<const N: usize>(format: Format) -> [i8; N] {
        let levels = format.codes().count();
        core::array::from_fn(|i| format.codes().nth((i * 7 + i / 11) % levels).unwrap() as i8)
    }

    #[test]
    fn unpack_inverts_pack_over_all_codes_and_lengths() {
        for &format in Format::ALL {
            let codes = mixed::<1400>(format);
            for width in WIDTHS {
                for n in (0..70).chain([255, 256, 257, 511, 768, 1399, 1400]) {
                    let mut packed = [0xaau8; 1500];
                    let packed = &mut packed[..format.packed_len(n)];
                    format.pack(&codes[..n], width, packed);
                    let mut back = [0x55i8; 1400];
                    format.unpack(packed, width, &mut back[..n]);
                    assert_eq!(codes[..n], back[..n], "{format} × {n} in {width}");
                }
            }
        }
    }

    #[test]
    fn codes_are_packed_densely() {
        for &format in Format::ALL {
            for n in (0..4096).step_by(8) {
                assert_eq!(format.packed_len(n), n / 8 * format.bits() as usize);
            }
        }
    }
}
