//! Chains of elementwise nodes that run in place, block by block, on the result of the node before them.

use std::collections::HashMap;

use cranelift_entity::SecondaryMap;

use crate::ops::{BinaryFn, Scalar, UnaryFn, with_float};
use crate::{Graph, Node, NodeId, Op, Tensor, ValueId};

/// A node of a chain: its function of the running value, and of another one.
#[derive(Clone, Copy)]
pub(crate) struct Link {
    pub(crate) node: NodeId,
    function: Function,
}

#[derive(Clone, Copy)]
enum Function {
    Unary(UnaryFn),
    /// The other operand, and whether it stands on the left.
    Binary(BinaryFn, ValueId, bool),
}

/// Elements that a chain works on at once: they stay in the first-level cache.
const BLOCK: usize = 4096;

/// For each node the chain that runs on its result, and whether the node is itself part of a chain. A value inside a
/// chain has one reader, is no output and not `wanted`.
pub(crate) fn tails(
    graph: &Graph,
    wanted: impl Fn(ValueId) -> bool,
) -> (Vec<Vec<Link>>, Vec<bool>) {
    let nodes = graph.nodes().len();
    let (mut tails, mut linked) = (vec![Vec::new(); nodes], vec![false; nodes]);
    let mut made: HashMap<ValueId, usize> = HashMap::new();
    let mut readers: SecondaryMap<ValueId, usize> = SecondaryMap::new();
    for (_, node) in graph.nodes() {
        node.inputs.iter().for_each(|&v| readers[v] += 1);
    }
    for (at, (id, node)) in graph.nodes().enumerate() {
        let inner = |v: ValueId| readers[v] == 1 && !graph.is_output(v) && !wanted(v);
        let place = match link(graph, node, &made, inner) {
            Some((head, function)) => {
                tails[head].push(Link { node: id, function });
                linked[at] = true;
                head
            }
            None => at,
        };
        made.insert(node.output, place);
    }
    (tails, linked)
}

/// The node that a node can run behind.
fn link(
    graph: &Graph,
    node: &Node,
    made: &HashMap<ValueId, usize>,
    inner: impl Fn(ValueId) -> bool,
) -> Option<(usize, Function)> {
    let ty = graph.ty(node.output);
    if !ty.dtype.is_float() {
        return None;
    }
    let head = |v: ValueId| {
        let fits = inner(v) && graph.shape(v) == ty.shape;
        made.get(&v).copied().filter(|_| fits)
    };
    match (&node.op, &node.inputs[..]) {
        (Op::Unary(op), &[x]) => Some((head(x)?, Function::Unary(op.0))),
        (Op::Binary(op), &[x, y]) if op.0.is_arithmetic() => {
            let side = |x: ValueId, other: ValueId, turned: bool| {
                let at = head(x)?;
                let there = made.get(&other).is_none_or(|&m| m < at);
                let fits = repeats(graph.shape(other), &ty.shape);
                (there && fits).then_some((at, Function::Binary(op.0, other, turned)))
            };
            side(x, y, false).or_else(|| side(y, x, true))
        }
        _ => None,
    }
}

/// Whether an operand's elements, repeated from the first on, stand beside all elements of a shape.
fn repeats(operand: &[usize], shape: &[usize]) -> bool {
    let ones = operand.iter().take_while(|&&d| d == 1).count();
    shape.ends_with(&operand[ones..]) && !operand.contains(&0)
}

/// Runs a chain on a tensor.
pub(crate) fn apply<'a>(
    graph: &Graph,
    tail: &[Link],
    tensor: &mut Tensor,
    value: impl Fn(ValueId) -> &'a Tensor,
) {
    debug_assert!(
        tail.iter()
            .all(|l| graph.ty(graph.node(l.node).output).dtype == tensor.dtype())
    );
    with_float!(tensor, S => run::<S>(tail, tensor.as_mut_slice(), value), else unreachable!("chains are of floats"))
}

fn run<'a, S: Scalar>(tail: &[Link], x: &mut [S], value: impl Fn(ValueId) -> &'a Tensor) {
    let steps: Vec<(Function, &[S])> = tail
        .iter()
        .map(|l| match l.function {
            Function::Unary(_) => (l.function, &[][..]),
            Function::Binary(_, other, _) => (l.function, value(other).as_slice()),
        })
        .collect();
    let whole = x.len();
    let unit = steps.iter().map(|s| s.1.len()).filter(|&n| n < whole).max();
    let unit = unit.unwrap_or(1).max(1);
    let block = unit * (BLOCK / unit).max(1);
    for (i, x) in x.chunks_mut(block).enumerate() {
        for (function, other) in &steps {
            match function {
                Function::Unary(f) => f.update(x),
                Function::Binary(f, _, turned) if other.len() == whole && whole > 1 => {
                    f.update(x, &other[i * block..][..x.len()], *turned);
                }
                Function::Binary(f, _, turned) => f.update(x, other, *turned),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::{Plan, run_observed};
    use crate::ops::{Binary, Transpose, Unary};
    use crate::{DType, Type};

    /// A graph in which sums of equal, repeated and single operands follow each other on both sides.
    fn graph() -> Graph {
        let mut g = Graph::new("g");
        let x = g.input("x", Type::new(DType::F32, [3, 50, 70]));
        let row = |n: usize| Tensor::new([n], (0..n).map(|i| i as f32 * 0.37 - 5.0).collect());
        let (long, one) = (
            g.constant("row", row(70)),
            g.constant("one", Tensor::scalar(3.5f32)),
        );
        let perm = vec![0, 1, 2];
        let a = g.push("a", Transpose { perm: perm.clone() }, &[x]).unwrap();
        let b = g.push("b", Transpose { perm }, &[x]).unwrap();
        let r = g.push("r", Unary(UnaryFn::Relu), &[a]).unwrap();
        let s = g.push("s", Binary(BinaryFn::Sub), &[long, b]).unwrap();
        let s = g.push("s", Binary(BinaryFn::Sub), &[r, s]).unwrap();
        let s = g.push("s", Binary(BinaryFn::Mul), &[s, long]).unwrap();
        let s = g.push("s", Binary(BinaryFn::Min), &[one, s]).unwrap();
        let y = g.push("y", Binary(BinaryFn::Add), &[s, x]).unwrap();
        g.output("y", y);
        g
    }

    #[test]
    fn chains_change_no_value() {
        let g = graph();
        let x = (0..3 * 50 * 70)
            .map(|i| (i * 7919 % 1009) as f32 / 50.0 - 10.0)
            .collect();
        let x = [Tensor::new([3, 50, 70], x)];
        let whole = run_observed(&g, &Plan::new(&g), &x, |_, _, _| {}).unwrap();
        let mut seen = Vec::new();
        let plan = Plan::only(&g, |_| false);
        let chained = run_observed(&g, &plan, &x, |_, v, _| seen.push(v)).unwrap();
        assert_eq!(whole, chained);
        // two transpositions have results of their own, the second with all but the clamp behind it
        assert_eq!(seen.len(), 2);
        let kept = Plan::only(&g, |v| g.value(v).name == "s");
        assert_eq!(run_observed(&g, &kept, &x, |_, _, _| {}).unwrap(), whole);
    }
}
