//! From what a user names to a level and its features.

use crate::row::{Row, Target};
use crate::{ALL, Arch, Feature, host};
use lowbit_kernel::{OpCode, Type};
use std::collections::BTreeSet;
use thiserror::Error;

/// A level on a triple, with the optional features that the processor has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedTarget {
    /// The level.
    pub level: &'static Target,
    /// Family.
    pub arch: Arch,
    /// LLVM triple.
    pub triple: String,
    /// The processor as it was named, `native` resolved to the level's name.
    pub cpu: String,
    /// Features that code may use and `check_cpu` asks for.
    pub features: BTreeSet<Feature>,
}

/// Why a target cannot be resolved.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TargetError {
    /// The triple's family or object format has no code generator.
    #[error(
        "target `{0}` is not supported: give an ELF triple of x86_64 or aarch64, such as x86_64-unknown-linux-gnu"
    )]
    Triple(String),
    /// The processor is unknown.
    #[error(
        "processor `{cpu}` is not known for {triple}: give `native`, one of {known}, or a level of `lowbit targets`"
    )]
    Cpu {
        /// What was asked for.
        cpu: String,
        /// For which triple.
        triple: String,
        /// Names that would do.
        known: String,
    },
    /// `native` on another family than the host's.
    #[error(
        "`native` names the host's processor, but the target is {0}: give a processor or a level"
    )]
    NotHost(String),
}

impl ResolvedTarget {
    /// The row of an operation with a result of `ty`, if the level has one whose needs are met.
    pub fn row(&self, op: OpCode, ty: Type) -> Option<&'static Row> {
        let rows = self.level.rows.iter();
        rows.filter(|r| r.op == op && r.ty == ty)
            .find(|r| r.needs.iter().all(|f| self.features.contains(f)))
    }

    /// The row with the most lanes that a wider result of `ty` splits into.
    pub fn split_row(&self, op: OpCode, ty: Type) -> Option<&'static Row> {
        let fits = |r: &&Row| {
            r.op == op
                && r.ty.scalar == ty.scalar
                && r.ty.lanes < ty.lanes
                && ty.lanes.is_multiple_of(r.ty.lanes)
        };
        let met = |r: &&Row| r.needs.iter().all(|f| self.features.contains(f));
        let rows = self.level.rows.iter().filter(fits).filter(met);
        rows.rev().max_by_key(|r| r.ty.lanes)
    }

    /// What `--cpu` takes for these features again: what was given, or a processor that has them.
    pub fn again(&self) -> &str {
        let all = |t: &Self, of: &Self| t.features.iter().all(|f| of.features.contains(f));
        let same = |cpu: &&str| {
            let found = named(self.arch, self.triple.clone(), cpu).ok();
            found.is_some_and(|t| t.level.name == self.level.name && all(&t, self) && all(self, &t))
        };
        let own = [self.cpu.as_str(), self.level.name].into_iter();
        let mut names = own.chain(PROCESSORS.iter().map(|p| p.0));
        names.find(same).unwrap_or("native")
    }

    /// LLVM's feature string: `+avx2,+bmi…`.
    pub fn llvm_features(&self) -> String {
        let names: Vec<_> = self.features.iter().map(|f| format!("+{f}")).collect();
        names.join(",")
    }
}

/// Processor names of LLVM, their level, and which optional features they have.
const PROCESSORS: &[(&str, &str, &[Feature])] = &[
    ("x86-64", "portable", &[]),
    ("x86-64-v2", "portable", &[]),
    ("haswell", "x86-64-v3", &[]),
    ("broadwell", "x86-64-v3", &[]),
    ("skylake", "x86-64-v3", &[]),
    ("alderlake", "x86-64-avxvnni", &[]),
    ("raptorlake", "x86-64-avxvnni", &[]),
    ("meteorlake", "x86-64-avxvnni", &[]),
    ("sierraforest", "x86-64-avxvnni", &[]),
    ("znver1", "x86-64-v3", &[]),
    ("znver2", "x86-64-v3", &[]),
    ("znver3", "x86-64-v3", &[]),
    ("skylake-avx512", "x86-64-v3", &[]),
    ("x86-64-v4", "x86-64-v3", &[]),
    ("cascadelake", "x86-64-vnni", &[]),
    ("cooperlake", "x86-64-vnni", &[]),
    ("icelake-client", "x86-64-vnni", ICE),
    ("icelake-server", "x86-64-vnni", ICE),
    ("tigerlake", "x86-64-vnni", ICE),
    ("rocketlake", "x86-64-vnni", ICE),
    ("sapphirerapids", "x86-64-amx", ICE),
    ("emeraldrapids", "x86-64-amx", ICE),
    ("graniterapids", "x86-64-amx", ICE),
    ("znver4", "x86-64-vnni", ICE),
    ("znver5", "x86-64-vnni", ICE),
    ("cortex-a53", "aarch64-neon", &[]),
    ("cortex-a57", "aarch64-neon", &[]),
    ("cortex-a72", "aarch64-neon", &[]),
    ("cortex-a73", "aarch64-neon", &[]),
    ("cortex-a55", "aarch64-dotprod", &[]),
    ("cortex-a76", "aarch64-dotprod", &[]),
    ("cortex-a78", "aarch64-dotprod", &[]),
    ("cortex-x1", "aarch64-dotprod", &[]),
    ("neoverse-n1", "aarch64-dotprod", &[]),
    ("neoverse-v1", "aarch64-i8mm", &[]),
    ("neoverse-n2", "aarch64-i8mm", &[]),
    ("neoverse-v2", "aarch64-i8mm", &[]),
    ("apple-m1", "aarch64-dotprod", &[]),
    ("cortex-x2", "aarch64-i8mm", &[]),
    ("cortex-a710", "aarch64-i8mm", &[]),
    ("apple-m2", "aarch64-i8mm", &[]),
    ("generic", "portable", &[]),
];

