//! Reductions over axes.

use lowbit_ir::ValueId;
use lowbit_ir::ops::{BinaryFn, ReduceFn, UnaryFn};

use super::Import;
use crate::node::{Node, Result};

pub(crate) const OPERATORS: &[(&str, Import)] = &[
    ("ReduceMean", |n| {
        reduce(n, 18, |n, x, r| r.apply(n, ReduceFn::Mean, x))
    }),
    ("ReduceMax", |n| {
        reduce(n, 18, |n, x, r| r.apply(n, ReduceFn::Max, x))
    }),
    ("ReduceMin", |n| {
        reduce(n, 18, |n, x, r| r.apply(n, ReduceFn::Min, x))
    }),
    ("ReduceSum", |n| {
        reduce(n, 13, |n, x, r| r.apply(n, ReduceFn::Sum, x))
    }),
    ("ReduceL2", |n| {
        reduce(n, 18, |n, x, r| {
            let square = n.binary(BinaryFn::Mul, x, x)?;
            let sum = r.apply(n, ReduceFn::Sum, square)?;
            n.unary(UnaryFn::Sqrt, sum)
        })
    }),
    ("ReduceL1", |n| {
        reduce(n, 18, |n, x, r| {
            let size = n.unary(UnaryFn::Abs, x)?;
            r.apply(n, ReduceFn::Sum, size)
        })
    }),
    ("ReduceSumSquare", |n| {
        reduce(n, 18, |n, x, r| {
            let square = n.binary(BinaryFn::Mul, x, x)?;
            r.apply(n, ReduceFn::Sum, square)
        })
    }),
];

struct Over {
    axes: Vec<usize>,
    keep: bool,
}

impl Over {
    fn apply(&self, n: &mut Node<'_>, f: ReduceFn, x: ValueId) -> Result<ValueId> {
        n.reduce(f, x, self.axes.clone(), self.keep)
    }
}

/// Axes are an attribute before opset `since` and an operand from it on. No axes mean all, or none where asked for.
fn reduce(
    n: &mut Node<'_>,
    since: i64,
    body: impl FnOnce(&mut Node<'_>, ValueId, &Over) -> Result<ValueId>,
) -> Result<Vec<ValueId>> {
    let x = n.input(0)?;
    let rank = n.rank(x);
    let given = if n.opset < since {
        n.ints("axes")
    } else {
        n.ints_or_input("axes", 1)?
    };
    let axes = match given.filter(|a| !a.is_empty()) {
        Some(axes) => n.axes(&axes, rank)?,
        None if n.int("noop_with_empty_axes", 0) != 0 => return Ok(vec![x]),
        None => (0..rank).collect(),
    };
    let over = Over {
        axes,
        keep: n.int("keepdims", 1) != 0,
    };
    Ok(vec![body(n, x, &over)?])
}
