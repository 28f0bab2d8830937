//! What the rows of a target name: intrinsics and sequences.

use crate::generate::{Generator, V};
use crate::ops::{Use, lower, overloaded, pointer, rounding_shift};
use inkwell::IntPredicate;
use lowbit_kernel::{OpCode, Scalar, Type};
use lowbit_targets::{ResolvedTarget, Sequence};

/// One intrinsic on the operands in order.
pub(crate) fn intrinsic<'c>(g: &Generator<'c>, u: &Use<'_, 'c>, name: &str, as_acc: bool) -> V<'c> {
    let pass = |&v: &V<'c>| if as_acc { g.bitcast(v, u.ty) } else { v };
    g.intrinsic(name, u.ty, &u.args.iter().map(pass).collect::<Vec<_>>())
}

/// A named sequence.
pub(crate) fn sequence<'c>(
    g: &Generator<'c>,
    target: &ResolvedTarget,
    u: &Use<'_, 'c>,
    sequence: Sequence,
) -> V<'c> {
    match sequence {
        Sequence::MaddEvenOdd => madd_even_odd(g, u),
        Sequence::MaddBytes => madd_bytes(g, u),
        Sequence::Madd => g.add(u.args[0], madd(g, u.ty, u.args[1], u.args[2])),
        Sequence::EvenOdd64 => even_odd(g, u),
        Sequence::Pack => pack(g, u),
        Sequence::Shuffle16 => shuffle16(g, u),
        Sequence::Permute128 => permute128(g, u),
        Sequence::Table64 => table64(g, u),
        Sequence::MulPairwise => mul_pairwise(g, u),
        Sequence::SignedDot => signed_dot(g, target, u),
        Sequence::Narrow => narrow(g, u),
    }
}

/// The intrinsic of a 128-, 256- or 512-bit vector.
fn by_width(bytes: usize, names: [&'static str; 3]) -> &'static str {
    match bytes {
        16 => names[0],
        32 => names[1],
        64 => names[2],
        _ => unreachable!("rows name only whole vectors"),
    }
}

/// Pairs of 16-bit products summed to i32 lanes of `ty`.
fn madd<'c>(g: &Generator<'c>, ty: Type, a: V<'c>, b: V<'c>) -> V<'c> {
    let names = [
        "llvm.x86.sse2.pmadd.wd",
        "llvm.x86.avx2.pmadd.wd",
        "llvm.x86.avx512.pmaddw.d.512",
    ];
    g.intrinsic(by_width(ty.bytes(), names), ty, &[a, b])
}

fn madd_bytes<'c>(g: &Generator<'c>, u: &Use<'_, 'c>) -> V<'c> {
    let names = [
        "llvm.x86.ssse3.pmadd.ub.sw.128",
        "llvm.x86.avx2.pmadd.ub.sw",
        "llvm.x86.avx512.pmaddubs.w.512",
    ];
    let pairs = g.intrinsic(by_width(u.ty.bytes(), names), u.ty, &u.args[1..]);
    g.add(u.args[0], pairs)
}

fn madd_even_odd<'c>(g: &Generator<'c>, u: &Use<'_, 'c>) -> V<'c> {
    let words = Type::new(Scalar::I16, u.ty.lanes * 2);
    let eight = g.constant(words, 8);
    let signed = |v: V<'c>| (g.ashr(g.shl(v, eight), eight), g.ashr(v, eight));
    let unsigned = |v: V<'c>| (g.and(v, g.constant(words, 255)), g.lshr(v, eight));
    let a = g.bitcast(u.args[1], words);
    let (a_even, a_odd) = if u.code == OpCode::Dot4 {
        unsigned(a)
    } else {
        signed(a)
    };
    let (w_even, w_odd) = signed(g.bitcast(u.args[2], words));
    let sum = g.add(u.args[0], madd(g, u.ty, a_even, w_even));
    g.add(sum, madd(g, u.ty, a_odd, w_odd))
}

/// Sign-extended even lanes in place, and odd lanes shifted down, as 64 bits.
fn halves<'c>(g: &Generator<'c>, v: V<'c>, wide: Type) -> [V<'c>; 2] {
    let (v, amount) = (g.bitcast(v, wide), g.constant(wide, 32));
    [g.ashr(g.shl(v, amount), amount), g.ashr(v, amount)]
}

fn even_odd<'c>(g: &Generator<'c>, u: &Use<'_, 'c>) -> V<'c> {
    let wide = Type::new(Scalar::I64, u.ty.lanes / 2);
    let (a, b) = (halves(g, u.args[0], wide), halves(g, u.args[1], wide));
    let products = [g.mul(a[0], b[0]), g.mul(a[1], b[1])];
    let lanes = u32::from(u.ty.lanes);
    let (parts, low) = match u.code {
        OpCode::Mulhi => (products, 1),
        _ => {
            let c = halves(g, u.args[2], wide);
            (
                [0, 1].map(|k| rounding_shift(g, wide, products[k], c[k])),
                0,
            )
        }
    };
    let merged: Vec<_> = (0..lanes)
        .map(|k| k / 2 * 2 + low + k % 2 * lanes)
        .collect();
    g.shuffle(
        g.bitcast(parts[0], u.ty),
        g.bitcast(parts[1], u.ty),
        &merged,
    )
}

