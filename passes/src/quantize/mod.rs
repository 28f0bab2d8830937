//! Quantisation: a simplified float graph and the ranges of its tensors become an integer graph.
//!
//! Weights are symmetric per output channel, in the format of their layer, activations affine per tensor. A convolution, the residual added to it
//! and the clamp behind it become one node that rounds once. Elementwise functions of one tensor become one table.
//! What is given out, and what only a softmax reads that is given out, leaves with 16 bits. One file an operation.

mod activations;
mod arithmetic;
mod conv;
mod fit;
mod formats;
pub(crate) mod fuse;
mod lookup;
mod mean;
mod normalize;
mod params;
mod product;
mod rough;
mod shape;
mod softmax;
#[cfg(test)]
pub(crate) mod tests;
pub mod weights;

use std::collections::HashMap;

use lowbit_ir::ops::{BinaryFn, Codes, PoolKind, UnaryFn};
use lowbit_ir::{DType, Graph, Node, NodeId, Op, OpError, Tensor, Type, ValueId};
use lowbit_num::Format;

use activations::Activations;
use fit::Feed;
use fit::alone::Alone;
pub use fit::alone::{Rounded, round_alone};
pub use fit::{Fit, FitError, Rounding, Solver};
pub use formats::{Formats, LayerFormats};
use fuse::{Fusion, Role};
pub use params::Affine;

/// The range of real values that a tensor of the float graph is quantised for.
pub trait Ranges {
    /// Lowest and highest value for codes of `bits` bits; both finite, 0 between them.
    fn range(&self, value: ValueId, bits: u32) -> (f64, f64);
    /// Lowest and highest value seen, without any clipping.
    fn extremes(&self, value: ValueId) -> (f64, f64);
}

/// A node that cannot be quantised.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{name}' ({op}): {message}")]
pub struct Problem {
    /// Name of the node's result in the model.
    pub name: String,
    /// The operation.
    pub op: &'static str,
    /// What stands in the way and what to do.
    pub message: String,
}

/// What a weighted layer became.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Name in the model.
    pub name: String,
    /// The convolution's result in the float graph, before residual and clamp.
    pub float: ValueId,
    /// The node in the integer graph, by its result.
    pub int: ValueId,
    /// Real value of one unit of the accumulator, by channel.
    pub accumulator_scale: Vec<f64>,
    /// Bias, by channel; corrected where the layer was fitted.
    pub bias: Vec<f64>,
    /// Real scale of the weights, by channel.
    pub weight_scale: Vec<f64>,
    /// Format of the weights: the one that was asked for, or the one of the same bits that errs less.
    pub weights: Format,
    /// Bits of the tensor that the layer reads.
    pub activation_bits: u32,
    /// How the weights were rounded.
    pub rounding: Rounding,
}

/// An integer graph with what is known about where it came from.
#[derive(Debug, Clone)]
pub struct Quantized {
    /// The graph, in the integer stage.
    pub graph: Graph,
    /// Weighted layers in execution order.
    pub layers: Vec<Layer>,
    /// Values of the float graph and the codes that stand for them.
    pub values: HashMap<ValueId, ValueId>,
    /// The float graph that codes stand for, where its channels were equalised and are not the model's.
    pub equalized: Option<Graph>,
    /// Bits of residual streams, where the graph has any that may have 16.
    pub stream_bits: Option<u32>,
}

/// Quantises weights and what layers read to the formats of the layers, other tensors to 8 bits and what is given out to 16.
///
/// A tensor has fewer than 8 bits where every reader is a layer that wants that, or moves it to one; where others read it
/// too, such as the sum at the end of a residual block, the layer gets a copy of its own.
///
/// # Errors
/// Every node that cannot be quantised.
pub fn quantize(
    float: &Graph,
    ranges: &dyn Ranges,
    formats: &Formats,
) -> Result<Quantized, Vec<Problem>> {
    match Builder::new(float, ranges, formats, None).run(&mut |_, _| {}) {
        Ok(quantized) => Ok(quantized),
        Err(FitError::Problems(problems)) => Err(problems),
        Err(FitError::Eval { .. }) => unreachable!("nothing is run"),
    }
}

/// Quantises as [`quantize`] does and fits each layer to the float network on samples.
///
/// # Errors
/// Nodes that cannot be quantised; a sample that the integer graph cannot be run on.
pub fn quantize_fitted(
    float: &Graph,
    ranges: &dyn Ranges,
    formats: &Formats,
    fit: &Fit,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Quantized, FitError> {
    Builder::new(float, ranges, formats, Some(fit)).run(progress)
}

/// A tensor of codes and what they mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Coded {
    pub(crate) id: ValueId,
    pub(crate) affine: Affine,
}

/// Why a node was not quantised.
pub(crate) enum Stop {
    /// It is at fault.
    Problem(String),
    /// It depends on a node that is.
    Poisoned,
}

impl From<OpError> for Stop {
    fn from(e: OpError) -> Self {
        Self::Problem(e.to_string())
    }
}

pub(crate) fn problem<T>(message: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Problem(message.into()))
}

