use std::collections::{HashMap, HashSet};

use lowbit_ir::derive::{DeriveError, Emit, Rules, gradient_with};
use lowbit_ir::ops::{BinaryFn, ReduceFn, UnaryFn};
use lowbit_ir::{Graph, Op, OpError, Tensor, ValueId};
use lowbit_num::real;

use super::Loss;
use crate::quantize::{Layer, Quantized};

/// The graph that training runs: the network on rounded weights, its loss, and the derivatives by what is trained.
pub(crate) struct Student {
    /// Inputs: those of the network, then the teacher's output. Outputs: the loss, then one derivative a parameter.
    pub(crate) graph: Graph,
    /// Weights in the graph, then biases, layer by layer; `None` where a layer has no bias.
    pub(crate) parameters: Vec<(ValueId, Option<ValueId>)>,
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
    pub(crate) fn new(
        float: &Graph,
        quantized: &Quantized,
        layers: &[&Layer],
        loss: Loss,
    ) -> Result<Self, DeriveError> {
        let mut graph = Graph::new("student");
        let mut map: HashMap<ValueId, ValueId> = HashMap::new();
        for &v in float.inputs() {
            let value = float.value(v);
            map.insert(v, graph.input(value.name.clone(), value.ty.clone()));
        }
        let end = compared(float);
        let narrow = narrow_inputs(float, quantized);
        for (_, node) in needed(float, end) {
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
            if let Some(&grid) = narrow.get(&node.output) {
                inputs[0] = rounded(&mut graph, inputs[0], grid).map_err(failed)?;
            }
            let output = graph
                .push(name.clone(), node.op.clone(), &inputs)
                .map_err(failed)?;
            map.insert(node.output, output);
        }
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
            .collect();
        let rules = Rules {
            straight_through: true,
        };
        let derivatives = gradient_with(&mut graph, loss, &by, rules)?;
        graph.output("loss", loss);
        for (i, d) in derivatives.into_iter().enumerate() {
            graph.output(format!("d{i}"), d);
        }
        Ok(Self { graph, parameters })
    }
}

/// Nodes that a value depends on, in order.
fn needed(float: &Graph, end: ValueId) -> Vec<(lowbit_ir::NodeId, &lowbit_ir::Node)> {
    let mut wanted = HashSet::from([end]);
    let mut nodes: Vec<_> = float.nodes().collect();
    nodes.reverse();
    nodes.retain(|(_, node)| {
        let keep = wanted.contains(&node.output);
        if keep {
            wanted.extend(&node.inputs);
        }
        keep
    });
    nodes.reverse();
    nodes
}

/// Codes of few bits that a layer reads.
#[derive(Clone, Copy)]
struct Grid {
    scale: f64,
    zero_point: i32,
    highest: i32,
}

/// Layers, by their result, that read fewer than 8 bits.
fn narrow_inputs(float: &Graph, quantized: &Quantized) -> HashMap<ValueId, Grid> {
    let grid = |layer: &Layer| {
        let node = quantized.graph.producer(layer.int)?;
        let quant = quantized.graph.quant_of(node.inputs[0])?;
        let grid = Grid {
            scale: real::value(quant.scale()),
            zero_point: quant.zero_point,
            highest: (1 << layer.activation_bits) - 1,
        };
        let narrow = layer.activation_bits < 8 && float.producer(layer.float).is_some();
        narrow.then_some((layer.float, grid))
    };
    quantized.layers.iter().filter_map(grid).collect()
}

/// The values that codes of a grid stand for, nearest to `x`.
fn rounded(graph: &mut Graph, x: ValueId, grid: Grid) -> Result<ValueId, OpError> {
    let mut emit = Emit::new(graph, "rounded");
    let zero = f64::from(grid.zero_point);
    let steps = emit.scale(x, 1.0 / grid.scale)?;
    let (lo, hi) = (
        emit.number(x, -zero),
        emit.number(x, f64::from(grid.highest) - zero),
    );
    let inside = emit.binary(BinaryFn::Max, steps, lo)?;
    let inside = emit.binary(BinaryFn::Min, inside, hi)?;
    let codes = emit.unary(UnaryFn::Round, inside)?;
    emit.scale(codes, grid.scale)
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
        Loss::Divergence => {
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
    if loss == Loss::Square {
        return values.clone();
    }
    let x = values.to_f64();
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
