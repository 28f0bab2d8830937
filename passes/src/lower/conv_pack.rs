//! The order in which a convolution walks its sums, and weights in that order.

use std::ops::Range;

use lowbit_ir::Tensor;
use lowbit_ir::ops::IntConv;
use lowbit_kernel::{Addr, Builder, LoopVar, Val};

use lowbit_num::Format;

use super::tile::{self, Part};
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

/// What adds steps to the accumulators: the place of the first one, and how many.
type Body<'a> = dyn FnMut(&mut Builder, &[Val], &Place, usize) -> Vec<Val> + 'a;

/// What a trip of a loop does; one trip has no counter.
type Trip<'a> = dyn FnMut(&mut Builder, &[Val], Option<LoopVar>) -> Vec<Val> + 'a;

/// One step of a sum.
#[derive(Clone, Default)]
pub(crate) struct Place {
    /// The step of its run.
    first: usize,
    /// Loops with the bytes of the operand and the steps that a trip moves on.
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

    /// Chunks of a run.
    pub(crate) fn run_chunks(&self) -> usize {
        self.run_steps() / self.chunk()
    }

    /// Where each run starts, in bytes from the first.
    pub(crate) fn run_starts(&self) -> Vec<usize> {
        let runs = self.steps() / self.run_steps();
        (0..runs).map(|run| self.offset(run, 0)).collect()
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

    /// Writes the loops of the sum; `body` adds steps to the accumulators, `together` at a time but for the last ones of a run.
    pub(crate) fn walk(
        &self,
        b: &mut Builder,
        init: &[Val],
        together: usize,
        body: &mut Body<'_>,
    ) -> Vec<Val> {
        let steps = self.run_steps();
        let parts = tile::parts(steps, together);
        nest(
            b,
            &self.runs,
            (&Place::default(), steps),
            init,
            &mut |b, sums, run, _| {
                let add = |sums: Vec<Val>, part: &Part| {
                    let from = Place {
                        first: part.first,
                        ..run.clone()
                    };
                    repeat(b, part.count, &sums, &mut |b, sums, i| {
                        let place = from.moved(i, 4 * part.size, part.size);
                        body(b, sums, &place, part.size)
                    })
                };
                parts.iter().fold(sums.to_vec(), add)
            },
        )
    }
}

/// Loops over runs of `steps` steps from a place on.
fn nest(
    b: &mut Builder,
    loops: &[(usize, usize)],
    (outer, steps): (&Place, usize),
    init: &[Val],
    body: &mut Body<'_>,
) -> Vec<Val> {
    let Some((&(trips, stride), rest)) = loops.split_first() else {
        return body(b, init, outer, steps);
    };
    let inner = steps * rest.iter().map(|r| r.0).product::<usize>();
    repeat(b, trips, init, &mut |b, sums, i| {
        nest(b, rest, (&outer.moved(i, stride, inner), steps), sums, body)
    })
}

/// A loop; one trip is none.
fn repeat(b: &mut Builder, trips: usize, init: &[Val], body: &mut Trip<'_>) -> Vec<Val> {
    match trips {
        1 => body(b, init, None),
        _ => b.for_(trips as u32, init, |b, i, sums| body(b, sums, Some(i))),
    }
}

impl Place {
    /// So many bytes of the operand and steps further on by each trip of a loop.
    fn moved(&self, var: Option<LoopVar>, bytes: usize, steps: usize) -> Self {
        let mut place = self.clone();
        place.loops.extend(var.map(|var| (var, bytes, steps)));
        place
    }

    /// Where the operand's bytes of this step are.
    pub(crate) fn apply_x(&self, base: &Addr) -> Addr {
        let first = base.clone().plus(4 * self.first as i64);
        let step = |a: Addr, &(i, stride, _): &(LoopVar, usize, usize)| a.step(i, stride as i64);
        self.loops.iter().fold(first, step)
    }