pub(crate) struct Builder<'a> {
    pub(crate) float: &'a Graph,
    pub(crate) fusion: Fusion,
    ranges: &'a dyn Ranges,
    pub(crate) formats: &'a Formats,
    pub(crate) activations: Activations,
    pub(crate) out: Graph,
    coded: HashMap<ValueId, Option<Coded>>,
    /// Tensors again in fewer bits, for the layers that want that.
    recoded: HashMap<(ValueId, u32), Coded>,
    pub(crate) layers: Vec<Layer>,
    problems: Vec<Problem>,
    fit: Option<&'a Fit<'a>>,
    feed: Option<Feed>,
    /// Formats that all layers are rounded at besides.
    alone: Option<Alone<'a>>,
}

impl<'a> Builder<'a> {
    fn new(
        float: &'a Graph,
        ranges: &'a dyn Ranges,
        formats: &'a Formats,
        fit: Option<&'a Fit<'a>>,
    ) -> Self {
        let fusion = Fusion::new(float);
        Self {
            fit,
            feed: None,
            alone: None,
            float,
            activations: Activations::new(float, &fusion, formats),
            fusion,
            ranges,
            formats,
            out: Graph::new(float.name.clone()),
            coded: HashMap::new(),
            recoded: HashMap::new(),
            layers: Vec::new(),
            problems: Vec::new(),
        }
    }

    fn run(mut self, progress: &mut dyn FnMut(usize, usize)) -> Result<Quantized, FitError> {
        self.build(progress)?;
        self.outputs();
        self.finish().map_err(FitError::Problems)
    }

    /// Quantises all nodes; those that cannot be are noted.
    fn build(&mut self, progress: &mut dyn FnMut(usize, usize)) -> Result<(), FitError> {
        self.inputs();
        self.feed = self.fit.map(|fit| self.feed(fit));
        let nodes = self.float.nodes().len();
        for (at, (id, node)) in self.float.nodes().enumerate() {
            progress(at, nodes);
            self.visit(id, node);
            if let Some(feed) = self.feed.as_mut().filter(|_| self.problems.is_empty()) {
                feed.advance(&self.out)?;
                let coded = self.coded.iter().filter_map(|(&v, c)| Some((v, (*c)?.id)));
                let recoded = self.recoded.iter().map(|(&(v, _), c)| (v, c.id));
                feed.forget(at, coded.chain(recoded));
            }
        }
        progress(nodes, nodes);
        Ok(())
    }

    fn inputs(&mut self) {
        for &v in self.float.inputs() {
            let value = self.float.value(v);
            if !value.ty.dtype.is_float() {
                self.problems.push(Problem {
                    name: value.name.clone(),
                    op: "input",
                    message: format!(
                        "an input of type {} cannot be quantised; only float inputs can",
                        value.ty.dtype
                    ),
                });
                self.coded.insert(v, None);
                continue;
            }
            let (lo, hi) = self.ranges.extremes(v);
            let affine = Affine::u8(lo, hi);
            let quant = self.out.intern(affine.quant());
            let ty = Type {
                quant: Some(quant),
                ..Type::new(DType::U8, value.ty.shape.clone())
            };
            let id = self.out.input(value.name.clone(), ty);
            self.coded.insert(v, Some(Coded { id, affine }));
        }
    }

    fn visit(&mut self, id: NodeId, node: &Node) {
        let result = match self.fusion.role(id) {
            Role::Absorbed => return,
            Role::Conv(group) => self.conv(group),
            Role::Clamped(group) => self.sum(group),
            Role::Region => self.lookup(node),
            Role::Plain => self.plain(node),
        };
        let output = self.fusion.result(id, node.output);
        match result {
            Ok(coded) => {
                self.coded.insert(output, Some(coded));
            }
            Err(stop) => {
                self.coded.insert(output, None);
                if let Stop::Problem(message) = stop {
                    let name = self.float.value(node.output).name.clone();
                    self.problems.push(Problem {
                        name,
                        op: node.op.name(),
                        message,
                    });
                }
            }
        }
    }

    fn plain(&mut self, node: &Node) -> Result<Coded, Stop> {
        match &node.op {
            Op::Softmax(op) => self.softmax(node, op),
            Op::Normalize(op) => self.normalize(node, op),
            Op::MatMul(_) => self.matmul(node),
            Op::Pool(op) if op.kind == PoolKind::Max => self.same_codes(node),
            Op::Pool(op) => self.mean(node, op),
            Op::Reduce(op) => self.reduce(node, op),
            Op::Binary(op) => match op.0 {
                BinaryFn::Mul | BinaryFn::Div => self.multiply(node, op.0),
                BinaryFn::Add | BinaryFn::Sub => unreachable!("sums are groups"),
                BinaryFn::Max | BinaryFn::Min => self.extremum(node),
                other => problem(format!(
                    "{other:?} of two tensors has no integer form; it can be compiled where one operand is a single number"
                )),
            },
            Op::Concat(op) => self.concat(node, op),
            Op::Pad(op) => self.pad(node, op),
            Op::Gather(op) => self.gather(node, op),
            Op::Reshape(_) | Op::Transpose(_) | Op::Slice(_) | Op::Broadcast(_) => {
                self.same_codes(node)
            }
            Op::Unary(op) if op.0 == UnaryFn::Neg => {
                unreachable!("elementwise functions are regions")
            }
            other => problem(format!("{} has no integer form", other.name())),
        }
    }

