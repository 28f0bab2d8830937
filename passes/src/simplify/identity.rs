use std::convert::Infallible;

use lowbit_ir::ops::{BinaryFn, Pad, Reshape, Slice, Transpose};
use lowbit_ir::{Graph, Node, Op, Rewrite, Stage, ValueId};

use super::with_constant;
use crate::Pass;

/// Drops what does nothing and joins moves that follow each other.
pub(super) const PASS: Pass = Pass {
    name: "identity",
    enters: Stage::Float,
    required: false,
    run,
};

fn run(graph: &Graph) -> Graph {
    let new: Result<Graph, Infallible> = graph.rewrite(|new, _, node, operands| {
        let x = operands.first().copied();
        if let Some(x) = x.filter(|&x| does_nothing(new, node, x)) {
            return Ok(x);
        }
        if let Some(v) = with_constant_identity(new, node, operands) {
            return Ok(v);
        }
        Ok(joined(new, node, operands).unwrap_or_else(|| new.copy(node, operands)))
    });
    new.unwrap_or_else(|e| match e {})
}

fn does_nothing(graph: &Graph, node: &Node, x: ValueId) -> bool {
    let ty = graph.ty(x);
    match &node.op {
        Op::Reshape(Reshape { shape }) => *shape == ty.shape,
        Op::Transpose(Transpose { perm }) => perm.iter().copied().eq(0..perm.len()),
        Op::Cast(op) => op.to == ty.dtype,
        Op::Slice(Slice { len, step, .. }) => *len == ty.shape && step.iter().all(|&s| s == 1),
        Op::Pad(Pad {
            low,
            high,
            interior,
            ..
        }) => low.iter().chain(high).all(|&p| p == 0) && interior.iter().all(|&p| p == 0),
        Op::Broadcast(op) => op.shape == ty.shape,
        Op::Concat(_) => node.inputs.len() == 1,
        Op::Reduce(op) => op.keep && op.axes.iter().all(|&a| ty.shape[a] == 1),
        _ => false,
    }
}

/// `x · 1`, `x / 1`, `x + 0`, `x − 0`.
fn with_constant_identity(new: &Rewrite<'_>, node: &Node, operands: &[ValueId]) -> Option<ValueId> {
    let node = Node {
        inputs: operands.to_vec(),
        ..node.clone()
    };
    let neutral = [
        (BinaryFn::Mul, 1.0),
        (BinaryFn::Div, 1.0),
        (BinaryFn::Add, 0.0),
        (BinaryFn::Sub, 0.0),
    ];
    neutral.into_iter().find_map(|(f, neutral)| {
        let (x, c, first) = with_constant(new, &node, f)?;
        let commutes = matches!(f, BinaryFn::Mul | BinaryFn::Add);
        let same_shape = new.shape(x).len() >= c.shape().len()
            && lowbit_ir::broadcast_shapes(new.shape(x), c.shape()).as_deref()
                == Some(new.shape(x));
        let neutral = c.dtype().is_float() && c.to_f64().iter().all(|&v| v == neutral);
        (neutral && same_shape && (commutes || !first)).then_some(x)
    })
}

/// A move of a moved tensor as one move.
fn joined(new: &mut Rewrite<'_>, node: &Node, operands: &[ValueId]) -> Option<ValueId> {
    let inner = new.producer(*operands.first()?)?.clone();
    let op: Op = match (&inner.op, &node.op) {
        (Op::Reshape(_), Op::Reshape(outer)) => outer.clone().into(),
        (Op::Transpose(a), Op::Transpose(b)) => Transpose {
            perm: b.perm.iter().map(|&p| a.perm[p]).collect(),
        }
        .into(),
        (Op::Slice(a), Op::Slice(b)) => sliced_twice(a, b).into(),
        // a permutation that leaves the axes with elements in order is a reshape
        (_, Op::Transpose(t)) if keeps_order(new.shape(operands[0]), &t.perm) => {
            let shape = new.old().shape(node.output).to_vec();
            let name = new.old().value(node.output).name.clone();
            return new.push(name, Reshape { shape }, operands).ok();
        }
        _ => return None,
    };
    let name = new.old().value(node.output).name.clone();
    new.push(name, op, &inner.inputs[..1]).ok()
}

/// A slice of a slice.
fn sliced_twice(a: &Slice, b: &Slice) -> Slice {
    let axes = 0..a.start.len();
    let start = |i: usize| (a.start[i] as isize + b.start[i] as isize * a.step[i]) as usize;
    Slice {
        start: axes.clone().map(start).collect(),
        len: b.len.clone(),
        step: axes.map(|i| a.step[i] * b.step[i]).collect(),
    }
}

/// Whether a permutation keeps all elements where they are, because only axes of extent 1 pass each other.
pub(crate) fn keeps_order(shape: &[usize], perm: &[usize]) -> bool {
    let moved: Vec<usize> = perm.iter().copied().filter(|&p| shape[p] != 1).collect();
    moved.windows(2).all(|w| w[0] < w[1])
}

#[cfg(test)]
mod tests {
    use lowbit_ir::{DType, Type};

    use super::super::testing::{check, count};
    use super::*;

    #[test]
    fn joins_slices() {
        let mut g = Graph::new("g");
        let x = g.input("x", Type::new(DType::F32, [9, 10]));
        let first = Slice {
            start: vec![8, 1],
            len: vec![5, 4],
            step: vec![-2, 2],
        };
        let second = Slice {
            start: vec![3, 3],
            len: vec![2, 4],
            step: vec![-3, -1],
        };
        let v = g.push("a", first, &[x]).unwrap();
        let v = g.push("b", second, &[v]).unwrap();
        g.output("y", v);
        assert_eq!(count(&check(&g, &PASS), "slice"), 1);
    }

    #[test]
    fn joins_and_drops_moves() {
        let mut g = Graph::new("g");
        let x = g.input("x", Type::new(DType::F32, [2, 3, 4]));
        let a = g
            .push(
                "a",
                Transpose {
                    perm: vec![2, 0, 1],
                },
                &[x],
            )
            .unwrap();
        let b = g
            .push(
                "b",
                Transpose {
                    perm: vec![1, 2, 0],
                },
                &[a],
            )
            .unwrap();
        let c = g.push("c", Reshape { shape: vec![6, 4] }, &[b]).unwrap();
        let d = g.push("d", Reshape { shape: vec![24] }, &[c]).unwrap();
        g.output("y", d);
        let once = check(&g, &PASS);
        let new = check(&once, &PASS);
        assert_eq!(count(&new, "transpose"), 0);
        assert_eq!(count(&new, "reshape"), 1);
    }
}
