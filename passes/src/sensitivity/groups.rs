//! Groups of layers that may be predicted by different metrics: what one kind of layer loses, another metric may tell best
//! for another kind.

use lowbit_ir::ops::BinaryFn;
use lowbit_ir::{Graph, Node, Op, ValueId};

use super::Layer;

/// Some layers under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The kind of layer, or the name that the user gave.
    pub name: String,
    /// Indices of its layers, ascending.
    pub layers: Vec<usize>,
}

/// The name of the layers that no pattern takes.
pub const OTHERS: &str = "others";

/// Layers by kind: `convolution`, `depthwise` (one input channel an output), `linear` (a product of rows with a matrix) and
/// `attention` (a linear layer next to a product of activations).
pub fn by_kind(graph: &Graph, layers: &[Layer]) -> Vec<Group> {
    grouped(layers.iter().map(|l| kind(graph, l).to_owned()))
}

/// Layers by patterns of their names, each the first that takes it; `*` stands for any characters.
///
/// # Errors
/// The pattern that takes no layer.
pub fn by_pattern(layers: &[Layer], patterns: &[(String, String)]) -> Result<Vec<Group>, String> {
    let of = |l: &Layer| patterns.iter().position(|(_, p)| matches(p, &l.name));
    let found: Vec<Option<usize>> = layers.iter().map(of).collect();
    if let Some(unused) = (0..patterns.len()).find(|&p| !found.contains(&Some(p))) {
        return Err(patterns[unused].1.clone());
    }
    let name = |p: Option<usize>| p.map_or(OTHERS.to_owned(), |p| patterns[p].0.clone());
    Ok(grouped(found.into_iter().map(name)))
}

fn grouped(names: impl Iterator<Item = String>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for (layer, name) in names.enumerate() {
        match groups.iter_mut().find(|g| g.name == name) {
            Some(group) => group.layers.push(layer),
            None => groups.push(Group {
                name,
                layers: vec![layer],
            }),
        }
    }
    groups
}

/// Whether a pattern, `*` standing for any characters, is all of a name.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(name) = name.strip_prefix(head) else {
        return false;
    };
    let mut ends = name.char_indices().map(|(i, _)| i).chain([name.len()]);
    ends.any(|i| matches(rest, &name[i..]))
}

fn kind(graph: &Graph, layer: &Layer) -> &'static str {
    let Op::Conv(op) = &graph.node(layer.node).op else {
        unreachable!("layers are convolutions");
    };
    let (kernel, image) = (graph.shape(layer.weight), graph.shape(layer.input));
    let rows = kernel[1..3] == [1, 1] && (image[1] == 1 || image[2] == 1);
    if op.groups > 1 && kernel[3] == 1 {
        "depthwise"
    } else if !rows {
        "convolution"
    } else if feeds_product(graph, layer.output) || reads_product(graph, layer.input) {
        "attention"
    } else {
        "linear"
    }
}

/// Whether a product of two activations reads a value, moved or scaled at most.
fn feeds_product(graph: &Graph, from: ValueId) -> bool {
    let users = graph.users();
    let mut next = vec![from];
    while let Some(v) = next.pop() {
        for &id in &users[v] {
            let node = graph.node(id);
            if is_product(graph, node) {
                return true;
            }
            if moves(graph, node) {
                next.push(node.output);
            }
        }
    }
    false
}

/// Whether a value is such a product, moved or scaled at most.
fn reads_product(graph: &Graph, v: ValueId) -> bool {
    let mut next = vec![v];
    while let Some(node) = next.pop().and_then(|v| graph.producer(v)) {
        if is_product(graph, node) {
            return true;
        }
        if moves(graph, node) {
            let read = node.inputs.iter().copied();
            next.extend(read.filter(|&v| graph.as_const(v).is_none()));
        }
    }
    false
}

fn is_product(graph: &Graph, node: &Node) -> bool {
    let constant = |&v: &ValueId| graph.as_const(v).is_some();
    matches!(node.op, Op::MatMul(_)) && !node.inputs.iter().any(constant)
}

