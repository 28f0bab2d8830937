//! Every operation in many shapes, with and without rows: machine code equals the interpreter.

use crate::common::{Case, compare, targets};
use lowbit_kernel::{Attr, OpCode, Scalar, Type};

const LANES: &[u16] = &[1, 2, 7, 16, 64];

fn types() -> impl Iterator<Item = Type> {
    Scalar::ALL
        .into_iter()
        .flat_map(|s| LANES.iter().map(move |&n| Type::new(s, n)))
}

fn of_scalar(scalar: Scalar) -> impl Iterator<Item = Type> {
    LANES.iter().map(move |&n| Type::new(scalar, n))
}

fn constants(code: OpCode) -> Vec<Case> {
    let attr = |t: Type| match code {
        OpCode::Const => Attr::Int(-3),
        _ => Attr::List((0..t.lanes).map(|k| i64::from(k) - 64).collect()),
    };
    types().map(|t| Case::new(code, t, &[], attr(t))).collect()
}

fn casts(code: OpCode) -> Vec<Case> {
    let wider = |t: Type| {
        Scalar::ALL
            .into_iter()
            .filter(move |s| *s > t.scalar)
            .map(move |s| (t, t.with(s)))
    };
    let pairs = types().flat_map(wider);
    match code {
        OpCode::Trunc => pairs
            .map(|(n, w)| Case::new(code, n, &[w], Attr::None))
            .collect(),
        _ => pairs
            .map(|(n, w)| Case::new(code, w, &[n], Attr::None))
            .collect(),
    }
}

fn shapes(code: OpCode) -> Vec<Case> {
    let vectors = types().filter(|t| t.is_vector());
    match code {
        OpCode::Splat => types()
            .map(|t| Case::new(code, t, &[t.lane()], Attr::None))
            .collect(),
        OpCode::Extract => types()
            .map(|t| Case::new(code, t.lane(), &[t], Attr::Int((t.lanes / 2).into())))
            .collect(),
        OpCode::Bitcast => {
            let bytes = |t: Type| Type::new(Scalar::I8, (t.bytes() as u16).min(Type::MAX_LANES));
            types()
                .map(|t| Case::new(code, bytes(t), &[t], Attr::None))
                .collect()
        }
        OpCode::Shuffle => {
            let pick = |t: Type| {
                (0..t.lanes)
                    .map(|k| i64::from(k * 5 % (2 * t.lanes)))
                    .collect::<Vec<_>>()
            };
            let whole = types().map(|t| Case::new(code, t, &[t, t], Attr::List(pick(t))));
            let one = types()
                .map(|t| Case::new(code, t.lane(), &[t, t], Attr::List(vec![t.lanes.into()])));
            let two = types().map(|t| {
                Case::new(
                    code,
                    t.x(3),
                    &[t, t],
                    Attr::List(vec![1, 0, t.lanes.into()]),
                )
            });
            whole.chain(one).chain(two).collect()
        }
        _ => vectors
            .map(|t| Case::new(code, t.lane(), &[t], Attr::None))
            .collect(),
    }
}

fn products(code: OpCode) -> Vec<Case> {
    of_scalar(Scalar::I32)
        .flat_map(|t| Case::of_row(code, t))
        .collect()
}

fn narrowing(code: OpCode) -> Vec<Case> {
    let to = if code == OpCode::SatU8 {
        Scalar::I8
    } else {
        Scalar::I16
    };
    of_scalar(Scalar::I32)
        .map(|t| Case::new(code, t.with(to), &[t], Attr::None))
        .collect()
}

fn bytes(code: OpCode) -> Vec<Case> {
    [16, 32, 64, 128, 48]
        .iter()
        .flat_map(|&n| Case::of_row(code, Type::I8.x(n)))
        .collect()
}

fn selections(code: OpCode) -> Vec<Case> {
    let same = types().map(|t| Case::new(code, t, &[t; 4], Attr::None));
    let other = types().map(|t| {
        Case::new(
            code,
            t.with(Scalar::I32),
            &[t, t, t.with(Scalar::I32), t.with(Scalar::I32)],
            Attr::None,
        )
    });
    same.chain(other).collect()
}

fn cases(code: OpCode) -> Vec<Case> {
    match code {
        OpCode::Const | OpCode::ConstVec => constants(code),
        // Loads run in every case; counters in the tests of loops, rows in those of tiles.
        OpCode::Load | OpCode::LoadRows | OpCode::Index => Vec::new(),
        OpCode::Dot4Tile => [16, 80, 256]
            .iter()
            .flat_map(|&n| Case::of_row(code, Type::I32.x(n)))
            .collect(),
        OpCode::Zext | OpCode::Sext | OpCode::Trunc => casts(code),
        OpCode::Splat | OpCode::Bitcast | OpCode::Extract | OpCode::Shuffle => shapes(code),
        OpCode::ReduceAdd | OpCode::ReduceSmax => shapes(code),
        OpCode::Lut256 => of_scalar(Scalar::I8)
            .flat_map(|t| Case::of_row(code, t))
            .collect(),
        OpCode::Dot2Narrow => of_scalar(Scalar::I16)
            .flat_map(|t| Case::of_row(code, t))
            .collect(),
        OpCode::Dot4 | OpCode::Dot4s | OpCode::Dot2 | OpCode::Mulhi | OpCode::Requant => {
            products(code)
        }
        OpCode::SatU8 | OpCode::SatI16 => narrowing(code),
        OpCode::Pack4U8 | OpCode::Zip4 => bytes(code),
        OpCode::SelectEq | OpCode::SelectSlt | OpCode::SelectUlt => selections(code),
        OpCode::Udiv => Case::of_row(code, Type::I32),
        _ => types().flat_map(|t| Case::of_row(code, t)).collect(),
    }
}

#[test]
fn every_operation_computes_what_the_interpreter_does_on_every_target() {
    let all: Vec<_> = OpCode::ALL.iter().flat_map(|&code| cases(code)).collect();
    for target in targets() {
        compare(&all, &target, 7);
    }
}
