//! The order in which a convolution walks its sums, and weights in that order.

use lowbit_ir::Tensor;
use lowbit_ir::ops::IntConv;
use lowbit_kernel::{Addr, Builder, LoopVar, Val};

use lowbit_num::Format;

use super::{Storage, unpack};

/// The sum behind one output: runs of bytes that lie next to each other, in steps of four.
pub(crate) struct Reduction {
    /// Loops over runs: trips and bytes between them.
    runs: Vec<(usize, usize)>,
    /// Bytes between kernel rows and between taps of a row.
    strides: [usize; 2],
    /// Bytes of a run.
    run: usize,
    /// Whether a run spans the taps of a kernel row, or else one tap.
    rows: bool,
    kernel: [usize; 3],
    /// Bytes between the channels of neighbouring groups.
    pub(crate) group_bytes: usize,
    /// Steps that are taken together; runs are as long as so many.
    chunk: Option<usize>,
}

/// What adds a step to the accumulators.
type Body<'a> = dyn FnMut(&mut Builder, &[Val], &Place) -> Vec<Val> + 'a;

/// One step of a sum.
pub(crate) struct Place {
    loops: Vec<(LoopVar, usize, usize)>,
}

impl Reduction {
    /// For an operand and weights of `kernel` height, width and channels a group.
    pub(crate) fn new(op: &IntConv, x: &Storage, kernel: [usize; 3]) -> Self {
        let [kh, kw, cg] = kernel;
        let rows = op.groups == 1 && op.dilation[1] == 1 && (kw == 1 || x.strides[2] == cg);
        let strides = [op.dilation[0] * x.strides[1], op.dilation[1] * x.strides[2]];
        let mut runs = vec![(kh, strides[0])];
        if !rows {
            runs.push((kw, strides[1]));
        }
        runs.retain(|r| r.0 > 1);
        Self {
            runs,
            strides,
            run: if rows { kw * cg } else { cg },
            rows,
            kernel,
            group_bytes: cg,
            chunk: None,
        }
    }

    /// The same sum in chunks of equally many steps, `most` at most: every run is padded to whole chunks.
    pub(crate) fn chunked(&self, most: usize) -> Self {
        let steps = self.run.div_ceil(4);
        Self {
            chunk: Some(steps.div_ceil(steps.div_ceil(most).max(1)).max(1)),
            runs: self.runs.clone(),
            ..*self
        }
    }

    /// Steps that are taken together.
    pub(crate) fn chunk(&self) -> usize {
        self.chunk.unwrap_or(1)
    }

    /// Bytes behind the end of a run that its last step reads.
    pub(crate) fn behind(&self) -> usize {
        4 * self.run_steps() - self.run
    }

    /// Steps of four bytes in a run.
    fn run_steps(&self) -> usize {
        self.run.div_ceil(4).next_multiple_of(self.chunk())
    }

