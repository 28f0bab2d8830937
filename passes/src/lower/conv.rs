//! Convolutions and matrix products with constant weights: direct products over channels-last tensors.
//!
//! A tile of output pixels and channels is accumulated in registers over kernel rows and, within each, over groups of
//! four bytes of the run that the taps of a row form in memory. Weights are packed in the order of use. Nothing of the
//! operand is copied: a border of zero-points lies around it.

use lowbit_ir::Tensor;
use lowbit_ir::ops::{Epilogue, IntConv};
use lowbit_kernel::{Addr, BufId, Builder, LoopVar, Role, Type, Val};
use lowbit_num::Format;

use super::conv_pack::{Packed, Reduction, together};
use super::epilogue::{Constants, Finish};
use super::tile::{self, Dot, Part, Shape};
use super::view::View;
use super::{Arg, Machine, Operand, Step, Storage, conv_tiles, depthwise, unpack};

pub(crate) fn lower(
    op: &IntConv,
    operands: &[Operand<'_>],
    result: &Storage,
    machine: &Machine,
) -> Vec<Step> {
    if depthwise::fits(op, operands, machine) {
        return depthwise::lower(op, operands, result, machine);
    }
    vec![Conv::new(op, operands, result, machine).kernel()]
}

/// Weight bytes of a block of channels that stay in the first-level cache while all pixels pass.
pub(super) const PANEL: usize = 24 * 1024;

/// Weights may grow by this part for the sake of narrow sums.
const MOST_EXTRAS: usize = 4;

/// Most steps whose products are summed in 16 bits: with more, the sum of those sums is a small part of the time.
const MOST_TOGETHER: usize = 8;

/// Quarters of a cycle that widening a vector of weights takes.
const WIDEN: usize = 8;

pub(super) struct Conv<'a> {
    pub(super) op: &'a IntConv,
    pub(super) operands: &'a [Operand<'a>],
    pub(super) machine: &'a Machine,
    /// The operand as `[N, H, W, C]` and the result as `[N, H', W', O]`; one row of pixels where both allow it.
    pub(super) x: View,
    pub(super) y: View,
    pub(super) r: Option<View>,
    pub(super) reduction: Reduction,
    pub(super) dot: Dot,
    pub(super) shape: Shape,
    pub(super) packed: Packed,
    pub(super) result: &'a Storage,
    /// Output channels of a group.
    pub(super) channels: usize,
}

/// Buffers of the kernel.
#[derive(Clone, Copy)]
struct Buffers {
    x: BufId,
    w: BufId,
    /// Work space for a block of weights, where they are packed.
    panel: Option<BufId>,
    /// Work space for tiles of sums.
    sums: Option<BufId>,
    constants: BufId,
    y: BufId,
    r: Option<BufId>,
}

/// Where a tile starts.
#[derive(Clone)]
pub(super) struct Start {
    pub(super) x: Addr,
    pub(super) w: Addr,
    pub(super) y: Addr,
    pub(super) r: Option<Addr>,
    pub(super) constants: Addr,
    /// Where tiles of sums are kept on their way to codes.
    pub(super) sums: Option<Addr>,
    /// Weights that are wanted soon.
    pub(super) ahead: Addr,
}

