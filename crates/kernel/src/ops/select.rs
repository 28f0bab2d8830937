//! Selection by comparison.

use super::{AttrKind, Call, Def, Signature, ensure, reads_nothing};
use crate::Scalar;

fn check(sig: Signature<'_>) -> Result<(), String> {
    ensure(
        sig.args[0] == sig.args[1],
        "compared operands have one type",
    )?;
    ensure(
        sig.args[2] == sig.ty && sig.args[3] == sig.ty,
        "chosen operands have the result's type",
    )?;
    ensure(sig.args[0].lanes == sig.ty.lanes, "lane counts differ")
}

fn choose(call: Call<'_>, holds: impl Fn(Scalar, i64, i64) -> bool) -> Result<Vec<i64>, String> {
    let scalar = call.sig.args[0].scalar;
    let pick = |k: usize| match holds(scalar, call.args[0][k], call.args[1][k]) {
        true => call.args[2][k],
        false => call.args[3][k],
    };
    Ok((0..call.sig.ty.lanes.into()).map(pick).collect())
}

macro_rules! select {
    ($row:ident, $name:literal, $holds:expr) => {
        pub(super) static $row: Def = Def {
            name: $name,
            arity: 4,
            attr: AttrKind::None,
            check,
            eval: |call| choose(call, $holds),
            reads: reads_nothing,
        };
    };
}

select!(EQ, "select_eq", |_, a, b| a == b);
select!(SLT, "select_slt", |_, a, b| a < b);
select!(ULT, "select_ult", |s, a, b| s.unsigned(a) < s.unsigned(b));
