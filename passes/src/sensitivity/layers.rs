use lowbit_ir::{Graph, Node, NodeId, Op, SecondaryMap, Tensor, ValueId};
use lowbit_num::Format;
use rayon::prelude::*;

use super::floats::{FLOATS, float_share};
use super::measured::Values;
use super::{SensitivityError, stream};
use crate::loss::Objective;
use crate::quantize::{Affine, Fit, FitError, Ranges, round_alone, weights};

/// Formats of weights that are studied, widest first; `Int3` and `Int2` are the better of the two grids of as many bits.
pub const WEIGHTS: &[Format] = &[
    Format::Int8,
    Format::Int6,
    Format::Int5,
    Format::Int4,
    Format::Int3,
    Format::Int2,
    Format::Ternary,
];

/// What is studied of a layer: its weights at each of [`WEIGHTS`], then its input at 4 bits.
pub const COLUMNS: usize = WEIGHTS.len() + 1;

/// A convolution or linear layer with constant weights.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Name in the model.
    pub name: String,
    /// The convolution.
    pub node: NodeId,
    /// Its result in the float graph.
    pub output: ValueId,
    /// What it reads.
    pub input: ValueId,
    /// Its weights, `[O, KH, KW, C / groups]`.
    pub weight: ValueId,
    /// Number of weights.
    pub params: usize,
    /// Output channels.
    pub channels: usize,
    /// Multiply-accumulates of one inference.
    pub macs: usize,
}

impl Layer {
    /// Its bias, zeros where it has none.
    fn bias(&self, graph: &Graph) -> Tensor {
        let node = graph.node(self.node);
        let own = node.inputs.get(2).and_then(|&b| graph.as_const(b));
        let zeros = || {
            let zeros = vec![0.0; self.channels];
            Tensor::from_f64(graph.ty(self.output).dtype, [self.channels], zeros)
        };
        own.filter(|b| !b.is_empty())
            .map_or_else(zeros, |b| b.as_ref().clone())
    }
}

/// The layers of a simplified float graph, in execution order.
pub fn layers(graph: &Graph) -> Vec<Layer> {
    let weighted = graph.nodes().filter_map(|(id, node)| {
        let Op::Conv(_) = &node.op else {
            return None;
        };
        let weight = node.inputs[1];
        let shape = graph.as_const(weight)?.shape();
        let (params, channels) = (shape.iter().product::<usize>(), shape[0]);
        Some(Layer {
            name: graph.value(node.output).name.clone(),
            node: id,
            output: node.output,
            input: node.inputs[0],
            weight,
            params,
            channels,
            macs: graph.ty(node.output).elements() * (params / channels.max(1)),
        })
    });
    weighted.collect()
}

/// A network with its layers at every format: what all metrics start from.
pub struct Study<'a> {
    /// The simplified float graph.
    pub graph: &'a Graph,
    /// What is lost.
    pub objective: Objective,
    /// Layers with weights.
    pub layers: Vec<Layer>,
    /// Weights of each layer as its codes at each of [`WEIGHTS`] stand for them: the nearest ones, or see [`Study::fit`].
    pub rounded: Vec<Vec<Tensor>>,
    /// Biases to those weights, `[O]`: see [`Study::correct`].
    pub(super) biases: Vec<Vec<Tensor>>,
    /// 4-bit codes for each layer's input.
    inputs: Vec<Affine>,
    /// By layer and float of [`FLOATS`], see [`Study::shares`].
    shares: Vec<Vec<f64>>,
}

