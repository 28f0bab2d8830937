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
        load: 5,
        store: 10,
        requant: 120,
        simple: 5,
        lut: 500,
    },
};
