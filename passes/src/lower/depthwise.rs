//! Depthwise convolution by vertical quads.
//!
//! Four rows of bytes at the same place are transposed into dwords of four vertical taps, so that one dot product sums up
//! to four kernel rows for each channel. With three kernel rows and stride 1 the same dwords serve two output rows, their
//! weights moved down by one. Neighbouring pixels share the columns that both read, where there are registers for the sums
//! of two. Without an instruction for that dot product, 8-bit weights lie as 16-bit pairs of every other row. Where the
//! stride along a row is 1 and vectors hold whole pixels, neighbouring pixels share a vector.

use lowbit_ir::DType;
use lowbit_ir::ops::{Epilogue, IntConv};
use lowbit_kernel::{Addr, BufId, Builder, Role, Type, Val};
use lowbit_num::Format;

use super::epilogue::{Table, requantized, store_some};
use super::tile::parts;
use super::view::View;
use super::{Arg, Machine, Operand, Step, Storage, depthwise_pack, unpack};

/// Whether a convolution has this form.
pub(crate) fn fits(op: &IntConv, operands: &[Operand<'_>], _machine: &Machine) -> bool {
    let w = &operands[1].storage.shape;
    let epilogue = matches!(op.epilogue, Epilogue::High | Epilogue::Exact { .. });
    w[3] == 1 && w[0] == op.groups && op.groups > 1 && epilogue && op.out.dtype == DType::U8
}

pub(crate) fn lower(
    op: &IntConv,
    operands: &[Operand<'_>],
    result: &Storage,
    machine: &Machine,
) -> Vec<Step> {
    let kernel = [operands[1].storage.shape[1], operands[1].storage.shape[2]];
    let mut x = View::of(operands[0].storage);
    x.offset -= op.pad[0][0] as isize * x.strides[1] + op.pad[1][0] as isize * x.strides[2];
    let y = View::of(result);
    let paired = op.stride[0] == 1 && kernel[0] == 3 && op.dilation[0] == 1 && y.shape[1] > 1;
    let table = Table::new(op, operands, machine);
    let depthwise = Depthwise {
        op,
        machine,
        x,
        y,
        kernel,
        paired,
        table,
        weights: operands[1]
            .constant
            .expect("weights are constant")
            .as_slice(),
    };
    let (cells, constants, quads) = depthwise.tables();
    let mut b = Builder::new(format!("depthwise_{}x{}", kernel[0], kernel[1]));
    let xb = b.declare(super::slack_buffer("x", Role::In, operands[0].storage));
    let t = b.buffer("table", Role::Const, constants.len());
    let mut args = vec![Arg::Operand(0), Arg::Const(constants)];
    let w = if op.weights == Format::Int8 {
        let w = b.buffer("w", Role::Const, quads.len());
        args.push(Arg::Const(quads));
        w
    } else {
        let (w, own) = depthwise_pack::unpacked(&mut b, &depthwise, &cells, quads.len());
        args.extend(own);
        w
    };
    let yb = b.buffer("y", Role::Out, result.bytes);
    args.push(Arg::Result);
    depthwise.emit(&mut b, &cells, [xb, t, w, yb]);
    vec![Step {
        kernel: b.finish(),
        args,
    }]
}

pub(super) struct Depthwise<'a> {
    pub(super) op: &'a IntConv,
    pub(super) machine: &'a Machine,
    x: View,
    y: View,
    pub(super) kernel: [usize; 2],
    paired: bool,
    table: Table,
    /// Codes `[channel][kernel row][kernel column]`.
    pub(super) weights: &'a [i8],
}

/// Bytes of a row that are handled alike: `chunks` neighbouring ones of `width` bytes, at `trips` places.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    pub(super) width: usize,
    /// Bytes that are stored.
    valid: usize,
    pub(super) chunks: usize,
    /// First channel.
    pub(super) channel: usize,
    trips: usize,
    /// First byte in a row of the operand and of the result.
    start: [usize; 2],
    /// Bytes between places in a row of the operand and of the result.
    step: [usize; 2],
    /// Where the constants of the first chunk start.
    table: usize,
    /// Where the weights of the first chunk start.
    pub(super) quads: usize,
}

