//! Convolutions: channels last inside, between two transpositions.

use lowbit_ir::ValueId;
use lowbit_ir::ops::{Conv, Pad, PadMode, Slice};

use super::Import;
use super::window::{Window, spatial, two};
use crate::node::{Node, Result};

pub(crate) const OPERATORS: &[(&str, Import)] =
    &[("Conv", conv), ("ConvTranspose", conv_transpose)];

fn conv(n: &mut Node<'_>) -> Result<Vec<ValueId>> {
    let (x, w) = (n.input(0)?, n.input(1)?);
    let (size, kernel) = (spatial(&n.shape(x))?, n.shape(w));
    if kernel.len() != size.len() + 2 {
        return Err(format!(
            "its weights have {} axes, its operand {}",
            kernel.len(),
            size.len() + 2
        ));
    }
    check_kernel(n, &kernel[2..])?;
    let window = Window::new(n, &size, &kernel[2..])?;
    let x = channels_last(n, x)?;
    let w = channels_last(n, w)?;
    let groups = usize::try_from(n.int("group", 1)).map_err(|_| "attribute 'group' is negative")?;
    let op = Conv {
        stride: window.stride,
        dilation: window.dilation,
        pad: window.pad,
        groups,
    };
    let operands: Vec<ValueId> = [Some(x), Some(w), n.optional(2)]
        .into_iter()
        .flatten()
        .collect();
    let y = n.push(op, &operands)?;
    Ok(vec![channels_second(n, y, size.len())?])
}

fn check_kernel(n: &Node<'_>, kernel: &[usize]) -> Result<()> {
    match n.positive("kernel_shape")? {
        Some(declared) if declared != kernel => Err(format!(
            "attribute 'kernel_shape' is {declared:?}, its weights have {kernel:?}"
        )),
        _ if kernel.contains(&0) => Err(format!("its weights have a kernel of {kernel:?}")),
        _ => Ok(()),
    }
}

/// `[N, C, H, W]` or `[N, C, W]` to `[N, H, W, C]`.
pub(crate) fn channels_last(n: &mut Node<'_>, x: ValueId) -> Result<ValueId> {
    let shape = n.shape(x);
    if let [a, c, w] = shape[..] {
        let turned = n.transpose(x, vec![0, 2, 1])?;
        return n.reshape(turned, vec![a, 1, w, c]);
    }
    n.transpose(x, vec![0, 2, 3, 1])
}

/// Back to channels second, with `axes` spatial axes.
pub(crate) fn channels_second(n: &mut Node<'_>, y: ValueId, axes: usize) -> Result<ValueId> {
    let shape = n.shape(y);
    if axes == 1 {
        let flat = n.reshape(y, vec![shape[0], shape[2], shape[3]])?;
        return n.transpose(flat, vec![0, 2, 1]);
    }
    n.transpose(y, vec![0, 3, 1, 2])
}

/// A convolution over the operand with zeros between its elements, weights turned by half a circle.
fn conv_transpose(n: &mut Node<'_>) -> Result<Vec<ValueId>> {
    let (x, w) = (n.input(0)?, n.input(1)?);
    let (size, kernel) = (spatial(&n.shape(x))?, n.shape(w));
    if kernel.len() != size.len() + 2 {
        return Err(format!(
            "its weights have {} axes, its operand {}",
            kernel.len(),
            size.len() + 2
        ));
    }
    check_kernel(n, &kernel[2..])?;
    let groups = usize::try_from(n.int("group", 1))
        .ok()
        .filter(|&g| g > 0 && kernel[0] % g == 0);
    let groups = groups.ok_or("attribute 'group' does not divide the channels")?;
    let geometry = Transposed::new(n, &size, &kernel[2..])?;
    let x = channels_last(n, x)?;
    let x = geometry.spread(n, x)?;
    let w = turned_weights(n, w, groups)?;
    let op = Conv {
        stride: [1, 1],
        dilation: geometry.dilation,
        pad: [[0; 2]; 2],
        groups,
    };
    let operands: Vec<ValueId> = [Some(x), Some(w), n.optional(2)]
        .into_iter()
        .flatten()
        .collect();
    let y = n.push(op, &operands)?;
    Ok(vec![channels_second(n, y, size.len())?])
}

