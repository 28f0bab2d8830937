//! AVX2 with VNNI at 256 bits, for processors without AVX-512.

use crate::Arch;
use crate::Feature::{self, Avx2, AvxVnni, Sse2};
use crate::row::{Costs, DotSigns, Row, Sequence, Target, generic, intrinsic, sequence};
use lowbit_kernel::{OpCode, Type};

const FEATURES: &[Feature] = &[
    Sse2,
    Feature::Ssse3,
    Feature::Sse41,
    Feature::Sse42,
    Feature::Popcnt,
    Feature::Avx,
    Avx2,
    AvxVnni,
    Feature::Bmi,
    Feature::Bmi2,
];

const ROWS: &[Row] = &[
    intrinsic(
        OpCode::Dot4,
        Type::I32.x(8),
        "llvm.x86.avx512.vpdpbusd.256",
        &[AvxVnni],
        "vpdpbusd",
    ),
    intrinsic(
        OpCode::Dot4,
        Type::I32.x(4),
        "llvm.x86.avx512.vpdpbusd.128",
        &[AvxVnni],
        "vpdpbusd",
    ),
    sequence(
        OpCode::Dot4s,
        Type::I32.x(8),
        Sequence::MaddEvenOdd,
        &[Avx2],
        "vpmaddwd",
    ),
    sequence(
        OpCode::Dot4s,
        Type::I32.x(4),
        Sequence::MaddEvenOdd,
        &[Sse2],
        "vpmaddwd",
    ),
    intrinsic(
        OpCode::Dot2,
        Type::I32.x(8),
        "llvm.x86.avx512.vpdpwssd.256",
        &[AvxVnni],
        "vpdpwssd",
    ),
    intrinsic(
        OpCode::Dot2,
        Type::I32.x(4),
        "llvm.x86.avx512.vpdpwssd.128",
        &[AvxVnni],
        "vpdpwssd",
    ),
    sequence(
        OpCode::Mulhi,
        Type::I32.x(8),
        Sequence::EvenOdd64,
        &[Avx2],
        "vpmuldq",
    ),
    sequence(
        OpCode::Mulhi,
        Type::I32.x(4),
        Sequence::EvenOdd64,
        &[Feature::Sse41],
        "vpmuldq",
    ),
    sequence(
        OpCode::Requant,
        Type::I32.x(8),
        Sequence::EvenOdd64,
        &[Avx2],
        "vpmuldq",
    ),
    sequence(
        OpCode::Requant,
        Type::I32.x(4),
        Sequence::EvenOdd64,
        &[Avx2],
        "vpmuldq",
    ),
    sequence(
        OpCode::Pack4U8,
        Type::I8.x(32),
        Sequence::Pack,
        &[Avx2],
        "vpackuswb",
    ),
    sequence(
        OpCode::Pack4U8,
        Type::I8.x(16),
        Sequence::Pack,
        &[Sse2],
        "vpackuswb",
    ),
    generic(OpCode::Zip4, Type::I8.x(32), &[Avx2], "vpunpcklbw"),
    generic(OpCode::Zip4, Type::I8.x(16), &[Sse2], "vpunpcklbw"),
    sequence(
        OpCode::Lut256,
        Type::I8.x(32),
        Sequence::Shuffle16,
        &[Avx2],
        "vpshufb",
    ),
    sequence(
        OpCode::Lut256,
        Type::I8.x(16),
        Sequence::Shuffle16,
        &[Feature::Ssse3],
        "vpshufb",
    ),
];

pub(crate) static TARGET: Target = Target {
    name: "x86-64-avxvnni",
    archs: &[Arch::X86_64],
    llvm_cpu: "",
    features: FEATURES,
    optional: &[],
    vector_bytes: 32,
    registers: 16,
    dot: DotSigns::U8S8,
    rows: ROWS,
    costs: Costs {
        dot: 6,
        narrow: 6,
        pair: 6,
        load: 5,
        store: 10,
        requant: 25,
        product: 20,
        simple: 4,
        shuffle: 7,
        lut: 300,
        trip: 10,
        call: 300,
        tile: None,
        cache: [48 * 1024, 1280 * 1024],
        lines: [20, 40, 65],
        mhz: 4000,
    },
};