impl Cell {
    /// Whether a vector holds several pixels of `channels` channels each.
    pub(super) fn repeats(&self, channels: usize) -> bool {
        self.step[0] == self.width && channels < self.width
    }
}

impl Depthwise<'_> {
    pub(super) fn channels(&self) -> usize {
        self.y.shape[3]
    }

    fn cells(&self) -> Vec<Cell> {
        let c = self.channels();
        let widest = self.machine.vector_bytes();
        let dense = self.x.strides[2] == c as isize && self.y.strides[2] == c as isize;
        if self.op.stride[1] == 1 && dense && c < widest && widest.is_multiple_of(c) {
            self.flat_cells(widest)
        } else {
            self.channel_cells(widest)
        }
    }

    /// A row as one string of bytes, in vectors of whole pixels.
    fn flat_cells(&self, widest: usize) -> Vec<Cell> {
        let c = self.channels();
        let total = self.y.shape[2] * c;
        let (mut at, mut width) = (0, widest);
        let mut cells = Vec::new();
        while at < total {
            while at + width > total && width > 16.max(c) {
                width /= 2;
            }
            let trips = ((total - at) / width).max(1);
            let valid = width.min(total - at);
            let (start, step) = ([at, at], [width, width]);
            cells.push(Cell {
                width,
                valid,
                chunks: 1,
                channel: 0,
                trips,
                start,
                step,
                table: 0,
                quads: 0,
            });
            at += trips * width;
        }
        cells
    }

    /// Pixel by pixel, in vectors of channels.
    fn channel_cells(&self, widest: usize) -> Vec<Cell> {
        let c = self.channels();
        let step = [
            self.op.stride[1] * self.x.strides[2] as usize,
            self.y.strides[2] as usize,
        ];
        let trips = self.y.shape[2];
        let (mut at, mut width) = (0, widest);
        let mut cells = Vec::new();
        while at < c {
            while at + width > c && width > 16 {
                width /= 2;
            }
            let chunks = ((c - at) / width).max(1);
            // the last channels are computed with some before them again rather than in a shorter vector
            let first = if at + width > c && c >= width {
                c - width
            } else {
                at
            };
            let valid = width.min(c - first);
            let start = [first, first];
            cells.push(Cell {
                width,
                valid,
                chunks,
                channel: first,
                trips,
                start,
                step,
                table: 0,
                quads: 0,
            });
            at += chunks * width;
        }
        cells
    }

    /// The cells with where their tables start, the constants, and the weights in the order of use.
    fn tables(&self) -> (Vec<Cell>, Vec<u8>, Vec<u8>) {
        let (mut cells, mut constants, mut quads) = (self.cells(), Vec::new(), Vec::new());
        for cell in &mut cells {
            (cell.table, cell.quads) = (constants.len(), quads.len());
            for chunk in 0..cell.chunks {
                self.write(&mut constants, &mut quads, cell, chunk);
            }
        }
        (cells, constants, quads)
    }

    pub(super) fn quads(&self) -> usize {
        if self.paired {
            1
        } else {
            self.kernel[0].div_ceil(4)
        }
    }

    /// Output rows that share their dwords of taps.
    pub(super) fn variants(&self) -> usize {
        if self.paired { 2 } else { 1 }
    }

    /// Whether sums are of 16-bit products: rows 0 and 2, then rows 1 and 3.
    fn words(&self) -> bool {
        self.machine.narrow_dot && self.op.weights == Format::Int8
    }

    /// Sets of weights of a kernel column: one an output row, or one for even rows and one for odd rows.
    fn sets(&self) -> usize {
        if self.words() { 2 } else { self.variants() }
    }

    /// Constants of the four parts, and weights `[quad][kernel column][set][part]`.
    fn write(&self, constants: &mut Vec<u8>, quads: &mut Vec<u8>, cell: &Cell, chunk: usize) {
        let lanes = cell.width / 4;
        let c = self.channels();
        let first = cell.channel + chunk * cell.width;
        let limit = if cell.valid < cell.width && cell.chunks == 1 && cell.step[0] != cell.width {
            c
        } else {
            usize::MAX
        };
        let channel = |part: usize, lane: usize| {
            let at = first + lane / 4 * 16 + part * 4 + lane % 4;
            (at < limit).then_some(at % c)
        };
        for part in 0..4 {
            self.table
                .write(constants, (0..lanes).map(|lane| channel(part, lane)));
        }
        let columns = (0..self.quads()).flat_map(|q| (0..self.kernel[1]).map(move |kx| (q, kx)));
        for (quad, kx) in columns {
            for set in 0..self.sets() {
                for (part, lane) in (0..4).flat_map(|p| (0..lanes).map(move |l| (p, l))) {
                    quads.extend(self.dword(channel(part, lane), quad, kx, set));
                }
            }
        }
    }

    /// Weights of a channel that one dword of activations meets.
    fn dword(&self, channel: Option<usize>, quad: usize, kx: usize, set: usize) -> [u8; 4] {
        let [rows, columns] = self.kernel;
        let weight = |ky: Option<usize>| {
            let (channel, ky) = (channel?, ky.filter(|&ky| ky < rows)?);
            Some(self.weights[(channel * rows + ky) * columns + kx])
        };
        let of = |ky| weight(ky).unwrap_or(0);
        if self.words() {
            let word = |row: usize| i16::from(of(Some(quad * 4 + row))).to_le_bytes();
            let ([a, b], [c, d]) = (word(set), word(set + 2));
            return [a, b, c, d];
        }
        [0, 1, 2, 3].map(|row| of((quad * 4 + row).checked_sub(set)).cast_unsigned())
    }

    fn constant_bytes(&self, cell: &Cell) -> usize {
        4 * self.table.columns() * cell.width
    }

    /// Bytes of the weights of a chunk.
    pub(super) fn quad_bytes(&self, cell: &Cell) -> usize {
        self.quads() * self.kernel[1] * self.sets() * 4 * cell.width
    }

    fn emit(&self, b: &mut Builder, cells: &[Cell], [x, t, w, y]: [BufId; 4]) {
        let rows = parts(self.y.shape[1], self.variants());
        let start = [
            x.at(self.x.offset as i64),
            t.at(0),
            w.at(0),
            y.at(self.y.offset as i64),
        ];
        let images = [self.x.strides[0] as i64, 0, 0, self.y.strides[0] as i64];
        repeat(b, self.y.shape[0], images, start, &mut |b, at| {
            for part in &rows {
                let row = [
                    self.op.stride[0] as i64 * self.x.strides[1] as i64,
                    0,
                    0,
                    self.y.strides[1] as i64,
                ];
                let at = moved(&at, row.map(|r| r * part.first as i64));
                repeat(
                    b,
                    part.count,
                    row.map(|r| r * part.size as i64),
                    at,
                    &mut |b, at| {
                        for cell in cells {
                            self.cell(b, cell, &at, part.size);
                        }
                    },
                );
            }
        });
    }

    fn cell(&self, b: &mut Builder, cell: &Cell, at: &[Addr; 4], rows: usize) {
        let start = [cell.start[0], cell.table, cell.quads, cell.start[1]].map(|n| n as i64);
        let chunk = [
            cell.width,
            self.constant_bytes(cell),
            self.quad_bytes(cell),
            cell.width,
        ]
        .map(|n| n as i64);
        let place = [cell.step[0], 0, 0, cell.step[1]].map(|n| n as i64);
        let most = if self.overlap(cell) { 2 } else { 1 };
        repeat(b, cell.chunks, chunk, moved(at, start), &mut |b, at| {
            for part in parts(cell.trips, most) {
                let at = moved(&at, place.map(|p| p * part.first as i64));
                let group = place.map(|p| p * part.size as i64);
                repeat(b, part.count, group, at, &mut |b, at| {
                    self.places(b, cell, &at, [part.size, rows]);
                });
            }
        });
    }

    /// Whether neighbouring places share columns of the operand, and two of them have registers for their sums.
    fn overlap(&self, cell: &Cell) -> bool {
        let [stride, dilation] = [self.op.stride[1], self.op.dilation[1]];
        let pixels = cell.step[0] == stride * self.x.strides[2] as usize;
        let sums = 4 * 2 * self.variants();
        pixels
            && dilation == 1
            && stride < self.kernel[1]
            && 2 * sums <= self.machine.registers.into()
    }

    /// One vector of results in each of `rows` rows at neighbouring places.
    fn places(&self, b: &mut Builder, cell: &Cell, at: &[Addr; 4], [places, rows]: [usize; 2]) {
        let [x, t, w, y] = at;
        let lanes = (cell.width / 4) as u16;
        let column = |b: &mut Builder, part: usize, column: usize| {
            let at = (part * self.table.columns() + column) * cell.width;
            b.load(Type::I32.x(lanes), t.clone().plus(at as i64))
        };
        let bias: Vec<Val> = (0..4).map(|part| column(b, part, 0)).collect();
        let mut sums = vec![vec![bias; rows]; places];
        let stride = self.op.stride[1];
        for quad in 0..self.quads() {
            for column in 0..self.kernel[1] + (places - 1) * stride {
                // the places that read the column, and which of their kernel columns meets it
                let reading = sums.iter_mut().enumerate().filter_map(|(place, sums)| {
                    let kx = column.checked_sub(place * stride)?;
                    (kx < self.kernel[1]).then_some((kx, sums))
                });
                let reading: Vec<(usize, &mut Vec<Vec<Val>>)> = reading.collect();
                self.quad(b, cell, x, w, (quad, column), reading);
            }
        }
        let results = sums.iter().enumerate();
        let results = results.flat_map(|(place, rows)| {
            rows.iter()
                .enumerate()
                .map(move |(row, sums)| (place, row, sums))
        });
        for (place, row, sums) in results {
            let codes: Vec<Val> = (0..4)
                .map(|part| {
                    let m = column(b, part, 1);
                    let c = (self.table.columns() > 2).then(|| column(b, part, 2));
                    requantized(b, (self.op.epilogue, false), sums[part], Some(m), c, None)
                })
                .collect();
            let mut packed = b.pack4_u8([codes[0], codes[1], codes[2], codes[3]]);
            let ty = b.ty(packed);
            if self.op.out.lo > 0 {
                let lo = b.constant(ty, self.op.out.lo.into());
                packed = b.umax(packed, lo);
            }
            if self.op.out.hi < 255 {
                let hi = b.constant(ty, self.op.out.hi.into());
                packed = b.umin(packed, hi);
            }
            let at = y.clone().plus((place * cell.step[1]) as i64);
            let at = at.plus(row as i64 * self.y.strides[1] as i64);
            if cell.valid == cell.width {
                b.store(packed, at);
            } else {
                store_some(b, packed, 0, cell.valid, &at);
            }
        }
    }

    /// Adds four kernel rows of one column of the operand to the sums that read it, each with its own kernel column.
    fn quad(
        &self,
        b: &mut Builder,
        cell: &Cell,
        x: &Addr,
        w: &Addr,
        (quad, column): (usize, usize),
        mut reading: Vec<(usize, &mut Vec<Vec<Val>>)>,
    ) {
        let width = cell.width as u16;
        let rows = reading.first().map_or(0, |r| r.1.len());
        let last = if self.paired && rows == 2 {
            self.kernel[0]
        } else {
            self.kernel[0] - 1
        };
        let column = column as i64 * self.op.dilation[1] as i64 * self.x.strides[2] as i64;
        let flip = self
            .machine
            .signed_dot
            .then(|| b.constant(Type::I8.x(width), 0x80));
        let rows: Vec<Val> = (0..4)
            .map(|row| {
                let ky = (quad * 4 + row).min(last) as i64;
                let at = ky * self.op.dilation[0] as i64 * self.x.strides[1] as i64 + column;
                let v = b.load(Type::I8.x(width), x.clone().plus(at));
                flip.map_or(v, |flip| b.xor(v, flip))
            })
            .collect();
        // two products of 8 bits with at most 7 fit 16 bits
        let narrow = self.machine.narrow_dot && self.op.weights.bits() < 8;
        for part in 0..4 {
            let dwords = b.zip4([rows[0], rows[1], rows[2], rows[3]], part as u8);
            for (kx, sums) in &mut reading {
                let weights: Vec<Val> = (0..self.sets())
                    .map(|set| {
                        let index = ((quad * self.kernel[1] + *kx) * self.sets() + set) * 4 + part;
                        let at = w.clone().plus((index * cell.width) as i64);
                        b.load(Type::I8.x(width), at)
                    })
                    .collect();
                if self.words() {
                    add_words(b, dwords, [weights[0], weights[1]], sums, part);
                    continue;
                }
                for (sums, &w) in sums.iter_mut().zip(&weights) {
                    sums[part] = if flip.is_some() {
                        b.dot4s(sums[part], dwords, w)
                    } else if narrow {
                        add_pairs(b, sums[part], dwords, w)
                    } else {
                        b.dot4(sums[part], dwords, w)
                    };
                }
            }
        }
    }
}

