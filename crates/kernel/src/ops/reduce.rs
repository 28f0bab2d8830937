//! From all lanes to one.

use super::{AttrKind, Def, Signature, ensure, reads_nothing};

fn check(sig: Signature<'_>) -> Result<(), String> {
    ensure(sig.args[0].is_vector(), "the operand is a vector")?;
    ensure(
        sig.args[0].lane() == sig.ty,
        "the result is one lane of the operand",
    )
}

pub(super) static ADD: Def = Def {
    name: "reduce_add",
    arity: 1,
    attr: AttrKind::None,
    check,
    eval: |call| {
        Ok(vec![
            call.args[0].iter().fold(0, |s: i64, &x| s.wrapping_add(x)),
        ])
    },
    reads: reads_nothing,
};

pub(super) static SMAX: Def = Def {
    name: "reduce_smax",
    arity: 1,
    attr: AttrKind::None,
    check,
    eval: |call| Ok(vec![call.args[0].iter().fold(i64::MIN, |s, &x| s.max(x))]),
    reads: reads_nothing,
};
