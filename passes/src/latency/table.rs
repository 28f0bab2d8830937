//! Measured latencies.

use std::collections::BTreeMap;

use lowbit_num::Format;
use lowbit_targets::ResolvedTarget;
use serde::{Deserialize, Serialize};

use super::{Geometry, latency_us};

/// Measured microseconds by layer and weight format, which take the place of predictions.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct LatencyTable {
    /// The feature level that was measured.
    pub level: String,
    /// The processor that was measured, as the system names it.
    #[serde(default)]
    pub processor: String,
    /// [`Geometry::key`] → name of the weight format → microseconds.
    pub layers: BTreeMap<String, BTreeMap<String, f64>>,
    /// [`super::other_key`] → microseconds, of what is no layer of weights.
    #[serde(default)]
    pub others: BTreeMap<String, f64>,
}

impl LatencyTable {
    /// What was measured of a layer, else what [`latency_us`] predicts.
    pub fn us(&self, target: &ResolvedTarget, layer: &Geometry, weights: Format) -> f64 {
        self.measured(target, layer, weights)
            .unwrap_or_else(|| latency_us(target, layer, weights))
    }

    /// What was measured of a layer on the target's level. Both grids of 2 or of 3 bits take the same time; floats that were
    /// not measured take that of integers with as many bits.
    pub fn measured(
        &self,
        target: &ResolvedTarget,
        layer: &Geometry,
        weights: Format,
    ) -> Option<f64> {
        let formats = self.layers.get(&layer.key())?;
        let us = formats.get(weights.name()).or_else(|| match weights {
            Format::E2M1 => formats.get(Format::Int4.name()),
            Format::E2M2 => formats.get(Format::Int5.name()),
            Format::E2M3 => formats.get(Format::Int6.name()),
            other => formats.get(other.family().name()),
        });
        us.copied().filter(|_| self.level == target.level.name)
    }

    /// Adds a measurement.
    pub fn insert(&mut self, layer: &Geometry, weights: Format, us: f64) {
        let formats = self.layers.entry(layer.key()).or_default();
        formats.insert(weights.name().into(), us);
    }
}

#[cfg(test)]
mod tests {
    use super::super::layer::tests::layer;
    use super::*;

    #[test]
    fn measurements_go_before_predictions_on_their_level() {
        let target = |cpu| lowbit_targets::resolve(None, Some(cpu)).expect("a level");
        let l = layer(16, 3, 4);
        let mut table = LatencyTable {
            level: "x86-64-v3".into(),
            ..LatencyTable::default()
        };
        table.insert(&l, Format::Int4, 123.0);
        let us = |cpu, format| table.us(&target(cpu), &l, format);
        assert_eq!(us("x86-64-v3", Format::Int4), 123.0);
        assert!(us("x86-64-v3", Format::Int8) < 100.0);
        assert!(us("x86-64-vnni", Format::Int4) < 100.0);
    }
}
