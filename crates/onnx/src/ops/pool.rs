//! Pooling: channels last inside, between two transpositions.

use lowbit_ir::ValueId;
use lowbit_ir::ops::{BinaryFn, Pool, PoolKind, ReduceFn};

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
    if n.proto.output.len() > 1 && !n.proto.output[1].is_empty() {
        return Err("its second output, the indices, is not supported".into());
    }
    if n.int("storage_order", 0) != 0 {
        return Err("attribute 'storage_order' must be 0".into());
    }
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
    let y = n.push(op, &[x])?;
    Ok(vec![channels_second(n, y, size.len())?])
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
