//! Products: what multiply-accumulate units do in one instruction.

use super::{AttrKind, Call, Def, Signature, ensure, reads_nothing};
use crate::Scalar;

fn check_dot(sig: Signature<'_>, narrow: Scalar) -> Result<(), String> {
    let ratio = Scalar::I32.bytes() / narrow.bytes();
    ensure(
        sig.ty.scalar == Scalar::I32 && sig.args[0] == sig.ty,
        "accumulator and result are i32 of one type",
    )?;
    ensure(
        sig.args[1] == sig.args[2] && sig.args[1].scalar == narrow,
        "factors have one type, the narrow one",
    )?;
    ensure(
        usize::from(sig.args[1].lanes) == ratio * usize::from(sig.ty.lanes),
        "factors are as many bytes as the accumulator",
    )
}

fn dot(call: Call<'_>, read: impl Fn(i64) -> i64) -> Result<Vec<i64>, String> {
    let ratio = call.args[1].len() / call.args[0].len();
    let groups = call.args[1].chunks(ratio).zip(call.args[2].chunks(ratio));
    let sum = |a: &[i64], w: &[i64]| a.iter().zip(w).map(|(&a, &w)| read(a) * w).sum::<i64>();
    Ok(call.args[0]
        .iter()
        .zip(groups)
        .map(|(acc, (a, w))| acc + sum(a, w))
        .collect())
}

pub(super) static DOT4: Def = Def {
    name: "dot4",
    arity: 3,
    attr: AttrKind::None,
    check: |sig| check_dot(sig, Scalar::I8),
    eval: |call| dot(call, |a| Scalar::I8.unsigned(a) as i64),
    reads: reads_nothing,
};

pub(super) static DOT4S: Def = Def {
    name: "dot4s",
    arity: 3,
    attr: AttrKind::None,
    check: |sig| check_dot(sig, Scalar::I8),
    eval: |call| dot(call, |a| a),
    reads: reads_nothing,
};

pub(super) static DOT4_NARROW: Def = Def {
    name: "dot4_narrow",
    arity: 3,
    attr: AttrKind::None,
    check: |sig| check_dot(sig, Scalar::I8),
    eval: |call| {
        let pairs = call.args[1].chunks(2).zip(call.args[2].chunks(2));
        let product = |(&a, &w): (&i64, &i64)| Scalar::I8.unsigned(a) as i64 * w;
        let mut sums = pairs.map(|(a, w)| a.iter().zip(w).map(product).sum::<i64>());
        match sums.find(|&sum| Scalar::I16.wrap(sum) != sum) {
            Some(sum) => Err(format!(
                "the sum {sum} of two products does not fit 16 bits"
            )),
            None => (DOT4.eval)(call),
        }
    },
    reads: reads_nothing,
};

pub(super) static DOT2: Def = Def {
    name: "dot2",
    arity: 3,
    attr: AttrKind::None,
    check: |sig| check_dot(sig, Scalar::I16),
    eval: |call| dot(call, |a| a),
    reads: reads_nothing,
};

pub(super) static MULHI: Def = Def {
    name: "mulhi",
    arity: 2,
    attr: AttrKind::None,
    check: |sig| {
        ensure(
            sig.args[0] == sig.ty && sig.args[1] == sig.ty,
            "operands and result have one type",
        )?;
        ensure(sig.ty.scalar == Scalar::I32, "lanes are i32")
    },
    eval: |call| {
        let pairs = call.args[0].iter().zip(call.args[1]);
        Ok(pairs
            .map(|(&a, &b)| i64::from(lowbit_num::high_product(a as i32, b as i32)))
            .collect())
    },
    reads: reads_nothing,
};
