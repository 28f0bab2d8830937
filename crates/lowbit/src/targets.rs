//! `lowbit targets`: what objects can be written for.

use lowbit_targets::{Feature, ResolvedTarget, TargetError};
use serde::Serialize;

/// What `--target` and `--cpu` say; `native` is without tiles where the system refuses them.
///
/// # Errors
/// As [`lowbit_targets::resolve`].
pub(crate) fn resolve(
    triple: Option<&str>,
    cpu: Option<&str>,
) -> Result<ResolvedTarget, TargetError> {
    let target = lowbit_targets::resolve(triple, cpu)?;
    let native = cpu.is_none_or(|cpu| cpu == "native");
    if !native || !target.features.contains(&Feature::AmxTile) || lowbit_load::tiles_permitted() {
        return Ok(target);
    }
    Ok(ResolvedTarget {
        triple: target.triple,
        ..lowbit_targets::native_without(Feature::AmxTile)
    })
}

/// A feature level.
#[derive(Clone, Debug, Serialize)]
pub struct Level {
    /// Name that `--cpu` takes.
    pub name: String,
    /// Processor families.
    pub archs: Vec<String>,
    /// Features that every processor of the level has.
    pub features: Vec<String>,
    /// Bytes of a vector.
    pub vector_bytes: usize,
    /// Whether it is what `native` means here.
    pub native: bool,
}

/// Every level.
pub fn targets() -> Vec<Level> {
    let native = resolve(None, None).ok().map(|t| t.level.name);
    let level = |t: &&lowbit_targets::Target| Level {
        name: t.name.into(),
        archs: t
            .archs
            .iter()
            .map(|a| format!("{a:?}").to_lowercase())
            .collect(),
        features: t.features.iter().map(ToString::to_string).collect(),
        vector_bytes: t.vector_bytes,
        native: native == Some(t.name),
    };
    lowbit_targets::ALL.iter().map(level).collect()
}
