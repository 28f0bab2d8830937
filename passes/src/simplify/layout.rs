use std::convert::Infallible;

use lowbit_ir::ops::{Concat, Normalize, Op, Pad, Reduce, Reshape, Slice, Softmax, Transpose};
use lowbit_ir::{Graph, Node, Rewrite, Stage, Tensor, ValueId};

use super::identity::keeps_order;
use crate::Pass;

/// Sinks transposes through operations that do not care for the order of axes, until they meet their inverse.
pub(super) const PASS: Pass = Pass {
    name: "layout",
    enters: Stage::Float,
    required: false,
    run,
};

fn run(graph: &Graph) -> Graph {
    let new: Result<Graph, Infallible> = graph.rewrite(|new, _, node, operands| {
        let sunk = sink(new, node, operands);
        Ok(sunk.unwrap_or_else(|| new.copy(node, operands)))
    });
    new.unwrap_or_else(|e| match e {})
}

/// The operand of a transpose and its permutation.
fn turned(new: &Rewrite<'_>, v: ValueId) -> Option<(ValueId, Vec<usize>)> {
    let node = new.producer(v)?;
    match &node.op {
        Op::Transpose(t) => Some((node.inputs[0], t.perm.clone())),
        _ => None,
    }
}

/// Applies a node to what its operands were transposed from, and transposes the result.
fn sink(new: &mut Rewrite<'_>, node: &Node, operands: &[ValueId]) -> Option<ValueId> {
    if let Op::Transpose(outer) = &node.op {
        let (x, inner) = turned(new, operands[0])?;
        let perm: Vec<usize> = outer.perm.iter().map(|&p| inner[p]).collect();
        if perm.iter().copied().eq(0..perm.len()) {
            return Some(x);
        }
        return push(new, node, Transpose { perm }, &[x]);
    }
    let perm = operands.iter().find_map(|&v| turned(new, v))?.1;
    if perm.len() != new.old().shape(node.output).len() && !matches!(node.op, Op::Reduce(_)) {
        return None;
    }
    let op = permuted(&node.op, &perm)?;
    let moved: Option<Vec<ValueId>> = operands
        .iter()
        .enumerate()
        .map(|(i, &v)| untransposed(new, node, i, v, &perm))
        .collect();
    let result = push(new, node, op, &moved?)?;
    match &node.op {
        Op::Reduce(reduce) if !reduce.keep => {
            // the axes that are left, in their own order
            let left: Vec<usize> = perm
                .iter()
                .enumerate()
                .filter(|(i, _)| !reduce.axes.contains(i))
                .map(|(_, &p)| p)
                .collect();
            let perm = left
                .iter()
                .map(|&p| left.iter().filter(|&&q| q < p).count())
                .collect();
            push(new, node, Transpose { perm }, &[result])
        }
        _ => push(new, node, Transpose { perm }, &[result]),
    }
}

fn push(
    new: &mut Rewrite<'_>,
    node: &Node,
    op: impl Into<Op>,
    operands: &[ValueId],
) -> Option<ValueId> {
    let name = new.old().value(node.output).name.clone();
    new.push(name, op, operands).ok()
}

/// The operation on a tensor whose axis `perm[i]` was axis `i`.
fn permuted(op: &Op, perm: &[usize]) -> Option<Op> {
    let vector = |list: &[isize]| {
        let mut moved = vec![0; list.len()];
        perm.iter()
            .enumerate()
            .for_each(|(i, &p)| moved[p] = list[i]);
        moved
    };
    let sizes = |list: &[usize]| {
        let mut moved = vec![0; list.len()];
        perm.iter()
            .enumerate()
            .for_each(|(i, &p)| moved[p] = list[i]);
        moved
    };
    let axes = |list: &[usize]| {
        let mut moved: Vec<usize> = list.iter().map(|&a| perm[a]).collect();
        moved.sort_unstable();
        moved
    };
    Some(match op {
        Op::Unary(_) | Op::Binary(_) | Op::Select(_) | Op::Cast(_) => op.clone(),
        Op::Concat(c) => Concat { axis: perm[c.axis] }.into(),
        Op::Softmax(s) => Softmax { axis: perm[s.axis] }.into(),
        Op::Normalize(n) => Normalize {
            axes: axes(&n.axes),
            ..n.clone()
        }
        .into(),
        Op::Reduce(r) => Reduce {
            axes: axes(&r.axes),
            ..r.clone()
        }
        .into(),
        Op::Slice(s) => Slice {
            start: sizes(&s.start),
            len: sizes(&s.len),
            step: vector(&s.step),
        }
        .into(),
        Op::Pad(p) => Pad {
            low: vector(&p.low),
            high: vector(&p.high),
            interior: sizes(&p.interior),
            mode: p.mode,
        }
        .into(),
        _ => return None,
    })
}

