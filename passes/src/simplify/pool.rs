use std::convert::Infallible;

use lowbit_ir::ops::{Op, Pool, PoolKind, Reduce, ReduceFn, Reshape};
use lowbit_ir::{Graph, Node, Rewrite, Stage, ValueId};

use crate::Pass;

/// Means and maxima over all of height and width become pooling.
pub(super) const PASS: Pass = Pass {
    name: "pool",
    enters: Stage::Float,
    required: true,
    run,
};

fn run(graph: &Graph) -> Graph {
    let new: Result<Graph, Infallible> = graph.rewrite(|new, _, node, operands| {
        let pooled = match &node.op {
            Op::Reduce(op) => pooled(new, node, op, operands[0]),
            _ => None,
        };
        Ok(pooled.unwrap_or_else(|| new.copy(node, operands)))
    });
    new.unwrap_or_else(|e| match e {})
}

fn pooled(new: &mut Rewrite<'_>, node: &Node, op: &Reduce, x: ValueId) -> Option<ValueId> {
    let kind = match op.f {
        ReduceFn::Mean => PoolKind::Mean,
        ReduceFn::Max => PoolKind::Max,
        ReduceFn::Sum | ReduceFn::Min => return None,
    };
    let &[_, h, w, _] = new.shape(x) else {
        return None;
    };
    if op.axes != [1, 2] || !new.ty(x).dtype.is_float() {
        return None;
    }
    let pool = Pool {
        kind,
        kernel: [h, w],
        stride: [1, 1],
        dilation: [1, 1],
        pad: [[0, 0]; 2],
    };
    let name = new.old().value(node.output).name.clone();
    let y = new.push(name.clone(), pool, &[x]).ok()?;
    let shape = new.old().shape(node.output).to_vec();
    new.push(name, Reshape { shape }, &[y]).ok()
}

#[cfg(test)]
mod tests {
    use lowbit_ir::{DType, Type};

    use super::super::testing::{check, count};
    use super::*;

    #[test]
    fn means_become_pooling() {
        for (f, keep) in [(ReduceFn::Mean, true), (ReduceFn::Max, false)] {
            let mut g = Graph::new("g");
            let x = g.input("x", Type::new(DType::F32, [2, 5, 6, 4]));
            let y = g
                .push(
                    "y",
                    Reduce {
                        f,
                        axes: vec![1, 2],
                        keep,
                    },
                    &[x],
                )
                .unwrap();
            g.output("y", y);
            assert_eq!(count(&check(&g, &PASS), "reduce"), 0);
        }
    }
}