    /// Where the weights of this step are, `bytes` for each.
    pub(crate) fn apply_w(&self, base: &Addr, bytes: i64) -> Addr {
        let first = base.clone().plus(self.first as i64 * bytes);
        let step = |a: Addr, &(i, _, n): &(LoopVar, usize, usize)| a.step(i, n as i64 * bytes);
        self.loops.iter().fold(first, step)
    }
}

/// Weights as `[group][block of vectors][step][vector][lane][4]`; channels past the last are zero.
///
/// Where sums of products must fit 16 bits, what weights exceed that by follows the steps of each block as extra steps of
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
    /// Packs weights of a format in blocks of `vectors` vectors; `narrow` keeps sums of so many steps within 16 bits.
    pub(crate) fn new(
        w: &Tensor,
        format: Format,
        reduction: &Reduction,
        groups: usize,
        [vectors, lanes]: [usize; 2],
        narrow: Option<usize>,
    ) -> Self {
        let channels = w.shape()[0] / groups;
        let total = channels.div_ceil(lanes);
        let mut blocks = Vec::new();
        for g in 0..groups {
            for first in (0..total).step_by(vectors) {
                let own = first * lanes..(first + vectors).min(total) * lanes;
                let own = own.map(|c| (c < channels).then_some(g * channels + c));
                let mut block = Block::new(w, format, reduction, &own.collect::<Vec<_>>());
                if let Some(together) = narrow.filter(|_| format == Format::Int8) {
                    block.narrow(reduction, together);
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

    /// Moves what sums of `together` steps exceed 16 bits by to extra steps, each of which takes what lies in four neighbouring
    /// bytes.
    fn narrow(&mut self, reduction: &Reduction, together: usize) {
        let run = reduction.run_steps() * 4;
        let row = self.lanes * 4;
        for (index, codes) in self.codes.chunks_exact_mut(row * run / 4).enumerate() {
            let mut excess = take_excess(codes, row, together);
            excess.sort_unstable();
            let (mut start, mut open) = (0, Vec::<Extra>::new());
            for (at, lane, code) in excess {
                if open.is_empty() || at >= start + 4 {
                    self.extras.append(&mut open);
                    // on a pair, so that no pair takes from two
                    start = (at & !1).min(run - 4);
                }
                let slot = lane * 4 + at - start;
                let fits = |e: &&mut Extra| fit([e.codes[slot ^ 1], code]);
                if let Some(extra) = open.iter_mut().find(fits) {
                    extra.codes[slot] = code;
                    continue;
                }
                let mut codes = vec![0; row];
                codes[slot] = code;
                let offset = reduction.offset(index, start);
                open.push(Extra { offset, codes });
            }
            self.extras.append(&mut open);
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

/// The largest sum of weights whose products with activations up to 255 fit 16 bits.
const MOST: i32 = i16::MAX as i32 / 255;

/// Whether any sum of some of the products of these weights with activations up to 255 fits 16 bits.
fn fit(weights: impl IntoIterator<Item = i8>) -> bool {
    let mut sums = [0, 0];
    for w in weights {
        sums[usize::from(w < 0)] += i32::from(w).abs();
    }
    sums.iter().all(|&sum| sum <= MOST)
}

/// Reduces weights whose products are summed in 16 bits, two in each of `together` steps, until they fit; returns byte of the
/// run, lane and what was taken. The largest ones give.
fn take_excess(codes: &mut [i8], row: usize, together: usize) -> Vec<(usize, usize, i8)> {
    let mut excess = Vec::new();
    for (k, chunk) in codes.chunks_mut(row * together).enumerate() {
        for pair in (0..row).step_by(2) {
            let places = (pair..chunk.len()).step_by(row).flat_map(|at| [at, at + 1]);
            for sign in [1, -1] {
                let mut own: Vec<(i32, usize)> = places
                    .clone()
                    .map(|at| (sign * i32::from(chunk[at]), at))
                    .filter(|w| w.0 > 0)
                    .collect();
                let mut over = own.iter().map(|w| w.0).sum::<i32>() - MOST;
                own.sort_unstable();
                while let Some((w, at)) = own.pop().filter(|_| over > 0) {
                    let taken = w.min(over);
                    over -= taken;
                    chunk[at] -= (sign * taken) as i8;
                    let byte = (k * together + at / row) * 4 + at % 4;
                    excess.push((byte, at % row / 4, (sign * taken) as i8));
                }
            }
        }
    }
    excess
}

/// The most steps, a power of two up to `most`, whose sums of products fit 16 bits in all of a layer.
pub(crate) fn together(w: &Tensor, reduction: &Reduction, most: usize) -> Option<usize> {
    let weights = w.as_slice::<i8>();
    let [kh, kw, cg] = reduction.kernel;
    let run = reduction.run_steps();
    let code = |channel: usize, step: usize, j: usize| {
        let [ky, kx, c] = reduction.tap(step, j)?;
        Some(weights[((channel * kh + ky) * kw + kx) * cg + c])
    };
    let sum_fits = |channel: usize, own: Range<usize>, pair: usize| {
        let places = own.flat_map(|step| [(step, pair), (step, pair + 1)]);
        fit(places.filter_map(|(step, j)| code(channel, step, j)))
    };
    let run_fits = |channel: usize, first: usize, n: usize| {
        (0..run).step_by(n).all(|at| {
            let own = first + at..first + (at + n).min(run);
            [0, 2]
                .into_iter()
                .all(|pair| sum_fits(channel, own.clone(), pair))
        })
    };
    let fits = |&n: &usize| {
        (0..w.shape()[0]).all(|c| {
            (0..reduction.steps())
                .step_by(run)
                .all(|first| run_fits(c, first, n))
        })
    };
    std::iter::successors(Some(most), |n| (*n > 1).then_some(n / 2)).find(fits)
}

#[cfg(test)]
mod tests {
    use lowbit_ir::DType;
    use lowbit_ir::ops::{Codes, Epilogue, IntConv};
    use lowbit_num::Format;

    use super::super::testing::tensor;
    use super::*;

    fn op() -> IntConv {
        IntConv {
            stride: [1, 1],
            dilation: [1, 1],
            pad: [[0, 0]; 2],
            groups: 1,
            pad_code: 0,
            weights: Format::Int8,
            epilogue: Epilogue::High,
            out: Codes::U8,
        }
    }

    /// Sum of products of the steps of lane `lane` with the operand; those of steps that are taken together fit 16 bits.
    fn sum(block: &Block, x: &[u8], lane: usize, together: usize) -> i32 {
        let row = block.lanes * 4;
        let steps: Vec<(usize, &[i8])> = block
            .codes
            .chunks_exact(row)
            .enumerate()
            .map(|(k, c)| (k * 4, c))
            .collect();
        let extras = block.extras.iter().map(|e| vec![(e.offset, &e.codes[..])]);
        let mut sum = 0;
        for steps in steps.chunks(together).map(<[_]>::to_vec).chain(extras) {
            for pair in [0, 2] {
                let mut most = [0, 0];
                for (at, codes) in &steps {
                    for j in pair..pair + 2 {
                        let code = i32::from(codes[lane * 4 + j]);
                        most[usize::from(code < 0)] += code * 255;
                        sum += code * x.get(at + j).map_or(0, |&x| i32::from(x));
                    }
                }
                assert!(most.iter().all(|&sum| i16::try_from(sum).is_ok()));
            }
        }
        sum
    }

    #[test]
    fn as_many_steps_are_taken_together_as_surely_fit() {
        let most = |code: i8, others: i8| {
            let reduction = Reduction::new(
                &op(),
                &Storage::dense(DType::U8, &[1, 1, 1, 64]),
                [1, 1, 64],
            );
            let codes = (0..2 * 64).map(|k| if k % 2 == 0 { code } else { others });
            let w = Tensor::new([2, 1, 1, 64], codes.collect::<Vec<i8>>());
            together(&w, &reduction, 8)
        };
        assert_eq!(most(8, 8), Some(8));
        assert_eq!(most(9, 8), Some(4));
        assert_eq!(most(-16, -16), Some(4));
        assert_eq!(most(64, -64), Some(2));
        assert_eq!(most(127, -128), Some(1));
        assert_eq!(most(64, 65), None);
    }

    #[test]
    fn extra_steps_take_what_sums_exceed_16_bits_by() {
        for (channels, seed, together) in
            [(3, 1, 1), (16, 2, 1), (37, 3, 2), (250, 4, 4), (64, 5, 8)]
        {
            let op = op();
            let x = tensor(DType::U8, &[1, 1, 1, channels], seed);
            let w = tensor(DType::I8, &[8, 1, 1, channels], seed + 9);
            let reduction =
                Reduction::new(&op, &Storage::dense(DType::U8, x.shape()), [1, 1, channels]);
            let lanes: Vec<Option<usize>> = (0..8).map(Some).collect();
            let mut block = Block::new(&w, Format::Int8, &reduction, &lanes);
            block.narrow(&reduction, together);
            assert!(!block.extras.is_empty());
            for (lane, weights) in w.as_slice::<i8>().chunks_exact(channels).enumerate() {
                let products = x.as_slice::<u8>().iter().zip(weights);
                let expected: i32 = products.map(|(&x, &w)| i32::from(x) * i32::from(w)).sum();
                assert_eq!(sum(&block, x.as_slice::<u8>(), lane, together), expected);
            }
        }
    }
}