/// Adds the products of four bytes, whose sums of two fit 16 bits.
fn add_pairs(b: &mut Builder, sum: Val, bytes: Val, w: Val) -> Val {
    let words = Type::I16.x(b.ty(bytes).lanes / 2);
    let (zero, one) = (b.constant(words, 0), b.constant(words, 1));
    let pairs = b.dot2_narrow(zero, bytes, w);
    b.dot2(sum, pairs, one)
}

/// Adds the products of four rows as 16-bit numbers; the second output row's weights are the first's moved down by one row.
fn add_words(b: &mut Builder, dwords: Val, w: [Val; 2], sums: &mut [Vec<Val>], part: usize) {
    let x = unpack::halves(b, dwords);
    let words = b.ty(x[0]);
    let w = w.map(|w| b.bitcast(words, w));
    for (row, sums) in sums.iter_mut().enumerate() {
        let w = if row == 0 { w } else { moved_down(b, w) };
        for (x, w) in x.into_iter().zip(w) {
            sums[part] = b.dot2(sums[part], x, w);
        }
    }
}

/// Rows 0, 1, 2 and 3 become rows 1, 2, 3 and none.
fn moved_down(b: &mut Builder, [even, odd]: [Val; 2]) -> [Val; 2] {
    let words = b.ty(odd);
    let dwords = Type::I32.x(words.lanes / 2);
    let (odd, sixteen) = (b.bitcast(dwords, odd), b.constant(dwords, 16));
    let moved = b.shl(odd, sixteen);
    [b.bitcast(words, moved), even]
}

