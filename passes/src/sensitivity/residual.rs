//! Layers whose outputs one addition sums: a projection shortcut and the end of the branch beside it.

use lowbit_ir::ops::BinaryFn;
use lowbit_ir::{Graph, Op, ValueId};
use petgraph::unionfind::UnionFind;

use super::Layer;
use super::groups::moves;

/// The group of each layer, as the index of its first layer; `None` for layers that are alone.
pub fn residual(graph: &Graph, layers: &[Layer]) -> Vec<Option<usize>> {
    let mut groups = UnionFind::<usize>::new(layers.len());
    for (_, node) in graph.nodes() {
        if !matches!(&node.op, Op::Binary(op) if op.0 == BinaryFn::Add) {
            continue;
        }
        let ends: Vec<usize> = node
            .inputs
            .iter()
            .filter_map(|&v| behind(graph, layers, v))
            .collect();
        if let [a, b] = ends[..] {
            groups.union(a, b);
        }
    }
    let labels = groups.into_labeling();
    let first = |label: usize| labels.iter().position(|&l| l == label);
    let shared = |label: usize| labels.iter().filter(|&&l| l == label).count() > 1;
    let group = |&label: &usize| first(label).filter(|_| shared(label));
    labels.iter().map(group).collect()
}

/// The layer whose output a value is, element by element.
fn behind(graph: &Graph, layers: &[Layer], mut v: ValueId) -> Option<usize> {
    loop {
        if let Some(layer) = layers.iter().position(|l| l.output == v) {
            return Some(layer);
        }
        let node = graph.producer(v)?;
        if !matches!(node.op, Op::Unary(_)) && !moves(graph, node) {
            return None;
        }
        let mut read = node.inputs.iter().copied();
        v = read.find(|&v| graph.as_const(v).is_none())?;
    }
}

#[cfg(test)]
mod tests {
    use lowbit_ir::ops::{Binary, Conv, Unary, UnaryFn};
    use lowbit_ir::{DType, Tensor, Type};

    use super::*;
    use crate::sensitivity::layers;

    fn layer(g: &mut Graph, name: &str, x: ValueId) -> ValueId {
        let w = g.constant("w", Tensor::new([2, 1, 1, 2], vec![0.5f32; 4]));
        let op = Conv {
            stride: [1, 1],
            dilation: [1, 1],
            pad: [[0, 0], [0, 0]],
            groups: 1,
        };
        g.push(name, op, &[x, w]).unwrap()
    }

    #[test]
    fn only_layers_that_one_addition_sums_are_grouped() {
        let mut g = Graph::new("g");
        let x = g.input("x", Type::new(DType::F32, [1, 2, 2, 2]));
        let add = |g: &mut Graph, name: &str, a, b| {
            let sum = g.push(name, Binary(BinaryFn::Add), &[a, b]).unwrap();
            g.push("relu", Unary(UnaryFn::Relu), &[sum]).unwrap()
        };
        let stem = layer(&mut g, "stem", x);
        // a projection shortcut, with an activation on its way
        let branch = layer(&mut g, "inner", stem);
        let branch = layer(&mut g, "end", branch);
        let shortcut = layer(&mut g, "shortcut", stem);
        let shortcut = g.push("relu", Unary(UnaryFn::Relu), &[shortcut]).unwrap();
        let sum = add(&mut g, "sum", branch, shortcut);
        // the stream itself beside a branch, and a bias
        let branch = layer(&mut g, "later", sum);
        let sum = add(&mut g, "again", branch, sum);
        let bias = g.constant("bias", Tensor::new([1, 1, 1, 2], vec![1f32; 2]));
        let y = add(&mut g, "biased", sum, bias);
        g.output("y", y);
        let layers = layers(&g);
        let names: Vec<&str> = layers.iter().map(|l| l.name.as_str()).collect();
        assert_eq!(names, ["stem", "inner", "end", "shortcut", "later"]);
        let expected = [None, None, Some(2), Some(2), None];
        assert_eq!(residual(&g, &layers), expected);
    }
}
