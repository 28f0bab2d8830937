//! Lane-wise arithmetic, shifts, bit counts.

use super::{AttrKind, Call, Def, Signature, ensure, reads_nothing};
use crate::{Scalar, Type};

fn same(sig: Signature<'_>) -> Result<(), String> {
    ensure(
        sig.args.iter().all(|&t| t == sig.ty),
        "operands and result have one type",
    )
}

fn lanes2(call: Call<'_>, f: impl Fn(Scalar, i64, i64) -> i64) -> Result<Vec<i64>, String> {
    let pairs = call.args[0].iter().zip(call.args[1]);
    Ok(pairs.map(|(&a, &b)| f(call.sig.ty.scalar, a, b)).collect())
}

fn shifts(call: Call<'_>, f: impl Fn(Scalar, i64, u32) -> i64) -> Result<Vec<i64>, String> {
    let bits = i64::from(call.sig.ty.scalar.bits());
    match call.args[1].iter().find(|b| !(0..bits).contains(*b)) {
        Some(b) => Err(format!("shift amount {b} is outside 0..{bits}")),
        None => lanes2(call, |s, a, b| f(s, a, b as u32)),
    }
}

macro_rules! binary {
    ($row:ident, $name:literal, $through:ident, $f:expr) => {
        pub(super) static $row: Def = Def {
            name: $name,
            arity: 2,
            attr: AttrKind::None,
            check: same,
            eval: |call| $through(call, $f),
            reads: reads_nothing,
        };
    };
}

binary!(ADD, "add", lanes2, |_, a, b| a.wrapping_add(b));
binary!(SUB, "sub", lanes2, |_, a, b| a.wrapping_sub(b));
binary!(MUL, "mul", lanes2, |_, a, b| a.wrapping_mul(b));
binary!(AND, "and", lanes2, |_, a, b| a & b);
binary!(OR, "or", lanes2, |_, a, b| a | b);
binary!(XOR, "xor", lanes2, |_, a, b| a ^ b);
binary!(SMIN, "smin", lanes2, |_, a, b| a.min(b));
binary!(SMAX, "smax", lanes2, |_, a, b| a.max(b));
binary!(
    UMIN,
    "umin",
    lanes2,
    |s, a, b| s.unsigned(a).min(s.unsigned(b)) as i64
);
binary!(
    UMAX,
    "umax",
    lanes2,
    |s, a, b| s.unsigned(a).max(s.unsigned(b)) as i64
);
binary!(SHL, "shl", shifts, |_, a, b| a << b);
binary!(ASHR, "ashr", shifts, |_, a, b| a >> b);
binary!(LSHR, "lshr", shifts, |s, a, b| (s.unsigned(a) >> b) as i64);

pub(super) static UDIV: Def = Def {
    name: "udiv",
    arity: 2,
    attr: AttrKind::None,
    check: |sig| {
        same(sig)?;
        ensure(sig.ty == Type::I32, "only i32 scalars are divided")
    },
    eval: |call| {
        ensure(call.args[1][0] != 0, "division by zero")?;
        lanes2(call, |s, a, b| (s.unsigned(a) / s.unsigned(b)) as i64)
    },
    reads: reads_nothing,
};

pub(super) static POPCOUNT: Def = Def {
    name: "popcount",
    arity: 1,
    attr: AttrKind::None,
    check: same,
    eval: |call| {
        let s = call.sig.ty.scalar;
        Ok(call.args[0]
            .iter()
            .map(|&a| i64::from(s.unsigned(a).count_ones()))
            .collect())
    },
    reads: reads_nothing,
};

pub(super) static CLZ: Def = Def {
    name: "clz",
    arity: 1,
    attr: AttrKind::None,
    check: same,
    eval: |call| {
        let s = call.sig.ty.scalar;
        let clz = |&a: &i64| i64::from(s.unsigned(a).leading_zeros() + s.bits()) - 64;
        Ok(call.args[0].iter().map(clz).collect())
    },
    reads: reads_nothing,
};