fn moved(at: &[Addr; 4], by: [i64; 4]) -> [Addr; 4] {
    [0, 1, 2, 3].map(|k| at[k].clone().plus(by[k]))
}

fn repeat(
    b: &mut Builder,
    trips: usize,
    stride: [i64; 4],
    at: [Addr; 4],
    body: &mut dyn FnMut(&mut Builder, [Addr; 4]),
) {
    if trips == 1 {
        return body(b, at);
    }
    b.for_(trips as u32, &[], |b, i, _| {
        let [x, t, w, y] = &at;
        let step = |a: &Addr, k: usize| {
            if stride[k] == 0 {
                a.clone()
            } else {
                a.clone().step(i, stride[k])
            }
        };
        body(b, [step(x, 0), step(t, 1), step(w, 2), step(y, 3)]);
        Vec::new()
    });
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_conv, check_formats};

    #[test]
    fn every_format_equals_the_definition() {
        for c in [3, 8, 24, 80] {
            check_formats([1, 5, 4, c], c, [3, 3], c);
        }
        check_formats([1, 6, 4, 40], 40, [5, 2], 40);
    }

    #[test]
    fn equals_the_definition() {
        for c in [2, 3, 8, 16, 24, 32, 64, 80, 96, 130] {
            check_conv([1, 7, 6, c], c, [3, 3], [1, 1], [1, 1], c);
        }
        for c in [4, 8, 40, 72] {
            check_conv([2, 9, 8, c], c, [3, 3], [2, 2], [1, 1], c);
            check_conv([1, 6, 9, c], c, [3, 3], [1, 1], [1, 1], c);
            check_conv([1, 6, 5, c], c, [3, 3], [2, 2], [1, 1], c);
            check_conv([1, 9, 8, c], c, [5, 5], [1, 1], [1, 1], c);
            check_conv([1, 9, 8, c], c, [3, 2], [1, 2], [2, 2], c);
        }
    }
}
