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
            Op::Binary(op) if op.0 == BinaryFn::Div => quotient(new, operands),
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

/// `(x − mean(x)) / √(mean((x − mean(x))²) + epsilon)`.
fn quotient(new: &Rewrite<'_>, operands: &[ValueId]) -> Option<(ValueId, Normalize)> {
    let centred = operands[0];
    let root = new.producer(operands[1])?;
    let is_root = matches!(&root.op, Op::Unary(u) if u.0 == UnaryFn::Sqrt);
    let sum = new.producer(root.inputs[0]).filter(|_| is_root)?;
    let (variance, epsilon) = plus_number(new, sum)?;
    let (square, axes) = mean(new, new.producer(variance)?)?;
    let square = new.producer(square)?;
    let squares = match &square.op {
        Op::Binary(b) if b.0 == BinaryFn::Mul => {
            square.inputs[0] == centred && square.inputs[1] == centred
        }
        Op::Binary(b) if b.0 == BinaryFn::Pow => {
            let two = new
                .as_const(square.inputs[1])
                .is_some_and(|c| c.to_f64() == [2.0]);
            square.inputs[0] == centred && two
        }
        _ => false,
    };
    let difference = new.producer(centred).filter(|_| squares)?;
    let is_difference = matches!(&difference.op, Op::Binary(b) if b.0 == BinaryFn::Sub);
    let (x, own) = mean(
        new,
        new.producer(difference.inputs[1])
            .filter(|_| is_difference)?,
    )?;
    (x == difference.inputs[0] && own == axes).then(|| {
        (
            x,
            Normalize {
                axes,
                epsilon: epsilon.into(),
            },
        )
    })
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

    #[test]
    fn a_written_out_normalisation_is_recognised() {
        let mut g = Graph::new("g");
        let x = g.input("x", Type::new(DType::F32, [3, 8]));
        let mean = Reduce {
            f: ReduceFn::Mean,
            axes: vec![1],
            keep: true,
        };
        let m = g.push("m", mean.clone(), &[x]).unwrap();
        let d = g.push("d", Binary(BinaryFn::Sub), &[x, m]).unwrap();
        let s = g.push("s", Binary(BinaryFn::Mul), &[d, d]).unwrap();
        let v = g.push("v", mean, &[s]).unwrap();
        let e = g.constant("e", Tensor::scalar(1e-5f32));
        let v = g.push("ve", Binary(BinaryFn::Add), &[v, e]).unwrap();
        let r = g.push("r", Unary(UnaryFn::Sqrt), &[v]).unwrap();
        let y = g.push("y", Binary(BinaryFn::Div), &[d, r]).unwrap();
        g.output("y", y);
        let new = check(&g, &PASS);
        assert_eq!((count(&new, "normalize"), new.nodes().len()), (1, 1));
    }
}