/// An operand as it is before the transpose: its source, or a constant or single-element tensor turned back.
fn untransposed(
    new: &mut Rewrite<'_>,
    node: &Node,
    i: usize,
    v: ValueId,
    perm: &[usize],
) -> Option<ValueId> {
    // the padding value is no tensor of these axes
    if i > 0 && matches!(node.op, Op::Pad(_)) {
        return Some(v);
    }
    if let Some((x, own)) = turned(new, v) {
        return (own == perm).then_some(x);
    }
    let elementwise = matches!(node.op, Op::Binary(_) | Op::Select(_) | Op::Unary(_));
    if let Some(tensor) = new.as_const(v).cloned() {
        let name = new.value(v).name.clone();
        let tensor = turned_back(&tensor, perm, elementwise)?;
        return Some(new.constant(name, tensor));
    }
    if new.shape(v).len() != perm.len() {
        return None;
    }
    // a transpose of the other operand costs as much as the one that is saved, unless it moves nothing
    let back = inverse(perm);
    if !keeps_order(new.shape(v), &back) {
        return None;
    }
    let shape = back.iter().map(|&p| new.shape(v)[p]).collect();
    push(new, node, Reshape { shape }, &[v])
}

/// A constant with its axes in the order before a permutation.
fn turned_back(tensor: &Tensor, perm: &[usize], elementwise: bool) -> Option<Tensor> {
    if tensor.len() == 1 && elementwise {
        return Some(tensor.reshaped([]));
    }
    if !elementwise && tensor.shape().len() != perm.len() {
        return None;
    }
    let missing = perm.len().checked_sub(tensor.shape().len())?;
    let full = [vec![1; missing], tensor.shape().to_vec()].concat();
    Op::from(Transpose {
        perm: inverse(perm),
    })
    .eval(&[&tensor.reshaped(full)])
    .ok()
}

fn inverse(perm: &[usize]) -> Vec<usize> {
    let mut back = vec![0; perm.len()];
    perm.iter().enumerate().for_each(|(i, &p)| back[p] = i);
    back
}

#[cfg(test)]
mod tests {
    use lowbit_ir::ops::{Binary, BinaryFn, PadMode, ReduceFn, Unary, UnaryFn};
    use lowbit_ir::{DType, Type};

    use super::super::testing::{check, constant, count};
    use super::*;

    #[test]
    fn transposes_meet_and_cancel() {
        let mut g = Graph::new("g");
        let x = g.input("x", Type::new(DType::F32, [1, 4, 5, 3]));
        let to = Transpose {
            perm: vec![0, 3, 1, 2],
        };
        let a = g.push("a", to.clone(), &[x]).unwrap();
        let a = g.push("r", Unary(UnaryFn::Relu), &[a]).unwrap();
        let c = constant(&mut g, &[3, 1, 1]);
        let a = g.push("m", Binary(BinaryFn::Mul), &[a, c]).unwrap();
        let zero = g.constant("z", Tensor::scalar(0.5f32));
        let pad = Pad {
            low: vec![0, 1, 2, 0],
            high: vec![0, 0, 1, 0],
            interior: vec![0; 4],
            mode: PadMode::Constant,
        };
        let a = g.push("p", pad, &[a, zero]).unwrap();
        let b = g.push("b", Concat { axis: 1 }, &[a, a]).unwrap();
        let slice = Slice {
            start: vec![0, 1, 0, 4],
            len: vec![1, 5, 3, 2],
            step: vec![1, 1, 2, -2],
        };
        let b = g.push("s", slice, &[b]).unwrap();
        let y = g
            .push(
                "y",
                Transpose {
                    perm: vec![0, 2, 3, 1],
                },
                &[b],
            )
            .unwrap();
        g.output("y", y);
        let m = g
            .push(
                "mean",
                Reduce {
                    f: ReduceFn::Mean,
                    axes: vec![2, 3],
                    keep: false,
                },
                &[b],
            )
            .unwrap();
        g.output("m", m);
        let new = check(&g, &PASS);
        let moving = new.nodes().filter(|(_, n)| match &n.op {
            Op::Transpose(t) => !t.perm.iter().copied().eq(0..t.perm.len()),
            _ => false,
        });
        assert_eq!(moving.count(), 0);
        assert!(count(&new, "binary") > 0);
    }
}
