//! x86-64-v3: AVX2.

use crate::Arch;
use crate::Feature::{self, Avx2, Sse2};
use crate::row::{Costs, DotSigns, Row, Sequence, Target, generic, sequence};
use lowbit_kernel::{OpCode, Type};

pub(crate) const FEATURES: &[Feature] = &[
    Sse2,
    Feature::Ssse3,
    Feature::Sse41,
    Feature::Sse42,
    Feature::Popcnt,
    Feature::Avx,
    Avx2,
    Feature::Bmi,
    Feature::Bmi2,
];

const ROWS: &[Row] = &[
    sequence(
        OpCode::Dot4,
        Type::I32.x(8),
        Sequence::MaddEvenOdd,
        &[Avx2],
        "vpmaddwd",
    ),
    sequence(
        OpCode::Dot4,
        Type::I32.x(4),
        Sequence::MaddEvenOdd,
        &[Sse2],
        "vpmaddwd",
    ),
    sequence(
        OpCode::Dot4Narrow,
        Type::I32.x(8),
        Sequence::MaddBytes,
        &[Avx2],
        "vpmaddubsw",
    ),
    sequence(
        OpCode::Dot4Narrow,
        Type::I32.x(4),
        Sequence::MaddBytes,
        &[Feature::Ssse3],
        "vpmaddubsw",
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
    sequence(
        OpCode::Dot2,
        Type::I32.x(8),
        Sequence::Madd,
        &[Avx2],
        "vpmaddwd",
    ),
    sequence(
        OpCode::Dot2,
        Type::I32.x(4),
        Sequence::Madd,
        &[Sse2],
        "vpmaddwd",
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
    generic(OpCode::Umax, Type::I8.x(32), &[Avx2], "vpmaxub"),
    generic(OpCode::Smax, Type::I32.x(8), &[Avx2], "vpmaxsd"),
    generic(OpCode::Umin, Type::I8.x(32), &[Avx2], "vpminub"),
];

pub(crate) static TARGET: Target = Target {
    name: "x86-64-v3",
    archs: &[Arch::X86_64],
    llvm_cpu: "",
    features: FEATURES,
    optional: &[],
    vector_bytes: 32,
    registers: 16,
    dot: DotSigns::U8S8,
    rows: ROWS,
    costs: Costs {
        dot: 20,
        load: 5,
        store: 10,
        requant: 60,
        simple: 5,
        lut: 320,
    },
};
