//! Operators that only move or repeat elements.

use lowbit_ir::ValueId;
use lowbit_ir::ops::Concat;

use super::Import;
use crate::node::{Node, Result};
use crate::tensor;

pub(crate) const OPERATORS: &[(&str, Import)] = &[
    ("Reshape", reshape),
    ("Flatten", |n| {
        let x = n.input(0)?;
        let shape = n.shape(x);
        let axis = n.int("axis", 1);
        let at = if axis < 0 {
            axis + shape.len() as i64
        } else {
            axis
        };
        let at = usize::try_from(at).ok().filter(|&a| a <= shape.len());
        let at =
            at.ok_or_else(|| format!("attribute 'axis' is {axis} for {} axes", shape.len()))?;
        let (outer, inner) = (shape[..at].iter().product(), shape[at..].iter().product());
        Ok(vec![n.reshape(x, vec![outer, inner])?])
    }),
    ("Squeeze", squeeze),
    ("Unsqueeze", unsqueeze),
    ("Transpose", |n| {
        let x = n.input(0)?;
        let rank = n.rank(x);
        let perm = match n.ints("perm") {
            Some(perm) => perm
                .iter()
                .map(|&p| n.axis(p, rank))
                .collect::<Result<Vec<_>>>()?,
            None => (0..rank).rev().collect(),
        };
        Ok(vec![n.transpose(x, perm)?])
    }),
    ("Concat", |n| {
        let operands: Result<Vec<ValueId>> = (0..n.inputs.len()).map(|i| n.input(i)).collect();
        let operands = operands?;
        let first = *operands.first().ok_or("it has no operands")?;
        let axis = n.axis(n.int("axis", 0), n.rank(first))?;
        Ok(vec![n.push(Concat { axis }, &operands)?])
    }),
    ("Expand", |n| {
        let x = n.input(0)?;
        let dims = n
            .constant(1, "shape")?
            .to_i64()
            .ok_or("its shape is no list of integers")?;
        let wanted = tensor::extents(&dims)?;
        let own = n.shape(x);
        let shape = lowbit_ir::broadcast_shapes(&own, &wanted);
        let shape =
            shape.ok_or_else(|| format!("shape {own:?} does not broadcast to {wanted:?}"))?;
        Ok(vec![n.broadcast(x, shape)?])
    }),
    ("Tile", |n| {
        let mut x = n.input(0)?;
        let repeats = n
            .constant(1, "repeats")?
            .to_i64()
            .ok_or("its repeats are no integers")?;
        if repeats.len() != n.rank(x) {
            return Err(format!("{} repeats for {} axes", repeats.len(), n.rank(x)));
        }
        for (axis, &count) in repeats.iter().enumerate() {
            match usize::try_from(count) {
                Ok(1) => {}
                Ok(count) if (2..=4096).contains(&count) => {
                    x = n.push(Concat { axis }, &vec![x; count])?
                }
                _ => return Err(format!("{count} repeats are not supported")),
            }
        }
        Ok(vec![x])
    }),
    ("DepthToSpace", |n| space(n, true)),
    ("SpaceToDepth", |n| space(n, false)),
];

/// 0 keeps an extent (unless `allowzero`), −1 takes what is left.
fn reshape(n: &mut Node<'_>) -> Result<Vec<ValueId>> {
    let x = n.input(0)?;
    let own = n.shape(x);
    let dims = n
        .constant(1, "shape")?
        .to_i64()
        .ok_or("its shape is no list of integers")?;
    let keep_zero = n.int("allowzero", 0) != 0;
    let mut shape = Vec::with_capacity(dims.len());
    let mut rest = None;
    for (i, &d) in dims.iter().enumerate() {
        shape.push(match d {
            0 if !keep_zero => *own
                .get(i)
                .ok_or_else(|| format!("shape {dims:?} keeps axis {i} of {own:?}"))?,
            -1 if rest.is_none() => {
                rest = Some(i);
                1
            }
            d => usize::try_from(d).map_err(|_| format!("shape {dims:?} is malformed"))?,
        });
    }
    if let Some(i) = rest {
        let known = lowbit_ir::elements(&shape).filter(|&k| k > 0);
        let total: usize = own.iter().product();
        let known = known.filter(|k| total.is_multiple_of(*k));
        shape[i] = total / known.ok_or_else(|| format!("{own:?} cannot take shape {dims:?}"))?;
    }
    Ok(vec![n.reshape(x, shape)?])
}

fn squeeze(n: &mut Node<'_>) -> Result<Vec<ValueId>> {
    let x = n.input(0)?;
    let shape = n.shape(x);
    let given = if n.opset < 13 {
        n.ints("axes")
    } else {
        n.ints_or_input("axes", 1)?
    };
    let axes = match given {
        Some(axes) => n.axes(&axes, shape.len())?,
        None => (0..shape.len()).filter(|&a| shape[a] == 1).collect(),
    };
    if let Some(a) = axes.iter().find(|&&a| shape[a] != 1) {
        return Err(format!("axis {a} of {shape:?} has not extent 1"));
    }
    let kept = (0..shape.len())
        .filter(|a| !axes.contains(a))
        .map(|a| shape[a])
        .collect();
    Ok(vec![n.reshape(x, kept)?])
}

fn unsqueeze(n: &mut Node<'_>) -> Result<Vec<ValueId>> {
    let x = n.input(0)?;
    let given = if n.opset < 13 {
        n.ints("axes")
    } else {
        n.ints_or_input("axes", 1)?
    };
    let given = given.ok_or("its axes are missing")?;
    let own = n.shape(x);
    let axes = n.axes(&given, own.len() + given.len())?;
    let mut old = own.iter();
    let shape = (0..own.len() + axes.len())
        .map(|a| {
            if axes.contains(&a) {
                1
            } else {
                *old.next().expect("the axes are distinct")
            }
        })
        .collect();
    Ok(vec![n.reshape(x, shape)?])
}

fn space(n: &mut Node<'_>, from_depth: bool) -> Result<Vec<ValueId>> {
    let x = n.input(0)?;
    let b = n.count("blocksize")?;
    let shape = n.shape(x);
    let &[a, c, h, w] = &shape[..] else {
        return Err(format!(
            "its operand has {} axes, expected four",
            shape.len()
        ));
    };
    if from_depth {
        if c % (b * b) != 0 {
            return Err(format!("{c} channels do not fill blocks of {b}×{b}"));
        }
        let o = c / (b * b);
        let columns_first = n.string("mode", "DCR") == "CRD";
        let (split, perm) = if columns_first {
            (vec![a, o, b, b, h, w], vec![0, 1, 4, 2, 5, 3])
        } else {
            (vec![a, b, b, o, h, w], vec![0, 3, 4, 1, 5, 2])
        };
        let v = n.reshape(x, split)?;
        let v = n.transpose(v, perm)?;
        return Ok(vec![n.reshape(v, vec![a, o, h * b, w * b])?]);
    }
    if h % b != 0 || w % b != 0 {
        return Err(format!("{h}×{w} does not split into blocks of {b}×{b}"));
    }
    let v = n.reshape(x, vec![a, c, h / b, b, w / b, b])?;
    let v = n.transpose(v, vec![0, 3, 5, 1, 2, 4])?;
    Ok(vec![n.reshape(v, vec![a, c * b * b, h / b, w / b])?])
}