fn pack<'c>(g: &Generator<'c>, u: &Use<'_, 'c>) -> V<'c> {
    let bytes = u.ty.bytes();
    let words = Type::new(Scalar::I16, u.ty.lanes / 2);
    let to_words = by_width(
        bytes,
        [
            "llvm.x86.sse2.packssdw.128",
            "llvm.x86.avx2.packssdw",
            "llvm.x86.avx512.packssdw.512",
        ],
    );
    let to_bytes = by_width(
        bytes,
        [
            "llvm.x86.sse2.packuswb.128",
            "llvm.x86.avx2.packuswb",
            "llvm.x86.avx512.packuswb.512",
        ],
    );
    let low = g.intrinsic(to_words, words, &u.args[..2]);
    let high = g.intrinsic(to_words, words, &u.args[2..]);
    g.intrinsic(to_bytes, u.ty, &[low, high])
}

/// Entry `idx` of 16: adding 0x70 with saturation sets the top bit, which `pshufb` answers with 0, unless the high nibble is k.
fn shuffle16<'c>(g: &Generator<'c>, u: &Use<'_, 'c>) -> V<'c> {
    let names = [
        "llvm.x86.ssse3.pshuf.b.128",
        "llvm.x86.avx2.pshuf.b",
        "llvm.x86.avx512.pshuf.b.512",
    ];
    let name = by_width(u.ty.bytes(), names);
    let every: Vec<_> = (0..u32::from(u.ty.lanes)).map(|k| k % 16).collect();
    let part = |k: i64| {
        let table = g.load(Type::I8.x(16), g.offset(pointer(u), 16 * k), 1);
        let table = g.shuffle(table, table, &every);
        let nibble = g.xor(u.args[0], g.constant(u.ty, 16 * k));
        let index = overloaded(g, "uadd.sat", u.ty, &[nibble, g.constant(u.ty, 0x70)]);
        g.intrinsic(name, u.ty, &[table, index])
    };
    (1..16).fold(part(0), |found, k| g.or(found, part(k)))
}

fn permute128<'c>(g: &Generator<'c>, u: &Use<'_, 'c>) -> V<'c> {
    let quarter = |k: i64| g.load(u.ty, g.offset(pointer(u), 64 * k), 1);
    let half = |k: i64| {
        let args = [quarter(2 * k), u.args[0], quarter(2 * k + 1)];
        g.intrinsic("llvm.x86.avx512.vpermi2var.qi.512", u.ty, &args)
    };
    g.select(
        IntPredicate::SLT,
        u.args[0],
        g.constant(u.ty, 0),
        half(1),
        half(0),
    )
}

/// Lookups outside their 64 bytes give 0 (`tbl`) or leave what is there (`tbx`).
fn table64<'c>(g: &Generator<'c>, u: &Use<'_, 'c>) -> V<'c> {
    let rows = |k: i64| (0..4).map(move |r| g.load(u.ty, g.offset(pointer(u), 64 * k + 16 * r), 1));
    let first: Vec<_> = rows(0).chain([u.args[0]]).collect();
    let found = g.intrinsic("llvm.aarch64.neon.tbl4.v16i8", u.ty, &first);
    (1..4).fold(found, |found, k| {
        let index = g.sub(u.args[0], g.constant(u.ty, 64 * k));
        let args: Vec<_> = [found].into_iter().chain(rows(k)).chain([index]).collect();
        g.intrinsic("llvm.aarch64.neon.tbx4.v16i8", u.ty, &args)
    })
}

fn mul_pairwise<'c>(g: &Generator<'c>, u: &Use<'_, 'c>) -> V<'c> {
    let words = Type::I16.x(8);
    let half = |k: u32| {
        let (a, w) = (g.slice(u.args[1], 8 * k, 8), g.slice(u.args[2], 8 * k, 8));
        let products = g.intrinsic("llvm.aarch64.neon.smull.v8i16", words, &[a, w]);
        g.intrinsic("llvm.aarch64.neon.saddlp.v4i32.v8i16", u.ty, &[products])
    };
    g.add(
        u.args[0],
        g.intrinsic("llvm.aarch64.neon.addp.v4i32", u.ty, &[half(0), half(1)]),
    )
}

fn signed_dot<'c>(g: &Generator<'c>, target: &ResolvedTarget, u: &Use<'_, 'c>) -> V<'c> {
    let bytes = u.types[1];
    let dot = |acc, a, w| {
        let types = u.types.clone();
        lower(
            g,
            target,
            &Use {
                code: OpCode::Dot4s,
                args: vec![acc, a, w],
                types,
                ..*u
            },
        )
    };
    let shifted = dot(
        u.args[0],
        g.xor(u.args[1], g.constant(bytes, -128)),
        u.args[2],
    );
    let weights = dot(g.constant(u.ty, 0), g.constant(bytes, 1), u.args[2]);
    g.add(shifted, g.shl(weights, g.constant(u.ty, 7)))
}

fn narrow<'c>(g: &Generator<'c>, u: &Use<'_, 'c>) -> V<'c> {
    let words = Type::I16.x(4);
    let word = |&v: &V<'c>| g.intrinsic("llvm.aarch64.neon.sqxtn.v4i16", words, &[v]);
    let parts: Vec<_> = u.args.iter().map(word).collect();
    let half = |k: usize| {
        let both = g.concat(&parts[2 * k..2 * k + 2]);
        g.intrinsic("llvm.aarch64.neon.sqxtun.v8i8", Type::I8.x(8), &[both])
    };
    g.concat(&[half(0), half(1)])
}