/// Whether a node only moves elements, or scales or shifts them by constants.
pub(super) fn moves(graph: &Graph, node: &Node) -> bool {
    match &node.op {
        Op::Reshape(_) | Op::Transpose(_) | Op::Slice(_) | Op::Gather(_) => true,
        Op::Binary(op) => {
            let affine = [BinaryFn::Add, BinaryFn::Sub, BinaryFn::Mul, BinaryFn::Div];
            affine.contains(&op.0) && node.inputs.iter().any(|&v| graph.as_const(v).is_some())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use lowbit_ir::ops::{Conv, MatMul, Reshape, Transpose};
    use lowbit_ir::{DType, Tensor, Type};

    use super::*;
    use crate::sensitivity::layers;

    fn layer(g: &mut Graph, name: &str, x: ValueId, kernel: [usize; 4], groups: usize) -> ValueId {
        let n = kernel.iter().product();
        let w = g.constant("w", Tensor::new(kernel, vec![0.5f32; n]));
        let op = Conv {
            stride: [1, 1],
            dilation: [1, 1],
            pad: [[0, 0], [0, 0]],
            groups,
        };
        g.push(name, op, &[x, w]).unwrap()
    }

    /// Two convolutions, then attention over 16 rows with one head, and a classifier.
    fn network() -> Graph {
        let mut g = Graph::new("g");
        let x = g.input("x", Type::new(DType::F32, [1, 6, 6, 3]));
        let x = layer(&mut g, "stem", x, [4, 2, 2, 3], 1);
        let x = layer(&mut g, "wide", x, [4, 2, 2, 1], 4);
        let rows = |shape: [usize; 4]| Reshape {
            shape: shape.to_vec(),
        };
        let x = g.push("rows", rows([1, 1, 16, 4]), &[x]).unwrap();
        let q = layer(&mut g, "q", x, [4, 1, 1, 4], 1);
        let k = layer(&mut g, "k", x, [4, 1, 1, 4], 1);
        let perm = vec![0, 1, 3, 2];
        let k = g.push("turned", Transpose { perm }, &[k]).unwrap();
        let scores = g.push("scores", MatMul, &[q, k]).unwrap();
        let mixed = g.push("mixed", MatMul, &[scores, x]).unwrap();
        let out = layer(&mut g, "out", mixed, [4, 1, 1, 4], 1);
        let flat = g.push("flat", rows([1, 1, 1, 64]), &[out]).unwrap();
        let y = layer(&mut g, "head", flat, [10, 1, 1, 64], 1);
        g.output("y", y);
        g
    }

    fn names(groups: &[Group]) -> Vec<(&str, &[usize])> {
        groups
            .iter()
            .map(|g| (g.name.as_str(), &g.layers[..]))
            .collect()
    }

    #[test]
    fn kinds_are_told_apart() {
        let g = network();
        let found = by_kind(&g, &layers(&g));
        let expected: [(&str, &[usize]); 4] = [
            ("convolution", &[0]),
            ("depthwise", &[1]),
            ("attention", &[2, 3, 4]),
            ("linear", &[5]),
        ];
        assert_eq!(names(&found), expected);
    }

    #[test]
    fn the_first_pattern_that_takes_a_layer_has_it() {
        let g = network();
        let pattern = |n: &str, p: &str| (n.to_owned(), p.to_owned());
        let all = layers(&g);
        let found = by_pattern(
            &all,
            &[pattern("a", "*e*"), pattern("b", "*d"), pattern("c", "k")],
        );
        assert_eq!(found, Err("*d".into()), "'wide' and 'head' are taken");
        let found = by_pattern(&all, &[pattern("a", "s*m"), pattern("b", "*d*e*")]).unwrap();
        let expected: [(&str, &[usize]); 3] = [("a", &[0]), ("b", &[1]), (OTHERS, &[2, 3, 4, 5])];
        assert_eq!(names(&found), expected);
    }
}
