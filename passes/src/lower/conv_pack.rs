//! The order in which a convolution walks its sums, and weights in that order.

use lowbit_ir::Tensor;
use lowbit_ir::ops::IntConv;
use lowbit_kernel::{Addr, Builder, LoopVar, Val};

use super::Storage;

/// The sum behind one output: runs of bytes that lie next to each other, in steps of four.
pub(crate) struct Reduction {
    /// Loops over runs: trips and bytes between them.
    runs: Vec<(usize, usize)>,
    /// Bytes of a run.
    run: usize,
    /// Whether a run spans the taps of a kernel row, or else one tap.
    rows: bool,
    kernel: [usize; 3],
    /// Bytes between the channels of neighbouring groups.
    pub(crate) group_bytes: usize,
}

/// One step of a sum.
pub(crate) struct Place {
    loops: Vec<(LoopVar, usize, usize)>,
}

impl Reduction {
    /// For an operand and weights of `kernel` height, width and channels a group.
    pub(crate) fn new(op: &IntConv, x: &Storage, kernel: [usize; 3]) -> Self {
        let [kh, kw, cg] = kernel;
        let rows = op.groups == 1 && op.dilation[1] == 1 && (kw == 1 || x.strides[2] == cg);
        let mut runs = vec![(kh, op.dilation[0] * x.strides[1])];
        if !rows {
            runs.push((kw, op.dilation[1] * x.strides[2]));
        }
        runs.retain(|r| r.0 > 1);
        Self {
            runs,
            run: if rows { kw * cg } else { cg },
            rows,
            kernel,
            group_bytes: cg,
        }
    }

    /// Steps of four bytes in a run.
    fn run_steps(&self) -> usize {
        self.run.div_ceil(4)
    }

    /// Steps of the whole sum.
    pub(crate) fn steps(&self) -> usize {
        let [kh, kw, _] = self.kernel;
        self.run_steps() * if self.rows { kh } else { kh * kw }
    }

    /// The tap and channel that byte `j` of a step reads; `None` past the end of its run.
    fn tap(&self, step: usize, j: usize) -> Option<[usize; 3]> {
        let [_, kw, cg] = self.kernel;
        let (run, at) = (step / self.run_steps(), step % self.run_steps() * 4 + j);
        if at >= self.run {
            return None;
        }
        Some(if self.rows {
            [run, at / cg, at % cg]
        } else {
            [run / kw, run % kw, at]
        })
    }

    /// Writes the loops of the sum; `body` adds one step to the accumulators.
    pub(crate) fn walk(
        &self,
        b: &mut Builder,
        init: &[Val],
        body: &mut dyn FnMut(&mut Builder, &[Val], &Place) -> Vec<Val>,
    ) -> Vec<Val> {
        let mut loops = self.runs.clone();
        if self.run_steps() > 1 {
            loops.push((self.run_steps(), 4));
        }
        nest(b, &loops, Vec::new(), init, body)
    }
}

fn nest(
    b: &mut Builder,
    loops: &[(usize, usize)],
    outer: Vec<(LoopVar, usize, usize)>,
    init: &[Val],
    body: &mut dyn FnMut(&mut Builder, &[Val], &Place) -> Vec<Val>,
) -> Vec<Val> {
    let Some((&(trips, stride), rest)) = loops.split_first() else {
        return body(b, init, &Place { loops: outer });
    };
    let inner: usize = rest.iter().map(|r| r.0).product();
    b.for_(trips as u32, init, |b, i, sums| {
        let outer = [outer.clone(), vec![(i, stride, inner)]].concat();
        nest(b, rest, outer, sums, body)
    })
}

impl Place {
    /// Where the operand's bytes of this step are.
    pub(crate) fn apply_x(&self, base: &Addr) -> Addr {
        self.loops
            .iter()
            .fold(base.clone(), |a, &(i, stride, _)| a.step(i, stride as i64))
    }

    /// Where the weights of this step are, `bytes` a step.
    pub(crate) fn apply_w(&self, base: &Addr, bytes: i64) -> Addr {
        self.loops.iter().fold(base.clone(), |a, &(i, _, inner)| {
            a.step(i, inner as i64 * bytes)
        })
    }
}

/// Weights as `[group][block of vectors][step][vector][lane][4]`; channels past the last are zero.
pub(crate) struct Packed {
    pub(crate) bytes: Vec<u8>,
    /// Bytes of a group.
    pub(crate) group: usize,
    /// Bytes that one vector takes in a block.
    pub(crate) vector: usize,
}

impl Packed {
    pub(crate) fn new(
        w: &Tensor,
        reduction: &Reduction,
        groups: usize,
        vectors: usize,
        lanes: usize,
    ) -> Self {
        let weights = w.as_slice::<i8>();
        let [kh, kw, cg] = reduction.kernel;
        let channels = w.shape()[0] / groups;
        let total = channels.div_ceil(lanes);
        let steps = reduction.steps();
        let mut bytes = Vec::with_capacity(groups * total * steps * lanes * 4);
        for g in 0..groups {
            for first in (0..total).step_by(vectors) {
                for step in 0..steps {
                    for lane in first * lanes..(first + vectors).min(total) * lanes {
                        let code = |j| {
                            let [ky, kx, c] = reduction.tap(step, j).filter(|_| lane < channels)?;
                            Some(weights[(((g * channels + lane) * kh + ky) * kw + kx) * cg + c])
                        };
                        bytes.extend((0..4).map(|j| code(j).unwrap_or(0).cast_unsigned()));
                    }
                }
            }
        }
        Self {
            bytes,
            group: total * steps * lanes * 4,
            vector: steps * lanes * 4,
        }
    }
}