    /// Where runs end within a step: that step of the first run, steps from run to run, and the bytes before the end.
    pub(crate) fn ragged(&self) -> Option<(usize, usize, usize)> {
        let (run, rest) = (self.run_steps(), self.run % 4);
        (rest > 0).then_some((run - 1, run, rest))
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

    /// Bytes from the first byte of a sum to byte `at` of a run.
    fn offset(&self, run: usize, at: usize) -> usize {
        let kw = self.kernel[1];
        let [row, tap] = if self.rows {
            [run, 0]
        } else {
            [run / kw, run % kw]
        };
        row * self.strides[0] + tap * self.strides[1] + at
    }

    /// Writes the loops of the sum; `body` adds one step, or one chunk of steps, to the accumulators.
    pub(crate) fn walk(&self, b: &mut Builder, init: &[Val], body: &mut Body<'_>) -> Vec<Val> {
        let mut loops = self.runs.clone();
        let (trips, chunk) = (self.run_steps() / self.chunk(), self.chunk());
        if trips > 1 {
            loops.push((trips, 4 * chunk));
        }
        nest(b, &loops, Vec::new(), init, body)
    }
}

fn nest(
    b: &mut Builder,
    loops: &[(usize, usize)],
    outer: Vec<(LoopVar, usize, usize)>,
    init: &[Val],
    body: &mut Body<'_>,
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

    /// Where the weights of this step or chunk are, `bytes` each.
    pub(crate) fn apply_w(&self, base: &Addr, bytes: i64) -> Addr {
        self.loops.iter().fold(base.clone(), |a, &(i, _, inner)| {
            a.step(i, inner as i64 * bytes)
        })
    }
}

/// Weights as `[group][block of vectors][step][vector][lane][4]`; channels past the last are zero.
///
/// Where pairs of products must fit 16 bits, what weights exceed that by follows the steps of each block as extra steps of
/// the same form, and after them the offsets of their bytes in the operand as `i32`, a place for each vector.
///
/// Weights of fewer than 8 bits have no extra steps. Each of their blocks is packed by itself and unpacked to a panel.
pub(crate) struct Packed {
    pub(crate) bytes: Vec<u8>,
    /// Bytes of a group.
    pub(crate) group: usize,
    /// Bytes that one vector takes in a block.
    pub(crate) vector: usize,
    /// Bytes that one vector takes in a block once it is unpacked.
    pub(crate) panel: usize,
    /// Extra steps of a block.
    pub(crate) extras: usize,
}

/// Weights of a block of channels by step, lane and byte, and the extra steps.
struct Block {
    lanes: usize,
    codes: Vec<i8>,
    extras: Vec<Extra>,
}

/// A step at `offset` bytes into the operand.
struct Extra {
    offset: usize,
    codes: Vec<i8>,
}

impl Packed {
    /// Packs weights of a format in blocks of `vectors` vectors; `narrow` keeps pairs of products within 16 bits.
    pub(crate) fn new(
        w: &Tensor,
        format: Format,
        reduction: &Reduction,
        groups: usize,
        [vectors, lanes]: [usize; 2],
        narrow: bool,
    ) -> Self {
        let channels = w.shape()[0] / groups;
        let total = channels.div_ceil(lanes);
        let mut blocks = Vec::new();
        for g in 0..groups {
            for first in (0..total).step_by(vectors) {
                let own = first * lanes..(first + vectors).min(total) * lanes;
                let own = own.map(|c| (c < channels).then_some(g * channels + c));
                let mut block = Block::new(w, format, reduction, &own.collect::<Vec<_>>());
                if narrow && format == Format::Int8 {
                    block.narrow(reduction);
                }
                blocks.push(block);
            }
        }
        let extras = blocks.iter().map(|b| b.extras.len()).max().unwrap_or(0);
        let steps = (reduction.steps() + extras) * lanes * 4;
        let panel = steps + extras * 4;
        let (bytes, vector) = if format == Format::Int8 {
            let bytes = blocks.iter().map(|b| b.bytes(extras, b.lanes / lanes));
            (bytes.flatten().collect(), panel)
        } else {
            let bytes = blocks
                .iter()
                .map(|b| unpack::pack(format, &b.codes, lanes * 4));
            (bytes.flatten().collect(), format.packed_len(panel))
        };
        Self {
            bytes,
            group: total * vector,
            vector,
            panel,
            extras,
        }
    }
}

impl Block {
    fn new(w: &Tensor, format: Format, reduction: &Reduction, channels: &[Option<usize>]) -> Self {
        let nothing = if format.admits(0) { 0 } else { 1 };
        let weights = w.as_slice::<i8>();
        let [kh, kw, cg] = reduction.kernel;
        let mut codes = Vec::with_capacity(reduction.steps() * channels.len() * 4);
        for step in 0..reduction.steps() {
            for channel in channels {
                let code = |j| {
                    let [ky, kx, c] = reduction.tap(step, j)?;
                    Some(weights[((channel.as_ref()? * kh + ky) * kw + kx) * cg + c])
                };
                codes.extend((0..4).map(|j| code(j).unwrap_or(nothing)));
            }
        }
        Self {
            lanes: channels.len(),
            codes,
            extras: Vec::new(),
        }
    }

    /// Moves what pairs exceed 16 bits by to extra steps, each of which takes all that lies in four neighbouring bytes.
    fn narrow(&mut self, reduction: &Reduction) {
        let run = reduction.run_steps() * 4;
        let row = self.lanes * 4;
        for (index, codes) in self.codes.chunks_exact_mut(row * run / 4).enumerate() {
            let mut excess = take_excess(codes, row);
            excess.sort_unstable();
            let mut open: Option<(usize, Extra)> = None;
            for (at, lane, code) in excess {
                if open.as_ref().is_none_or(|(start, _)| at >= start + 4) {
                    // on a pair, so that no pair takes from two
                    let start = (at & !1).min(run - 4);
                    let extra = Extra {
                        offset: reduction.offset(index, start),
                        codes: vec![0; row],
                    };
                    self.extras
                        .extend(open.replace((start, extra)).map(|o| o.1));
                }
                if let Some((start, extra)) = &mut open {
                    extra.codes[lane * 4 + at - *start] = code;
                }
            }
            self.extras.extend(open.map(|o| o.1));
        }
    }