impl<'a> Conv<'a> {
    fn new(
        op: &'a IntConv,
        operands: &'a [Operand<'a>],
        result: &'a Storage,
        machine: &'a Machine,
    ) -> Self {
        let w = &operands[1].storage.shape;
        let reduction = Reduction::new(op, operands[0].storage, [w[1], w[2], w[3]]);
        let slack = operands[0].storage.slack;
        let r =
            matches!(op.epilogue, Epilogue::Residual { .. }).then(|| View::of(operands[4].storage));
        let (mut x, mut y) = (View::of(operands[0].storage), View::of(result));
        let mut r = r;
        // the window of the first output starts in the border
        x.offset -= (op.pad[0][0] as isize) * x.strides[1] + (op.pad[1][0] as isize) * x.strides[2];
        if flat(op, [w[1], w[2]], &[Some(&x), Some(&y), r.as_ref()]) {
            [Some(&mut x), Some(&mut y), r.as_mut()]
                .into_iter()
                .flatten()
                .for_each(flatten);
        }
        let size = [y.shape[1], y.shape[2]];
        let weights = operands[1].constant.expect("weights are constant");
        let pitch = [0, 1].map(|a| x.strides[1 + a].unsigned_abs() * op.stride[a]);
        let reads = (reduction, pitch, slack);
        let (dot, shape, packed, reduction) = form(weights, op, size, reads, machine);
        Self {
            op,
            operands,
            machine,
            x,
            y,
            r,
            reduction,
            dot,
            shape,
            packed,
            result,
            channels: w[0] / op.groups,
        }
    }

    fn kernel(&self) -> Step {
        let w = &self.operands[1].storage.shape;
        let constants = Constants::new(self.op, self.operands, self.machine, self.channels);
        let mut b = Builder::new(format!("conv_{}x{}", w[1], w[2]));
        let storage = self.operands[0].storage;
        let x = b.declare(super::slack_buffer("x", Role::In, storage));
        let wb = b.buffer("w", Role::Const, self.packed.bytes.len());
        let panel_bytes = self.packed.panel * self.shape.vectors;
        let panel = self
            .unpacks()
            .then(|| b.buffer("panel", Role::Scratch, panel_bytes));
        let sums_bytes = self.sums_bytes();
        let sums = (sums_bytes > 0).then(|| b.buffer("sums", Role::Scratch, sums_bytes));
        let cb = b.buffer("c", Role::Const, constants.bytes.len());
        let r = self
            .r
            .as_ref()
            .map(|_| b.declare(super::slack_buffer("r", Role::In, self.operands[4].storage)));
        let y = b.buffer("y", Role::Out, self.result.bytes);
        let finish = Finish {
            op: self.op,
            constants: &constants,
            machine: self.machine,
            residual: self.r.as_ref().map(|r| r.dtype),
        };
        self.groups(
            &mut b,
            Buffers {
                x,
                w: wb,
                panel,
                sums,
                constants: cb,
                y,
                r,
            },
            &finish,
        );
        let mut args = vec![Arg::Operand(0), Arg::Const(self.packed.bytes.clone())];
        args.extend(panel.map(|_| Arg::Scratch(0, panel_bytes)));
        args.extend(sums.map(|_| Arg::Scratch(1, sums_bytes)));
        args.push(Arg::Const(constants.bytes));
        args.extend(r.map(|_| Arg::Operand(4)));
        args.push(Arg::Result);
        Step {
            kernel: b.finish(),
            args,
        }
    }

    /// Images and groups, then channels outside pixels or inside.
    fn groups(&self, b: &mut Builder, buffers: Buffers, finish: &Finish<'_>) {
        let start = Start {
            x: buffers.x.at(self.x.offset as i64),
            w: buffers.w.at(0),
            y: buffers.y.at(self.y.offset as i64),
            r: buffers
                .r
                .zip(self.r.as_ref())
                .map(|(b, v)| b.at(v.offset as i64)),
            constants: buffers.constants.at(0),
            sums: buffers.sums.map(|b| b.at(0)),
            ahead: buffers.w.at(0),
        };
        let images = self.y.shape[0];
        let outer = [
            (images, self.image_strides()),
            (self.op.groups, self.group_strides(finish)),
        ];
        nest(b, &outer, start, &mut |b, start| {
            if self.dot == Dot::Tile {
                return self.tiles(b, start, buffers.panel, finish);
            }
            let channels_first = self.packed.panel * self.shape.vectors <= PANEL;
            if channels_first || buffers.panel.is_some() {
                self.channel_blocks(b, start, finish, &mut |b, start, vectors| {
                    let start = &self.unpacked(b, start, buffers.panel, vectors.count);
                    self.block(b, start, vectors, finish);
                });
            } else {
                self.pixels(b, start, &mut |b, start, size| {
                    self.channel_blocks(b, start, finish, &mut |b, start, vectors| {
                        self.tile(b, start, size, vectors, finish);
                    });
                });
            }
        });
    }

    /// Whether weights are used from a work space.
    fn unpacks(&self) -> bool {
        self.op.weights != Format::Int8 || self.dot == Dot::Words
    }

    /// Unpacks a block of weights, where they are packed; the same place with its weights there.
    pub(super) fn unpacked(
        &self,
        b: &mut Builder,
        start: &Start,
        panel: Option<BufId>,
        vectors: usize,
    ) -> Start {
        let start = start.moved(&Strides::default());
        let Some(panel) = panel.map(|p| p.at(0)) else {
            return start;
        };
        let (format, width) = (self.op.weights, self.machine.vector_bytes());
        if self.dot == Dot::Words {
            let count = self.reduction.steps() * vectors;
            unpack::widen(b, count, width, [&start.w, &panel]);
            return Start { w: panel, ..start };
        }
        let codes = self.packed.panel * vectors;
        let ahead = unpack::ahead(self.packed.bytes.len());
        unpack::unpack(b, format, codes, width, [&start.w, &panel], ahead);
        if !format.admits(0) {
            self.clear_ends(b, &panel, vectors);
        }
        Start { w: panel, ..start }
    }

    /// Clears the weights of bytes behind the end of each run: a format without a zero cannot hold them.
    fn clear_ends(&self, b: &mut Builder, panel: &Addr, vectors: usize) {
        let Some((first, steps, bytes)) = self.reduction.ragged() else {
            return;
        };
        let width = self.machine.vector_bytes();
        let ty = Type::I8.x(width as u16);
        let keep: Vec<i64> = (0..width).map(|i| -i64::from(i % 4 < bytes)).collect();
        let keep = b.constant_lanes(ty, &keep);
        let row = self.shape_bytes(vectors);
        let runs = self.reduction.steps() / steps;
        b.for_(runs as u32, &[], |b, run, _| {
            for v in 0..vectors {
                let at = first as i64 * row + (v * width) as i64;
                let at = panel.clone().plus(at).step(run, steps as i64 * row);
                let w = b.load(ty, at.clone());
                let kept = b.and(w, keep);
                b.store(kept, at);
            }
            Vec::new()
        });
    }

    /// Bytes of a code of the residual.
    pub(super) fn r_bytes(&self) -> usize {
        self.r.as_ref().map_or(1, |r| r.dtype.bytes())
    }

    fn image_strides(&self) -> Strides {
        Strides {
            x: self.x.strides[0] as i64,
            y: self.y.strides[0] as i64,
            r: self.r.as_ref().map_or(0, |r| r.strides[0] as i64),
            ..Strides::default()
        }
    }

    fn group_strides(&self, finish: &Finish<'_>) -> Strides {
        let channel = self.y.dtype.bytes() as i64;
        Strides {
            x: self.reduction.group_bytes as i64,
            w: self.packed.group as i64,
            y: self.channels as i64 * channel,
            r: (self.channels * self.r_bytes()) as i64,
            constants: finish.constants.group as i64,
            ahead: self.packed.group as i64,
        }
    }

    fn channel_blocks(
        &self,
        b: &mut Builder,
        start: &Start,
        finish: &Finish<'_>,
        body: &mut dyn FnMut(&mut Builder, &Start, Vectors),
    ) {
        for part in self.channel_parts(finish.constants) {
            let first = start.moved(&part.first);
            nest(b, &[(part.trips, part.step)], first, &mut |b, s| {
                body(b, s, part.vectors);
            });
        }
    }

    /// All blocks of channels; the one with an incomplete vector is apart.
    pub(super) fn channel_parts(&self, constants: &Constants) -> Vec<ChannelBlocks> {
        let lanes = usize::from(self.machine.lanes);
        let whole = self.channels / lanes;
        let tail = self.channels % lanes;
        let vectors = self.channels.div_ceil(lanes);
        let strides = |vectors: usize| Strides {
            w: (vectors * self.packed.vector) as i64,
            y: (vectors * lanes * self.y.dtype.bytes()) as i64,
            r: (vectors * lanes * self.r_bytes()) as i64,
            constants: (vectors * constants.vector) as i64,
            ..Strides::default()
        };
        let mut all = Vec::new();
        for part in tile::parts(vectors, self.shape.vectors) {
            let partial = tail > 0 && part.first + part.size * part.count > whole;
            let trips = part.count - usize::from(partial);
            let mut add = |trips, first, last| {
                all.push(ChannelBlocks {
                    trips,
                    first: strides(first),
                    step: strides(part.size),
                    vectors: Vectors {
                        count: part.size,
                        last,
                    },
                });
            };
            if trips > 0 {
                add(trips, part.first, lanes);
            }
            if partial {
                add(1, part.first + part.size * trips, tail);
            }
        }
        all
    }

    /// A block of channels of all pixels.
    fn block(&self, b: &mut Builder, start: &Start, vectors: Vectors, finish: &Finish<'_>) {
        self.pixels(b, start, &mut |b, start, size| {
            self.tile(b, start, size, vectors, finish);
        });
    }

    fn pixels(
        &self,
        b: &mut Builder,
        start: &Start,
        body: &mut dyn FnMut(&mut Builder, &Start, [usize; 2]),
    ) {
        for rows in tile::parts(self.y.shape[1], self.shape.rows) {
            for columns in tile::parts(self.y.shape[2], self.shape.columns) {
                let along = |axis: usize, n: usize| self.pixel_strides(axis, n);
                let start = start
                    .moved(&along(1, rows.first))
                    .moved(&along(2, columns.first));
                let step = |axis: usize, p: Part| (p.count, along(axis, p.size));
                nest(b, &[step(1, rows), step(2, columns)], start, &mut |b, s| {
                    body(b, s, [rows.size, columns.size]);
                });
            }
        }
    }

    /// How far `n` output pixels along an axis are apart.
    pub(super) fn pixel_strides(&self, axis: usize, n: usize) -> Strides {
        let n = n as i64;
        Strides {
            x: n * self.op.stride[axis - 1] as i64 * self.x.strides[axis] as i64,
            y: n * self.y.strides[axis] as i64,
            r: self.r.as_ref().map_or(0, |r| n * r.strides[axis] as i64),
            ..Strides::default()
        }
    }

    fn tile(
        &self,
        b: &mut Builder,
        start: &Start,
        size: [usize; 2],
        vectors: Vectors,
        finish: &Finish<'_>,
    ) {
        let pixels: Vec<[usize; 2]> = (0..size[0])
            .flat_map(|r| (0..size[1]).map(move |c| [r, c]))
            .collect();
        let offsets = |pick: fn(&Strides) -> i64| -> Vec<i64> {
            let at = |p: &[usize; 2]| {
                pick(&self.pixel_strides(1, p[0])) + pick(&self.pixel_strides(2, p[1]))
            };
            pixels.iter().map(at).collect()
        };
        let init: Vec<Val> = (0..vectors.count)
            .map(|v| finish.bias(b, &start.constants, v))
            .collect();
        let init: Vec<Val> = pixels.iter().flat_map(|_| init.iter().copied()).collect();
        let x_offsets = offsets(|s| s.x);
        let together = self.dot.steps();
        let sums = self
            .reduction
            .walk(b, &init, together, &mut |b, sums, place, steps| {
                let x = place.apply_x(&start.x);
                let w = place.apply_w(&start.w, self.shape_bytes(vectors.count));
                self.steps(b, sums, (x, &x_offsets), w, vectors.count, steps)
            });
        let sums = self.extras(b, start, sums, &x_offsets, vectors.count);
        let y: Vec<Addr> = offsets(|s| s.y)
            .iter()
            .map(|&o| start.y.clone().plus(o))
            .collect();
        let r: Option<Vec<Addr>> = start.r.as_ref().map(|r| {
            offsets(|s| s.r)
                .iter()
                .map(|&o| r.clone().plus(o))
                .collect()
        });
        for v in 0..vectors.count {
            let column: Vec<Val> = (0..pixels.len())
                .map(|p| sums[p * vectors.count + v])
                .collect();
            let valid = if v + 1 == vectors.count {
                vectors.last
            } else {
                usize::from(self.machine.lanes)
            };
            let at = |a: &Addr, bytes: usize| {
                a.clone()
                    .plus((v * usize::from(self.machine.lanes) * bytes) as i64)
            };
            let y: Vec<Addr> = y.iter().map(|a| at(a, self.y.dtype.bytes())).collect();
            let r: Option<Vec<Addr>> = r
                .as_ref()
                .map(|r| r.iter().map(|a| at(a, self.r_bytes())).collect());
            finish.store(b, &start.constants, v, &column, &y, r.as_deref(), valid);
        }
    }

    /// Adds the extra steps of a block.
    fn extras(
        &self,
        b: &mut Builder,
        start: &Start,
        sums: Vec<Val>,
        x_offsets: &[i64],
        vectors: usize,
    ) -> Vec<Val> {
        let (steps, extras) = (self.reduction.steps() as i64, self.packed.extras as i64);
        if extras == 0 {
            return sums;
        }
        let step = self.shape_bytes(vectors);
        let weights = start.w.clone().plus(steps * step);
        let offsets = weights.clone().plus(extras * step);
        b.for_(extras as u32, &sums, |b, i, sums| {
            let at = b.load(Type::I32, offsets.clone().step(i, 4));
            let x = start.x.clone().indexed(at, 1);
            let w = weights.clone().step(i, step);
            self.steps(b, sums, (x, x_offsets), w, vectors, 1)
        })
    }

    /// Bytes of packed weights that one step of a block of vectors reads.
    fn shape_bytes(&self, vectors: usize) -> i64 {
        (vectors * self.dot.step_bytes(self.machine)) as i64
    }

    /// Adds steps, as many as are taken together at most.
    fn steps(
        &self,
        b: &mut Builder,
        sums: &[Val],
        (x, offsets): (Addr, &[i64]),
        w: Addr,
        vectors: usize,
        steps: usize,
    ) -> Vec<Val> {
        if let Dot::Narrow(_) = self.dot {
            return self.narrow_steps(b, sums, (x, offsets), w, vectors, steps);
        }
        let width = self.machine.vector_bytes();
        let bytes = Type::I8.x(width as u16);
        let count = vectors * self.dot.step_bytes(self.machine) / width;
        let weights: Vec<Val> = (0..count)
            .map(|v| b.load(bytes, w.clone().plus((v * width) as i64)))
            .collect();
        let flip = (self.dot == Dot::Signed).then(|| b.constant(bytes, 0x80));
        let mut result = Vec::with_capacity(sums.len());
        for (p, &offset) in offsets.iter().enumerate() {
            let mut a = b.load_dword_splat(width as u16, x.clone().plus(offset));
            if let Some(flip) = flip {
                a = b.xor(a, flip);
            }
            let sums = &sums[p * vectors..][..vectors];
            if self.dot == Dot::Words {
                result.extend(add_words(b, sums, a, &weights));
                continue;
            }
            for (&sum, &w) in sums.iter().zip(&weights) {
                result.push(match self.dot {
                    Dot::Signed => b.dot4s(sum, a, w),
                    _ => b.dot4(sum, a, w),
                });
            }
        }
        result
    }

    /// Adds steps whose products are summed in 16 bits first.
    fn narrow_steps(
        &self,
        b: &mut Builder,
        sums: &[Val],
        (x, offsets): (Addr, &[i64]),
        w: Addr,
        vectors: usize,
        steps: usize,
    ) -> Vec<Val> {
        let width = self.machine.vector_bytes();
        let (bytes, words) = (Type::I8.x(width as u16), Type::I16.x((width / 2) as u16));
        let one = b.constant(words, 1);
        let mut parts = vec![b.constant(words, 0); sums.len()];
        for step in 0..steps {
            let weight = |v| w.clone().plus(((step * vectors + v) * width) as i64);
            let weights: Vec<Val> = (0..vectors).map(|v| b.load(bytes, weight(v))).collect();
            for (p, parts) in parts.chunks_exact_mut(vectors).enumerate() {
                let offset = offsets[p];
                let at = x.clone().plus(offset + 4 * step as i64);
                let a = b.load_dword_splat(width as u16, at);
                for (v, part) in parts.iter_mut().enumerate() {
                    *part = b.dot2_narrow(*part, a, weights[v]);
                    if step + 1 == steps {
                        *part = b.dot2(sums[p * vectors + v], *part, one);
                    }
                }
            }
        }
        parts
    }
}