const ICE: &[Feature] = &[
    Feature::Avx512vbmi,
    Feature::Avx512bitalg,
    Feature::Avx512vpopcntdq,
];

/// Resolves what `--target` and `--cpu` say. Without a triple the host's family is meant; without a processor `native`
/// where the triple is the host's family, else what every processor of the triple's family has.
///
/// # Errors
/// The triple or the processor is not known, or `native` is asked for on another family.
pub fn resolve(triple: Option<&str>, cpu: Option<&str>) -> Result<ResolvedTarget, TargetError> {
    let triple = match triple {
        Some(t) => t.to_owned(),
        None => implied_arch(cpu)
            .unwrap_or_else(host::arch)
            .default_triple()
            .to_owned(),
    };
    let arch = Arch::of_triple(&triple).filter(|_| is_elf(&triple));
    let arch = arch.ok_or_else(|| TargetError::Triple(triple.clone()))?;
    match cpu.unwrap_or(match arch {
        own if own == host::arch() => "native",
        Arch::Aarch64 => "aarch64-neon",
        _ => "portable",
    }) {
        "native" if arch != host::arch() => Err(TargetError::NotHost(triple)),
        "native" => Ok(native(arch, triple)),
        cpu => named(arch, triple, cpu),
    }
}

fn is_elf(triple: &str) -> bool {
    !["darwin", "macos", "ios", "windows", "wasm", "uefi"]
        .iter()
        .any(|other| triple.contains(other))
}

fn implied_arch(cpu: Option<&str>) -> Option<Arch> {
    let level = level_of(cpu?)?.0;
    (level.archs.len() == 1).then(|| level.archs[0])
}

fn level_of(cpu: &str) -> Option<(&'static Target, &'static [Feature])> {
    let level = |name: &str| ALL.iter().copied().find(|t| t.name == name);
    match level(cpu) {
        Some(t) => Some((t, &[])),
        None => {
            let (_, name, extra) = PROCESSORS.iter().find(|(p, ..)| *p == cpu)?;
            Some((level(name)?, extra))
        }
    }
}

fn base(arch: Arch) -> impl Iterator<Item = Feature> {
    let of_arch = move |f: &Feature| f.arch() == arch && f.probe() == crate::Probe::Base;
    Feature::ALL.iter().copied().filter(of_arch)
}

fn with(
    level: &'static Target,
    arch: Arch,
    triple: String,
    cpu: &str,
    extra: impl Iterator<Item = Feature>,
) -> ResolvedTarget {
    let features = level
        .features
        .iter()
        .copied()
        .chain(extra)
        .chain(base(arch))
        .collect();
    ResolvedTarget {
        level,
        arch,
        triple,
        cpu: cpu.to_owned(),
        features,
    }
}

fn named(arch: Arch, triple: String, cpu: &str) -> Result<ResolvedTarget, TargetError> {
    match level_of(cpu).filter(|(level, _)| level.archs.contains(&arch)) {
        Some((level, extra)) => Ok(with(level, arch, triple, cpu, extra.iter().copied())),
        None => {
            let of_arch =
                |name: &&&str| level_of(name).is_some_and(|(l, _)| l.archs.contains(&arch));
            let levels = ALL.iter().map(|t| &t.name);
            let known: Vec<_> = levels
                .chain(PROCESSORS.iter().map(|p| &p.0))
                .filter(of_arch)
                .copied()
                .collect();
            Err(TargetError::Cpu {
                cpu: cpu.to_owned(),
                triple,
                known: known.join(", "),
            })
        }
    }
}

/// The host without a feature that its processor has but its system refuses.
pub fn native_without(refused: Feature) -> ResolvedTarget {
    let arch = host::arch();
    let has = |f| f != refused && host::has(f);
    strongest(arch, arch.default_triple().to_owned(), has)
}

fn native(arch: Arch, triple: String) -> ResolvedTarget {
    strongest(arch, triple, host::has)
}

/// The last level of [`ALL`] whose features there are: levels are listed from weak to strong.
fn strongest(arch: Arch, triple: String, has: impl Fn(Feature) -> bool) -> ResolvedTarget {
    let fits = |t: &&&Target| t.archs.contains(&arch) && t.features.iter().all(|&f| has(f));
    let level = ALL
        .iter()
        .rev()
        .find(fits)
        .copied()
        .expect("`portable` needs nothing");
    let extra = level
        .optional
        .iter()
        .copied()
        .filter(|&f| f.arch() == arch && has(f));
    with(level, arch, triple, level.name, extra)
}
