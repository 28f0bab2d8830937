//! Padding.

use lowbit_ir::ValueId;
use lowbit_ir::ops::{Pad, PadMode};

use super::Import;
use crate::node::{Node, Result};

pub(crate) const OPERATORS: &[(&str, Import)] = &[("Pad", pad)];

/// Pads and value are attributes up to opset 10 and operands from 11 on.
fn pad(n: &mut Node<'_>) -> Result<Vec<ValueId>> {
    let x = n.input(0)?;
    let rank = n.rank(x);
    let pads = if n.opset < 11 {
        n.ints("pads")
    } else {
        n.ints_or_input("pads", 1)?
    };
    let pads = pads.ok_or("its pads are missing")?;
    let axes = match n.ints_or_input("axes", 3)? {
        Some(axes) => axes
            .iter()
            .map(|&a| n.axis(a, rank))
            .collect::<Result<Vec<_>>>()?,
        None => (0..rank).collect(),
    };
    if pads.len() != 2 * axes.len() || pads.iter().any(|p| p.unsigned_abs() > 1 << 30) {
        return Err(format!("pads {pads:?} do not fit {} axes", axes.len()));
    }
    let mut op = Pad {
        low: vec![0; rank],
        high: vec![0; rank],
        interior: vec![0; rank],
        mode: PadMode::Constant,
    };
    for (i, &a) in axes.iter().enumerate() {
        op.low[a] = pads[i] as isize;
        op.high[a] = pads[axes.len() + i] as isize;
    }
    op.mode = match n.string("mode", "constant").as_str() {
        "constant" => PadMode::Constant,
        "edge" => PadMode::Edge,
        "reflect" => PadMode::Reflect,
        "wrap" => PadMode::Wrap,
        other => return Err(format!("attribute 'mode' is '{other}'")),
    };
    if op.mode != PadMode::Constant {
        return Ok(vec![n.push(op, &[x])?]);
    }
    let value = match n.optional(2) {
        Some(v) if n.opset >= 11 => n.reshape(v, Vec::new())?,
        _ => {
            let value = n.float("value", 0.0);
            n.number(value, x)
        }
    };
    Ok(vec![n.push(op, &[x, value])?])
}
