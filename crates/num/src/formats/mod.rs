//! Number formats of stored codes, one file each: range, encoding and packing.

mod int8;

pub use int8::Int8;

/// A format that weights or activations are stored in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Format {
    /// Signed symmetric 8 bits, −127…127.
    Int8,
}

impl Format {
    /// Every format, widest first.
    pub const ALL: &'static [Self] = &[Self::Int8];

    /// The name that plans and reports use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Int8 => Int8::NAME,
        }
    }

    /// Bits that one code takes in the object.
    pub fn bits(self) -> u32 {
        match self {
            Self::Int8 => Int8::BITS,
        }
    }

    /// The lowest and highest code.
    pub fn range(self) -> (i32, i32) {
        match self {
            Self::Int8 => (Int8::MIN, Int8::MAX),
        }
    }

    /// The format with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|f| f.name() == name)
    }

    /// Packs codes, given as `i8`, into `out`: [`Format::packed_len`] bytes.
    pub fn pack(self, codes: &[i8], out: &mut [u8]) {
        match self {
            Self::Int8 => Int8::pack(codes, out),
        }
    }

    /// Unpacks codes; inverse of [`Format::pack`].
    pub fn unpack(self, packed: &[u8], out: &mut [i8]) {
        match self {
            Self::Int8 => Int8::unpack(packed, out),
        }
    }

    /// Bytes that `n` codes take.
    pub fn packed_len(self, n: usize) -> usize {
        (n * self.bits() as usize).div_ceil(8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unpack_inverts_pack_over_all_codes() {
        for &format in Format::ALL {
            let (lo, hi) = format.range();
            let mut codes = [0i8; 256];
            let mut n = 0;
            for code in lo..=hi {
                codes[n] = code as i8;
                n += 1;
            }
            let mut packed = [0u8; 256];
            let packed = &mut packed[..format.packed_len(n)];
            format.pack(&codes[..n], packed);
            let mut back = [0i8; 256];
            format.unpack(packed, &mut back[..n]);
            assert_eq!(codes[..n], back[..n], "{}", format.name());
            assert_eq!(Format::from_name(format.name()), Some(format));
        }
    }
}