impl<'a> Study<'a> {
    /// Rounds the weights of all layers. `ranges` are asked for what layers read.
    pub fn new(graph: &'a Graph, ranges: &dyn Ranges, objective: Objective) -> Self {
        let layers = layers(graph);
        let rounded = layers.par_iter().map(|layer| {
            let w = graph.as_const(layer.weight).expect("weights are constant");
            WEIGHTS
                .iter()
                .map(|&f| rounded(w, layer.channels, f))
                .collect()
        });
        let inputs = layers.iter().map(|layer| {
            let (lo, hi) = ranges.range(layer.input, 4);
            Affine::unsigned(lo, hi, 4)
        });
        let biases = layers.iter().map(|l| vec![l.bias(graph); WEIGHTS.len()]);
        let share = |l| {
            FLOATS
                .iter()
                .map(move |&f| float_share(graph, l, f))
                .collect()
        };
        let shares = layers.par_iter().map(share).collect();
        Self {
            objective,
            rounded: rounded.collect(),
            biases: biases.collect(),
            inputs: inputs.collect(),
            shares,
            graph,
            layers,
        }
    }

    /// Rounds the weights of all layers as networks are fitted, with error feedback, where [`Fit`] asks for it.
    ///
    /// # Errors
    /// A node that cannot be quantised, or a sample that the integer network cannot be run on.
    pub fn fit(
        &mut self,
        ranges: &dyn Ranges,
        fit: &Fit,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<(), FitError> {
        let floats = FLOATS.iter().map(|f| f.0);
        let formats: Vec<Format> = WEIGHTS.iter().copied().chain(floats).collect();
        let mut found = round_alone(self.graph, ranges, &formats, fit, progress)?;
        for (l, rounded) in self.rounded.iter_mut().enumerate() {
            let Some(all) = found.remove(&self.layers[l].output) else {
                continue;
            };
            for (shares, (k, &(_, integer))) in
                self.shares[l].iter_mut().zip(FLOATS.iter().enumerate())
            {
                let at = WEIGHTS
                    .iter()
                    .position(|&w| w == integer)
                    .expect("integers are studied");
                let errors = all[WEIGHTS.len() + k].error.zip(all[at].error);
                if let Some((float, integer)) = errors.filter(|e| e.1 > 0.0) {
                    *shares = float / integer;
                }
            }
            for (old, new) in rounded.iter_mut().zip(all) {
                *old = Tensor::from_f64(old.dtype(), old.shape(), new.weights);
            }
        }
        Ok(())
    }

    /// What each layer adds to the loss at each of [`FLOATS`], in shares of what it adds at the integers of as many bits: that
    /// of squared errors of its output where it is fitted, else that of squared errors of its weights, to which losses are
    /// proportional as far as their second derivatives tell (HAWQ-V2).
    pub fn shares(&self) -> &[Vec<f64>] {
        &self.shares
    }

    /// Corrects the biases of all layers for what rounded weights add to the mean of each channel over `n` samples
    /// (Nagel et al. 2019, section 4.2), as no network is compiled without.
    ///
    /// # Errors
    /// A sample that cannot be read or run.
    pub fn correct<E: std::error::Error + Send + 'static>(
        &mut self,
        n: usize,
        sample: impl Fn(usize) -> Result<Vec<Tensor>, E> + Sync,
        progress: impl FnMut(usize, usize),
    ) -> Result<(), SensitivityError<E>> {
        let mut means: Vec<Vec<f64>> = (self.layers.iter())
            .map(|l| vec![0.0; self.graph.ty(l.input).elements()])
            .collect();
        let row = |sample: usize, inputs: &[Tensor]| {
            let values = Values::new(self.graph, inputs);
            let values = values.map_err(|error| SensitivityError::Eval { sample, error })?;
            let read = self.layers.iter().map(|l| values.get(l.input).to_f64());
            Ok(read.collect::<Vec<_>>())
        };
        stream::rows(n, sample, progress, row, |row: Vec<Vec<f64>>| {
            let all = means.iter_mut().flatten().zip(row.iter().flatten());
            all.for_each(|(mean, x)| *mean += x / n as f64);
        })?;
        let shifted = |(l, mean): (usize, &Vec<f64>)| self.shifted(l, mean);
        self.biases = means.par_iter().enumerate().map(shifted).collect();
        Ok(())
    }

