//! Operations that change shape or width of lanes.

use super::memory::{from_bytes, to_bytes};
use super::{AttrKind, Def, Signature, ensure, reads_nothing};
use crate::Attr;

pub(super) static SPLAT: Def = Def {
    name: "splat",
    arity: 1,
    attr: AttrKind::None,
    check: |sig| {
        ensure(
            sig.args[0] == sig.ty.lane(),
            "the operand is one lane of the result",
        )
    },
    eval: |call| Ok(vec![call.args[0][0]; call.sig.ty.lanes.into()]),
    reads: reads_nothing,
};

pub(super) static BITCAST: Def = Def {
    name: "bitcast",
    arity: 1,
    attr: AttrKind::None,
    check: |sig| ensure(sig.args[0].bytes() == sig.ty.bytes(), "sizes differ"),
    eval: |call| {
        Ok(from_bytes(
            call.sig.ty,
            &to_bytes(call.sig.args[0], call.args[0]),
        ))
    },
    reads: reads_nothing,
};

fn widens(sig: Signature<'_>) -> Result<(), String> {
    ensure(sig.args[0].lanes == sig.ty.lanes, "lane counts differ")?;
    ensure(
        sig.args[0].scalar < sig.ty.scalar,
        "the result must be wider",
    )
}

pub(super) static ZEXT: Def = Def {
    name: "zext",
    arity: 1,
    attr: AttrKind::None,
    check: widens,
    eval: |call| {
        let from = call.sig.args[0].scalar;
        Ok(call.args[0]
            .iter()
            .map(|&x| from.unsigned(x) as i64)
            .collect())
    },
    reads: reads_nothing,
};

pub(super) static SEXT: Def = Def {
    name: "sext",
    arity: 1,
    attr: AttrKind::None,
    check: widens,
    eval: |call| Ok(call.args[0].to_vec()),
    reads: reads_nothing,
};

pub(super) static TRUNC: Def = Def {
    name: "trunc",
    arity: 1,
    attr: AttrKind::None,
    check: |sig| {
        ensure(sig.args[0].lanes == sig.ty.lanes, "lane counts differ")?;
        ensure(
            sig.args[0].scalar > sig.ty.scalar,
            "the result must be narrower",
        )
    },
    eval: |call| Ok(call.args[0].to_vec()),
    reads: reads_nothing,
};

pub(super) static EXTRACT: Def = Def {
    name: "extract",
    arity: 1,
    attr: AttrKind::Int,
    check: |sig| {
        ensure(
            sig.args[0].lane() == sig.ty,
            "the result is one lane of the operand",
        )?;
        match sig.attr {
            Attr::Int(k) => ensure((0..sig.args[0].lanes.into()).contains(k), "no such lane"),
            _ => unreachable!("the kind of attribute was checked"),
        }
    },
    eval: |call| match call.sig.attr {
        Attr::Int(k) => Ok(vec![call.args[0][*k as usize]]),
        _ => unreachable!("the kind of attribute was checked"),
    },
    reads: reads_nothing,
};

pub(super) static SHUFFLE: Def = Def {
    name: "shuffle",
    arity: 2,
    attr: AttrKind::List,
    check: |sig| {
        ensure(sig.args[0] == sig.args[1], "operands have one type")?;
        ensure(
            sig.args[0].scalar == sig.ty.scalar,
            "the result has the operands' scalar",
        )?;
        match sig.attr {
            Attr::List(lanes) => {
                let all = 0..2 * i64::from(sig.args[0].lanes);
                ensure(
                    lanes.len() == usize::from(sig.ty.lanes),
                    "one number is needed for each lane",
                )?;
                ensure(lanes.iter().all(|k| all.contains(k)), "no such lane")
            }
            _ => unreachable!("the kind of attribute was checked"),
        }
    },
    eval: |call| match call.sig.attr {
        Attr::List(lanes) => {
            let both = call.args.concat();
            Ok(lanes.iter().map(|&k| both[k as usize]).collect())
        }
        _ => unreachable!("the kind of attribute was checked"),
    },
    reads: reads_nothing,
};
