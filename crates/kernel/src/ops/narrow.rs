//! From accumulators back to codes, and the byte transposes that go with it.

use super::{AttrKind, Call, Def, Signature, ensure, reads_nothing};
use crate::{Attr, Scalar, Type};

fn clamped(call: Call<'_>, lo: i64, hi: i64) -> Result<Vec<i64>, String> {
    Ok(call.args[0].iter().map(|&x| x.clamp(lo, hi)).collect())
}

fn check_sat(sig: Signature<'_>, to: Scalar) -> Result<(), String> {
    ensure(
        sig.args[0].scalar == Scalar::I32,
        "the operand's lanes are i32",
    )?;
    ensure(
        sig.ty == sig.args[0].with(to),
        "the result has as many lanes of the narrow scalar",
    )
}

pub(super) static REQUANT: Def = Def {
    name: "requant",
    arity: 3,
    attr: AttrKind::None,
    check: |sig| {
        ensure(
            sig.args.iter().all(|&t| t == sig.ty),
            "operands and result have one type",
        )?;
        ensure(sig.ty.scalar == Scalar::I32, "lanes are i32")
    },
    eval: |call| {
        let one = |k: usize| {
            let (acc, m, c) = (call.args[0][k], call.args[1][k], call.args[2][k]);
            ensure((1..=62).contains(&c), "the shift is outside 1..=62")?;
            Ok(lowbit_num::rounding_shift(acc * m, c as u8))
        };
        (0..call.sig.ty.lanes.into()).map(one).collect()
    },
    reads: reads_nothing,
};

pub(super) static SAT_U8: Def = Def {
    name: "sat_u8",
    arity: 1,
    attr: AttrKind::None,
    check: |sig| check_sat(sig, Scalar::I8),
    eval: |call| clamped(call, 0, 255),
    reads: reads_nothing,
};

pub(super) static SAT_I16: Def = Def {
    name: "sat_i16",
    arity: 1,
    attr: AttrKind::None,
    check: |sig| check_sat(sig, Scalar::I16),
    eval: |call| clamped(call, -32768, 32767),
    reads: reads_nothing,
};

fn check_lanes(ty: Type) -> Result<(), String> {
    ensure(
        ty.scalar == Scalar::I8 && ty.lanes.is_multiple_of(16),
        "the result is i8, a multiple of 16 lanes",
    )
}

pub(super) static PACK4_U8: Def = Def {
    name: "pack4_u8",
    arity: 4,
    attr: AttrKind::None,
    check: |sig| {
        check_lanes(sig.ty)?;
        let part = Type::new(Scalar::I32, sig.ty.lanes / 4);
        ensure(
            sig.args.iter().all(|&t| t == part),
            "operands are i32 with a quarter of the lanes",
        )
    },
    eval: |call| {
        let byte = |k: usize| call.args[k % 16 / 4][k / 16 * 4 + k % 4].clamp(0, 255);
        Ok((0..call.sig.ty.lanes.into()).map(byte).collect())
    },
    reads: reads_nothing,
};

pub(super) static ZIP4: Def = Def {
    name: "zip4",
    arity: 4,
    attr: AttrKind::Int,
    check: |sig| {
        check_lanes(sig.ty)?;
        ensure(
            sig.args.iter().all(|&t| t == sig.ty),
            "operands and result have one type",
        )?;
        ensure(
            matches!(sig.attr, Attr::Int(0..4)),
            "the part is 0, 1, 2 or 3",
        )
    },
    eval: |call| match call.sig.attr {
        Attr::Int(part) => {
            let byte = |k: usize| call.args[k % 4][k / 16 * 16 + 4 * *part as usize + k % 16 / 4];
            Ok((0..call.sig.ty.lanes.into()).map(byte).collect())
        }
        _ => unreachable!("the kind of attribute was checked"),
    },
    reads: reads_nothing,
};
