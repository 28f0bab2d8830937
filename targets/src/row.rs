//! What a feature level is, and what one of its rows says.

use crate::{Arch, Feature};
use lowbit_kernel::{OpCode, Type};

/// Instruction sequences that are more than one intrinsic. The rule's code is in the LLVM backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sequence {
    /// `dot4`, `dot4s`: bytes split into even and odd 16-bit lanes, two `pmaddwd`, whose sums of two products never saturate.
    MaddEvenOdd,
    /// `dot2_narrow`: `pmaddubsw` and an addition.
    MaddBytes,
    /// `dot2`: `pmaddwd` and an addition.
    Madd,
    /// `mulhi`, `requant`: even and odd lanes multiplied to 64 bits apart.
    EvenOdd64,
    /// `pack4_u8`: two `packssdw`, one `packuswb`.
    Pack,
    /// `lut256`: sixteen 16-byte shuffles, each in range for one high nibble.
    Shuffle16,
    /// `lut256`: two 128-byte permutations and a choice by the top bit.
    Permute128,
    /// `lut256`: four 64-byte table lookups.
    Table64,
    /// `dot4s`: widening products and pairwise additions.
    MulPairwise,
    /// `dot4`: `dot4s` of a − 128, and 128 times the sum of the weights.
    SignedDot,
    /// `pack4_u8`: saturating narrowing moves.
    Narrow,
}

/// How an operation is lowered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// One LLVM intrinsic on the operands in order, factors reinterpreted as the accumulator's type where `as_acc` is set.
    Intrinsic {
        /// LLVM's full name, with type suffixes.
        name: &'static str,
        /// Whether all operands are passed as vectors of the result's type.
        as_acc: bool,
    },
    /// A sequence of the backend.
    Sequence(Sequence),
    /// Plain LLVM integer operations, from which instruction selection finds the instruction.
    Generic,
}

/// (operation, result type) → rule. Wider vectors of a multiple of the lanes are split; other shapes lower to plain LLVM operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    /// The operation.
    pub op: OpCode,
    /// Its result.
    pub ty: Type,
    /// How.
    pub rule: Rule,
    /// Features that the rule's instructions need.
    pub needs: &'static [Feature],
    /// An instruction that the emitted code must have.
    pub mnemonic: &'static str,
}

/// Which signs the target's byte dot product takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DotSigns {
    /// Unsigned activations, signed weights: `dot4`.
    U8S8,
    /// Both signed: `dot4s`.
    S8S8,
}

/// Costs in tenths of a cycle on one core with operands in the first-level cache, for vectors of the level's full width.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Costs {
    /// One dot-product operation of the level's kind, its factors widened where the sequence needs that.
    pub dot: u64,
    /// One sum of pairs of products that is proved to fit 16 bits.
    pub narrow: u64,
    /// One sum of pairs of 16-bit products.
    pub pair: u64,
    /// One load.
    pub load: u64,
    /// One store.
    pub store: u64,
    /// Requantising one vector of i32.
    pub requant: u64,
    /// One lane-wise product of i32.
    pub product: u64,
    /// One simple lane-wise operation.
    pub simple: u64,
    /// One operation that moves lanes.
    pub shuffle: u64,
    /// One 256-entry lookup of a vector of bytes.
    pub lut: u64,
    /// What a trip of a loop costs besides its body.
    pub trip: u64,
    /// What calling a kernel costs besides its body.
    pub call: u64,
    /// What tiles cost, where the level has them.
    pub tile: Option<TileCosts>,
    /// Bytes of the first- and second-level data caches of one core.
    pub cache: [usize; 2],
    /// Reading or writing 64 bytes in order in the first, second and third level.
    pub lines: [u64; 3],
    /// Clock that turns cycles into time.
    pub mhz: u32,
}

/// Costs of matrix tiles in tenths of a cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TileCosts {
    /// A product of a tile of 16 rows; fewer rows take proportionally less, as far as `least`.
    pub product: u64,
    /// The least that a product takes.
    pub least: u64,
    /// Loading a tile whose rows lie in one line of the cache each.
    pub load: u64,
    /// Loading one from the second-level cache.
    pub far: u64,
    /// What a row adds that lies in two.
    pub crossing: u64,
    /// Storing a tile, which nothing hides.
    pub store: u64,
    /// Giving the tiles their shapes, once a kernel.
    pub configure: u64,
}