/// Adds the products of four bytes with widened weights: even ones, then odd ones.
fn add_words(b: &mut Builder, sums: &[Val], bytes: Val, weights: &[Val]) -> Vec<Val> {
    let halves = unpack::halves(b, bytes);
    let ty = b.ty(halves[0]);
    let add = |(&sum, pair): (&Val, &[Val])| {
        let words = [b.bitcast(ty, pair[0]), b.bitcast(ty, pair[1])];
        let sum = b.dot2(sum, halves[0], words[0]);
        b.dot2(sum, halves[1], words[1])
    };
    sums.iter().zip(weights.chunks_exact(2)).map(add).collect()
}

/// Vectors of channels in a block, and how many lanes of the last one are channels.
#[derive(Clone, Copy)]
pub(super) struct Vectors {
    pub(super) count: usize,
    pub(super) last: usize,
}

/// Blocks of channels that differ in their places only.
pub(super) struct ChannelBlocks {
    pub(super) trips: usize,
    pub(super) first: Strides,
    pub(super) step: Strides,
    pub(super) vectors: Vectors,
}

/// How far a step of a loop moves in each buffer.
#[derive(Clone, Copy, Default)]
pub(super) struct Strides {
    pub(super) x: i64,
    pub(super) w: i64,
    pub(super) y: i64,
    pub(super) r: i64,
    pub(super) constants: i64,
    pub(super) ahead: i64,
}

