//! How long a network takes: layers as they were measured, all else as measured or as its kernels' texts cost.

use std::collections::HashMap;

use lowbit_ir::{Graph, ValueId};
use lowbit_targets::ResolvedTarget;

use super::{Geometry, LatencyTable, kernel_us};
use crate::lower::Lowered;
use crate::quantize::Quantized;

/// Microseconds of one inference by what is computed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NetworkTime {
    /// Of each layer, by the value that it computes.
    pub layers: HashMap<ValueId, f64>,
    /// Of what is no layer of weights.
    pub others: HashMap<ValueId, f64>,
    /// Parts that the table does not have, whose times are predicted.
    pub predicted: usize,
}

impl NetworkTime {
    /// Of all together.
    pub fn total_us(&self) -> f64 {
        sum(&self.layers) + self.others_us()
    }

    /// Of all that is no layer of weights.
    pub fn others_us(&self) -> f64 {
        sum(&self.others)
    }
}

/// In a fixed order, which a sum of floats depends on.
fn sum(us: &HashMap<ValueId, f64>) -> f64 {
    let mut all: Vec<f64> = us.values().copied().collect();
    all.sort_by(f64::total_cmp);
    all.iter().sum()
}

/// The time of a lowered network whose object touches `resident` bytes between two runs of a kernel.
pub fn network_us(
    quantized: &Quantized,
    lowered: &Lowered,
    resident: usize,
    target: &ResolvedTarget,
    table: &LatencyTable,
) -> NetworkTime {
    let (graph, program) = (&quantized.graph, &lowered.program);
    let kernels: Vec<f64> = program
        .kernels
        .iter()
        .map(|k| kernel_us(k, resident, target))
        .collect();
    let mut texts: HashMap<ValueId, f64> = HashMap::new();
    for (call, &value) in program.calls.iter().zip(&lowered.computes) {
        *texts.entry(value).or_default() += kernels[call.kernel];
    }
    let mut time = NetworkTime::default();
    for layer in &quantized.layers {
        let text = texts.remove(&layer.int).unwrap_or(0.0);
        let geometry = Geometry::of(graph, layer.int, resident);
        let measured = geometry.and_then(|g| table.measured(target, &g, layer.weights));
        time.predicted += usize::from(measured.is_none());
        time.layers.insert(layer.int, measured.unwrap_or(text));
    }
    for (value, text) in texts {
        let measured = table.others.get(&other_key(graph, value)).copied();
        let measured = measured.filter(|_| table.level == target.level.name);
        time.predicted += usize::from(measured.is_none());
        time.others.insert(value, measured.unwrap_or(text));
    }
    time
}

/// What tables call a value that is no layer's: its operation and all types.
pub fn other_key(graph: &Graph, v: ValueId) -> String {
    let ty = |v: ValueId| {
        let ty = graph.ty(v);
        let shape: Vec<String> = ty.shape.iter().map(ToString::to_string).collect();
        format!("{} {}", ty.dtype.name(), shape.join("x"))
    };
    match graph.producer(v) {
        None => format!("input {}", ty(v)),
        Some(node) => {
            let inputs: Vec<String> = node.inputs.iter().map(|&i| ty(i)).collect();
            format!("{} {} -> {}", node.op.name(), inputs.join(", "), ty(v))
        }
    }
}
