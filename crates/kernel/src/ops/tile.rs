//! Tiles: up to 16 rows of up to 64 bytes, which matrix units read and multiply in one instruction.

use super::{AttrKind, Call, Def, Signature, ensure, reads_nothing};
use crate::{Attr, Scalar, Type};

/// Most rows of a tile.
const ROWS: usize = 16;
/// Most bytes of a row.
const ROW: usize = 64;

pub(super) static LOAD_ROWS: Def = Def {
    name: "load_rows",
    arity: 0,
    attr: AttrKind::Rows,
    check: |sig| {
        let Attr::Rows { rows, .. } = sig.attr else {
            return ensure(false, "rows are wanted");
        };
        let (rows, bytes) = (*rows as usize, sig.ty.bytes());
        ensure((1..=ROWS).contains(&rows), "a tile has 1 to 16 rows")?;
        ensure(
            bytes.is_multiple_of(4 * rows) && bytes / rows <= ROW,
            "a row has 4 to 64 bytes, a multiple of 4",
        )?;
        ensure(
            usize::from(sig.ty.lanes).is_multiple_of(rows),
            "a row has whole lanes",
        )
    },
    eval: |call| Ok(super::memory::from_bytes(call.sig.ty, call.memory)),
    reads: reads_nothing,
};

pub(super) static DOT4_TILE: Def = Def {
    name: "dot4_tile",
    arity: 3,
    attr: AttrKind::None,
    check: |sig| {
        let (acc, a, w) = (sig.args[0], sig.args[1], sig.args[2]);
        ensure(
            acc == sig.ty && acc.scalar == Scalar::I32,
            "accumulator and result are i32 of one type",
        )?;
        ensure(
            (a.scalar, w.scalar) == (Scalar::I8, Scalar::I8),
            "factors are bytes",
        )?;
        let (rows, steps) = sizes(acc, w);
        ensure(
            usize::from(acc.lanes) == rows * ROW / 4 && (1..=ROWS).contains(&rows),
            "the accumulator has 1 to 16 rows of 16 lanes",
        )?;
        ensure(
            usize::from(w.lanes) == steps * ROW && (1..=ROWS).contains(&steps),
            "the second factor has 1 to 16 rows of 64 bytes",
        )?;
        ensure(
            usize::from(a.lanes) == rows * steps * 4,
            "a row of the first factor has four bytes for each row of the second",
        )
    },
    eval: |call| Ok(dot(call)),
    reads: reads_nothing,
};

/// Rows of the accumulator and of the second factor.
fn sizes(acc: Type, w: Type) -> (usize, usize) {
    (usize::from(acc.lanes) * 4 / ROW, usize::from(w.lanes) / ROW)
}

fn dot(call: Call<'_>) -> Vec<i64> {
    let Signature { ty, args, .. } = call.sig;
    let (_, steps) = sizes(ty, args[2]);
    let (acc, a, w) = (call.args[0], call.args[1], call.args[2]);
    let lanes = ROW / 4;
    let product = |row: usize, lane: usize, k: usize| {
        let byte = Scalar::I8.unsigned(a[row * 4 * steps + k]) as i64;
        byte * w[k / 4 * ROW + lane * 4 + k % 4]
    };
    let sum = |i: usize| {
        let products = (0..4 * steps).map(|k| product(i / lanes, i % lanes, k));
        acc[i] + products.sum::<i64>()
    };
    (0..acc.len()).map(sum).collect()
}
