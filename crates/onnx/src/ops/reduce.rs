//! Reductions over axes.

use lowbit_ir::ops::{BinaryFn, ReduceFn, UnaryFn};
use lowbit_ir::{DType, ValueId};

use super::Import;
use crate::node::{Node, Result};

pub(crate) const OPERATORS: &[(&str, Import)] = &[
    ("ReduceMean", |n| {
        reduce(n, 18, |n, x, r| r.apply(n, ReduceFn::Mean, x))
    }),
    ("ReduceMax", |n| {
        reduce(n, 18, |n, x, r| r.extremum(n, ReduceFn::Max, x))
    }),
    ("ReduceMin", |n| {
        reduce(n, 18, |n, x, r| r.extremum(n, ReduceFn::Min, x))
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

    /// A maximum or minimum: of booleans as of 0 and 1, of nothing the end of the type's range.
    fn extremum(&self, n: &mut Node<'_>, f: ReduceFn, x: ValueId) -> Result<ValueId> {
        let dtype = n.ty(x).dtype;
        if dtype == DType::Bool {
            let x = n.cast(x, DType::U8)?;
            let y = self.extremum(n, f, x)?;
            return n.cast(y, DType::Bool);
        }
        let shape = n.shape(x);
        if self.axes.iter().all(|&a| shape[a] > 0) {
            return self.apply(n, f, x);
        }
        let ends = dtype.integer_range();
        let (lo, hi) = ends.map_or((f64::NEG_INFINITY, f64::INFINITY), |(lo, hi)| {
            (lo as f64, hi as f64)
        });
        let end = n.number(if f == ReduceFn::Max { lo } else { hi }, x);
        let kept = shape.iter().enumerate();
        let kept = kept.filter_map(|(a, &d)| match self.axes.contains(&a) {
            true => self.keep.then_some(1),
            false => Some(d),
        });
        let kept = kept.collect();
        n.broadcast(end, kept)
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
