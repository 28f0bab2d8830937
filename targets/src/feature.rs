//! Processor features: their names, and how a processor says that it has them.

use std::fmt;

/// Instruction set family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Arch {
    /// 64-bit x86.
    X86_64,
    /// 64-bit ARM.
    Aarch64,
}

impl Arch {
    /// The triple that stands for the family where none is given.
    pub fn default_triple(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-gnu",
            Self::Aarch64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// Family of an LLVM triple.
    pub fn of_triple(triple: &str) -> Option<Self> {
        match triple.split('-').next() {
            Some("x86_64" | "amd64") => Some(Self::X86_64),
            Some("aarch64" | "arm64") => Some(Self::Aarch64),
            _ => None,
        }
    }
}

/// Register of a `cpuid` answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CpuidRegister {
    /// `eax`.
    Eax,
    /// `ebx`.
    Ebx,
    /// `ecx`.
    Ecx,
    /// `edx`.
    Edx,
}

/// How a program asks the processor for a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Probe {
    /// Part of the base instruction set: nothing to ask.
    Base,
    /// A bit of `cpuid`, and the bits of XCR0 that the operating system must have set.
    Cpuid {
        /// `eax` of the question.
        leaf: u32,
        /// `ecx` of the question.
        subleaf: u32,
        /// Where the bit is.
        register: CpuidRegister,
        /// Its number.
        bit: u32,
        /// State components that must be enabled.
        xcr0: u32,
    },
    /// A four-bit field of an identification register that must not be zero.
    IdRegister {
        /// Name of the register.
        name: &'static str,
        /// Number of the field's lowest bit.
        shift: u32,
    },
}

macro_rules! features {
    ($($(#[$meta:meta])* $feature:ident $arch:ident $llvm:literal $probe:expr;)*) => {
        /// A feature that rows need and levels have.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Feature {
            $($(#[$meta])* $feature,)*
        }

        impl Feature {
            /// Every feature.
            pub const ALL: &[Self] = &[$(Self::$feature,)*];

            /// LLVM's name.
            pub fn llvm_name(self) -> &'static str {
                match self { $(Self::$feature => $llvm,)* }
            }

            /// Family it belongs to.
            pub fn arch(self) -> Arch {
                match self { $(Self::$feature => Arch::$arch,)* }
            }

            /// How a program asks for it.
            pub fn probe(self) -> Probe {
                match self { $(Self::$feature => $probe,)* }
            }
        }
    };
}

const YMM: u32 = 0x06;
const ZMM: u32 = 0xe6;
/// Configuration and data of tiles.
const TMM: u32 = 0x6_0006;

const fn leaf1(bit: u32, xcr0: u32) -> Probe {
    Probe::Cpuid {
        leaf: 1,
        subleaf: 0,
        register: CpuidRegister::Ecx,
        bit,
        xcr0,
    }
}

const fn leaf7_ebx(bit: u32, xcr0: u32) -> Probe {
    Probe::Cpuid {
        leaf: 7,
        subleaf: 0,
        register: CpuidRegister::Ebx,
        bit,
        xcr0,
    }
}

const fn leaf7_ecx(bit: u32, xcr0: u32) -> Probe {
    Probe::Cpuid {
        leaf: 7,
        subleaf: 0,
        register: CpuidRegister::Ecx,
        bit,
        xcr0,
    }
}

const fn leaf7_edx(bit: u32, xcr0: u32) -> Probe {
    Probe::Cpuid {
        leaf: 7,
        subleaf: 0,
        register: CpuidRegister::Edx,
        bit,
        xcr0,
    }
}

const fn id_register(name: &'static str, shift: u32) -> Probe {
    Probe::IdRegister { name, shift }
}

const AVX_VNNI: Probe = Probe::Cpuid {
    leaf: 7,
    subleaf: 1,
    register: CpuidRegister::Eax,
    bit: 4,
    xcr0: YMM,
};

features! {
    /// 128-bit integer vectors.
    Sse2 X86_64 "sse2" Probe::Base;
    /// Byte shuffles.
    Ssse3 X86_64 "ssse3" leaf1(9, 0);
    /// 32-bit products and byte minima.
    Sse41 X86_64 "sse4.1" leaf1(19, 0);
    /// Comparison of 64-bit lanes.
    Sse42 X86_64 "sse4.2" leaf1(20, 0);
    /// Population count of a register.
    Popcnt X86_64 "popcnt" leaf1(23, 0);
    /// Three-operand vector instructions.
    Avx X86_64 "avx" leaf1(28, YMM);
    /// 256-bit integer vectors.
    Avx2 X86_64 "avx2" leaf7_ebx(5, YMM);
    /// Dot products of bytes and words at 128 and 256 bits, without AVX-512.
    AvxVnni X86_64 "avxvnni" AVX_VNNI;
    /// Bit manipulation.
    Bmi X86_64 "bmi" leaf7_ebx(3, 0);
    /// More bit manipulation.
    Bmi2 X86_64 "bmi2" leaf7_ebx(8, 0);
    /// 512-bit vectors, masks.
    Avx512f X86_64 "avx512f" leaf7_ebx(16, ZMM);
    /// 64-bit lanes.
    Avx512dq X86_64 "avx512dq" leaf7_ebx(17, ZMM);
    /// Leading zeros.
    Avx512cd X86_64 "avx512cd" leaf7_ebx(28, ZMM);
    /// 8- and 16-bit lanes.
    Avx512bw X86_64 "avx512bw" leaf7_ebx(30, ZMM);
    /// The same at 128 and 256 bits.
    Avx512vl X86_64 "avx512vl" leaf7_ebx(31, ZMM);
    /// Byte permutations over registers.
    Avx512vbmi X86_64 "avx512vbmi" leaf7_ecx(1, ZMM);
    /// Dot products of bytes and words.
    Avx512vnni X86_64 "avx512vnni" leaf7_ecx(11, ZMM);
    /// Population count of bytes and words.
    Avx512bitalg X86_64 "avx512bitalg" leaf7_ecx(12, ZMM);
    /// Population count of 32- and 64-bit lanes.
    Avx512vpopcntdq X86_64 "avx512vpopcntdq" leaf7_ecx(14, ZMM);
    /// Registers of 16 rows of 64 bytes.
    AmxTile X86_64 "amx-tile" leaf7_edx(24, TMM);
    /// Products of such tiles of bytes.
    AmxInt8 X86_64 "amx-int8" leaf7_edx(25, TMM);
    /// 128-bit vectors of ARM.
    Neon Aarch64 "neon" Probe::Base;
    /// Dot products of bytes.
    Dotprod Aarch64 "dotprod" id_register("ID_AA64ISAR0_EL1", 44);
    /// Dot products of unsigned with signed bytes, and matrix products.
    I8mm Aarch64 "i8mm" id_register("ID_AA64ISAR1_EL1", 52);
}

impl Feature {
    /// The feature of an LLVM name.
    pub fn of_llvm_name(name: &str) -> Option<Self> {
        let all = Self::ALL.iter().copied();
        all.into_iter().find(|f| f.llvm_name() == name)
    }

    /// Whether the processor that runs this program has it.
    pub fn on_host(self) -> bool {
        crate::host::has(self)
    }

    /// Whether it is about matrix tiles.
    pub fn is_tile(self) -> bool {
        matches!(self, Self::AmxTile | Self::AmxInt8)
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.llvm_name())
    }
}
