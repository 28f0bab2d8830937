//! Weights of fewer than 8 bits: packed in the object, unpacked into a work space, one byte a code.

use lowbit_kernel::{Addr, Builder, Type, Val};
use lowbit_num::Format;
use lowbit_num::formats::{Plane, Run};

/// Packs codes for vectors of `width` bytes.
pub(crate) fn pack(format: Format, codes: &[i8], width: usize) -> Vec<u8> {
    let mut bytes = vec![0; format.packed_len(codes.len())];
    format.pack(codes, width, &mut bytes);
    bytes
}

/// Bytes of packed weights from which on they are not taken to be in a cache nearby, and how far ahead they are brought there:
/// the processor sees no stream where unpacking and products take turns.
const FAR: usize = 256 * 1024;
const AHEAD: i64 = 4096;
/// Kept in the second-level cache.
const NEAR: u8 = 2;

/// How far ahead of unpacking a layer's packed weights are brought near, if at all.
pub(crate) fn ahead(packed: usize) -> Option<i64> {
    (packed >= FAR).then_some(AHEAD)
}

/// Unpacks `n` codes, packed for vectors of `width` bytes, from one address to another; what lies `ahead` of them is brought
/// near. Behind the last code less than a group of 8 may be written.
pub(crate) fn unpack(
    b: &mut Builder,
    format: Format,
    n: usize,
    width: usize,
    [from, to]: [&Addr; 2],
    ahead: Option<i64>,
) {
    for run in format.runs(n, width) {
        let strides = [run.packed_vectors(), run.vectors()].map(|n| (n * run.width) as i64);
        let (from, to) = (
            from.clone().plus(run.byte as i64),
            to.clone().plus(run.code as i64),
        );
        b.for_(run.groups as u32, &[], |b, i, _| {
            let (from, to) = (
                from.clone().step(i, strides[0]),
                to.clone().step(i, strides[1]),
            );
            if let Some(ahead) = ahead {
                for k in 0..run.packed_vectors() {
                    let at = from.clone().plus(ahead + (k * run.width) as i64);
                    b.prefetch(at, NEAR);
                }
            }
            group(b, format, &run, &from, &to);
            Vec::new()
        });
    }
}

/// Widens `count` vectors of signed bytes of `width` bytes each: even bytes as 16-bit numbers, then odd ones.
pub(crate) fn widen(b: &mut Builder, count: usize, width: usize, [from, to]: [&Addr; 2]) {
    let words = Type::I16.x((width / 2) as u16);
    b.for_(count as u32, &[], |b, i, _| {
        let v = b.load(words, from.clone().step(i, width as i64));
        let eight = b.constant(words, 8);
        let low = b.shl(v, eight);
        let to = to.clone().step(i, 2 * width as i64);
        let even = b.ashr(low, eight);
        b.store(even, to.clone());
        let odd = b.ashr(v, eight);
        b.store(odd, to.plus(width as i64));
        Vec::new()
    });
}

/// Even and odd bytes, unsigned, as 16-bit numbers.
pub(crate) fn halves(b: &mut Builder, bytes: Val) -> [Val; 2] {
    let words = Type::I16.x(b.ty(bytes).lanes / 2);
    let v = b.bitcast(words, bytes);
    let (low, eight) = (b.constant(words, 255), b.constant(words, 8));
    [b.and(v, low), b.lshr(v, eight)]
}

/// One group: every packed vector is loaded once.
fn group(b: &mut Builder, format: Format, run: &Run, from: &Addr, to: &Addr) {
    let ty = Type::I8.x(run.width as u16);
    let at = |base: &Addr, k: usize| base.clone().plus((k * run.width) as i64);
    let packed: Vec<Val> = (0..run.packed_vectors())
        .map(|k| b.load(ty, at(from, k)))
        .collect();
    for k in 0..run.vectors() {
        let parts: Vec<Val> = run
            .planes()
            .map(|plane| part(b, &packed, plane, k))
            .collect();
        let field = parts
            .into_iter()
            .reduce(|x, y| b.or(x, y))
            .expect("a format has a plane");
        let code = decode(b, format, field);
        b.store(code, at(to, k));
    }
}

/// A plane's part of the fields of vector `k`.
fn part(b: &mut Builder, packed: &[Val], plane: Plane, k: usize) -> Val {
    let (vector, bit) = plane.place(k);
    let mut v = packed[vector];
    let ty = b.ty(v);
    let constant = |b: &mut Builder, x: i64| b.constant(ty, x);
    if bit > 0 {
        let bit = constant(b, bit.into());
        v = b.lshr(v, bit);
    }
    if bit + plane.bits < 8 {
        let mask = constant(b, plane.mask().into());
        v = b.and(v, mask);
    }
    if plane.shift > 0 {
        let shift = constant(b, plane.shift.into());
        v = b.shl(v, shift);
    }
    v
}

/// The code of level `lo + step · field`.
fn decode(b: &mut Builder, format: Format, mut field: Val) -> Val {
    let ty = b.ty(field);
    for _ in 1..format.step() {
        field = b.add(field, field);
    }
    let lo = b.constant(ty, format.levels().0.into());
    let level = b.add(field, lo);
    match format.knee() {
        Some(knee) => spread(b, level, knee.into()),
        None => level,
    }
}

/// Codes of floats: `4t − t₁ − 2t₂` with level t held to ± knee and to half as much again, see [`Format::knee`].
fn spread(b: &mut Builder, level: Val, knee: i64) -> Val {
    let ty = b.ty(level);
    let mut held = |to: i64| {
        let (lo, hi) = (b.constant(ty, -to), b.constant(ty, to));
        let v = b.smax(level, lo);
        b.smin(v, hi)
    };
    let (one, two) = (held(knee), held(knee + knee / 2));
    let twice = b.add(level, level);
    let above = b.sub(twice, two);
    let above = b.add(above, above);
    b.sub(above, one)
}

#[cfg(test)]
mod tests {
    use lowbit_kernel::{Role, run_kernel, verify};

    use super::*;

    #[test]
    fn unpacks_what_was_packed() {
        for &format in Format::ALL {
            let all: Vec<i8> = format.codes().map(|c| c as i8).collect();
            for (n, width) in [(7, 16), (300, 16), (1031, 32), (4000, 64)] {
                let codes: Vec<i8> = (0..n).map(|i| all[i * i / 3 % all.len()]).collect();
                let packed = pack(format, &codes, width);
                let mut b = Builder::new("unpack");
                let from = b.buffer("from", Role::Const, packed.len());
                let to = b.buffer("to", Role::Out, n + 7);
                unpack(&mut b, format, n, width, [&from.at(0), &to.at(0)], None);
                let kernel = b.finish();
                verify(&kernel).unwrap();
                let mut memory = [packed, vec![0; n + 7]];
                run_kernel(&kernel, &mut memory).unwrap();
                let found: Vec<i8> = memory[1][..n].iter().map(|b| b.cast_signed()).collect();
                assert_eq!(found, codes, "{format} × {n} in {width}");
            }
        }
    }
}
