use std::collections::{HashMap, HashSet};

use lowbit_ir::derive::{DeriveError, Emit, Rules, gradient_with};
use lowbit_ir::ops::{BinaryFn, ReduceFn, UnaryFn};
use lowbit_ir::{DType, Graph, Node, Op, OpError, Quant, Tensor, ValueId};
use lowbit_num::real;

use super::Loss;
use crate::loss::softened;
use crate::quantize::fuse::{Fusion, is_pass_through};
use crate::quantize::{Layer, Quantized};

/// The graphs that training runs: the network on rounded weights, with its loss and the derivatives by what is trained.
pub(crate) struct Student {
    /// Inputs: those of the network, then the teacher's output. Outputs: one derivative a parameter.
    pub(crate) graph: Graph,
    /// The network alone, its values as in `graph`.
    pub(crate) network: Graph,
    /// Values of the float network and those that stand for them.
    pub(crate) values: HashMap<ValueId, ValueId>,
    /// Weights in the graph, then biases, layer by layer; `None` where a layer has no bias.
    pub(crate) parameters: Vec<(ValueId, Option<ValueId>)>,
    /// Scales of codes of few bits, behind the parameters.
    pub(crate) scales: Vec<InputScale>,
}

/// The scale of codes of few bits.
pub(crate) struct InputScale {
    /// The tensor of the float network whose range it is.
    pub(crate) source: ValueId,
    /// The constant in the graph.
    pub(crate) value: ValueId,
    pub(crate) grid: Grid,
}

/// The value whose distribution or size the loss compares: what a softmax at the end reads, or the output itself.
pub fn compared(float: &Graph) -> ValueId {
    let output = float.outputs()[0].value;
    match float.producer(output) {
        Some(node) if matches!(node.op, Op::Softmax(_)) => node.inputs[0],
        _ => output,
    }
}

impl Student {
    /// Of the whole network.
    pub(crate) fn new(
        float: &Graph,
        quantized: &Quantized,
        layers: &[&Layer],
        loss: Loss,
    ) -> Result<Self, DeriveError> {
        let whole = Stretch {
            from: float.inputs().to_vec(),
            to: compared(float),
        };
        Self::between(float, quantized, &whole, layers, loss)
    }

    /// Of a stretch of it.
    pub(crate) fn between(
        float: &Graph,
        quantized: &Quantized,
        stretch: &Stretch,
        layers: &[&Layer],
        loss: Loss,
    ) -> Result<Self, DeriveError> {
        let end = stretch.to;
        let narrow = narrow_inputs(float, quantized);
        let Copied {
            mut graph,
            map,
            scales,
        } = stretch.copied(float, &narrow)?;
        let parameters: Vec<(ValueId, Option<ValueId>)> = layers
            .iter()
            .map(|layer| {
                let inputs = &float
                    .producer(layer.float)
                    .expect("a layer is a node")
                    .inputs;
                (map[&inputs[1]], inputs.get(2).map(|b| map[b]))
            })
            .collect();
        let mut network = graph.clone();
        network.output("y", map[&end]);
        let teacher = graph.input("teacher", float.ty(end).clone());
        let loss =
            emit_loss(&mut graph, map[&end], teacher, loss).map_err(|error| DeriveError {
                name: "loss".into(),
                op: "loss",
                error,
            })?;
        let by: Vec<ValueId> = parameters
            .iter()
            .flat_map(|&(w, b)| [Some(w), b])
            .flatten()
            .chain(scales.iter().map(|s| s.value))
            .collect();
        let rules = Rules {
            straight_through: true,
        };
        let derivatives = gradient_with(&mut graph, loss, &by, rules)?;
        for (i, d) in derivatives.into_iter().enumerate() {
            graph.output(format!("d{i}"), d);
        }
        Ok(Self {
            graph,
            network,
            values: map,
            parameters,
            scales,
        })
    }
}

/// What lies between values and one that depends on nothing else.
pub(crate) struct Stretch {
    pub(crate) from: Vec<ValueId>,
    pub(crate) to: ValueId,
}