impl Strides {
    /// Both moves.
    pub(super) fn and(&self, other: &Self) -> Self {
        Self {
            x: self.x + other.x,
            w: self.w + other.w,
            y: self.y + other.y,
            r: self.r + other.r,
            constants: self.constants + other.constants,
            ahead: self.ahead + other.ahead,
        }
    }

    /// The move `n` times.
    pub(super) fn times(&self, n: i64) -> Self {
        Self {
            x: n * self.x,
            w: n * self.w,
            y: n * self.y,
            r: n * self.r,
            constants: n * self.constants,
            ahead: n * self.ahead,
        }
    }
}

impl Start {
    pub(super) fn moved(&self, by: &Strides) -> Self {
        Self {
            x: self.x.clone().plus(by.x),
            w: self.w.clone().plus(by.w),
            y: self.y.clone().plus(by.y),
            r: self.r.clone().map(|r| r.plus(by.r)),
            constants: self.constants.clone().plus(by.constants),
            sums: self.sums.clone(),
            ahead: self.ahead.clone().plus(by.ahead),
        }
    }

    /// Moved by a step in each trip of a loop.
    pub(super) fn stepped(&self, i: LoopVar, step: &Strides) -> Self {
        Self {
            x: self.x.clone().step(i, step.x),
            w: self.w.clone().step(i, step.w),
            y: self.y.clone().step(i, step.y),
            r: self.r.clone().map(|r| r.step(i, step.r)),
            constants: self.constants.clone().step(i, step.constants),
            sums: self.sums.clone(),
            ahead: self.ahead.clone().step(i, step.ahead),
        }
    }
}

