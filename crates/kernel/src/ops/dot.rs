//! Products: what multiply-accumulate units do in one instruction.

use super::{AttrKind, Call, Def, Signature, ensure, reads_nothing};
use crate::Scalar;

fn check_dot(sig: Signature<'_>, sum: Scalar, factor: Scalar) -> Result<(), String> {
    ensure(
        sig.ty.scalar == sum && sig.args[0] == sig.ty,
        &format!("accumulator and result are {sum} of one type"),
    )?;
    ensure(
        sig.args[1] == sig.args[2] && sig.args[1].scalar == factor,
        "factors have one type, the narrow one",
    )?;
    ensure(
        sig.args[1].bytes() == sig.ty.bytes(),
        "factors are as many bytes as the accumulator",
    )
}

/// Sums of as many products as lie in one lane of the result.
fn products(call: &Call<'_>, read: impl Fn(i64) -> i64) -> Vec<i64> {
    let ratio = call.args[1].len() / call.args[0].len();
    let groups = call.args[1].chunks(ratio).zip(call.args[2].chunks(ratio));
    let sum = |(a, w): (&[i64], &[i64])| a.iter().zip(w).map(|(&a, &w)| read(a) * w).sum();
    groups.map(sum).collect()
}

fn dot(call: Call<'_>, read: impl Fn(i64) -> i64) -> Result<Vec<i64>, String> {
    let sums = products(&call, read);
    Ok(call.args[0].iter().zip(sums).map(|(a, s)| a + s).collect())
}

pub(super) static DOT4: Def = Def {
    name: "dot4",
    arity: 3,
    attr: AttrKind::None,
    check: |sig| check_dot(sig, Scalar::I32, Scalar::I8),
    eval: |call| dot(call, |a| Scalar::I8.unsigned(a) as i64),
    reads: reads_nothing,
};

pub(super) static DOT4S: Def = Def {
    name: "dot4s",
    arity: 3,
    attr: AttrKind::None,
    check: |sig| check_dot(sig, Scalar::I32, Scalar::I8),
    eval: |call| dot(call, |a| a),
    reads: reads_nothing,
};

pub(super) static DOT2_NARROW: Def = Def {
    name: "dot2_narrow",
    arity: 3,
    attr: AttrKind::None,
    check: |sig| check_dot(sig, Scalar::I16, Scalar::I8),
    eval: |call| {
        let pairs = products(&call, |a| Scalar::I8.unsigned(a) as i64);
        let sums: Vec<i64> = call.args[0]
            .iter()
            .zip(&pairs)
            .map(|(a, p)| a + p)
            .collect();
        let outside = |&&sum: &&i64| Scalar::I16.wrap(sum) != sum;
        match pairs.iter().chain(&sums).find(outside) {
            Some(sum) => Err(format!("the sum {sum} does not fit 16 bits")),
            None => Ok(sums),
        }
    },
    reads: reads_nothing,
};

pub(super) static DOT2: Def = Def {
    name: "dot2",
    arity: 3,
    attr: AttrKind::None,
    check: |sig| check_dot(sig, Scalar::I32, Scalar::I16),
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
