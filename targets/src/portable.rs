//! What every processor of a family has: plain LLVM operations only.

use crate::row::{Costs, DotSigns, Target};
use crate::{Arch, Feature};

pub(crate) static TARGET: Target = Target {
    name: "portable",
    archs: &[Arch::X86_64, Arch::Aarch64],
    llvm_cpu: "",
    features: &[],
    optional: &[Feature::Sse2, Feature::Neon],
    vector_bytes: 16,
    registers: 16,
    dot: DotSigns::U8S8,
    rows: &[],
    costs: Costs {
        dot: 120,
        narrow: 120,
        pair: 40,
        load: 5,
        store: 10,
        requant: 120,
        product: 40,
        simple: 5,
        shuffle: 10,
        lut: 500,
        trip: 10,
        call: 300,
        tile: None,
        cache: [32 * 1024, 256 * 1024],
        lines: [20, 60, 100],
        mhz: 2500,
    },
};