/// Nested loops that move all addresses; a loop of one trip is none.
pub(super) fn nest(
    b: &mut Builder,
    loops: &[(usize, Strides)],
    start: Start,
    body: &mut dyn FnMut(&mut Builder, &Start),
) {
    let Some(((trips, step), rest)) = loops.split_first() else {
        return body(b, &start);
    };
    match trips {
        0 => {}
        1 => nest(b, rest, start, body),
        _ => {
            b.for_(*trips as u32, &[], |b, i, _| {
                nest(b, rest, start.stepped(i, step), body);
                Vec::new()
            });
        }
    }
}

/// The way to sum that is estimated to be the fastest, with its tile and weights. What is read of the operand is given by its
/// reduction, the bytes between rows and between pixels of neighbours and the bytes behind it that may be read.
fn form(
    weights: &Tensor,
    op: &IntConv,
    size: [usize; 2],
    (reduction, pitch, slack): (Reduction, [usize; 2], usize),
    machine: &Machine,
) -> (Dot, Shape, Packed, Reduction) {
    let channels = weights.shape()[0] / op.groups;
    let lanes = usize::from(machine.lanes);
    let vectors = channels.div_ceil(lanes);
    let of = |dot| {
        let steps = reduction.steps();
        let shape = tile::choose(size, channels, steps, machine, dot);
        let narrow = matches!(dot, Dot::Narrow(_)).then(|| dot.steps());
        let blocks = [shape.vectors, lanes];
        let mut packed = Packed::new(weights, op.weights, &reduction, op.groups, blocks, narrow);
        let time = |steps, dot| tile::time(size, vectors, steps, shape, machine, dot);
        let mut time = time(steps, dot) + time(packed.extras, Dot::Narrow(1)) - time(0, dot);
        if dot == Dot::Words {
            packed.panel = steps * dot.step_bytes(machine);
            time += (steps * vectors * WIDEN) as u64;
        }
        (time, (dot, shape, packed))
    };
    let mut best = of(Dot::of(machine));
    if machine.narrow_dot {
        let most = reduction.steps() / MOST_EXTRAS;
        let fitting = together(weights, &reduction, MOST_TOGETHER);
        let more = (op.weights == Format::Int8).then(|| fitting.map_or(1, |n| 2 * n));
        let ways = [fitting, more.filter(|n| *n <= MOST_TOGETHER)];
        let words = (op.weights == Format::Int8).then_some(Dot::Words);
        for dot in ways.into_iter().flatten().map(Dot::Narrow).chain(words) {
            let other = of(dot);
            if other.0 < best.0 && other.1.2.extras <= most {
                best = other;
            }
        }
    }
    let (time, (dot, shape, packed)) = best;
    let layer = conv_tiles::Layer {
        size,
        vectors,
        reduction: &reduction,
        pitch,
        slack,
        format: op.weights,
    };
    if let Some(tiles) = &machine.tile
        && let Some((own, shape, reduction)) = conv_tiles::choose(&layer, tiles)
        && own < time
    {
        let blocks = [shape.vectors, lanes];
        let packed = Packed::new(weights, op.weights, &reduction, op.groups, blocks, None);
        return (Dot::Tile, shape, packed, reduction);
    }
    (dot, shape, packed, reduction)
}

