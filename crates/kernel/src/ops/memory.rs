//! Operations that read memory.

use super::{AttrKind, Def, ensure};
use crate::{Scalar, Type};

pub(super) static LOAD: Def = Def {
    name: "load",
    arity: 0,
    attr: AttrKind::At,
    check: |_| Ok(()),
    eval: |call| Ok(from_bytes(call.sig.ty, call.memory)),
    reads: Type::bytes,
};

pub(super) static LUT256: Def = Def {
    name: "lut256",
    arity: 1,
    attr: AttrKind::At,
    check: |sig| {
        ensure(sig.args[0] == sig.ty, "operand and result have one type")?;
        ensure(sig.ty.scalar == Scalar::I8, "lanes are i8")
    },
    eval: |call| {
        let entry = |&i: &i64| i64::from(call.memory[Scalar::I8.unsigned(i) as usize]);
        Ok(call.args[0].iter().map(entry).collect())
    },
    reads: |_| 256,
};

/// Canonical lanes of `ty` from its little-endian bytes.
pub(crate) fn from_bytes(ty: Type, bytes: &[u8]) -> Vec<i64> {
    let lane = |chunk: &[u8]| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        ty.scalar.wrap(i64::from_le_bytes(word))
    };
    bytes[..ty.bytes()]
        .chunks(ty.scalar.bytes())
        .map(lane)
        .collect()
}

/// Little-endian bytes of lanes of `ty`.
pub(crate) fn to_bytes(ty: Type, lanes: &[i64]) -> Vec<u8> {
    let bytes = |x: &i64| x.to_le_bytes().into_iter().take(ty.scalar.bytes());
    lanes.iter().flat_map(bytes).collect()
}