/// A stretch as a graph of its own.
struct Copied {
    graph: Graph,
    /// Values of the float network and those that stand for them.
    map: HashMap<ValueId, ValueId>,
    scales: Vec<InputScale>,
}

impl Stretch {
    /// The float network's stretch alone.
    pub(crate) fn float(&self, float: &Graph) -> Result<Graph, DeriveError> {
        let Copied { mut graph, map, .. } = self.copied(float, &HashMap::new())?;
        graph.output("y", map[&self.to]);
        Ok(graph)
    }

    fn copied(
        &self,
        float: &Graph,
        narrow: &HashMap<ValueId, Narrow>,
    ) -> Result<Copied, DeriveError> {
        let mut graph = Graph::new("student");
        let mut map: HashMap<ValueId, ValueId> = HashMap::new();
        for &v in &self.from {
            let value = float.value(v);
            map.insert(v, graph.input(value.name.clone(), value.ty.clone()));
        }
        let mut scales: Vec<InputScale> = Vec::new();
        for node in self.nodes(float) {
            for &v in &node.inputs {
                if let Some(c) = float.as_const(v) {
                    map.entry(v)
                        .or_insert_with(|| graph.constant(float.value(v).name.clone(), c.clone()));
                }
            }
            let mut inputs: Vec<ValueId> = node.inputs.iter().map(|v| map[v]).collect();
            let name = float.value(node.output).name.clone();
            let failed = |error: OpError| DeriveError {
                name: name.clone(),
                op: node.op.name(),
                error,
            };
            if let Some(&(source, grid, stored)) = narrow.get(&node.output) {
                let scale = scale_of(&mut graph, &mut scales, source, grid);
                if let Some(stored) = stored {
                    let constant = Tensor::from_f64(DType::F32, Vec::new(), vec![stored.scale]);
                    let step = graph.constant("step", constant);
                    inputs[0] = rounded(&mut graph, inputs[0], step, stored).map_err(failed)?;
                }
                inputs[0] = rounded(&mut graph, inputs[0], scale, grid).map_err(failed)?;
            }
            let output = graph
                .push(name.clone(), node.op.clone(), &inputs)
                .map_err(failed)?;
            map.insert(node.output, output);
        }
        Ok(Copied { graph, map, scales })
    }

    /// Its nodes, in order.
    pub(crate) fn nodes<'g>(&self, float: &'g Graph) -> Vec<&'g Node> {
        let mut wanted = HashSet::from([self.to]);
        let mut nodes: Vec<&Node> = float.nodes().map(|n| n.1).collect();
        nodes.reverse();
        nodes.retain(|node| {
            let keep = wanted.contains(&node.output) && !self.from.contains(&node.output);
            if keep {
                wanted.extend(&node.inputs);
            }
            keep
        });
        nodes.reverse();
        nodes
    }
}

/// Codes of few bits that a layer reads.
#[derive(Clone, Copy)]
pub(crate) struct Grid {
    pub(crate) scale: f64,
    pub(crate) zero_point: i32,
    pub(crate) highest: i32,
}

/// What a layer reads: the tensor whose range its codes have, their grid, and that of the wider codes which they are a
/// copy of.
type Narrow = (ValueId, Grid, Option<Grid>);

/// Layers, by their result, that read fewer than 8 bits.
fn narrow_inputs(float: &Graph, quantized: &Quantized) -> HashMap<ValueId, Narrow> {
    let fusion = Fusion::new(float);
    let grid = |quant: &Quant, bits: u32| Grid {
        scale: real::value(quant.scale()),
        zero_point: quant.zero_point,
        highest: (1 << bits) - 1,
    };
    let narrow = |layer: &Layer| {
        let own = float.producer(layer.float)?;
        let node = quantized.graph.producer(layer.int)?;
        let quant = quantized.graph.quant_of(node.inputs[0])?;
        let stored = quantized
            .graph
            .quant_of(*quantized.values.get(&own.inputs[0])?)?;
        let stream = quantized.graph.ty(*quantized.values.get(&own.inputs[0])?);
        let wider = (stored != quant && stream.dtype == DType::U8).then(|| grid(stored, 8));
        let source = fusion.range_source(source(float, quantized, own.inputs[0], quant));
        let narrow = layer.activation_bits < 8;
        narrow.then(|| {
            (
                layer.float,
                (source, grid(quant, layer.activation_bits), wider),
            )
        })
    };
    quantized.layers.iter().filter_map(narrow).collect()
}

