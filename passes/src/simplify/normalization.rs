use std::convert::Infallible;

use lowbit_ir::ops::{BinaryFn, Normalize, Op, ReduceFn, UnaryFn};
use lowbit_ir::{Graph, Node, Rewrite, Stage, ValueId};

use crate::Pass;

/// Recognises a normalisation that was written with means, a square, a root and a quotient.
pub(super) const PASS: Pass = Pass {
    name: "normalization",
    enters: Stage::Float,
    required: false,
    run,
};

fn run(graph: &Graph) -> Graph {
    let new: Result<Graph, Infallible> = graph.rewrite(|new, _, node, operands| {
        let found = match &node.op {
            Op::Binary(op) => normalized(new, op.0, operands),
            _ => None,
        };
        let name = || graph.value(node.output).name.clone();
        Ok(
            match found.and_then(|(x, op)| new.push(name(), op, &[x]).ok()) {
                Some(v) => v,
                None => new.copy(node, operands),
            },
        )
    });
    new.unwrap_or_else(|e| match e {})
}

/// `(x − mean(x)) / √(mean((x − mean(x))²) + epsilon)`, or its product with the reciprocal of the root.
fn normalized(
    new: &Rewrite<'_>,
    f: BinaryFn,
    operands: &[ValueId],
) -> Option<(ValueId, Normalize)> {
    let &[a, b] = operands else { return None };
    match f {
        BinaryFn::Div => quotient(new, a, rooted(new, b)?),
        BinaryFn::Mul => [(a, b), (b, a)].into_iter().find_map(|(centred, factor)| {
            let root = inverted(new, factor)?;
            quotient(new, centred, rooted(new, root)?)
        }),
        _ => None,
    }
}

/// The operand of a square root.
fn rooted(new: &Rewrite<'_>, v: ValueId) -> Option<ValueId> {
    let node = new.producer(v)?;
    match &node.op {
        Op::Unary(op) if op.0 == UnaryFn::Sqrt => Some(node.inputs[0]),
        Op::Binary(op) if op.0 == BinaryFn::Pow && is_number(new, node.inputs[1], 0.5) => {
            Some(node.inputs[0])
        }
        _ => None,
    }
}

/// The operand of a reciprocal.
fn inverted(new: &Rewrite<'_>, v: ValueId) -> Option<ValueId> {
    let node = new.producer(v)?;
    match &node.op {
        Op::Unary(op) if op.0 == UnaryFn::Reciprocal => Some(node.inputs[0]),
        Op::Binary(op) if op.0 == BinaryFn::Div && is_number(new, node.inputs[0], 1.0) => {
            Some(node.inputs[1])
        }
        _ => None,
    }
}

fn is_number(new: &Rewrite<'_>, v: ValueId, number: f64) -> bool {
    new.as_const(v).is_some_and(|c| c.to_f64() == [number])
}

/// A centred tensor over the root of `variance`, which must be its own.
fn quotient(
    new: &Rewrite<'_>,
    numerator: ValueId,
    variance: ValueId,
) -> Option<(ValueId, Normalize)> {
    let (x, axes) = centred(new, numerator)?;
    let (variance, epsilon) = plus_number(new, new.producer(variance)?)?;
    let (square, own) = mean(new, new.producer(variance)?)?;
    let deviation = squared(new, square)?;
    let fits = own == axes && centred(new, deviation)? == (x, axes.clone());
    let epsilon = epsilon.into();
    fits.then_some((x, Normalize { axes, epsilon }))
}

/// The operand of a square. A difference that is written out twice is squared as well.
fn squared(new: &Rewrite<'_>, v: ValueId) -> Option<ValueId> {
    let node = new.producer(v)?;
    let &[a, b] = &node.inputs[..] else {
        return None;
    };
    let square = match &node.op {
        Op::Binary(op) if op.0 == BinaryFn::Mul => a == b || centred(new, a)? == centred(new, b)?,
        Op::Binary(op) if op.0 == BinaryFn::Pow => is_number(new, b, 2.0),
        _ => false,
    };
    square.then_some(a)
}