    /// The biases of a layer that reads `mean` on average.
    fn shifted(&self, layer: usize, mean: &[f64]) -> Vec<Tensor> {
        let own = &self.layers[layer];
        let ty = self.graph.ty(own.input);
        let mean = Tensor::from_f64(ty.dtype, &ty.shape[..], mean.to_vec());
        let bias = own.bias(self.graph);
        let corrected = |format: usize| {
            let rounded = &self.rounded[layer][format];
            let w = self.graph.as_const(own.weight);
            let w = w.expect("weights are constant").to_f64();
            let errors = rounded.to_f64().into_iter().zip(w).map(|(r, w)| r - w);
            let error = Tensor::from_f64(ty.dtype, rounded.shape(), errors.collect());
            let Ok(added) = self.node(layer).op.eval(&[&mean, &error]) else {
                unreachable!("the layer was run on samples of this shape");
            };
            let added = added.to_f64();
            let pixels = (added.len() / own.channels.max(1)).max(1) as f64;
            let mut all = bias.to_f64();
            for row in added.chunks_exact(own.channels.max(1)) {
                let both = all.iter_mut().zip(row);
                both.for_each(|(b, x)| *b -= x / pixels);
            }
            Tensor::from_f64(bias.dtype(), bias.shape(), all)
        };
        (0..WEIGHTS.len()).map(corrected).collect()
    }

    pub(super) fn node(&self, layer: usize) -> &Node {
        self.graph.node(self.layers[layer].node)
    }

    /// What a layer would read with 4 bits.
    pub(super) fn coarse(&self, layer: usize, x: &Tensor) -> Tensor {
        let affine = self.inputs[layer];
        let real = x
            .to_f64()
            .into_iter()
            .map(|x| affine.decode(affine.encode(x)));
        Tensor::from_f64(x.dtype(), x.shape(), real.collect())
    }

    /// Error of what a layer reads at 4 bits.
    pub(super) fn input_error(&self, layer: usize, x: &Tensor) -> Vec<f64> {
        let coarse = self.coarse(layer, x).to_f64();
        coarse.iter().zip(x.to_f64()).map(|(c, x)| c - x).collect()
    }

    /// Errors of a layer's weights at the nearest codes of a format.
    pub(super) fn error(&self, layer: usize, format: usize) -> Vec<f64> {
        let own = &self.layers[layer];
        let w = self.graph.as_const(own.weight);
        let w = w.expect("weights are constant");
        let rounded = rounded(w, own.channels, WEIGHTS[format]).to_f64();
        rounded.iter().zip(w.to_f64()).map(|(r, w)| r - w).collect()
    }

    /// Errors of all layers at all formats.
    pub(super) fn errors(&self) -> Vec<Vec<Vec<f64>>> {
        let all = (0..self.layers.len()).into_par_iter();
        all.map(|l| (0..WEIGHTS.len()).map(|f| self.error(l, f)).collect())
            .collect()
    }

    /// Whether what is compared depends on a value, for all values.
    pub(super) fn needed(&self) -> SecondaryMap<ValueId, bool> {
        let mut needed = SecondaryMap::new();
        self.objective.values().for_each(|v| needed[v] = true);
        for (_, node) in self.graph.nodes().collect::<Vec<_>>().into_iter().rev() {
            if needed[node.output] {
                node.inputs.iter().for_each(|&v| needed[v] = true);
            }
        }
        needed
    }
}

pub(super) fn rounded(w: &Tensor, channels: usize, format: Format) -> Tensor {
    let x = w.to_f64();
    let per_channel = x.len() / channels.max(1);
    let format = weights::resolve(&x, per_channel, format);
    let scales = weights::scales(&x, per_channel, format);
    let rows = x.chunks_exact(per_channel.max(1)).zip(scales);
    let real = rows.flat_map(|(row, scale)| {
        let codes = weights::codes(row, scale, format);
        let value = move |q: i8| {
            if scale > 0.0 {
                scale * f64::from(q)
            } else {
                0.0
            }
        };
        codes.map(value).collect::<Vec<f64>>()
    });
    Tensor::from_f64(w.dtype(), w.shape(), real.collect())
}
