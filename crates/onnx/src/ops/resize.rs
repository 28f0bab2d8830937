//! Resizing: nearest picks by constant indices, linear is a product with a constant matrix, axis by axis.

use lowbit_ir::ops::{Gather, MatMul};
use lowbit_ir::{Tensor, ValueId};

use super::Import;
use crate::node::{Node, Result};

pub(crate) const OPERATORS: &[(&str, Import)] = &[("Resize", resize), ("Upsample", upsample)];

/// How one axis is resized.
struct Axis {
    from: usize,
    to: usize,
    scale: f64,
}

fn upsample(n: &mut Node<'_>) -> Result<Vec<ValueId>> {
    let x = n.input(0)?;
    let scales: Vec<f64> = match n.floats("scales") {
        Some(list) => list.iter().map(|&s| f64::from(s)).collect(),
        None => n.constant(1, "scales")?.to_f64(),
    };
    let axes = by_scales(&n.shape(x), &scales)?;
    let mode = n.string("mode", "nearest");
    apply(n, x, &axes, &mode, "asymmetric", "floor")
}

/// The linear mode of opset 10 and the modes of 11 on.
fn resize(n: &mut Node<'_>) -> Result<Vec<ValueId>> {
    let x = n.input(0)?;
    let own = n.shape(x);
    if n.int("antialias", 0) != 0 || n.int("exclude_outside", 0) != 0 {
        return Err("antialiased resizing is not supported".into());
    }
    let mode = n.string("mode", "nearest");
    if n.opset < 11 {
        let scales = n.constant(1, "scales")?.to_f64();
        let axes = by_scales(&own, &scales)?;
        return apply(n, x, &axes, &mode, "asymmetric", "floor");
    }
    let policy = n.string("keep_aspect_ratio_policy", "stretch");
    let coordinates = n.string("coordinate_transformation_mode", "half_pixel");
    let named = n.ints("axes");
    let targets: Vec<usize> = match named {
        Some(list) => list
            .iter()
            .map(|&a| n.axis(a, own.len()))
            .collect::<Result<_>>()?,
        None => (0..own.len()).collect(),
    };
    let sizes = n
        .optional(3)
        .map(|_| n.constant(3, "sizes"))
        .transpose()?
        .filter(|t| !t.is_empty());
    let scales = n
        .optional(2)
        .map(|_| n.constant(2, "scales"))
        .transpose()?
        .filter(|t| !t.is_empty());
    let mut axes: Vec<Axis> = own
        .iter()
        .map(|&d| Axis {
            from: d,
            to: d,
            scale: 1.0,
        })
        .collect();
    let values = match (&sizes, &scales) {
        (Some(t), _) | (None, Some(t)) => t.to_f64(),
        (None, None) => return Err("it has neither sizes nor scales".into()),
    };
    if values.len() != targets.len() {
        return Err(format!(
            "{} sizes or scales for {} axes",
            values.len(),
            targets.len()
        ));
    }
    let ratios = targets.iter().zip(&values).map(|(&a, v)| v / own[a] as f64);
    let common = match policy.as_str() {
        _ if sizes.is_none() => None,
        "stretch" => None,
        "not_larger" => ratios.reduce(f64::min),
        "not_smaller" => ratios.reduce(f64::max),
        other => {
            return Err(format!("attribute 'keep_aspect_ratio_policy' is '{other}'"));
        }
    };
    for (&a, &value) in targets.iter().zip(&values) {
        let from = own[a] as f64;
        let (to, scale) = match common {
            Some(scale) => ((scale * from + 0.5).floor(), scale),
            None if sizes.is_some() => (value, value / from),
            None => ((value * from).floor(), value),
        };
        extent(to)?;
        axes[a] = Axis {
            from: own[a],
            to: to as usize,
            scale,
        };
    }
    let nearest = n.string("nearest_mode", "round_prefer_floor");
    apply(n, x, &axes, &mode, &coordinates, &nearest)
}

fn extent(x: f64) -> Result<()> {
    if (1.0..=f64::from(1 << 20)).contains(&x) {
        Ok(())
    } else {
        Err(format!("a result of extent {x}"))
    }
}

fn by_scales(own: &[usize], scales: &[f64]) -> Result<Vec<Axis>> {
    if scales.len() != own.len() {
        return Err(format!("{} scales for {} axes", scales.len(), own.len()));
    }
    let axis = |(&from, &scale): (&usize, &f64)| {
        extent(from as f64 * scale)?;
        Ok(Axis {
            from,
            to: (from as f64 * scale).floor() as usize,
            scale,
        })
    };
    own.iter().zip(scales).map(axis).collect()
}

