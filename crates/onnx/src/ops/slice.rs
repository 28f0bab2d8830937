//! Parts of tensors.

use lowbit_ir::ValueId;
use lowbit_ir::ops::Slice;

use super::Import;
use crate::node::{Node, Result};

pub(crate) const OPERATORS: &[(&str, Import)] = &[("Slice", slice), ("Split", split)];

/// Starts, ends and axes are attributes up to opset 9 and operands from 10 on.
fn slice(n: &mut Node<'_>) -> Result<Vec<ValueId>> {
    let x = n.input(0)?;
    let shape = n.shape(x);
    let list = |attribute: &str, i: usize| {
        if n.opset < 10 {
            Ok(n.ints(attribute))
        } else {
            n.ints_or_input(attribute, i)
        }
    };
    let starts = list("starts", 1)?.ok_or("its starts are missing")?;
    let ends = list("ends", 2)?.ok_or("its ends are missing")?;
    let axes = list("axes", 3)?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = list("steps", 4)?.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
        return Err("its starts, ends, axes and steps differ in number".into());
    }
    let rank = shape.len();
    let mut op = Slice {
        start: vec![0; rank],
        len: shape.clone(),
        step: vec![1; rank],
    };
    for i in 0..starts.len() {
        let a = n.axis(axes[i], rank)?;
        let (start, len) = span(starts[i], ends[i], steps[i], shape[a] as i64)?;
        (op.start[a], op.len[a], op.step[a]) = (start, len, steps[i] as isize);
    }
    Ok(vec![n.push(op, &[x])?])
}

/// First index and number of elements, clamped as NumPy does.
fn span(start: i64, end: i64, step: i64, extent: i64) -> Result<(usize, usize)> {
    if step == 0 || step == i64::MIN {
        return Err(format!("a step of {step}"));
    }
    if extent == 0 {
        return Ok((0, 0));
    }
    let place =
        |x: i64, lo: i64, hi: i64| (if x < 0 { x.saturating_add(extent) } else { x }).clamp(lo, hi);
    let (first, len) = if step > 0 {
        let (first, last) = (place(start, 0, extent), place(end, 0, extent));
        (
            first,
            (last - first)
                .max(0)
                .unsigned_abs()
                .div_ceil(step.unsigned_abs()),
        )
    } else {
        let (first, last) = (place(start, 0, extent - 1), place(end, -1, extent - 1));
        (
            first,
            (first - last)
                .max(0)
                .unsigned_abs()
                .div_ceil(step.unsigned_abs()),
        )
    };
    let first = if len == 0 { 0 } else { first };
    Ok((first.max(0) as usize, len as usize))
}

/// Sizes are an attribute up to opset 12 and an operand from 13 on; else equal parts, the last one shorter.
fn split(n: &mut Node<'_>) -> Result<Vec<ValueId>> {
    let x = n.input(0)?;
    let axis = n.axis(n.int("axis", 0), n.rank(x))?;
    let extent = n.shape(x)[axis];
    let given = if n.opset < 13 {
        n.ints("split")
    } else {
        n.ints_or_input("split", 1)?
    };
    let count = n.proto.output.len().max(1);
    let sizes: Vec<usize> = match given {
        Some(list) => list
            .iter()
            .map(|&s| usize::try_from(s).map_err(|_| format!("a part of {s} elements")))
            .collect::<Result<_>>()?,
        None => {
            let part = extent.div_ceil(count);
            (0..count)
                .map(|i| part.min(extent.saturating_sub(i * part)))
                .collect()
        }
    };
    if sizes.len() != count
        || sizes.iter().try_fold(0usize, |sum, &s| sum.checked_add(s)) != Some(extent)
    {
        return Err(format!(
            "parts of {sizes:?} do not make {extent} elements in {count} outputs"
        ));
    }
    let mut first = 0;
    let mut parts = Vec::new();
    for len in sizes {
        parts.push(n.range(x, axis, first, len)?);
        first += len;
    }
    Ok(parts)
}