    /// The codes of a float value in at most 8 bits, but for what is given out: those computed for it, or a constant's own.
    pub(crate) fn operand(&mut self, v: ValueId) -> Result<Coded, Stop> {
        if self.is_stream(v) {
            return self.layer_input(v, 8);
        }
        self.stored(v)
    }

    /// Whether a tensor is a residual stream of 16 bits.
    pub(crate) fn is_stream(&self, v: ValueId) -> bool {
        self.formats.wide_streams && self.fusion.is_stream(v)
    }

    /// The codes of a float value as they are stored.
    pub(crate) fn stored(&mut self, v: ValueId) -> Result<Coded, Stop> {
        if let Some(coded) = self.coded.get(&v) {
            return coded.ok_or(Stop::Poisoned);
        }
        let Some(tensor) = self.float.as_const(v) else {
            return Err(Stop::Poisoned);
        };
        let values = tensor.to_f64();
        let lo = values.iter().copied().fold(0.0, f64::min);
        let hi = values.iter().copied().fold(0.0, f64::max);
        let coded = self.encode_constant(v, Affine::u8(lo, hi));
        self.coded.insert(v, Some(coded));
        Ok(coded)
    }

    /// A constant of the float graph in codes of `affine`.
    pub(crate) fn encode_constant(&mut self, v: ValueId, affine: Affine) -> Coded {
        let value = self.float.value(v);
        let tensor = self.float.as_const(v).expect("the value is a constant");
        let codes = tensor
            .to_f64()
            .iter()
            .map(|&x| affine.encode(x) as u8)
            .collect();
        let quant = Some(self.out.intern(affine.quant()));
        let id = self.out.constant_quantized(
            value.name.clone(),
            Tensor::new(tensor.shape(), codes),
            quant,
        );
        Coded { id, affine }
    }

    /// The quantisation of a result: 16 bits where it is given out, else the bits that its readers want, for the range
    /// that a concatenation wants or its own.
    pub(crate) fn result_affine(&self, v: ValueId) -> Affine {
        if self.fusion.is_wide(v) {
            let (lo, hi) = self.ranges.extremes(v);
            return Affine::i16(lo, hi);
        }
        if self.is_stream(v) {
            return self.stream_affine(v);
        }
        self.narrow_affine(v, self.activations.bits(v))
    }

    /// The quantisation of a tensor as a residual stream of 16 bits.
    pub(crate) fn stream_affine(&self, v: ValueId) -> Affine {
        let (lo, hi) = self.ranges.range(v, 8);
        Affine::stream(lo, hi)
    }

    /// The quantisation of a tensor with at most 8 bits.
    pub(crate) fn narrow_affine(&self, v: ValueId, bits: u32) -> Affine {
        let (lo, hi) = self.ranges.range(self.fusion.range_source(v), bits);
        Affine::unsigned(lo, hi, bits)
    }

    /// Appends a node whose result has the codes of `affine`.
    pub(crate) fn emit(
        &mut self,
        v: ValueId,
        op: impl Into<Op>,
        operands: &[ValueId],
        affine: Affine,
    ) -> Result<Coded, Stop> {
        let name = self.float.value(v).name.clone();
        let id = self
            .out
            .push_quantized(name, op, operands, affine.quant())?;
        Ok(Coded { id, affine })
    }

    fn outputs(&mut self) {
        for o in self.float.outputs() {
            match self.operand(o.value) {
                Ok(coded) => self.out.output(o.name.clone(), coded.id),
                Err(_) if self.problems.is_empty() => self.problems.push(Problem {
                    name: o.name.clone(),
                    op: "output",
                    message: "the output is no tensor of codes".into(),
                }),
                Err(_) => {}
            }
        }
    }

    fn finish(self) -> Result<Quantized, Vec<Problem>> {
        if !self.problems.is_empty() {
            return Err(self.problems);
        }
        let values = self
            .coded
            .iter()
            .filter_map(|(&v, c)| Some((v, (*c)?.id)))
            .collect();
        let has_streams = self.fusion.has_streams();
        let bits = if self.formats.wide_streams { 16 } else { 8 };
        Ok(Quantized {
            graph: self.out,
            layers: self.layers,
            values,
            equalized: None,
            stream_bits: has_streams.then_some(bits),
        })
    }
}

/// Codes of a result with bounds on its real value.
pub(crate) fn clamped(affine: &Affine, lo: f64, hi: f64) -> Codes {
    let codes = affine.codes();
    Codes {
        lo: if lo.is_finite() {
            affine.encode(lo)
        } else {
            codes.lo
        },
        hi: if hi.is_finite() {
            affine.encode(hi)
        } else {
            codes.hi
        },
        ..codes
    }
}