impl TileCosts {
    /// A product of `rows` rows.
    pub fn rows(&self, rows: u64) -> u64 {
        (self.product * rows / 16).max(self.least)
    }

    /// Loading `rows` rows of `bytes` bytes that start at multiples of `unit` bytes, a divisor of 64, one as often as another.
    pub fn loading(&self, rows: u64, bytes: u64, unit: u64) -> u64 {
        let places = 64 / unit;
        let crossing = (0..places).filter(|k| k * unit + bytes > 64).count() as u64;
        self.load + rows * crossing * self.crossing / places
    }
}

impl Costs {
    /// Tenths of a cycle for 64 bytes in order of what shares the caches with `resident` bytes.
    pub fn line(&self, resident: usize) -> u64 {
        self.lines[self.level(resident)]
    }

    /// The level of memory, from 0, that holds `resident` bytes.
    pub fn level(&self, resident: usize) -> usize {
        self.cache.iter().filter(|&&c| resident > c).count()
    }
}

/// A feature level.
#[derive(Debug, PartialEq, Eq)]
pub struct Target {
    /// Name that `--cpu` takes.
    pub name: &'static str,
    /// Families it exists for.
    pub archs: &'static [Arch],
    /// LLVM's processor name, which sets tuning; its features are among `features`. Empty: the family's base.
    pub llvm_cpu: &'static str,
    /// Features that every processor of the level has.
    pub features: &'static [Feature],
    /// Features that some have and rows may use.
    pub optional: &'static [Feature],
    /// Natural vector size in bytes: kernels use vectors of this size.
    pub vector_bytes: usize,
    /// Number of vector registers.
    pub registers: usize,
    /// Signs of the byte dot product.
    pub dot: DotSigns,
    /// Rows; the first whose needs are met holds.
    pub rows: &'static [Row],
    /// Cost numbers.
    pub costs: Costs,
}

impl Target {
    /// LLVM's processor name on a family.
    pub fn llvm_cpu_for(&self, arch: Arch) -> &'static str {
        match (self.llvm_cpu, arch) {
            ("", Arch::X86_64) => "x86-64",
            ("", Arch::Aarch64) => "generic",
            (cpu, _) => cpu,
        }
    }

    /// Lanes of `scalar`-wide values in a natural vector.
    pub fn lanes(&self, scalar: lowbit_kernel::Scalar) -> u16 {
        (self.vector_bytes / scalar.bytes()) as u16
    }
}

pub(crate) const fn intrinsic(
    op: OpCode,
    ty: Type,
    name: &'static str,
    needs: &'static [Feature],
    mnemonic: &'static str,
) -> Row {
    Row {
        op,
        ty,
        rule: Rule::Intrinsic { name, as_acc: true },
        needs,
        mnemonic,
    }
}

/// A byte dot product of AArch64: four accumulators, factors as bytes.
pub(crate) const fn dot(
    op: OpCode,
    name: &'static str,
    needs: &'static [Feature],
    mnemonic: &'static str,
) -> Row {
    let rule = Rule::Intrinsic {
        name,
        as_acc: false,
    };
    Row {
        op,
        ty: Type::I32.x(4),
        rule,
        needs,
        mnemonic,
    }
}

pub(crate) const fn sequence(
    op: OpCode,
    ty: Type,
    sequence: Sequence,
    needs: &'static [Feature],
    mnemonic: &'static str,
) -> Row {
    Row {
        op,
        ty,
        rule: Rule::Sequence(sequence),
        needs,
        mnemonic,
    }
}

pub(crate) const fn generic(
    op: OpCode,
    ty: Type,
    needs: &'static [Feature],
    mnemonic: &'static str,
) -> Row {
    Row {
        op,
        ty,
        rule: Rule::Generic,
        needs,
        mnemonic,
    }
}
