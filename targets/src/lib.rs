//! Target descriptions: data, one file a feature level.
//!
//! A [`Target`] says how wide its vectors are, which signs its byte dot product takes, and by a table of [`Row`]s how semantic
//! operations become its instructions. The backend reads the rows; kernels are written against the level's sizes. A new level
//! is a new file and an entry in [`ALL`].
#![forbid(unsafe_code)]

mod aarch64_dotprod;
mod aarch64_i8mm;
mod aarch64_neon;
mod feature;
mod host;
mod portable;
mod resolve;
mod row;
mod x86_64_amx;
mod x86_64_avxvnni;
mod x86_64_v3;
mod x86_64_vnni;

pub use feature::{Arch, CpuidRegister, Feature, Probe};
pub use resolve::{ResolvedTarget, TargetError, native_without, resolve};
pub use row::{Costs, DotSigns, Row, Rule, Sequence, Target, TileCosts};

/// Every level, in each family from weak to strong.
pub static ALL: &[&Target] = &[
    &portable::TARGET,
    &x86_64_v3::TARGET,
    &x86_64_avxvnni::TARGET,
    &x86_64_vnni::TARGET,
    &x86_64_amx::TARGET,
    &aarch64_neon::TARGET,
    &aarch64_dotprod::TARGET,
    &aarch64_i8mm::TARGET,
];

#[cfg(test)]
mod tests;
