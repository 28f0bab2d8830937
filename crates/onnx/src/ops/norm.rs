//! Normalisation.

use lowbit_ir::ops::{BinaryFn, Normalize, ReduceFn, UnaryFn};
use lowbit_ir::{DType, ValueId};

use super::Import;
use crate::node::{Node, Result};

pub(crate) const OPERATORS: &[(&str, Import)] = &[
    ("BatchNormalization", batch),
    ("InstanceNormalization", instance),
    ("LayerNormalization", layer),
    ("GroupNormalization", group),
];

/// `x · s + t` with `s = scale / √(variance + epsilon)`, computed in `f64`.
fn batch(n: &mut Node<'_>) -> Result<Vec<ValueId>> {
    if n.int("training_mode", 0) != 0 {
        return Err("training mode is not supported".into());
    }
    let x = n.input(0)?;
    let (dtype, rank) = (n.ty(x).dtype, n.rank(x));
    let epsilon = n.float("epsilon", 1e-5);
    let mut wide = Vec::new();
    for i in 1..5 {
        let v = n.input(i)?;
        wide.push(n.cast(v, DType::F64)?);
    }
    let variance = n.with(BinaryFn::Add, wide[3], epsilon)?;
    let root = n.unary(UnaryFn::Sqrt, variance)?;
    let scale = n.binary(BinaryFn::Div, wide[0], root)?;
    let moved = n.binary(BinaryFn::Mul, wide[2], scale)?;
    let shift = n.binary(BinaryFn::Sub, wide[1], moved)?;
    let mut terms = Vec::new();
    for v in [scale, shift] {
        let v = n.cast(v, dtype)?;
        terms.push(n.by_channel(v, rank)?);
    }
    let y = n.binary(BinaryFn::Mul, x, terms[0])?;
    Ok(vec![n.binary(BinaryFn::Add, y, terms[1])?])
}

fn instance(n: &mut Node<'_>) -> Result<Vec<ValueId>> {
    let (x, rank) = (n.input(0)?, n.rank(n.input(0)?));
    if rank < 3 {
        return Err(format!(
            "its operand has {rank} axes, expected three or more"
        ));
    }
    let epsilon = n.float("epsilon", 1e-5).into();
    let y = n.push(
        Normalize {
            axes: (2..rank).collect(),
            epsilon,
        },
        &[x],
    )?;
    affine(n, y, rank)
}

/// Scale and shift by channel.
fn affine(n: &mut Node<'_>, y: ValueId, rank: usize) -> Result<Vec<ValueId>> {
    let (scale, shift) = (n.input(1)?, n.input(2)?);
    let scale = n.by_channel(scale, rank)?;
    let y = n.binary(BinaryFn::Mul, y, scale)?;
    let shift = n.by_channel(shift, rank)?;
    Ok(vec![n.binary(BinaryFn::Add, y, shift)?])
}

fn layer(n: &mut Node<'_>) -> Result<Vec<ValueId>> {
    let x = n.input(0)?;
    let rank = n.rank(x);
    let axis = n.axis(n.int("axis", -1), rank)?;
    let axes: Vec<usize> = (axis..rank).collect();
    let epsilon = n.float("epsilon", 1e-5);
    let normalize = Normalize {
        axes: axes.clone(),
        epsilon: epsilon.into(),
    };
    let mut y = n.push(normalize, &[x])?;
    let scale = n.input(1)?;
    y = n.binary(BinaryFn::Mul, y, scale)?;
    if let Some(shift) = n.optional(2) {
        y = n.binary(BinaryFn::Add, y, shift)?;
    }
    if n.proto.output.iter().skip(1).all(|o| o.is_empty()) {
        return Ok(vec![y]);
    }
    let [mean, inverse] = moments(n, x, &axes, epsilon)?;
    Ok(vec![y, mean, inverse])
}

/// Mean and inverse standard deviation over axes, which stay with extent 1.
fn moments(n: &mut Node<'_>, x: ValueId, axes: &[usize], epsilon: f64) -> Result<[ValueId; 2]> {
    let mean = n.reduce(ReduceFn::Mean, x, axes.to_vec(), true)?;
    let distance = n.binary(BinaryFn::Sub, x, mean)?;
    let square = n.binary(BinaryFn::Mul, distance, distance)?;
    let variance = n.reduce(ReduceFn::Mean, square, axes.to_vec(), true)?;
    let variance = n.with(BinaryFn::Add, variance, epsilon)?;
    let root = n.unary(UnaryFn::Sqrt, variance)?;
    Ok([mean, n.unary(UnaryFn::Reciprocal, root)?])
}

/// Scale and shift run over groups up to opset 20 and over channels from 21 on.
fn group(n: &mut Node<'_>) -> Result<Vec<ValueId>> {
    let x = n.input(0)?;
    let shape = n.shape(x);
    let groups = usize::try_from(n.int("num_groups", 0))
        .ok()
        .filter(|&g| g > 0 && shape.len() > 1 && shape[1].is_multiple_of(g));
    let groups = groups.ok_or("attribute 'num_groups' does not divide the channels")?;
    let grouped = [&[shape[0], groups, shape[1] / groups], &shape[2..]].concat();
    let view = n.reshape(x, grouped.clone())?;
    let epsilon = n.float("epsilon", 1e-5).into();
    let y = n.push(
        Normalize {
            axes: (2..grouped.len()).collect(),
            epsilon,
        },
        &[view],
    )?;
    if n.opset < 21 {
        let y = affine(n, y, grouped.len())?[0];
        return Ok(vec![n.reshape(y, shape)?]);
    }
    let y = n.reshape(y, shape.clone())?;
    affine(n, y, shape.len())
}
