//! Operations in plain LLVM terms, for every shape that no row covers.

use crate::generate::{Generator, V};
use crate::rules;
use inkwell::IntPredicate;
use inkwell::values::PointerValue;
use lowbit_kernel::{Attr, OpCode, Scalar, Type};
use lowbit_targets::{ResolvedTarget, Rule};

/// One operation with its operands lowered.
#[derive(Clone)]
pub(crate) struct Use<'a, 'c> {
    pub(crate) code: OpCode,
    pub(crate) ty: Type,
    pub(crate) args: Vec<V<'c>>,
    pub(crate) types: Vec<Type>,
    pub(crate) attr: &'a Attr,
    pub(crate) pointer: Option<PointerValue<'c>>,
    pub(crate) align: u32,
}

/// Lowers by the row of the exact shape, by pieces of the widest row that divides it, or plainly.
pub(crate) fn lower<'c>(g: &Generator<'c>, target: &ResolvedTarget, u: &Use<'_, 'c>) -> V<'c> {
    match target.row(u.code, u.ty).map(|row| row.rule) {
        Some(Rule::Generic) => plain(g, u),
        Some(Rule::Intrinsic { name, as_acc }) => rules::intrinsic(g, u, name, as_acc),
        Some(Rule::Sequence(sequence)) => rules::sequence(g, target, u, sequence),
        None => match target.split_row(u.code, u.ty) {
            None if u.code == OpCode::Dot4Tile => dot_tile(g, target, u),
            Some(row) if row.rule != Rule::Generic => split(g, target, u, row.ty),
            _ => plain(g, u),
        },
    }
}

fn split<'c>(g: &Generator<'c>, target: &ResolvedTarget, u: &Use<'_, 'c>, piece: Type) -> V<'c> {
    let pieces = u.ty.lanes / piece.lanes;
    let part = |k: u16| {
        let types: Vec<_> = u.types.iter().map(|t| t.x(t.lanes / pieces)).collect();
        let slice = |(&v, t): (&V<'c>, &Type)| g.slice(v, u32::from(k * t.lanes), t.lanes.into());
        let args = u.args.iter().zip(&types).map(slice).collect();
        lower(
            g,
            target,
            &Use {
                ty: piece,
                args,
                types,
                ..*u
            },
        )
    };
    g.concat(&(0..pieces).map(part).collect::<Vec<_>>())
}

fn int(attr: &Attr) -> i64 {
    match attr {
        Attr::Int(x) => *x,
        _ => unreachable!("verified: the attribute is a number"),
    }
}

fn list(attr: &Attr) -> &[i64] {
    match attr {
        Attr::List(xs) => xs,
        _ => unreachable!("verified: the attribute is a list"),
    }
}

fn suffix(ty: Type) -> String {
    let bits = ty.scalar.bits();
    if ty.is_vector() {
        format!("v{}i{bits}", ty.lanes)
    } else {
        format!("i{bits}")
    }
}

/// An overloaded LLVM intrinsic of the result's type, such as `llvm.smax`.
pub(crate) fn overloaded<'c>(g: &Generator<'c>, name: &str, ty: Type, args: &[V<'c>]) -> V<'c> {
    g.intrinsic(&format!("llvm.{name}.{}", suffix(ty)), ty, args)
}

/// The operation in plain LLVM integer operations.
pub(crate) fn plain<'c>(g: &Generator<'c>, u: &Use<'_, 'c>) -> V<'c> {
    let (ty, a) = (u.ty, &u.args);
    match u.code {
        OpCode::Const => g.constant(ty, int(u.attr)),
        OpCode::ConstVec => g.constant_lanes(ty, list(u.attr)),
        OpCode::Index => unreachable!("counters are lowered with their loops"),
        OpCode::Load => g.load(ty, pointer(u), u.align),
        OpCode::LoadRows => rows(g, u),
        OpCode::Lut256 => lookup(g, u),
        OpCode::Splat if ty.is_vector() => g.splat(a[0], ty),
        OpCode::Splat => a[0],
        OpCode::Bitcast => g.bitcast(a[0], ty),
        OpCode::Zext => g.zext(a[0], ty),
        OpCode::Sext => g.sext(a[0], ty),
        OpCode::Trunc => g.trunc(a[0], ty),
        OpCode::Extract if u.types[0].is_vector() => g.extract(a[0], int(u.attr) as u64),
        OpCode::Extract => a[0],
        OpCode::Shuffle => shuffle(g, u),
        _ => arithmetic(g, u),
    }
}

