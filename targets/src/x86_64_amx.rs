//! AVX-512 with VNNI, and matrix tiles of bytes. Kernels choose between tiles and vectors by their estimated time.
//!
//! The costs of tiles, products and caches were measured on one core of a Sapphire Rapids server.

use crate::Arch;
use crate::Feature::{
    self, AmxInt8, AmxTile, Avx512bitalg, Avx512bw, Avx512cd, Avx512dq, Avx512f, Avx512vbmi,
    Avx512vl, Avx512vnni, Avx512vpopcntdq, Sse2,
};
use crate::row::{Costs, DotSigns, Target, TileCosts};
use crate::x86_64_vnni::ROWS;

const FEATURES: &[Feature] = &[
    Sse2,
    Feature::Ssse3,
    Feature::Sse41,
    Feature::Sse42,
    Feature::Popcnt,
    Feature::Avx,
    Feature::Avx2,
    Feature::Bmi,
    Feature::Bmi2,
    Avx512f,
    Avx512dq,
    Avx512cd,
    Avx512bw,
    Avx512vl,
    Avx512vnni,
    AmxTile,
    AmxInt8,
];

pub(crate) static TARGET: Target = Target {
    name: "x86-64-amx",
    archs: &[Arch::X86_64],
    llvm_cpu: "",
    features: FEATURES,
    optional: &[Avx512vbmi, Avx512bitalg, Avx512vpopcntdq],
    vector_bytes: 64,
    registers: 32,
    dot: DotSigns::U8S8,
    rows: ROWS,
    costs: Costs {
        dot: 5,
        narrow: 6,
        pair: 5,
        load: 5,
        store: 10,
        requant: 16,
        product: 10,
        simple: 5,
        shuffle: 10,
        lut: 50,
        trip: 5,
        call: 270,
        tile: Some(TileCosts {
            product: 160,
            least: 93,
            load: 85,
            far: 190,
            crossing: 17,
            store: 160,
            configure: 1800,
        }),
        cache: [48 * 1024, 2048 * 1024],
        lines: [6, 12, 66],
        mhz: 2700,
    },
};
