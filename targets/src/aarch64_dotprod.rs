//! AArch64 with `sdot` and `udot`.

use crate::Arch;
use crate::Feature::{self, Dotprod, Neon};
use crate::row::{Costs, DotSigns, Row, Sequence, Target, dot, generic, sequence};
use lowbit_kernel::{OpCode, Type};

const ROWS: &[Row] = &[
    dot(
        OpCode::Dot4s,
        "llvm.aarch64.neon.sdot.v4i32.v16i8",
        &[Dotprod],
        "sdot",
    ),
    sequence(
        OpCode::Dot4,
        Type::I32.x(4),
        Sequence::SignedDot,
        &[Dotprod],
        "sdot",
    ),
    generic(OpCode::Mulhi, Type::I32.x(4), &[Neon], "smull"),
    generic(OpCode::Requant, Type::I32.x(4), &[Neon], "smlal"),
    generic(OpCode::Zip4, Type::I8.x(16), &[Neon], "zip1"),
    sequence(
        OpCode::Pack4U8,
        Type::I8.x(16),
        Sequence::Narrow,
        &[Neon],
        "sqxtun",
    ),
    sequence(
        OpCode::Lut256,
        Type::I8.x(16),
        Sequence::Table64,
        &[Neon],
        "tbl",
    ),
];

const FEATURES: &[Feature] = &[Neon, Dotprod];

pub(crate) static TARGET: Target = Target {
    name: "aarch64-dotprod",
    archs: &[Arch::Aarch64],
    llvm_cpu: "",
    features: FEATURES,
    optional: &[],
    vector_bytes: 16,
    registers: 32,
    dot: DotSigns::S8S8,
    rows: ROWS,
    costs: Costs {
        dot: 5,
        narrow: 5,
        pair: 10,
        load: 5,
        store: 10,
        requant: 40,
        product: 10,
        simple: 5,
        shuffle: 7,
        lut: 80,
        trip: 10,
        call: 300,
        tile: None,
        cache: [64 * 1024, 512 * 1024],
        lines: [20, 40, 100],
        mhz: 2500,
    },
};