    /// The block with `extras` extra steps, in `vectors` vectors.
    fn bytes(&self, extras: usize, vectors: usize) -> Vec<u8> {
        let missing = extras - self.extras.len();
        let codes = self.extras.iter().flat_map(|e| &e.codes);
        let mut bytes: Vec<u8> = self
            .codes
            .iter()
            .chain(codes)
            .map(|c| c.cast_unsigned())
            .collect();
        bytes.resize(bytes.len() + missing * self.lanes * 4, 0);
        let end = bytes.len() + extras * vectors * 4;
        bytes.extend(
            self.extras
                .iter()
                .flat_map(|e| (e.offset as u32).to_le_bytes()),
        );
        bytes.resize(end, 0);
        bytes
    }
}

/// Reduces pairs of weights whose sum with activations up to 255 leaves 16 bits; returns byte of the run, lane and what was
/// taken. Of weights with different signs only one counts at a time, so those always fit.
fn take_excess(codes: &mut [i8], row: usize) -> Vec<(usize, usize, i8)> {
    const MOST: i32 = i16::MAX as i32 / 255;
    let mut excess = Vec::new();
    for (k, pair) in codes.chunks_exact_mut(2).enumerate() {
        let sum = i32::from(pair[0]) + i32::from(pair[1]);
        if sum.abs() <= MOST {
            continue;
        }
        let larger = usize::from(pair[1].unsigned_abs() > pair[0].unsigned_abs());
        let over = (sum - MOST * sum.signum()) as i8;
        pair[larger] -= over;
        let at = 2 * k + larger;
        excess.push((at / row * 4 + at % 4, at % row / 4, over));
    }
    excess
}

#[cfg(test)]
mod tests {
    use lowbit_ir::DType;
    use lowbit_ir::ops::{Codes, Epilogue, IntConv};
    use lowbit_num::Format;

    use super::super::testing::tensor;
    use super::*;

    /// Sum of products of the steps of lane `lane` with the operand, every pair within 16 bits.
    fn sum(block: &Block, x: &[u8], lane: usize) -> i32 {
        let row = block.lanes * 4;
        let steps = block
            .codes
            .chunks_exact(row)
            .enumerate()
            .map(|(k, c)| (k * 4, c));
        let extras = block.extras.iter().map(|e| (e.offset, &e.codes[..]));
        let mut sum = 0;
        for (at, codes) in steps.chain(extras) {
            for pair in 0..2 {
                let product = |j: usize| {
                    let code = i32::from(codes[lane * 4 + pair * 2 + j]);
                    let x = x.get(at + pair * 2 + j).copied().unwrap_or(0);
                    (code * i32::from(x), code * 255)
                };
                let (a, b) = (product(0), product(1));
                assert!(i16::try_from((a.1 + b.1) * i32::from(a.1 * b.1 > 0)).is_ok());
                sum += a.0 + b.0;
            }
        }
        sum
    }

    #[test]
    fn extra_steps_take_what_pairs_exceed_16_bits_by() {
        for (channels, seed) in [(3, 1), (16, 2), (37, 3), (250, 4)] {
            let op = IntConv {
                stride: [1, 1],
                dilation: [1, 1],
                pad: [[0, 0]; 2],
                groups: 1,
                pad_code: 0,
                weights: Format::Int8,
                epilogue: Epilogue::High,
                out: Codes::U8,
            };
            let x = tensor(DType::U8, &[1, 1, 1, channels], seed);
            let w = tensor(DType::I8, &[8, 1, 1, channels], seed + 9);
            let reduction =
                Reduction::new(&op, &Storage::dense(DType::U8, x.shape()), [1, 1, channels]);
            let lanes: Vec<Option<usize>> = (0..8).map(Some).collect();
            let mut block = Block::new(&w, Format::Int8, &reduction, &lanes);
            block.narrow(&reduction);
            for (lane, weights) in w.as_slice::<i8>().chunks_exact(channels).enumerate() {
                let products = x.as_slice::<u8>().iter().zip(weights);
                let expected: i32 = products.map(|(&x, &w)| i32::from(x) * i32::from(w)).sum();
                assert_eq!(sum(&block, x.as_slice::<u8>(), lane), expected);
            }
        }
    }
}
