//! The layout of packed codes: planes of 8, 4, 2 and 1 bits across vectors.
//!
//! A field of 6 bits is a part of 4 bits and one of 2, and so on. Parts of `b` bits from `8 / b` vectors share one vector
//! of bytes: vector k lies at bit `b · k` of every byte, so that unpacking a vector is a shift and a mask. A group is as
//! many vectors as fill whole vectors of every plane. What is left behind the last whole group is laid out the same way in
//! narrower vectors.

/// One plane of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plane {
    /// Bits of a field in this plane: 8, 4, 2 or 1.
    pub bits: u32,
    /// The lowest of them in the field.
    pub shift: u32,
    /// Vectors before the plane in its group.
    pub first: usize,
}

impl Plane {
    /// The packed vector that holds vector `k` of the group, and the bit of each byte that it starts at.
    pub fn place(&self, k: usize) -> (usize, u32) {
        let shared = 8 / self.bits as usize;
        (self.first + k / shared, self.bits * (k % shared) as u32)
    }

    /// The low bits of a byte that the plane holds.
    pub fn mask(&self) -> u8 {
        (0xff_u32 >> (8 - self.bits)) as u8
    }
}

/// Groups of one vector width, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    bits: u32,
    /// The first code.
    pub code: usize,
    /// The first packed byte.
    pub byte: usize,
    /// Bytes of a vector.
    pub width: usize,
    /// Number of groups.
    pub groups: usize,
}

impl Run {
    /// Vectors of codes in a group.
    pub fn vectors(&self) -> usize {
        group(self.bits)
    }

    /// Vectors of packed bytes in a group.
    pub fn packed_vectors(&self) -> usize {
        group(self.bits) * self.bits as usize / 8
    }

    /// Codes of the run.
    pub(super) fn codes(&self) -> usize {
        self.groups * self.vectors() * self.width
    }

    /// The planes, highest bits first.
    pub fn planes(&self) -> impl Iterator<Item = Plane> + use<> {
        let all = self.bits;
        let held = [8, 4, 2, 1].into_iter().filter(move |b| all & b != 0);
        held.scan((all, 0), move |(shift, first), bits| {
            *shift -= bits;
            let (shift, own) = (*shift, *first);
            *first += group(all) * bits as usize / 8;
            Some(Plane {
                bits,
                shift,
                first: own,
            })
        })
    }

    /// Where the parts of code `i` of the run are: byte, bit and plane.
    pub(super) fn parts(&self, i: usize) -> impl Iterator<Item = (usize, u32, Plane)> + use<> {
        let (width, lane) = (self.width, i % self.width);
        let (group, vector) = (
            i / self.width / self.vectors(),
            i / self.width % self.vectors(),
        );
        let base = self.byte + group * self.packed_vectors() * width + lane;
        self.planes().map(move |plane| {
            let (at, bit) = plane.place(vector);
            (base + at * width, bit, plane)
        })
    }
}

/// Vectors of a group: the fewest that fill whole bytes of every plane.
fn group(bits: u32) -> usize {
    8 >> bits.trailing_zeros()
}

pub(super) fn packed_len(bits: u32, n: usize) -> usize {
    n.div_ceil(group(bits)) * group(bits) * bits as usize / 8
}

/// Runs of whole groups in vectors of `width` bytes, then in narrower ones; the last group may hold fewer codes.
pub(super) fn runs(bits: u32, n: usize, width: usize) -> impl Iterator<Item = Run> {
    let widths = core::iter::successors(Some(width), |w| (*w > 1).then_some(w / 2));
    let split = move |code: &mut usize, width: usize| {
        let whole = group(bits) * width;
        let left = n - *code;
        let groups = if width == 1 {
            left.div_ceil(whole)
        } else {
            left / whole
        };
        let run = Run {
            bits,
            code: *code,
            byte: *code * bits as usize / 8,
            width,
            groups,
        };
        *code = (*code + run.codes()).min(n);
        Some(run)
    };
    widths.scan(0, split).filter(|run| run.groups > 0)
}
