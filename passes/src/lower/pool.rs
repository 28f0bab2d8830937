use lowbit_ir::ops::{Codes, IntMean, Pool};
use lowbit_kernel::{Addr, BufId, Builder, LoopVar, Role, Val};

use super::elementwise::{At, Nest, scalar_of, store_codes};
use super::view::{Run, View};
use super::{Arg, Machine, Operand, Step, Storage};

/// Outputs along an axis whose windows have the same taps inside the tensor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Span {
    first: usize,
    len: usize,
    /// Index of the first tap of the first window.
    start: usize,
    taps: usize,
    /// Taps that the divisor counts.
    counted: u32,
}

/// Largest code of each window; taps outside are left out.
pub(crate) fn max(
    op: &Pool,
    operands: &[Operand<'_>],
    result: &Storage,
    machine: &Machine,
) -> Vec<Step> {
    let lanes = machine.vector_bytes() / result.dtype.bytes();
    let signed = result.dtype.integer_range().is_some_and(|r| r.0 < 0);
    let scalar = scalar_of(result.dtype);
    windows(
        "max_pool",
        op,
        operands,
        result,
        lanes as u16,
        |b, at, window, x, y, _| {
            let first = b.load(at.ty(scalar), at.addr(1, x));
            let v = window.fold(b, at.addr(1, x), first, |b, best, addr| {
                let v = b.load(at.ty(scalar), addr);
                if signed {
                    b.smax(best, v)
                } else {
                    b.umax(best, v)
                }
            });
            b.store(v, at.addr(0, y));
        },
    )
}

/// Sum of each window, rounded once with the scale of its divisor.
pub(crate) fn mean(
    op: &IntMean,
    operands: &[Operand<'_>],
    result: &Storage,
    machine: &Machine,
) -> Vec<Step> {
    let dtype = operands[0].storage.dtype;
    windows(
        "mean_pool",
        &op.pool,
        operands,
        result,
        machine.lanes,
        |b, at, window, x, y, counted| {
            let taps = (window.taps[0] * window.taps[1]) as i64;
            let ty = at.ty(lowbit_kernel::Scalar::I32);
            let zero = b.constant(ty, -taps * i64::from(op.zero_point_in));
            let sum = window.fold(b, at.addr(1, x), zero, |b, sum, addr| {
                let v = b.load(at.ty(scalar_of(dtype)), addr);
                let v = super::elementwise::widen(b, v, dtype);
                b.add(sum, v)
            });
            let scale = op
                .scale(counted)
                .expect("the graph has a scale for each divisor");
            let m = b.constant(ty, scale.m().into());
            let c = b.constant(ty, scale.c().into());
            // a scale of zero has no rounding constant to add beyond it
            let scaled = b.requant(sum, m, c);
            let zero = b.constant(ty, op.zero_point.into());
            let codes = b.add(scaled, zero);
            store_codes(b, codes, Codes { ..op.out }, at.addr(0, y));
        },
    )
}

/// Taps of a window that lie inside the tensor.
struct Window {
    taps: [usize; 2],
    strides: [isize; 2],
}

/// Windows of up to this many taps are written out.
const UNROLLED: usize = 9;

impl Window {
    /// Combines all taps, the first one at `base`.
    fn fold(
        &self,
        b: &mut Builder,
        base: Addr,
        init: Val,
        mut combine: impl FnMut(&mut Builder, Val, Addr) -> Val,
    ) -> Val {
        let [rows, columns] = self.taps;
        if rows * columns <= UNROLLED {
            let taps = (0..rows).flat_map(|r| (0..columns).map(move |c| (r as isize, c as isize)));
            return taps.fold(init, |v, (r, c)| {
                let at = base
                    .clone()
                    .plus((r * self.strides[0] + c * self.strides[1]) as i64);
                combine(b, v, at)
            });
        }
        let mut row = |b: &mut Builder, v: Val, outer: LoopVar| {
            b.for_(columns as u32, &[v], |b, inner, v| {
                let at = base.clone().step(outer, self.strides[0] as i64);
                vec![combine(b, v[0], at.step(inner, self.strides[1] as i64))]
            })
        };
        b.for_(rows as u32, &[init], |b, outer, v| row(b, v[0], outer))[0]
    }
}

fn windows(
    kind: &str,
    pool: &Pool,
    operands: &[Operand<'_>],
    result: &Storage,
    lanes: u16,
    mut body: impl FnMut(&mut Builder, &At<'_>, &Window, BufId, BufId, u32),
) -> Vec<Step> {
    let storage = operands[0].storage;
    let mut b = Builder::new(kind);
    let x = b.buffer("x", Role::In, storage.bytes);
    let y = b.buffer("y", Role::Out, result.bytes);
    let size = [storage.shape[1], storage.shape[2]];
    let [rows, columns] = [0, 1].map(|axis| spans(pool, axis, size[axis], result.shape[axis + 1]));
    for (row, column) in rows
        .iter()
        .flat_map(|r| columns.iter().map(move |c| (r, c)))
    {
        let mut from = View::of(storage);
        let mut to = View::of(result);
        for (axis, span) in [row, column].into_iter().enumerate() {
            let step = pool.stride[axis] as isize;
            from = from.along(
                axis + 1,
                Run {
                    first: span.start,
                    step,
                    len: span.len,
                },
            );
            to = to.range(axis + 1, span.first, span.len);
        }
        let stride = |axis: usize| (storage.strides[axis + 1] * pool.dilation[axis]) as isize;
        let window = Window {
            taps: [row.taps, column.taps],
            strides: [stride(0), stride(1)],
        };
        Nest::new(&to, &[from]).emit(&mut b, lanes, |b, at| {
            body(b, at, &window, x, y, row.counted * column.counted);
        });
    }
    vec![Step {
        kernel: b.finish(),
        args: vec![Arg::Operand(0), Arg::Result],
    }]
}

/// Groups the outputs along an axis by which taps of their windows lie inside.
fn spans(pool: &Pool, axis: usize, size: usize, outputs: usize) -> Vec<Span> {
    let mut spans: Vec<(Span, usize)> = Vec::new();
    let one = |at: usize| {
        let mut pool = pool.clone();
        pool.kernel[1 - axis] = 1;
        pool.pad[1 - axis] = [0, 0];
        let mut place = [0, 0];
        place[axis] = at;
        let mut extent = [1, 1];
        extent[axis] = size;
        let taps: Vec<usize> = pool.taps_inside(extent, place).map(|p| p[axis]).collect();
        (
            taps.first().copied().unwrap_or(0),
            taps.len(),
            pool.counted(extent, place),
        )
    };
    for at in 0..outputs {
        let (start, taps, counted) = one(at);
        match spans.last_mut() {
            Some((s, last))
                if s.taps == taps && s.counted == counted && *last + pool.stride[axis] == start =>
            {
                s.len += 1;
                *last = start;
            }
            _ => spans.push((
                Span {
                    first: at,
                    len: 1,
                    start,
                    taps,
                    counted,
                },
                start,
            )),
        }
    }
    spans.into_iter().map(|(s, _)| s).collect()
}

#[cfg(test)]
mod tests {
    use lowbit_ir::DType;
    use lowbit_ir::ops::PoolKind;

    use super::super::testing::{check, tensor};
    use super::*;

    fn pool(kind: PoolKind, kernel: [usize; 2], stride: [usize; 2], pad: [[usize; 2]; 2]) -> Pool {
        Pool {
            kind,
            kernel,
            stride,
            dilation: [1, 1],
            pad,
        }
    }

    #[test]
    fn maxima_equal_the_definition() {
        let x = tensor(DType::U8, &[2, 9, 10, 21], 1);
        check(
            &pool(PoolKind::Max, [3, 3], [2, 2], [[1, 1], [0, 1]]).into(),
            &[&x],
        );
        check(
            &pool(PoolKind::Max, [2, 2], [2, 2], [[0, 0]; 2]).into(),
            &[&x],
        );
        check(
            &pool(PoolKind::Max, [5, 4], [1, 3], [[2, 1], [1, 2]]).into(),
            &[&x],
        );
        let dilated = Pool {
            dilation: [2, 3],
            ..pool(PoolKind::Max, [3, 2], [1, 1], [[1, 1], [1, 1]])
        };
        check(&dilated.into(), &[&x]);
    }

    fn mean_of(pool: Pool, taps: std::ops::RangeInclusive<u32>) -> IntMean {
        let scale = |n: u32| {
            let d = lowbit_num::real::dyadic(1.3 / f64::from(n)).unwrap();
            (n, d.m(), d.c())
        };
        IntMean {
            pool,
            zero_point_in: 17,
            scales: taps.map(scale).collect(),
            zero_point: 3,
            out: Codes::U8,
        }
    }

    #[test]
    fn means_equal_the_definition() {
        let x = tensor(DType::U8, &[2, 9, 10, 21], 1);
        for kind in [PoolKind::Mean, PoolKind::PaddedMean { declared: [1, 0] }] {
            let op = mean_of(pool(kind, [3, 3], [2, 2], [[1, 1], [0, 1]]), 1..=9);
            check(&op.into(), &[&x]);
        }
        let op = mean_of(pool(PoolKind::Mean, [9, 10], [1, 1], [[0, 0]; 2]), 1..=90);
        check(&op.clone().into(), &[&x]);
        check(
            &IntMean {
                out: Codes::I16,
                ..op
            }
            .into(),
            &[&x],
        );
    }
}