fn apply(
    n: &mut Node<'_>,
    mut x: ValueId,
    axes: &[Axis],
    mode: &str,
    coordinates: &str,
    nearest: &str,
) -> Result<Vec<ValueId>> {
    for (a, axis) in axes.iter().enumerate() {
        if axis.from == axis.to && axis.scale == 1.0 {
            continue;
        }
        if axis.from == 0 {
            return Err(format!("axis {a} of its operand is empty"));
        }
        let sources: Result<Vec<f64>> =
            (0..axis.to).map(|i| source(axis, i, coordinates)).collect();
        x = match mode {
            "nearest" => pick(n, x, a, axis, &sources?, nearest)?,
            "linear" | "bilinear" => mix(n, x, a, axis, &sources?)?,
            other => {
                return Err(format!(
                    "attribute 'mode' is '{other}'; nearest and linear are supported"
                ));
            }
        };
    }
    Ok(vec![x])
}

/// The place in the operand that an index of the result stands for.
fn source(axis: &Axis, i: usize, coordinates: &str) -> Result<f64> {
    let (i, from, to) = (i as f64, axis.from as f64, axis.to as f64);
    Ok(match coordinates {
        "half_pixel" => (i + 0.5) / axis.scale - 0.5,
        "half_pixel_symmetric" => {
            let adjusted = to / (axis.scale * from);
            from / 2.0 * (1.0 - adjusted) + (i + 0.5) / axis.scale - 0.5
        }
        "pytorch_half_pixel" => {
            if axis.to > 1 {
                (i + 0.5) / axis.scale - 0.5
            } else {
                0.0
            }
        }
        "asymmetric" => i / axis.scale,
        "align_corners" => {
            if axis.to == 1 {
                0.0
            } else {
                i * (from - 1.0) / (to - 1.0)
            }
        }
        "tf_half_pixel_for_nn" => (i + 0.5) / axis.scale,
        other => {
            return Err(format!(
                "attribute 'coordinate_transformation_mode' is '{other}'"
            ));
        }
    })
}

fn pick(
    n: &mut Node<'_>,
    x: ValueId,
    a: usize,
    axis: &Axis,
    sources: &[f64],
    mode: &str,
) -> Result<ValueId> {
    let round = |s: f64| -> Result<f64> {
        Ok(match mode {
            "round_prefer_floor" => (s - 0.5).ceil(),
            "round_prefer_ceil" => (s + 0.5).floor(),
            "floor" => s.floor(),
            "ceil" => s.ceil(),
            other => return Err(format!("attribute 'nearest_mode' is '{other}'")),
        })
    };
    let index = |&s: &f64| Ok(round(s)?.clamp(0.0, axis.from as f64 - 1.0) as i64);
    let indices: Result<Vec<i64>> = sources.iter().map(index).collect();
    let indices = n.give(Tensor::new([axis.to], indices?));
    n.push(Gather { axis: a }, &[x, indices])
}

/// Each element of the result mixes two neighbours.
fn mix(n: &mut Node<'_>, x: ValueId, a: usize, axis: &Axis, sources: &[f64]) -> Result<ValueId> {
    if axis.from.saturating_mul(axis.to) > 1 << 26 {
        return Err(format!(
            "linear resizing from {} to {} elements is too large",
            axis.from, axis.to
        ));
    }
    let mut matrix = vec![0.0f64; axis.from * axis.to];
    let last = axis.from as f64 - 1.0;
    for (i, &s) in sources.iter().enumerate() {
        let s = s.clamp(0.0, last);
        let low = s.floor();
        let share = s - low;
        matrix[low as usize * axis.to + i] += 1.0 - share;
        if share > 0.0 {
            matrix[(low as usize + 1) * axis.to + i] += share;
        }
    }
    let dtype = n.ty(x).dtype;
    let matrix = n.give(Tensor::from_f64(dtype, [axis.from, axis.to], matrix));
    let rank = n.rank(x);
    let mut perm: Vec<usize> = (0..rank).collect();
    perm.swap(a, rank - 1);
    let turned = if a + 1 == rank {
        x
    } else {
        n.transpose(x, perm.clone())?
    };
    let y = n.push(MatMul, &[turned, matrix])?;
    if a + 1 == rank {
        Ok(y)
    } else {
        n.transpose(y, perm)
    }
}
