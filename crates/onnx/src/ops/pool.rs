//! Pooling: channels last inside, between two transpositions.

use lowbit_ir::ops::{BinaryFn, Pad, PadMode, Pool, PoolKind, ReduceFn, Select, Slice};
use lowbit_ir::{Tensor, ValueId};

use super::Import;
use super::conv::{channels_last, channels_second};
use super::window::{Window, spatial};
use crate::node::{Node, Result};

pub(crate) const OPERATORS: &[(&str, Import)] = &[
    ("MaxPool", |n| pool(n, true)),
    ("AveragePool", |n| pool(n, false)),
    ("GlobalAveragePool", |n| global(n, ReduceFn::Mean)),
    ("GlobalMaxPool", |n| global(n, ReduceFn::Max)),
    ("LRN", lrn),
];

fn global(n: &mut Node<'_>, f: ReduceFn) -> Result<Vec<ValueId>> {
    let x = n.input(0)?;
    let rank = n.rank(x);
    if rank < 3 {
        return Err(format!(
            "its operand has {rank} axes, expected three or four"
        ));
    }
    Ok(vec![n.reduce(f, x, (2..rank).collect(), true)?])
}

fn pool(n: &mut Node<'_>, max: bool) -> Result<Vec<ValueId>> {
    let x = n.input(0)?;
    let size = spatial(&n.shape(x))?;
    let kernel = n
        .positive("kernel_shape")?
        .ok_or("attribute 'kernel_shape' is missing")?;
    let mut window = Window::new(n, &size, &kernel)?;
    let declared = [window.pad[0][1], window.pad[1][1]];
    if n.int("ceil_mode", 0) != 0 {
        round_up(&mut window, &size);
    }
    let kind = match (max, n.int("count_include_pad", 0)) {
        (true, _) => PoolKind::Max,
        (false, 0) => PoolKind::Mean,
        (false, _) => PoolKind::PaddedMean { declared },
    };
    let op = Pool {
        kind,
        kernel: window.kernel,
        stride: window.stride,
        dilation: window.dilation,
        pad: window.pad,
    };
    let x = channels_last(n, x)?;
    let y = n.push(op.clone(), &[x])?;
    let mut outputs = vec![channels_second(n, y, size.len())?];
    if n.proto.output.get(1).is_some_and(|o| !o.is_empty()) {
        let places = places(n, x, y, &op)?;
        outputs.push(channels_second(n, places, size.len())?);
    }
    Ok(outputs)
}

/// Where each maximum stands in the operand `[N, C, …]`, flattened: the first tap of its window that equals it.
fn places(n: &mut Node<'_>, x: ValueId, y: ValueId, op: &Pool) -> Result<ValueId> {
    let shape = n.shape(x);
    let lowest = n.ty(x).dtype.integer_range();
    let lowest = n.number(lowest.map_or(f64::NEG_INFINITY, |(lo, _)| lo as f64), x);
    n.take_room(&shape)?;
    let all = numbered(&shape, n.int("storage_order", 0) != 0);
    let all = n.give(all);
    let none = n.number(0.0, all);
    let (x, all) = (padded(n, x, lowest, op)?, padded(n, all, none, op)?);
    let len = n.shape(y);
    let [kh, kw] = op.kernel;
    let mut found = None;
    for tap in (0..kh * kw).rev() {
        let slice = Slice {
            start: vec![0, tap / kw * op.dilation[0], tap % kw * op.dilation[1], 0],
            len: len.clone(),
            step: vec![1, op.stride[0] as isize, op.stride[1] as isize, 1],
        };
        let places = n.push(slice.clone(), &[all])?;
        found = Some(match found {
            None => places,
            Some(later) => {
                let seen = n.push(slice, &[x])?;
                let equal = n.binary(BinaryFn::Equal, seen, y)?;
                n.push(Select, &[equal, places, later])?
            }
        });
    }
    found.ok_or_else(|| "its kernel is empty".into())
}

/// Index of each element of `[N, H, W, C]` where it stood as `[N, C, H, W]`, or as `[N, C, W, H]`.
fn numbered(shape: &[usize], columns_first: bool) -> Tensor {
    let &[n, h, w, c] = shape else {
        unreachable!("channels are last of four axes")
    };
    let index = |i: usize| {
        let (channel, column, row, image) = (i % c, i / c % w, i / c / w % h, i / c / w / h);
        let inner = match columns_first {
            true => column * h + row,
            false => row * w + column,
        };
        ((image * c + channel) * h * w + inner) as i64
    };
    Tensor::new(shape, (0..n * h * w * c).map(index).collect())
}

fn padded(n: &mut Node<'_>, x: ValueId, value: ValueId, op: &Pool) -> Result<ValueId> {
    let side = |s: usize| vec![0, op.pad[0][s] as isize, op.pad[1][s] as isize, 0];
    let pad = Pad {
        low: side(0),
        high: side(1),
        interior: vec![0; 4],
        mode: PadMode::Constant,
    };
    n.push(pad, &[x, value])
}

/// Pads after the end so that a last, incomplete window counts where it starts inside the tensor or its front padding.
fn round_up(window: &mut Window, size: &[usize]) {
    let first = 2 - size.len();
    for axis in first..2 {
        let reach = (window.kernel[axis] - 1) * window.dilation[axis] + 1;
        let [before, after] = window.pad[axis];
        let extent = size[axis - first] + before + after;
        let Some(room) = extent.checked_sub(reach) else {
            continue;
        };
        let mut steps = room.div_ceil(window.stride[axis]);
        if steps > 0 && steps * window.stride[axis] >= size[axis - first] + before {
            steps -= 1;
        }
        let needed = steps * window.stride[axis] + reach;
        window.pad[axis][1] = after.max((needed + after).saturating_sub(extent));
    }
}

/// `x / (bias + alpha / size · Σ x²)^beta`, the sum over neighbouring channels.
fn lrn(n: &mut Node<'_>) -> Result<Vec<ValueId>> {
    let x = n.input(0)?;
    let shape = n.shape(x);
    let size = n.count("size")?;
    if shape.len() < 2 {
        return Err(format!(
            "its operand has {} axes, expected two or more",
            shape.len()
        ));
    }
    let (before, after) = ((size - 1) / 2, size / 2);
    let rest: usize = shape[2..].iter().product();
    let square = n.binary(BinaryFn::Mul, x, x)?;
    let view = n.reshape(square, vec![shape[0], shape[1], 1, rest])?;
    let op = Pool {
        kind: PoolKind::PaddedMean {
            declared: [after, 0],
        },
        kernel: [size, 1],
        stride: [1, 1],
        dilation: [1, 1],
        pad: [[before, after], [0, 0]],
    };
    let mean = n.push(op, &[view])?;
    let mean = n.reshape(mean, shape)?;
    let (alpha, beta, bias) = (
        n.float("alpha", 0.0001),
        n.float("beta", 0.75),
        n.float("bias", 1.0),
    );
    let scaled = n.with(BinaryFn::Mul, mean, alpha)?;
    let sum = n.with(BinaryFn::Add, scaled, bias)?;
    let power = n.with(BinaryFn::Pow, sum, beta)?;
    Ok(vec![n.binary(BinaryFn::Div, x, power)?])
}
