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
    if let Op::Reshape(op) = &node.op {
        let (x, perm) = turned(new, operands[0])?;
        let (shape, perm) = regrouped(new.shape(operands[0]), &perm, &op.shape)?;
        let view = push(new, node, Reshape { shape }, &[x])?;
        return push(new, node, Transpose { perm }, &[view]);
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

/// Reshaping a transposed tensor from `from` to `to` as a reshape of its source and a transpose, where no axis is joined
/// with one that is elsewhere in the source.
fn regrouped(from: &[usize], perm: &[usize], to: &[usize]) -> Option<(Vec<usize>, Vec<usize>)> {
    let mut parts = parts(from, perm, to)?;
    parts.sort_by_key(|part| part.0);
    let source: Vec<usize> = parts.into_iter().flat_map(|part| part.1).collect();
    let shape = source.iter().map(|&j| to[j]).collect();
    Some((shape, inverse(&source)))
}

/// The runs of axes that a reshape joins or splits: where each begins among the axes of the source, and its axes in the
/// result. Axes of extent 1 are nowhere in the source and go with the axis before them.
fn parts(from: &[usize], perm: &[usize], to: &[usize]) -> Option<Vec<(usize, Vec<usize>)>> {
    let place = |i: usize| {
        let before = |&k: &usize| from[k] != 1 && perm[k] < perm[i];
        (0..from.len()).filter(before).count()
    };
    let mut axes = (0..from.len()).filter(|&i| from[i] != 1);
    let (mut joined, mut split) = (1, 1);
    let (mut parts, mut front) = (Vec::<(usize, Vec<usize>)>::new(), Vec::new());
    let mut next = 0;
    for (j, &extent) in to.iter().enumerate() {
        if extent != 1 && joined == split {
            let axis = axes.next()?;
            (joined, split, next) = (from[axis], 1, place(axis) + 1);
            parts.push((place(axis), std::mem::take(&mut front)));
        }
        split *= extent;
        while joined < split {
            let axis = axes.next().filter(|&axis| place(axis) == next)?;
            joined *= from[axis];
            next += 1;
        }
        parts
            .last_mut()
            .map_or(&mut front, |part| &mut part.1)
            .push(j);
    }
    (!parts.is_empty() && !to.contains(&0)).then_some(parts)
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

    fn reshaped(shape: &[usize], perm: &[usize], to: &[usize]) -> bool {
        let mut g = Graph::new("g");
        let x = g.input("x", Type::new(DType::F32, shape));
        let perm = perm.to_vec();
        let t = g.push("t", Transpose { perm }, &[x]).unwrap();
        let r = g.push("r", Reshape { shape: to.to_vec() }, &[t]).unwrap();
        g.output("y", r);
        let new = check(&g, &PASS);
        let last = new.producer(new.outputs()[0].value).unwrap();
        matches!(last.op, Op::Transpose(_))
    }

    #[test]
    fn transposes_pass_reshapes_that_keep_axes_apart() {
        let sunk: [(&[usize], &[usize], &[usize]); 7] = [
            (&[1, 4, 5, 3], &[0, 3, 1, 2], &[1, 3, 20]),
            (&[1, 4, 5, 3], &[0, 3, 1, 2], &[3, 1, 2, 10, 1]),
            (&[2, 4, 6], &[2, 0, 1], &[2, 1, 3, 8]),
            (&[1, 65, 1, 8, 16], &[2, 0, 3, 1, 4], &[1, 8, 65, 16]),
            (&[6, 5], &[1, 0], &[1, 1, 5, 6]),
            (&[6, 4, 5], &[2, 0, 1], &[5, 4, 6]),
            (&[2, 3], &[1, 0], &[3, 2, 1]),
        ];
        for (shape, perm, to) in sunk {
            assert!(reshaped(shape, perm, to), "{shape:?} {perm:?} {to:?}");
        }
        let kept: [(&[usize], &[usize], &[usize]); 3] = [
            (&[1, 4, 5, 3], &[0, 3, 1, 2], &[1, 60]),
            (&[4, 6], &[1, 0], &[3, 8]),
            (&[2, 3, 4], &[0, 2, 1], &[8, 3]),
        ];
        for (shape, perm, to) in kept {
            assert!(!reshaped(shape, perm, to), "{shape:?} {perm:?} {to:?}");
        }
    }

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