/// Whether all pixels lie one after the other in every tensor, so that they form one row.
fn flat(op: &IntConv, kernel: [usize; 2], views: &[Option<&View>]) -> bool {
    let pointwise = kernel == [1, 1] && op.stride == [1, 1] && op.pad == [[0, 0]; 2];
    let joint = |v: &View| {
        (1..3)
            .all(|a| v.shape[a - 1] == 1 || v.strides[a - 1] == v.strides[a] * v.shape[a] as isize)
    };
    pointwise && views.iter().flatten().all(|v| joint(v))
}

fn flatten(v: &mut View) {
    let pixels = v.shape[..3].iter().product();
    v.shape = vec![1, 1, pixels, v.shape[3]];
    v.strides = vec![0, 0, v.strides[2], v.strides[3]];
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_conv, check_formats};

    #[test]
    fn every_format_equals_the_definition() {
        check_formats([1, 4, 5, 3], 9, [3, 3], 1);
        check_formats([1, 3, 3, 16], 40, [1, 1], 1);
        check_formats([1, 1, 1, 37], 10, [1, 1], 1);
        check_formats([2, 4, 5, 6], 24, [3, 2], 3);
        check_formats([1, 3, 3, 70], 18, [3, 3], 1);
    }

    #[test]
    fn equals_the_definition() {
        // [N, H, W, C], O, kernel, stride, dilation, groups
        check_conv([1, 6, 7, 3], 8, [3, 3], [1, 1], [1, 1], 1);
        check_conv([2, 5, 5, 16], 40, [1, 1], [1, 1], [1, 1], 1);
        check_conv([1, 9, 30, 8], 33, [3, 3], [2, 2], [1, 1], 1);
        check_conv([1, 1, 1, 37], 10, [1, 1], [1, 1], [1, 1], 1);
        check_conv([1, 8, 8, 4], 16, [3, 3], [1, 1], [2, 2], 1);
        check_conv([1, 7, 7, 12], 24, [3, 3], [1, 1], [1, 1], 3);
        check_conv([1, 6, 6, 5], 10, [3, 3], [1, 1], [1, 1], 5);
        check_conv([1, 12, 4, 1], 64, [10, 4], [2, 2], [1, 1], 1);
        check_conv([1, 3, 40, 6], 7, [1, 5], [1, 1], [1, 1], 1);
        check_conv([1, 24, 20, 8], 16, [3, 3], [1, 1], [1, 1], 1);
    }
}
