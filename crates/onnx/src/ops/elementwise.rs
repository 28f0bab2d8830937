//! Elementwise functions that are operations of the graph, or a few of them.

use lowbit_ir::ops::{BinaryFn, Select, UnaryFn};
use lowbit_ir::{DType, Tensor, ValueId};

use super::Import;
use crate::float8::Float8;
use crate::node::{Node, Result};
use crate::tensor;

pub(crate) const OPERATORS: &[(&str, Import)] = &[
    ("Abs", |n| one(n, UnaryFn::Abs)),
    ("Ceil", |n| one(n, UnaryFn::Ceil)),
    ("Cos", |n| one(n, UnaryFn::Cos)),
    ("Erf", |n| one(n, UnaryFn::Erf)),
    ("Exp", |n| one(n, UnaryFn::Exp)),
    ("Floor", |n| one(n, UnaryFn::Floor)),
    ("Log", |n| one(n, UnaryFn::Log)),
    ("Neg", |n| one(n, UnaryFn::Neg)),
    ("Not", |n| one(n, UnaryFn::Not)),
    ("Reciprocal", |n| one(n, UnaryFn::Reciprocal)),
    ("Round", |n| one(n, UnaryFn::Round)),
    ("Sign", |n| one(n, UnaryFn::Sign)),
    ("Sin", |n| one(n, UnaryFn::Sin)),
    ("Sqrt", |n| one(n, UnaryFn::Sqrt)),
    ("Tanh", |n| one(n, UnaryFn::Tanh)),
    ("Add", |n| two(n, BinaryFn::Add)),
    ("Sub", |n| two(n, BinaryFn::Sub)),
    ("Mul", |n| two(n, BinaryFn::Mul)),
    ("Div", |n| two(n, BinaryFn::Div)),
    ("Pow", pow),
    ("Equal", |n| two(n, BinaryFn::Equal)),
    ("Greater", |n| two(n, BinaryFn::Greater)),
    ("GreaterOrEqual", |n| two(n, BinaryFn::GreaterOrEqual)),
    ("Less", |n| turned(n, BinaryFn::Greater)),
    ("LessOrEqual", |n| turned(n, BinaryFn::GreaterOrEqual)),
    ("And", |n| two(n, BinaryFn::And)),
    ("Or", |n| two(n, BinaryFn::Or)),
    ("Xor", |n| two(n, BinaryFn::Xor)),
    ("Max", |n| fold(n, BinaryFn::Max)),
    ("Min", |n| fold(n, BinaryFn::Min)),
    ("Sum", |n| fold(n, BinaryFn::Add)),
    ("Mean", mean),
    ("Where", |n| {
        let operands = [n.input(0)?, n.input(1)?, n.input(2)?];
        Ok(vec![n.push(Select, &operands)?])
    }),
    ("Identity", |n| Ok(vec![n.input(0)?])),
    ("Dropout", |n| {
        if n.int("training_mode", 0) != 0 {
            return Err("training mode is not supported".into());
        }
        if n.opset >= 12
            && n.optional(2).is_some()
            && n.constant(2, "training_mode")?.to_i64() != Some(vec![0])
        {
            return Err("training mode is not supported".into());
        }
        let x = n.input(0)?;
        let shape = n.shape(x);
        if n.proto.output.get(1).is_none_or(|o| o.is_empty()) {
            return Ok(vec![x]);
        }
        let kept = n.give(Tensor::scalar(true));
        Ok(vec![x, n.broadcast(kept, shape)?])
    }),
    ("Cast", |n| {
        let to = i32::try_from(n.int("to", 0)).unwrap_or(0);
        let x = n.input(0)?;
        let x = saturated(n, x, to)?;
        let x = n.cast(x, tensor::dtype(to)?)?;
        Ok(vec![narrow(n, x, to)?])
    }),
    ("CastLike", |n| {
        let (x, like) = (n.input(0)?, n.input(1)?);
        let to = n.ty(like).dtype;
        Ok(vec![n.cast(x, to)?])
    }),
];

/// Floats clamped to the range of an integer of 4 bits.
fn saturated(n: &mut Node<'_>, x: ValueId, to: i32) -> Result<ValueId> {
    match tensor::nibble(to).filter(|_| n.ty(x).dtype.is_float()) {
        Some((lo, hi)) => {
            let x = n.with(BinaryFn::Max, x, lo as f64)?;
            n.with(BinaryFn::Min, x, hi as f64)
        }
        None => Ok(x),
    }
}

/// Rounds constants to a float narrower than `f32`. What is computed at run time stays as exact as `f32`.
fn narrow(n: &mut Node<'_>, x: ValueId, to: i32) -> Result<ValueId> {
    let saturate = n.int("saturate", 1) != 0;
    let format = Float8::of(to);
    let round = |x: f32| match format {
        Some(format) => format.round(x, saturate),
        None if to == tensor::code::FLOAT16 => half::f16::from_f32(x).to_f32(),
        None if to == tensor::code::BFLOAT16 => half::bf16::from_f32(x).to_f32(),
        None => x,
    };
    match n.graph.as_const(x).cloned() {
        Some(t) if t.dtype() == DType::F32 => {
            let rounded = t.as_slice().iter().copied().map(round).collect();
            Ok(n.give(Tensor::new(t.shape(), rounded)))
        }
        None if format.is_some() => {
            Err("casting what depends on the input to floats of 8 bits is not supported".into())
        }
        _ => Ok(x),
    }
}

fn one(n: &mut Node<'_>, f: UnaryFn) -> Result<Vec<ValueId>> {
    let x = n.input(0)?;
    Ok(vec![n.unary(f, x)?])
}

fn two(n: &mut Node<'_>, f: BinaryFn) -> Result<Vec<ValueId>> {
    let (x, y) = (n.input(0)?, n.input(1)?);
    Ok(vec![n.binary(f, x, y)?])
}

fn turned(n: &mut Node<'_>, f: BinaryFn) -> Result<Vec<ValueId>> {
    let (x, y) = (n.input(0)?, n.input(1)?);
    Ok(vec![n.binary(f, y, x)?])
}

fn fold(n: &mut Node<'_>, f: BinaryFn) -> Result<Vec<ValueId>> {
    let mut result = n.input(0)?;
    for i in 1..n.inputs.len() {
        let next = n.input(i)?;
        result = n.binary(f, result, next)?;
    }
    Ok(vec![result])
}

fn mean(n: &mut Node<'_>) -> Result<Vec<ValueId>> {
    let sum = fold(n, BinaryFn::Add)?[0];
    let count = n.inputs.len() as f64;
    Ok(vec![n.with(BinaryFn::Div, sum, count)?])
}

/// The exponent may have another type than the base.
fn pow(n: &mut Node<'_>) -> Result<Vec<ValueId>> {
    let (x, y) = (n.input(0)?, n.input(1)?);
    let dtype = n.ty(x).dtype;
    if n.ty(y).dtype == dtype {
        // small whole exponents are products: exact, and no power is needed at run time
        if dtype.is_float()
            && n.graph
                .as_const(y)
                .is_some_and(|c| c.len() == 1 && c.to_f64()[0] == 2.0)
        {
            return Ok(vec![n.binary(BinaryFn::Mul, x, x)?]);
        }
        return Ok(vec![n.binary(BinaryFn::Pow, x, y)?]);
    }
    let (wide_x, wide_y) = (n.cast(x, DType::F64)?, n.cast(y, DType::F64)?);
    let result = n.binary(BinaryFn::Pow, wide_x, wide_y)?;
    Ok(vec![n.cast(result, dtype)?])
}
