//! Quantisation nodes of models that were trained or prepared with them.

use lowbit_ir::ops::{BinaryFn, UnaryFn};
use lowbit_ir::{DType, ValueId};

use super::Import;
use crate::node::{Node, Result};

pub(crate) const OPERATORS: &[(&str, Import)] = &[
    ("QuantizeLinear", quantize),
    ("DequantizeLinear", dequantize),
];

/// `clamp(round(x / scale) + zero_point)`.
fn quantize(n: &mut Node<'_>) -> Result<Vec<ValueId>> {
    let (x, scale) = (n.input(0)?, n.input(1)?);
    let to = match n.optional(2) {
        Some(z) => n.ty(z).dtype,
        None => match n.int("output_dtype", 0) {
            0 => DType::U8,
            code => crate::tensor::dtype(code as i32)?,
        },
    };
    let (lo, hi) = to
        .integer_range()
        .ok_or("quantising to floats of 8 bits is not supported")?;
    let rank = n.rank(x);
    let x = n.cast(x, DType::F32)?;
    let scale = along(n, scale, rank)?;
    let v = n.binary(BinaryFn::Div, x, scale)?;
    let mut v = n.unary(UnaryFn::Round, v)?;
    if let Some(z) = n.optional(2) {
        let z = n.cast(z, DType::F32)?;
        let z = along(n, z, rank)?;
        v = n.binary(BinaryFn::Add, v, z)?;
    }
    let v = n.with(BinaryFn::Max, v, lo as f64)?;
    let v = n.with(BinaryFn::Min, v, hi as f64)?;
    Ok(vec![n.cast(v, to)?])
}

/// `(x − zero_point) · scale`.
fn dequantize(n: &mut Node<'_>) -> Result<Vec<ValueId>> {
    let (x, scale) = (n.input(0)?, n.input(1)?);
    let rank = n.rank(x);
    let mut v = n.cast(x, DType::F32)?;
    if let Some(z) = n.optional(2) {
        let z = n.cast(z, DType::F32)?;
        let z = along(n, z, rank)?;
        v = n.binary(BinaryFn::Sub, v, z)?;
    }
    let scale = along(n, scale, rank)?;
    Ok(vec![n.binary(BinaryFn::Mul, v, scale)?])
}

/// A scale or zero-point by channel, shaped to broadcast along its axis.
fn along(n: &mut Node<'_>, v: ValueId, rank: usize) -> Result<ValueId> {
    if n.int("block_size", 0) != 0 {
        return Err("scales by block are not supported".into());
    }
    let v = n.cast(v, DType::F32)?;
    let count = n.ty(v).elements();
    if n.rank(v) == 0 || count == 1 {
        return n.reshape(v, Vec::new());
    }
    let axis = n.axis(n.int("axis", 1), rank)?;
    let mut shape = vec![1; rank];
    shape[axis] = count;
    n.reshape(v, shape)
}