/// For `x − mean(x)` the tensor and the axes of the mean.
fn centred(new: &Rewrite<'_>, v: ValueId) -> Option<(ValueId, Vec<usize>)> {
    let node = new.producer(v)?;
    let difference = matches!(&node.op, Op::Binary(op) if op.0 == BinaryFn::Sub);
    let subtracted = new.producer(*node.inputs.get(1)?).filter(|_| difference)?;
    mean(new, subtracted).filter(|(x, _)| *x == node.inputs[0])
}

fn plus_number(new: &Rewrite<'_>, node: &Node) -> Option<(ValueId, f64)> {
    let (v, c, _) = super::with_constant(new, node, BinaryFn::Add)?;
    (c.len() == 1).then(|| (v, c.to_f64()[0]))
}

fn mean(new: &Rewrite<'_>, node: &Node) -> Option<(ValueId, Vec<usize>)> {
    let Op::Reduce(op) = &node.op else {
        return None;
    };
    let fits = op.f == ReduceFn::Mean && op.keep && !op.axes.is_empty();
    fits.then(|| (node.inputs[0], op.axes.clone()))
        .filter(|&(x, _)| !new.shape(x).is_empty())
}

#[cfg(test)]
mod tests {
    use lowbit_ir::ops::{Binary, Reduce, Unary};
    use lowbit_ir::{DType, Tensor, Type};

    use super::super::testing::{check, count};
    use super::*;

    fn pushed(g: &mut Graph, op: impl Into<Op>, operands: &[ValueId]) -> ValueId {
        g.push("v", op, operands).unwrap()
    }

    /// A normalisation whose difference stands twice, whose square is a power, whose root is inverted.
    fn written(twice: bool, power: bool, reciprocal: bool) -> Graph {
        let mut g = Graph::new("g");
        let x = g.input("x", Type::new(DType::F32, [3, 8]));
        let mean = Reduce {
            f: ReduceFn::Mean,
            axes: vec![1],
            keep: true,
        };
        let m = pushed(&mut g, mean.clone(), &[x]);
        let d = pushed(&mut g, Binary(BinaryFn::Sub), &[x, m]);
        let again = if twice {
            pushed(&mut g, Binary(BinaryFn::Sub), &[x, m])
        } else {
            d
        };
        let two = g.constant("two", Tensor::scalar(2.0f32));
        let s = if power {
            pushed(&mut g, Binary(BinaryFn::Pow), &[again, two])
        } else {
            pushed(&mut g, Binary(BinaryFn::Mul), &[again, again])
        };
        let v = pushed(&mut g, mean, &[s]);
        let e = g.constant("e", Tensor::scalar(1e-5f32));
        let v = pushed(&mut g, Binary(BinaryFn::Add), &[v, e]);
        let r = pushed(&mut g, Unary(UnaryFn::Sqrt), &[v]);
        let y = if reciprocal {
            let r = pushed(&mut g, Unary(UnaryFn::Reciprocal), &[r]);
            pushed(&mut g, Binary(BinaryFn::Mul), &[r, d])
        } else {
            pushed(&mut g, Binary(BinaryFn::Div), &[d, r])
        };
        g.output("y", y);
        g
    }

    #[test]
    fn a_written_out_normalisation_is_recognised() {
        for way in 0..8 {
            let g = written(way & 1 > 0, way & 2 > 0, way & 4 > 0);
            let new = check(&g, &PASS);
            assert_eq!((count(&new, "normalize"), new.nodes().len()), (1, 1));
        }
    }

    #[test]
    fn the_variance_of_another_tensor_is_none() {
        let mut g = written(false, false, false);
        let x = g.inputs()[0];
        let double = pushed(&mut g, Binary(BinaryFn::Add), &[x, x]);
        let root = g
            .nodes()
            .find(|(_, n)| n.op.name() == "unary")
            .map(|(_, n)| n.output)
            .unwrap();
        let mean = Reduce {
            f: ReduceFn::Mean,
            axes: vec![1],
            keep: true,
        };
        let m = pushed(&mut g, mean, &[double]);
        let d = pushed(&mut g, Binary(BinaryFn::Sub), &[double, m]);
        let y = pushed(&mut g, Binary(BinaryFn::Div), &[d, root]);
        g.output("z", y);
        assert_eq!(count(&check(&g, &PASS), "normalize"), 1);
    }
}
