//! Equalisation: the channels of a tensor are scaled by the layer that writes it and scaled back by those that read it,
//! so that one range fits all of them. The function of the float network stays the same; whether a network is better
//! off is for measurement to say. One file a kind of writer.

mod channels;
mod norms;

use lowbit_ir::ops::UnaryFn;
use lowbit_ir::{Graph, NodeId, Op, SecondaryMap, Tensor, ValueId};

/// The largest magnitude of each channel of a tensor, the last axis; `None` where it was not observed.
pub type Peaks<'a> = dyn Fn(ValueId) -> Option<Vec<f64>> + 'a;

/// Scales what one kind of writer writes; whether anything was.
type Equalizer = fn(&mut Graph, &Peaks<'_>) -> bool;

const ALL: &[Equalizer] = &[channels::run, norms::run];

/// The graph with equalised channels, all values as they were; `None` where there is nothing to equalise.
pub fn equalize(graph: &Graph, peaks: &Peaks<'_>) -> Option<Graph> {
    let mut new = graph.clone();
    let changed: Vec<bool> = ALL.iter().map(|run| run(&mut new, peaks)).collect();
    changed.contains(&true).then_some(new)
}

/// Channels are scaled at most so far: what is nearly never there needs no range of its own.
const MOST: f64 = 16.0;

/// What each channel is multiplied by: half the way, in decibels, to a peak as high as the largest.
fn factors(peaks: &[f64]) -> Option<Vec<f64>> {
    let largest = peaks.iter().copied().fold(0.0, f64::max);
    let one = |&p: &f64| match p > 0.0 {
        true => libm::sqrt(largest / p).min(MOST),
        false => 1.0,
    };
    let found: Vec<f64> = peaks.iter().map(one).collect();
    found.iter().any(|&f| f > 1.0).then_some(found)
}

/// Convolutions that read a tensor of `channels` channels, itself or behind what treats each channel alone and keeps
/// its sign; `None` where anything else reads it.
fn readers(graph: &Graph, users: &Users, v: ValueId, channels: usize) -> Option<Vec<NodeId>> {
    if graph.is_output(v) || graph.shape(v).last() != Some(&channels) {
        return None;
    }
    let mut found = Vec::new();
    for &id in &users[v] {
        let node = graph.node(id);
        match &node.op {
            Op::Conv(_) if node.inputs[0] == v && is_own(graph, users, node.inputs[1]) => {
                found.push(id);
            }
            Op::Reshape(_) | Op::Pool(_) => {
                found.extend(readers(graph, users, node.output, channels)?);
            }
            Op::Unary(op) if op.0 == UnaryFn::Relu => {
                found.extend(readers(graph, users, node.output, channels)?);
            }
            _ => return None,
        }
    }
    (!found.is_empty()).then_some(found)
}

type Users = SecondaryMap<ValueId, Vec<NodeId>>;

/// Whether a value is a constant that nothing else reads.
fn is_own(graph: &Graph, users: &Users, v: ValueId) -> bool {
    graph.as_const(v).is_some() && users[v].len() == 1 && !graph.is_output(v)
}

/// Multiplies each element of a constant.
fn multiply(graph: &mut Graph, v: ValueId, factor: impl Fn(usize) -> f64) {
    let tensor = graph.as_const(v).expect("it is a constant");
    let elements = tensor.to_f64().into_iter().enumerate();
    let scaled = elements.map(|(i, x)| x * factor(i)).collect();
    let new = Tensor::from_f64(tensor.dtype(), tensor.shape(), scaled);
    graph.replace_constant(v, new);
}

/// Divides what a convolution multiplies each channel by.
fn divide_reader(graph: &mut Graph, id: NodeId, factors: &[f64]) {
    let node = graph.node(id);
    let Op::Conv(op) = &node.op else {
        unreachable!("readers are convolutions")
    };
    let (weights, groups) = (node.inputs[1], op.groups);
    let shape = graph.shape(weights).to_vec();
    let (per_group, size) = (shape[0] / groups, shape[1] * shape[2] * shape[3]);
    multiply(graph, weights, |i| {
        let group = i / size / per_group;
        1.0 / factors[group * shape[3] + i % shape[3]]
    });
}

#[cfg(test)]
mod tests;
