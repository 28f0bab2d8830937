//! Passes over the float graph. Each leaves the function as it is.

mod flatten;
pub(crate) mod fold_constants;
mod fold_pad;
mod fold_scale;
mod identity;
mod layout;
mod linear;
mod normalization;
mod pool;
mod views;

use lowbit_ir::ops::{BinaryFn, Op};
use lowbit_ir::{Graph, Node, Tensor, ValueId};

use crate::Pass;

/// The passes of the float stage in order.
pub const PIPELINE: &[Pass] = &[
    // constants first: everything below looks for them
    fold_constants::PASS,
    // recognises many nodes as one before any of them is changed
    normalization::PASS,
    identity::PASS,
    // products become convolutions while their operands are as the model has them
    linear::PASS,
    // channels last: sinks transposes until they cancel
    layout::PASS,
    identity::PASS,
    // weights take over the permutations that now stand right in front of them
    flatten::PASS,
    // what is left between convolutions and what follows them are the reshapes of linear layers
    views::PASS,
    identity::PASS,
    // scales and shifts now stand right behind the convolutions that take them in
    fold_scale::PASS,
    fold_pad::PASS,
    // reductions over height and width, which only now are known to be that
    pool::PASS,
    identity::PASS,
    fold_constants::PASS,
];

/// The constant operand of a binary operation, the other one, and whether the constant stands first.
pub(crate) fn with_constant<'a>(
    graph: &'a Graph,
    node: &Node,
    f: BinaryFn,
) -> Option<(ValueId, &'a Tensor, bool)> {
    let Op::Binary(op) = &node.op else {
        return None;
    };
    let &[a, b] = &node.inputs[..] else {
        return None;
    };
    if op.0 != f {
        return None;
    }
    match (graph.as_const(a), graph.as_const(b)) {
        (None, Some(c)) => Some((a, c, false)),
        (Some(c), None) => Some((b, c, true)),
        _ => None,
    }
}

/// A constant by channel: one number for each index of the last of `rank` axes, or one for all.
pub(crate) fn by_channel(c: &Tensor, rank: usize, channels: usize) -> Option<Vec<f64>> {
    let shape = c.shape();
    let last = shape.last().copied().unwrap_or(1);
    if c.len() != last || shape.len() > rank || (last != 1 && last != channels) {
        return None;
    }
    let values = c.to_f64();
    Some((0..channels).map(|i| values[i % last]).collect())
}

/// Whether a value has one reader and is not given out.
pub(crate) fn used_once(
    graph: &Graph,
    users: &lowbit_ir::SecondaryMap<ValueId, Vec<lowbit_ir::NodeId>>,
    v: ValueId,
) -> bool {
    users[v].len() == 1 && !graph.is_output(v)
}

#[cfg(test)]
pub(crate) mod testing {
    use lowbit_ir::eval::run;
    use lowbit_ir::{Graph, Stage, Tensor};

    use crate::Pass;

    /// Checks that a pass leaves the function as it is, and returns the new graph.
    pub(crate) fn check(graph: &Graph, pass: &Pass) -> Graph {
        graph.verify(Stage::Float).unwrap();
        let new = (pass.run)(graph);
        new.verify(Stage::Float).unwrap();
        let inputs: Vec<Tensor> = graph
            .inputs()
            .iter()
            .enumerate()
            .map(|(k, &v)| {
                let n = graph.ty(v).elements();
                let x = (0..n)
                    .map(|i| ((i * 37 + k * 11) % 101) as f32 / 50.0 - 1.0)
                    .collect();
                Tensor::new(graph.shape(v), x)
            })
            .collect();
        let (old, found) = (run(graph, &inputs).unwrap(), run(&new, &inputs).unwrap());
        for (a, b) in old.iter().zip(&found) {
            assert_eq!(a.shape(), b.shape());
            let largest = a.to_f64().iter().fold(1e-3, |m: f64, x| m.max(x.abs()));
            for (x, y) in a.to_f64().iter().zip(b.to_f64()) {
                assert!(
                    (x - y).abs() <= 1e-5 * largest,
                    "{}: {x} became {y}",
                    pass.name
                );
            }
        }
        new
    }

    /// Number of nodes of an operation.
    pub(crate) fn count(graph: &Graph, op: &str) -> usize {
        graph.nodes().filter(|(_, n)| n.op.name() == op).count()
    }

    /// A repeatable constant.
    pub(crate) fn constant(graph: &mut Graph, shape: &[usize]) -> lowbit_ir::ValueId {
        let n = shape.iter().product();
        let x = (0..n)
            .map(|i: usize| ((i * 29 + 7) % 83) as f32 / 60.0 - 0.6)
            .collect();
        graph.constant("c", Tensor::new(shape, x))
    }
}