fn arithmetic<'c>(g: &Generator<'c>, u: &Use<'_, 'c>) -> V<'c> {
    let (ty, a) = (u.ty, &u.args);
    match u.code {
        OpCode::Add => g.add(a[0], a[1]),
        OpCode::Sub => g.sub(a[0], a[1]),
        OpCode::Mul => g.mul(a[0], a[1]),
        OpCode::And => g.and(a[0], a[1]),
        OpCode::Or => g.or(a[0], a[1]),
        OpCode::Xor => g.xor(a[0], a[1]),
        OpCode::Shl => g.shl(a[0], a[1]),
        OpCode::Ashr => g.ashr(a[0], a[1]),
        OpCode::Lshr => g.lshr(a[0], a[1]),
        OpCode::Udiv => g.udiv(a[0], a[1]),
        OpCode::Smin => overloaded(g, "smin", ty, a),
        OpCode::Smax => overloaded(g, "smax", ty, a),
        OpCode::Umin => overloaded(g, "umin", ty, a),
        OpCode::Umax => overloaded(g, "umax", ty, a),
        OpCode::Popcount => overloaded(g, "ctpop", ty, a),
        OpCode::Clz => leading_zeros(g, u),
        OpCode::SelectEq => g.select(IntPredicate::EQ, a[0], a[1], a[2], a[3]),
        OpCode::SelectSlt => g.select(IntPredicate::SLT, a[0], a[1], a[2], a[3]),
        OpCode::SelectUlt => g.select(IntPredicate::ULT, a[0], a[1], a[2], a[3]),
        OpCode::ReduceAdd => reduce(g, "add", u),
        OpCode::ReduceSmax => reduce(g, "smax", u),
        _ => semantic(g, u),
    }
}

fn semantic<'c>(g: &Generator<'c>, u: &Use<'_, 'c>) -> V<'c> {
    let (ty, a) = (u.ty, &u.args);
    match u.code {
        OpCode::Dot4 => dot(g, u, 4, false),
        OpCode::Dot4s => dot(g, u, 4, true),
        OpCode::Dot2 => dot(g, u, 2, true),
        OpCode::Dot2Narrow => dot(g, u, 2, false),
        OpCode::Mulhi => {
            let product = wide_product(g, u);
            let high = g.ashr(product, g.constant(ty.with(Scalar::I64), 32));
            g.trunc(high, ty)
        }
        OpCode::Requant => requant(g, u),
        OpCode::SatU8 => g.trunc(clamp(g, a[0], u.types[0], 0, 255), ty),
        OpCode::SatI16 => g.trunc(clamp(g, a[0], u.types[0], -32768, 32767), ty),
        OpCode::Pack4U8 => pack(g, u),
        OpCode::Zip4 => zip(g, a, ty, int(u.attr) as u32),
        code => unreachable!("{code:?} is lowered before"),
    }
}

pub(crate) fn pointer<'c>(u: &Use<'_, 'c>) -> PointerValue<'c> {
    u.pointer.expect("verified: the attribute is an address")
}

/// Row after row.
fn rows<'c>(g: &Generator<'c>, u: &Use<'_, 'c>) -> V<'c> {
    let Attr::Rows { rows, pitch, .. } = u.attr else {
        unreachable!("verified: the attribute is rows")
    };
    let ty = u.ty.x(u.ty.lanes / *rows as u16);
    let align = u.align.min(1 << pitch.trailing_zeros().min(6));
    let row = |k: i64| g.load(ty, g.offset(pointer(u), k * pitch), align);
    match ty.is_vector() {
        true => g.concat(&(0..i64::from(*rows)).map(row).collect::<Vec<_>>()),
        false => {
            (0..i64::from(*rows)).fold(g.undefined(u.ty), |v, k| g.insert(v, row(k), k as u64))
        }
    }
}

/// Each row of sums by dot products of four bytes in every lane with a row of the second factor.
fn dot_tile<'c>(g: &Generator<'c>, target: &ResolvedTarget, u: &Use<'_, 'c>) -> V<'c> {
    let (ty, factors) = (Type::I32.x(16), Type::I8.x(64));
    let (rows, steps) = (u.ty.lanes / 16, u.types[2].lanes / 64);
    let weights: Vec<V<'c>> = (0..u32::from(steps))
        .map(|s| g.slice(u.args[2], 64 * s, 64))
        .collect();
    let sum = |r: u32| {
        let acc = g.slice(u.args[0], 16 * r, 16);
        weights.iter().zip(0..).fold(acc, |acc, (&w, s)| {
            let at = 4 * (r * u32::from(steps) + s);
            let bytes: Vec<u32> = (0..64).map(|k| at + k % 4).collect();
            let a = g.shuffle(u.args[1], u.args[1], &bytes);
            let step = Use {
                code: OpCode::Dot4,
                ty,
                args: vec![acc, a, w],
                types: vec![ty, factors, factors],
                ..u.clone()
            };
            lower(g, target, &step)
        })
    };
    g.concat(&(0..u32::from(rows)).map(sum).collect::<Vec<_>>())
}

fn lookup<'c>(g: &Generator<'c>, u: &Use<'_, 'c>) -> V<'c> {
    let entry = |i: V<'c>| g.load(Type::I8, g.advance(pointer(u), g.zext(i, Type::I64)), 1);
    if !u.ty.is_vector() {
        return entry(u.args[0]);
    }
    let lanes = 0..u64::from(u.ty.lanes);
    lanes.fold(g.undefined(u.ty), |v, k| {
        g.insert(v, entry(g.extract(u.args[0], k)), k)
    })
}

