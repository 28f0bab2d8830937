//! Kernel, stride, dilation and padding of convolutions and pooling.

use crate::node::{Node, Result};

/// A window over one or two spatial axes; one axis is taken as a row of height 1.
pub(crate) struct Window {
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: [usize; 2],
    pub(crate) dilation: [usize; 2],
    pub(crate) pad: [[usize; 2]; 2],
}

/// Puts a value in front where there is one spatial axis.
pub(crate) fn two<T: Copy>(list: &[T], front: T) -> Result<[T; 2]> {
    match *list {
        [x] => Ok([front, x]),
        [y, x] => Ok([y, x]),
        _ => Err(format!(
            "{} spatial axes are not supported, only one or two",
            list.len()
        )),
    }
}

impl Window {
    /// Of a node whose operand has spatial extents `size`.
    pub(crate) fn new(n: &Node<'_>, size: &[usize], kernel: &[usize]) -> Result<Self> {
        if kernel.len() != size.len() {
            return Err(format!(
                "a kernel of {} axes over {} spatial axes",
                kernel.len(),
                size.len()
            ));
        }
        let ones = vec![1; size.len()];
        let stride = n.positive("strides")?.unwrap_or_else(|| ones.clone());
        let dilation = n.positive("dilations")?.unwrap_or(ones);
        let pads = n
            .moderate("pads")?
            .unwrap_or_else(|| vec![0; 2 * size.len()]);
        if stride.len() != size.len()
            || dilation.len() != size.len()
            || pads.len() != 2 * size.len()
        {
            return Err(format!(
                "strides, dilations or pads do not have {} axes",
                size.len()
            ));
        }
        let mut window = Self {
            kernel: two(kernel, 1)?,
            stride: two(&stride, 1)?,
            dilation: two(&dilation, 1)?,
            pad: [[0; 2]; 2],
        };
        let size = two(size, 1)?;
        let explicit = |axis: usize| {
            let axes = pads.len() / 2;
            let own = (axis + axes).checked_sub(2).filter(|&a| a < axes);
            own.map_or([0, 0], |a| [pads[a], pads[axes + a]])
        };
        for (axis, extent) in size.into_iter().enumerate() {
            window.pad[axis] = match n.string("auto_pad", "NOTSET").as_str() {
                "NOTSET" => nonnegative(explicit(axis))?,
                "VALID" => [0, 0],
                "SAME_UPPER" => window.same(axis, extent, false),
                "SAME_LOWER" => window.same(axis, extent, true),
                other => return Err(format!("attribute 'auto_pad' is '{other}'")),
            };
        }
        Ok(window)
    }

    /// Padding that gives `size / stride` outputs, rounded up.
    fn same(&self, axis: usize, size: usize, lower: bool) -> [usize; 2] {
        let outputs = size.div_ceil(self.stride[axis]);
        let reach = (self.kernel[axis] - 1) * self.dilation[axis] + 1;
        let total = (outputs.saturating_sub(1) * self.stride[axis] + reach).saturating_sub(size);
        if lower {
            [total - total / 2, total / 2]
        } else {
            [total / 2, total - total / 2]
        }
    }
}

fn nonnegative(pads: [i64; 2]) -> Result<[usize; 2]> {
    match (usize::try_from(pads[0]), usize::try_from(pads[1])) {
        (Ok(a), Ok(b)) if a <= 1 << 20 && b <= 1 << 20 => Ok([a, b]),
        _ => Err(format!("attribute 'pads' holds {pads:?}")),
    }
}

/// Spatial extents of `[N, C, …]`.
pub(crate) fn spatial(shape: &[usize]) -> Result<Vec<usize>> {
    match shape.len() {
        3 | 4 => Ok(shape[2..].to_vec()),
        rank => Err(format!(
            "its operand has {rank} axes; one or two spatial axes are supported"
        )),
    }
}
