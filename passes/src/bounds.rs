//! Interval analysis of accumulators over the actual weights.

use lowbit_ir::{DType, Graph, Node, Op, Tensor};

/// The most bits, with sign, that any accumulator of a graph can need, whatever its inputs.
pub fn max_accumulator_bits(graph: &Graph) -> u32 {
    graph
        .nodes()
        .map(|(_, node)| accumulator_bits(graph, node))
        .max()
        .unwrap_or(0)
}

fn accumulator_bits(graph: &Graph, node: &Node) -> u32 {
    let elements = |axis: usize| graph.shape(node.inputs[0])[axis] as i64;
    let (lo, hi) = match &node.op {
        Op::IntConv(_) => {
            let constant = |i: usize| {
                graph
                    .as_const(node.inputs[i])
                    .expect("parameters are constants")
            };
            let (w, b) = (constant(1), constant(2));
            channel_bounds(w, b)
                .into_iter()
                .fold((0, 0), |(l, h), (a, z)| (l.min(a), h.max(z)))
        }
        Op::IntMatMul(op) => {
            let reach = |z: u8| i64::from(z.max(255 - z));
            let k = elements(graph.shape(node.inputs[0]).len() - 1);
            let most = k * reach(op.zero_points[0]) * reach(op.zero_points[1]);
            (-most, most)
        }
        Op::IntMean(op) => {
            let taps = (op.pool.kernel[0] * op.pool.kernel[1]) as i64;
            let z = i64::from(op.zero_point_in);
            (-taps * z, taps * (255 - z))
        }
        Op::IntSum(op) if node.inputs.iter().all(|&v| graph.ty(v).dtype == DType::U8) => {
            op.m.iter().fold((op.k, op.k), |(lo, hi), &m| {
                (
                    lo + 255 * i64::from(m.min(0)),
                    hi + 255 * i64::from(m.max(0)),
                )
            })
        }
        _ => (0, 0),
    };
    bits(lo).max(bits(hi))
}

fn bits(x: i64) -> u32 {
    65 - if x < 0 {
        (!x).leading_zeros()
    } else {
        x.leading_zeros()
    }
}

/// Bounds of `acc + b` over all inputs and of every partial sum on the way, by channel.
pub fn channel_bounds(w: &Tensor, b: &Tensor) -> Vec<(i64, i64)> {
    let (weights, biases) = (w.as_slice::<i8>(), b.as_slice::<i32>());
    let per_channel = weights.len() / biases.len().max(1);
    let channel = |(o, &b): (usize, &i32)| {
        let row = &weights[o * per_channel..][..per_channel];
        let (lo, hi) = row.iter().fold((0, 0), |(lo, hi), &q| {
            (
                lo + 255 * i64::from(q.min(0)),
                hi + 255 * i64::from(q.max(0)),
            )
        });
        ((lo + i64::from(b)).min(lo), (hi + i64::from(b)).max(hi))
    };
    biases.iter().enumerate().map(channel).collect()
}
