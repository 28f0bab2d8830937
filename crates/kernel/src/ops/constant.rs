//! Constants and loop counters.

use super::{AttrKind, Def, ensure, reads_nothing};
use crate::{Attr, Type};

pub(super) static CONST: Def = Def {
    name: "const",
    arity: 0,
    attr: AttrKind::Int,
    check: |sig| match sig.attr {
        Attr::Int(x) => ensure(
            sig.ty.scalar.wrap(*x) == *x,
            "the number does not fit a signed lane",
        ),
        _ => unreachable!("the kind of attribute was checked"),
    },
    eval: |call| match call.sig.attr {
        Attr::Int(x) => Ok(vec![*x; call.sig.ty.lanes.into()]),
        _ => unreachable!("the kind of attribute was checked"),
    },
    reads: reads_nothing,
};

pub(super) static CONST_VEC: Def = Def {
    name: "constvec",
    arity: 0,
    attr: AttrKind::List,
    check: |sig| match sig.attr {
        Attr::List(xs) => {
            ensure(
                xs.len() == usize::from(sig.ty.lanes),
                "one number is needed for each lane",
            )?;
            ensure(
                xs.iter().all(|&x| sig.ty.scalar.wrap(x) == x),
                "a number does not fit a signed lane",
            )
        }
        _ => unreachable!("the kind of attribute was checked"),
    },
    eval: |call| match call.sig.attr {
        Attr::List(xs) => Ok(xs.clone()),
        _ => unreachable!("the kind of attribute was checked"),
    },
    reads: reads_nothing,
};

pub(super) static INDEX: Def = Def {
    name: "index",
    arity: 0,
    attr: AttrKind::Var,
    check: |sig| ensure(sig.ty == Type::I32, "a loop counter is an i32"),
    eval: |_| Err("the interpreter knows the counters".to_owned()),
    reads: reads_nothing,
};