struct Transposed {
    dilation: [usize; 2],
    low: [isize; 2],
    high: [isize; 2],
    interior: [usize; 2],
}

impl Transposed {
    fn new(n: &Node<'_>, size: &[usize], kernel: &[usize]) -> Result<Self> {
        let axes = size.len();
        let ones = vec![1; axes];
        let stride = n.positive("strides")?.unwrap_or_else(|| ones.clone());
        let dilation = n.positive("dilations")?.unwrap_or(ones);
        let extra = n
            .moderate("output_padding")?
            .unwrap_or_else(|| vec![0; axes]);
        let pads = n.moderate("pads")?.unwrap_or_else(|| vec![0; 2 * axes]);
        if [stride.len(), dilation.len(), extra.len(), pads.len() / 2] != [axes; 4] {
            return Err(format!(
                "strides, dilations, pads or output_padding do not have {axes} axes"
            ));
        }
        let auto = n.string("auto_pad", "NOTSET");
        let wanted = n.moderate("output_shape")?;
        let mut result = Self {
            dilation: two(&dilation, 1)?,
            low: [0; 2],
            high: [0; 2],
            interior: [0; 2],
        };
        for a in 0..axes {
            let at = a + 2 - axes;
            let reach = ((kernel[a] - 1) * dilation[a]) as i64;
            let full = (size[a].saturating_sub(1) * stride[a]) as i64 + extra[a] + reach + 1;
            let target = match (&wanted, auto.as_str()) {
                (Some(shape), _) => Some(
                    *shape
                        .get(shape.len().saturating_sub(axes) + a)
                        .ok_or("output_shape is too short")?,
                ),
                (None, "SAME_UPPER" | "SAME_LOWER") => Some((size[a] * stride[a]) as i64),
                _ => None,
            };
            let [begin, end] = match target {
                Some(target) => {
                    let less = (full - target).max(0) / 2;
                    let more = (full - target - less).max(0);
                    let begin = if auto == "SAME_UPPER" { less } else { more };
                    [begin, full - target - begin]
                }
                None => [pads[a], pads[axes + a]],
            };
            result.low[at] = (reach - begin) as isize;
            result.high[at] = (reach - end + extra[a]) as isize;
            result.interior[at] = stride[a] - 1;
        }
        Ok(result)
    }

    /// Zeros between and around the elements of `[N, H, W, C]`.
    fn spread(&self, n: &mut Node<'_>, x: ValueId) -> Result<ValueId> {
        let zero = n.number(0.0, x);
        let op = Pad {
            low: vec![0, self.low[0], self.low[1], 0],
            high: vec![0, self.high[0], self.high[1], 0],
            interior: vec![0, self.interior[0], self.interior[1], 0],
            mode: PadMode::Constant,
        };
        n.push(op, &[x, zero])
    }
}

/// `[C, O / groups, …]` to `[O, KH, KW, C / groups]`, each kernel turned by half a circle.
fn turned_weights(n: &mut Node<'_>, w: ValueId, groups: usize) -> Result<ValueId> {
    let mut shape = n.shape(w);
    if shape.len() == 3 {
        shape.insert(2, 1);
    }
    let &[c, o, kh, kw] = &shape[..] else {
        return Err("its weights have no spatial axes".into());
    };
    let w = n.reshape(w, vec![groups, c / groups, o, kh, kw])?;
    let backwards = Slice {
        start: vec![0, 0, 0, kh - 1, kw - 1],
        len: vec![groups, c / groups, o, kh, kw],
        step: vec![1, 1, 1, -1, -1],
    };
    let w = n.push(backwards, &[w])?;
    let w = n.transpose(w, vec![0, 2, 3, 4, 1])?;
    n.reshape(w, vec![groups * o, kh, kw, c / groups])
}
