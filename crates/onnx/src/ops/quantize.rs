//! Quantisation nodes of models that were trained or prepared with them.

use lowbit_ir::ops::{BinaryFn, Gather, UnaryFn};
use lowbit_ir::{DType, Tensor, ValueId};

use super::Import;
use crate::node::{Node, Result};
use crate::tensor;

pub(crate) const OPERATORS: &[(&str, Import)] = &[
    ("QuantizeLinear", quantize),
    ("DequantizeLinear", dequantize),
];

/// `clamp(round(x / scale) + zero_point)`.
fn quantize(n: &mut Node<'_>) -> Result<Vec<ValueId>> {
    let (x, scale) = (n.input(0)?, n.input(1)?);
    let code = match n.int("output_dtype", 0) as i32 {
        0 => n.code(2),
        code => Some(code),
    };
    let to = match (n.optional(2), code) {
        (Some(z), _) => n.ty(z).dtype,
        (None, Some(code)) => tensor::dtype(code)?,
        (None, None) => DType::U8,
    };
    let (lo, hi) = code
        .and_then(tensor::nibble)
        .or_else(|| to.integer_range())
        .ok_or("quantising to floats of 8 bits is not supported")?;
    let shape = n.shape(x);
    let x = n.cast(x, DType::F32)?;
    let scale = along(n, scale, &shape)?;
    let v = n.binary(BinaryFn::Div, x, scale)?;
    let mut v = n.unary(UnaryFn::Round, v)?;
    if let Some(z) = n.optional(2) {
        let z = n.cast(z, DType::F32)?;
        let z = along(n, z, &shape)?;
        v = n.binary(BinaryFn::Add, v, z)?;
    }
    let v = n.with(BinaryFn::Max, v, lo as f64)?;
    let v = n.with(BinaryFn::Min, v, hi as f64)?;
    Ok(vec![n.cast(v, to)?])
}

/// `(x − zero_point) · scale`.
fn dequantize(n: &mut Node<'_>) -> Result<Vec<ValueId>> {
    let (x, scale) = (n.input(0)?, n.input(1)?);
    let shape = n.shape(x);
    let mut v = n.cast(x, DType::F32)?;
    if let Some(z) = n.optional(2) {
        let z = n.cast(z, DType::F32)?;
        let z = along(n, z, &shape)?;
        v = n.binary(BinaryFn::Sub, v, z)?;
    }
    let scale = along(n, scale, &shape)?;
    Ok(vec![n.binary(BinaryFn::Mul, v, scale)?])
}

/// A scale or zero-point by channel or block, shaped to broadcast to `shape` along its axis.
fn along(n: &mut Node<'_>, v: ValueId, shape: &[usize]) -> Result<ValueId> {
    let (v, rank) = (n.cast(v, DType::F32)?, shape.len());
    if n.int("block_size", 0) != 0 {
        let block = n.count("block_size")?;
        let axis = n.axis(n.int("axis", 1), rank)?;
        let indices: Vec<i64> = (0..shape[axis]).map(|i| (i / block) as i64).collect();
        let indices = n.give(Tensor::new([indices.len()], indices));
        return n.push(Gather { axis }, &[v, indices]);
    }
    let count = n.ty(v).elements();
    if n.rank(v) == 0 || count == 1 {
        return n.reshape(v, Vec::new());
    }
    let axis = n.axis(n.int("axis", 1), rank)?;
    let mut shape = vec![1; rank];
    shape[axis] = count;
    n.reshape(v, shape)
}