/// The tensor that codes were made for and only passed on since.
fn source(float: &Graph, quantized: &Quantized, mut v: ValueId, quant: &Quant) -> ValueId {
    let same = |v: ValueId| {
        let int = quantized.values.get(&v)?;
        (quantized.graph.quant_of(*int)? == quant).then_some(())
    };
    while let Some(node) = float.producer(v).filter(|n| is_pass_through(&n.op)) {
        if same(v).is_none() || same(node.inputs[0]).is_none() {
            break;
        }
        v = node.inputs[0];
    }
    v
}

/// The constant that holds the scale of a tensor's codes.
fn scale_of(
    graph: &mut Graph,
    scales: &mut Vec<InputScale>,
    source: ValueId,
    grid: Grid,
) -> ValueId {
    if let Some(known) = scales.iter().find(|s| s.source == source) {
        return known.value;
    }
    let constant = Tensor::from_f64(DType::F32, Vec::new(), vec![grid.scale]);
    let value = graph.constant("scale", constant);
    scales.push(InputScale {
        source,
        value,
        grid,
    });
    value
}

/// The values that codes of a grid stand for, nearest to `x`.
fn rounded(graph: &mut Graph, x: ValueId, scale: ValueId, grid: Grid) -> Result<ValueId, OpError> {
    let mut emit = Emit::new(graph, "rounded");
    let zero = f64::from(grid.zero_point);
    let steps = emit.div(x, scale)?;
    let (lo, hi) = (
        emit.number(x, -zero),
        emit.number(x, f64::from(grid.highest) - zero),
    );
    let inside = emit.binary(BinaryFn::Max, steps, lo)?;
    let inside = emit.binary(BinaryFn::Min, inside, hi)?;
    let codes = emit.unary(UnaryFn::Round, inside)?;
    emit.mul(codes, scale)
}

/// Cross-entropy against the teacher's distribution, which differs from their divergence by a constant, or half the
/// mean squared difference.
fn emit_loss(
    graph: &mut Graph,
    x: ValueId,
    teacher: ValueId,
    loss: Loss,
) -> Result<ValueId, OpError> {
    let mut emit = Emit::new(graph, "loss");
    let axis = emit.shape(x).len() - 1;
    match loss {
        Loss::Divergence { temperature } => {
            let x = emit.scale(x, 1.0 / temperature)?;
            let largest = emit.reduce(ReduceFn::Max, x, &[axis])?;
            let shifted = emit.sub(x, largest)?;
            let powers = emit.unary(UnaryFn::Exp, shifted)?;
            let sum = emit.reduce(ReduceFn::Sum, powers, &[axis])?;
            let logarithm = emit.unary(UnaryFn::Log, sum)?;
            let likelihood = emit.sub(shifted, logarithm)?;
            let weighted = emit.mul(likelihood, teacher)?;
            let total = emit.total(weighted)?;
            emit.scale(total, -1.0)
        }
        Loss::Square => {
            let n = emit.shape(x).iter().product::<usize>() as f64;
            let difference = emit.sub(x, teacher)?;
            let square = emit.mul(difference, difference)?;
            let total = emit.total(square)?;
            emit.scale(total, 0.5 / n)
        }
    }
}

/// What the loss compares a student with, from the teacher's values.
pub fn target(values: &Tensor, loss: Loss) -> Tensor {
    let Loss::Divergence { temperature } = loss else {
        return values.clone();
    };
    let x = softened(&values.to_f64(), temperature);
    let classes = *values.shape().last().unwrap_or(&1);
    let rows = x.chunks_exact(classes.max(1)).flat_map(softmax).collect();
    Tensor::from_f64(values.dtype(), values.shape(), rows)
}

fn softmax(row: &[f64]) -> Vec<f64> {
    let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = row.iter().map(|x| libm::exp(x - largest)).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|p| p / sum).collect()
}