fn shuffle<'c>(g: &Generator<'c>, u: &Use<'_, 'c>) -> V<'c> {
    let pick = list(u.attr);
    let lanes: Vec<_> = pick.iter().map(|&k| k as u32).collect();
    match (u.types[0].is_vector(), u.ty.is_vector()) {
        (true, true) => g.shuffle(u.args[0], u.args[1], &lanes),
        (true, false) => {
            let (n, k) = (u32::from(u.types[0].lanes), lanes[0]);
            g.extract(u.args[usize::from(k >= n)], (k % n).into())
        }
        (false, true) => {
            let put = |v, (at, &k): (usize, &u32)| g.insert(v, u.args[k as usize], at as u64);
            lanes.iter().enumerate().fold(g.undefined(u.ty), put)
        }
        (false, false) => u.args[lanes[0] as usize],
    }
}

fn leading_zeros<'c>(g: &Generator<'c>, u: &Use<'_, 'c>) -> V<'c> {
    let defined_at_zero = g.context.bool_type().const_zero().into();
    overloaded(g, "ctlz", u.ty, &[u.args[0], defined_at_zero])
}

fn reduce<'c>(g: &Generator<'c>, name: &str, u: &Use<'_, 'c>) -> V<'c> {
    g.intrinsic(
        &format!("llvm.vector.reduce.{name}.{}", suffix(u.types[0])),
        u.ty,
        &u.args,
    )
}

/// Byte or word k of every accumulator lane, in place: no shuffles.
fn dot<'c>(g: &Generator<'c>, u: &Use<'_, 'c>, ways: i64, signed: bool) -> V<'c> {
    let whole = i64::from(u.ty.scalar.bits());
    let bits = whole / ways;
    let (a, w) = (g.bitcast(u.args[1], u.ty), g.bitcast(u.args[2], u.ty));
    let amount = |x| g.constant(u.ty, x);
    let part = |v, k, signed| {
        let top = g.shl(v, amount(whole - bits * (k + 1)));
        if signed {
            g.ashr(top, amount(whole - bits))
        } else {
            g.lshr(top, amount(whole - bits))
        }
    };
    (0..ways).fold(u.args[0], |acc, k| {
        g.add(acc, g.mul(part(a, k, signed), part(w, k, true)))
    })
}

fn wide_product<'c>(g: &Generator<'c>, u: &Use<'_, 'c>) -> V<'c> {
    let wide = u.ty.with(Scalar::I64);
    g.mul(g.sext(u.args[0], wide), g.sext(u.args[1], wide))
}

fn requant<'c>(g: &Generator<'c>, u: &Use<'_, 'c>) -> V<'c> {
    let wide = u.ty.with(Scalar::I64);
    let shift = g.zext(u.args[2], wide);
    g.trunc(rounding_shift(g, wide, wide_product(g, u), shift), u.ty)
}

/// `(x + 2^(c−1)) >> c` in 64-bit lanes.
pub(crate) fn rounding_shift<'c>(g: &Generator<'c>, ty: Type, x: V<'c>, c: V<'c>) -> V<'c> {
    let one = g.constant(ty, 1);
    let half = g.shl(one, g.sub(c, one));
    g.ashr(g.add(x, half), c)
}

fn clamp<'c>(g: &Generator<'c>, v: V<'c>, ty: Type, lo: i64, hi: i64) -> V<'c> {
    let above = overloaded(g, "smax", ty, &[v, g.constant(ty, lo)]);
    overloaded(g, "smin", ty, &[above, g.constant(ty, hi)])
}

fn pack<'c>(g: &Generator<'c>, u: &Use<'_, 'c>) -> V<'c> {
    let narrow = u.types[0].with(Scalar::I8);
    let byte = |&v: &V<'c>| g.trunc(clamp(g, v, u.types[0], 0, 255), narrow);
    let parts: Vec<_> = u.args.iter().map(byte).collect();
    let in_parts = g.concat(&parts);
    let lanes = u32::from(narrow.lanes);
    let from = |k: u32| k % 16 / 4 * lanes + k / 16 * 4 + k % 4;
    g.shuffle(
        in_parts,
        in_parts,
        &(0..u32::from(u.ty.lanes)).map(from).collect::<Vec<_>>(),
    )
}

/// Two levels of in-lane interleaving, which selection knows as unpacks.
fn zip<'c>(g: &Generator<'c>, rows: &[V<'c>], ty: Type, part: u32) -> V<'c> {
    let half = part / 2;
    let bytes = |a, b| g.shuffle(a, b, &interleave(ty.lanes.into(), 16, half));
    let words = ty.x(ty.lanes / 2).with(Scalar::I16);
    let (low, high) = (bytes(rows[0], rows[1]), bytes(rows[2], rows[3]));
    let (low, high) = (g.bitcast(low, words), g.bitcast(high, words));
    g.bitcast(
        g.shuffle(low, high, &interleave(words.lanes.into(), 8, part % 2)),
        ty,
    )
}

/// Lanes of two vectors alternating, from the low (0) or high (1) half of every group.
fn interleave(lanes: u32, group: u32, half: u32) -> Vec<u32> {
    let from = |k: u32| k / group * group + half * group / 2 + k % group / 2 + k % 2 * lanes;
    (0..lanes).map(from).collect()
}
