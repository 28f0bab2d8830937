//! Bias correction, layer by layer in the quantised network.
//!
//! Rounding weights shifts the mean of every channel; each layer is given the mean that the float network has, on the
//! same samples and with all layers before it corrected already (Nagel et al. 2019, measured instead of derived).

use std::collections::HashMap;

use lowbit_ir::eval::{EvalError, Plan};
use lowbit_ir::ops::IntConv;
use lowbit_ir::{Op, Tensor, ValueId};
use lowbit_num::real;
use rayon::prelude::*;

use super::{Layer, Quantized};
use crate::bounds;

/// Why the biases could not be corrected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BiasError {
    /// The integer graph failed on a sample.
    #[error("sample {sample}: {error}")]
    Eval {
        /// Index of the sample.
        sample: usize,
        /// What failed.
        error: EvalError,
    },
}

type Live = HashMap<ValueId, Tensor>;

/// Corrects the bias of every layer. `samples` holds the codes of each input for each sample; `mean` gives the mean of a
/// float tensor by channel over the same samples.
///
/// # Errors
/// A sample that the graph cannot be run on.
pub fn correct_biases(
    quantized: &mut Quantized,
    samples: &[Vec<Tensor>],
    mean: &(dyn Fn(ValueId) -> Vec<f64> + Sync),
    progress: &mut dyn FnMut(usize, usize),
) -> Result<(), BiasError> {
    let layers: HashMap<ValueId, Layer> = quantized
        .layers
        .iter()
        .map(|l| (l.int, l.clone()))
        .collect();
    let plan = Plan::new(&quantized.graph);
    let inputs = quantized.graph.inputs().to_vec();
    let start = |s: &Vec<Tensor>| inputs.iter().copied().zip(s.iter().cloned()).collect();
    let mut live: Vec<Live> = samples.iter().map(start).collect();
    let nodes: Vec<_> = quantized.graph.nodes().map(|(id, _)| id).collect();
    for (at, &id) in nodes.iter().enumerate() {
        progress(at, nodes.len());
        let node = quantized.graph.node(id).clone();
        if let (Op::IntConv(op), Some(layer)) = (&node.op, layers.get(&node.output)) {
            let sums = tap_sums(quantized, op, &node.inputs, &live);
            correct(
                quantized,
                op,
                &node.inputs,
                layer,
                &sums,
                &mean(layer.float),
            );
        }
        let graph = &quantized.graph;
        live.par_iter_mut()
            .enumerate()
            .try_for_each(|(sample, live)| {
                let operands: Vec<Tensor> = node
                    .inputs
                    .iter()
                    .map(|&v| {
                        graph
                            .as_const(v)
                            .map_or_else(|| live[&v].clone(), |c| c.as_ref().clone())
                    })
                    .collect();
                let result =
                    node.op
                        .eval(&operands.iter().collect::<Vec<_>>())
                        .map_err(|error| {
                            let name = graph.value(node.output).name.clone();
                            BiasError::Eval {
                                sample,
                                error: EvalError::Node {
                                    name,
                                    op: node.op.name(),
                                    error,
                                },
                            }
                        })?;
                live.insert(node.output, result);
                plan.dead_after(at).iter().for_each(|v| {
                    live.remove(v);
                });
                Ok(())
            })?;
    }
    Ok(())
}

/// Sums of x over all output positions and samples, for each tap and channel, and the number of positions.
struct TapSums {
    sums: Vec<i64>,
    positions: i64,
}

fn tap_sums(quantized: &Quantized, op: &IntConv, inputs: &[ValueId], live: &[Live]) -> TapSums {
    let kernel = quantized.graph.shape(inputs[1]);
    let kernel = [kernel[1], kernel[2]];
    let parts: Vec<(Vec<i64>, i64)> = live
        .par_iter()
        .map(|l| op.tap_sums(&l[&inputs[0]], kernel))
        .collect();
    let mut total = TapSums {
        sums: vec![0; parts.first().map_or(0, |p| p.0.len())],
        positions: 0,
    };
    for (sums, positions) in parts {
        total.sums.iter_mut().zip(sums).for_each(|(t, s)| *t += s);
        total.positions += positions;
    }
    total
}

fn correct(
    quantized: &mut Quantized,
    op: &IntConv,
    inputs: &[ValueId],
    layer: &Layer,
    taps: &TapSums,
    mean: &[f64],
) {
    let constant = |v: ValueId| {
        quantized
            .graph
            .as_const(v)
            .expect("parameters are constants")
            .clone()
    };
    let (w, b) = (constant(inputs[1]), constant(inputs[2]));
    let weights = w.as_slice::<i8>();
    let mut biases = b.as_slice::<i32>().to_vec();
    let channels = biases.len();
    let cg = w.shape()[3];
    let per_channel = weights.len() / channels;
    for o in 0..channels {
        let row = &weights[o * per_channel..][..per_channel];
        let first = o / (channels / op.groups) * cg;
        let acc: i64 = row
            .iter()
            .enumerate()
            .map(|(i, &q)| i64::from(q) * taps.sums[i / cg * cg * op.groups + first + i % cg])
            .sum();
        let sum: i64 = row.iter().map(|&q| i64::from(q)).sum();
        let centred = acc as f64 / taps.positions as f64 - (i64::from(op.pad_code) * sum) as f64;
        let scale = layer.accumulator_scale[o];
        let shift = mean[o] - (scale * centred + layer.bias[o]);
        let step = real::round_i64(shift / scale);
        if let Ok(b) = i32::try_from(i64::from(biases[o]) + step) {
            biases[o] = b;
        }
    }
    let corrected = Tensor::new([channels], biases);
    let m = inputs.get(3).map(|&m| constant(m));
    if bounds::proved(op, &w, &corrected, m.as_deref()) {
        quantized.graph.replace_constant(inputs[2], corrected);
    }
}
