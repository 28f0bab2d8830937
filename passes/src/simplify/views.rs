use std::convert::Infallible;

use lowbit_ir::ops::{Op, Reshape};
use lowbit_ir::{Graph, Node, Rewrite, Stage, ValueId};

use crate::Pass;

/// Sinks reshapes through elementwise operations: what follows a product then stands right behind its convolution.
pub(super) const PASS: Pass = Pass {
    name: "views",
    enters: Stage::Float,
    required: false,
    run,
};

fn run(graph: &Graph) -> Graph {
    let new: Result<Graph, Infallible> = graph.rewrite(|new, _, node, operands| {
        let elementwise = matches!(
            node.op,
            Op::Unary(_) | Op::Binary(_) | Op::Select(_) | Op::Cast(_)
        );
        let sunk = elementwise.then(|| sink(new, node, operands)).flatten();
        Ok(sunk.unwrap_or_else(|| new.copy(node, operands)))
    });
    new.unwrap_or_else(|e| match e {})
}

fn sink(new: &mut Rewrite<'_>, node: &Node, operands: &[ValueId]) -> Option<ValueId> {
    let shape = new.old().shape(node.output).to_vec();
    let source = operands.iter().find_map(|&v| {
        let producer = new.producer(v)?;
        let whole = matches!(producer.op, Op::Reshape(_)) && new.shape(v) == shape;
        whole.then(|| new.shape(producer.inputs[0]).to_vec())
    })?;
    let moved: Option<Vec<ValueId>> = operands
        .iter()
        .map(|&v| viewed(new, v, &shape, &source))
        .collect();
    let name = new.old().value(node.output).name.clone();
    let result = new.push(name.clone(), node.op.clone(), &moved?).ok()?;
    new.push(name, Reshape { shape }, &[result]).ok()
}

/// An operand of a result of shape `from` as an operand of a result of shape `to`.
fn viewed(new: &mut Rewrite<'_>, v: ValueId, from: &[usize], to: &[usize]) -> Option<ValueId> {
    let name = new.value(v).name.clone();
    if let Some(c) = new.as_const(v).cloned() {
        let own = c.shape();
        let channels = own.last().copied().unwrap_or(1);
        let shape = if c.len() == 1 {
            vec![]
        } else if own == from {
            to.to_vec()
        } else if c.len() == channels && from.last() == to.last() && own.len() <= from.len() {
            vec![channels]
        } else {
            return None;
        };
        return Some(new.constant(name, c.reshaped(shape)));
    }
    if new.shape(v) != from {
        return None;
    }
    let producer = new.producer(v)?;
    if matches!(producer.op, Op::Reshape(_)) && new.shape(producer.inputs[0]) == to {
        return Some(producer.inputs[0]);
    }
    new.push(name, Reshape { shape: to.to_vec() }, &[v]).ok()
}

#[cfg(test)]
mod tests {
    use lowbit_ir::ops::{Binary, BinaryFn, Unary, UnaryFn};
    use lowbit_ir::{DType, Tensor, Type};

    use super::super::testing::{check, constant, count};
    use super::*;

    fn graph(view: &[usize], constants: &[&[usize]]) -> Graph {
        let mut g = Graph::new("g");
        let x = g.input("x", Type::new(DType::F32, [1, 1, 6, 8]));
        let r = g.push("r", Unary(UnaryFn::Tanh), &[x]).unwrap();
        let other = g
            .push(
                "o",
                Reshape {
                    shape: view.to_vec(),
                },
                &[r],
            )
            .unwrap();
        let other = g.push("s", Unary(UnaryFn::Sin), &[other]).unwrap();
        let shape = view.to_vec();
        let mut v = g.push("v", Reshape { shape }, &[x]).unwrap();
        v = g.push("a", Binary(BinaryFn::Add), &[other, v]).unwrap();
        for shape in constants {
            let c = constant(&mut g, shape);
            v = g.push("m", Binary(BinaryFn::Mul), &[v, c]).unwrap();
        }
        let zero = g.constant("zero", Tensor::new([1], vec![0.0f32]));
        let v = g.push("y", Binary(BinaryFn::Max), &[zero, v]).unwrap();
        g.output("y", v);
        g
    }

    #[test]
    fn reshapes_end_behind_what_is_elementwise() {
        let new = check(
            &graph(&[2, 3, 8], &[&[8], &[1, 1, 8], &[2, 3, 8], &[]]),
            &PASS,
        );
        assert_eq!(count(&new, "reshape"), 1);
    }

    #[test]
    fn constants_of_other_axes_stay_behind() {
        let new = check(&graph(&[48], &[&[48]]), &PASS);
        assert_eq!(count(&new, "reshape"), 1);
        let new = check(&graph(&[2, 3, 8], &[&[3, 1]]), &PASS);
        let last = new.producer(new.outputs()[0].value).unwrap();
        assert!(matches!(last.op, Op::Binary(_)));
    }
}
