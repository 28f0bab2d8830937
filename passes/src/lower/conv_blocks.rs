//! A block of products of tiles, and the codes of the block before between them.
//!
//! Sums pass through a small work space to the vectors that make codes of them. Vectors and tiles have units of their own, so that
//! codes cost little where they are made between the products of the next block.

use std::collections::VecDeque;

use lowbit_ir::DType;
use lowbit_kernel::{Addr, Builder, LoopVar, Type, Val};

use super::conv::{Conv, Start, Vectors};
use super::conv_tiles::{Ahead, Block, LINE, Panel, ROW, SUMS, Strip, Tile};
use super::epilogue::{Factors, Finish, store_bytes, store_pixels};
use super::{tile, unpack};

/// Bytes that weights are read ahead where each is used once.
const STREAM: i64 = 32 * 1024;
/// Chunks that weights are unpacked before they are used.
pub(super) const LEAD: usize = 2;
/// What brings a line to the second-level cache.
const SECOND: u8 = 2;
/// Vectors of sums whose codes are stored together.
const TOGETHER: usize = 4;

/// A block whose sums lie in the work space.
pub(super) struct Done {
    start: Start,
    tiles: Vec<Tile>,
    vectors: Vectors,
    ahead: Ahead,
    panel: Option<Panel>,
}

impl Done {
    pub(super) fn new(start: &Start, block: &Block) -> Self {
        Self {
            start: start.moved(&block.from),
            tiles: block.tiles.clone(),
            vectors: block.vectors,
            ahead: block.ahead,
            panel: block.panel,
        }
    }

    /// Pixels whose codes are stored together.
    fn together(&self) -> usize {
        TOGETHER / self.vectors.count
    }

    /// Everything that is to be done.
    fn units(&self) -> VecDeque<Units> {
        let mut all = VecDeque::new();
        for (k, tile) in self.tiles.iter().enumerate() {
            for &strip in &tile.strips {
                for part in tile::parts(strip.pixels, self.together()) {
                    all.push_back(Units {
                        tile: k,
                        strip,
                        first: part.first,
                        pixels: part.size,
                        count: part.count,
                    });
                }
            }
        }
        all
    }
}

/// The block before, and what its codes are made with.
struct Earlier<'a> {
    done: Option<&'a Done>,
    factors: &'a [Factors],
    finish: &'a Finish<'a>,
}

/// Groups of pixels of a strip whose codes are stored together: `count` of them, `pixels` each, from `first` on.
#[derive(Clone, Copy)]
struct Units {
    tile: usize,
    strip: Strip,
    first: usize,
    pixels: usize,
    count: usize,
}

impl Units {
    /// Takes some from the front.
    fn take(&mut self, count: usize) -> Self {
        let taken = Self { count, ..*self };
        self.first += count * self.pixels;
        self.count -= count;
        taken
    }
}

/// The next steps: how many, and what is done in each.
fn next(units: &mut VecDeque<Units>, quota: usize, most: usize) -> (usize, Vec<Units>) {
    let mut left = quota;
    let mut each = Vec::new();
    while let Some(front) = units.front_mut().filter(|_| quota > 0) {
        if each.is_empty() && front.count >= quota {
            let steps = most.min(front.count / quota);
            let taken = front.take(steps * quota);
            if front.count == 0 {
                units.pop_front();
            }
            let each = Units {
                count: quota,
                ..taken
            };
            return (steps, vec![each]);
        }
        let n = left.min(front.count);
        each.push(front.take(n));
        left -= n;
        if front.count == 0 {
            units.pop_front();
        }
        if left == 0 {
            break;
        }
    }
    let steps = if each.is_empty() { most } else { 1 };
    (steps, each)
}

/// Units in equal parts behind each of `slots` products.
fn spread(units: &[Units], slots: usize) -> Vec<Vec<Units>> {
    let all: usize = units.iter().map(|u| u.count).sum();
    let mut left: VecDeque<Units> = units.iter().copied().collect();
    let until = |slot: usize| (slot * all).div_ceil(slots);
    let part = |slot: usize| next(&mut left, until(slot + 1) - until(slot), 1).1;
    (0..slots).map(part).collect()
}

impl Conv<'_> {
    /// Sums of a block, while codes are made of those before.
    pub(super) fn products(
        &self,
        b: &mut Builder,
        start: &Start,
        block: &Block,
        before: Option<Done>,
        finish: &Finish<'_>,
    ) -> Done {
        let done = Done::new(start, block);
        for chunk in 0..self.chunks().min(LEAD) {
            self.unpack_part(b, &done, (chunk, None), (0, 1));
        }
        let ty = Type::I32.x((self.lines() * ROW / 4) as u16);
        let mut init = Vec::new();
        for _ in &done.tiles {
            for v in 0..done.vectors.count {
                let at = finish.bias_at(&done.start.constants, v);
                init.push(b.load_rows(ty, at, self.lines(), 0));
            }
        }
        let factors = before
            .as_ref()
            .map(|d| d.factors(b, finish))
            .unwrap_or_default();
        let earlier = Earlier {
            done: before.as_ref(),
            factors: &factors,
            finish,
        };
        let mut units = before.as_ref().map(Done::units).unwrap_or_default();
        let sums = self.sums(b, &init, &done, &mut units, &earlier);
        let space = done.start.sums.as_ref().expect("tiles have a work space");
        let each = before.as_ref().map_or(1, |d| d.vectors.count);
        for (k, &sum) in sums.iter().enumerate() {
            // the place of a tile's sums is free once its codes are made
            while let Some(own) = units.pop_front_if(|u| u.tile * each <= k) {
                self.earlier_units(b, &own, None, &earlier);
            }
            b.store(sum, space.clone().plus((k * SUMS) as i64));
            let left: usize = units.iter().map(|u| u.count).sum();
            let (_, some) = next(&mut units, left.div_ceil(sums.len() - k), 1);
            for own in some {
                self.earlier_units(b, &own, None, &earlier);
            }
        }
        for own in units {
            self.earlier_units(b, &own, None, &earlier);
        }
        done
    }

    /// Sums of a block. The making of earlier codes is spread over its chunks and the stores after them.
    fn sums(
        &self,
        b: &mut Builder,
        init: &[Val],
        done: &Done,
        units: &mut VecDeque<Units>,
        earlier: &Earlier<'_>,
    ) -> Vec<Val> {
        let (starts, chunks, chunk) = (
            self.reduction.run_starts(),
            self.reduction.run_chunks(),
            self.reduction.chunk(),
        );
        let all: usize = units.iter().map(|u| u.count).sum();
        let quota = all.div_ceil(starts.len() * chunks + 1);
        let bytes = (chunk * done.vectors.count * ROW) as i64;
        let near = (done.ahead.lines * LINE) as i64;
        let ahead = match done.ahead.stream {
            true => done.start.w.clone().plus(STREAM),
            false => done.start.ahead.clone(),
        };
        let mut sums = init.to_vec();
        for (run, &from) in starts.iter().enumerate() {
            let mut first = 0;
            while first < chunks {
                let at = run * chunks + first;
                let most = self.steps_alike(done, first, at);
                let (steps, each) = next(units, quota, most);
                let x = done.start.x.clone().plus((from + 4 * chunk * first) as i64);
                let ahead = ahead.clone().plus(at as i64 * near);
                let w = match done.panel {
                    Some(panel) => panel.at.at((at % panel.chunks) as i64 * bytes),
                    None => done.start.w.clone().plus(at as i64 * bytes),
                };
                sums = b.for_(steps as u32, &sums, |b, i, sums| {
                    let (x, w) = (x.step(i, 4 * chunk as i64), w.step(i, bytes));
                    let mut slots = spread(&each, sums.len());
                    let count = sums.len();
                    self.chunk(b, sums, (&x, &w), done, &mut |b, slot| {
                        if at + LEAD < self.chunks() {
                            self.unpack_part(b, done, (at + LEAD, Some(i)), (slot, count));
                        }
                        for own in slots[slot].drain(..) {
                            self.earlier_units(b, &own, Some((i, quota)), earlier);
                        }
                        if slot == 0 {
                            for line in 0..done.ahead.lines {
                                let at = ahead.clone().step(i, near).plus((line * LINE) as i64);
                                b.prefetch(at, SECOND);
                            }
                        }
                    })
                });
                first += steps;
            }
        }
        sums
    }

    /// Steps from one of a run on that differ in their places only: of the same run, and what they unpack lies in one piece.
    fn steps_alike(&self, done: &Done, first: usize, at: usize) -> usize {
        let rest = self.reduction.run_chunks() - first;
        let Some(panel) = done.panel.filter(|p| p.fills) else {
            return rest;
        };
        let unpacked = at + LEAD;
        let more = self.chunks().saturating_sub(unpacked);
        match more {
            0 => rest,
            _ => rest.min(more).min(panel.chunks - unpacked % panel.chunks),
        }
    }

    /// Unpacks a part of a chunk's weights, of the next one in each trip of a loop, where the block does that: one of `slots` equal
    /// parts, or the first of them all of it.
    fn unpack_part(
        &self,
        b: &mut Builder,
        done: &Done,
        (chunk, i): (usize, Option<LoopVar>),
        (slot, slots): (usize, usize),
    ) {
        let Some(panel) = done.panel.filter(|p| p.fills) else {
            return;
        };
        let (format, vectors) = (self.op.weights, self.reduction.chunk() * done.vectors.count);
        let group = format
            .runs(vectors * ROW, ROW)
            .next()
            .map_or(1, |r| r.vectors());
        let even = vectors.is_multiple_of(slots * group);
        if !even && slot > 0 {
            return;
        }
        let codes = vectors * ROW / if even { slots } else { 1 };
        let bytes = |codes: usize| format.packed_len(codes) as i64;
        let place = |base: Addr, chunk: usize, each: i64, own: i64| {
            let at = base.plus(chunk as i64 * each + slot as i64 * own);
            i.iter().fold(at, |at, &i| at.step(i, each))
        };
        let packed = done.start.w.clone();
        let from = place(packed, chunk, bytes(vectors * ROW), bytes(codes));
        let room = panel.at.at(0);
        let to = place(
            room,
            chunk % panel.chunks,
            (vectors * ROW) as i64,
            codes as i64,
        );
        unpack::unpack(b, format, codes, ROW, [&from, &to], None);
    }

    fn earlier_units(
        &self,
        b: &mut Builder,
        units: &Units,
        around: Option<(LoopVar, usize)>,
        earlier: &Earlier<'_>,
    ) {
        let done = earlier.done.expect("units belong to a block");
        self.unit_loop(b, done, units, around, earlier.factors, earlier.finish);
    }

    /// Makes the codes of a block.
    pub(super) fn finish(&self, b: &mut Builder, done: &Done, finish: &Finish<'_>) {
        let factors = done.factors(b, finish);
        for units in done.units() {
            self.unit_loop(b, done, &units, None, &factors, finish);
        }
    }

    /// Adds a chunk of steps; `between` writes what follows each product.
    fn chunk(
        &self,
        b: &mut Builder,
        sums: &[Val],
        (x, w): (&Addr, &Addr),
        done: &Done,
        between: &mut dyn FnMut(&mut Builder, usize),
    ) -> Vec<Val> {
        let (chunk, lines, vectors) = (self.reduction.chunk(), self.lines(), done.vectors.count);
        let weights = |b: &mut Builder, v: usize| {
            let ty = Type::I8.x((chunk * ROW) as u16);
            let at = w.clone().plus((v * ROW) as i64);
            b.load_rows(ty, at, chunk, (vectors * ROW) as i64)
        };
        let operand = |b: &mut Builder, tile: &Tile| {
            let ty = Type::I8.x((4 * chunk * lines) as u16);
            let [row, column] = tile.at;
            let at = self.pixel_strides(1, row).x + self.pixel_strides(2, column).x;
            b.load_rows(ty, x.clone().plus(at), lines, self.pixel_strides(2, 1).x)
        };
        // of the side with fewer tiles all are held, of the other one the next is loaded behind the first product of the one before
        let (tiles, few) = (done.tiles.len(), vectors <= done.tiles.len());
        let [held, passing] = if few {
            [vectors, tiles]
        } else {
            [tiles, vectors]
        };
        let load = |b: &mut Builder, is_weights: bool, k: usize| match is_weights {
            true => weights(b, k),
            false => operand(b, &done.tiles[k]),
        };
        let mut own = vec![load(b, few, 0)];
        let mut next = Some(load(b, !few, 0));
        own.extend((1..held).map(|k| load(b, few, k)));
        let mut result = sums.to_vec();
        for k in 0..passing {
            let other = next.take().expect("loaded for every tile");
            for (j, &own) in own.iter().enumerate() {
                let (at, a, w) = match few {
                    true => (k * vectors + j, other, own),
                    false => (j * vectors + k, own, other),
                };
                result[at] = b.dot4_tile(sums[at], a, w);
                if j == 0 {
                    next = (k + 1 < passing).then(|| load(b, !few, k + 1));
                }
                between(b, k * held + j);
            }
        }
        result
    }

    /// Makes codes of some units, in a trip of a loop that makes as many in each.
    fn unit_loop(
        &self,
        b: &mut Builder,
        done: &Done,
        units: &Units,
        around: Option<(LoopVar, usize)>,
        factors: &[Factors],
        finish: &Finish<'_>,
    ) {
        let outer = around.map(|(i, n)| (i, n * units.pixels));
        b.for_(units.count as u32, &[], |b, j, _| {
            let moves: Vec<_> = outer.into_iter().chain([(j, units.pixels)]).collect();
            self.unit(b, done, units, &moves, factors, finish);
            Vec::new()
        });
    }

    /// Makes the codes of one unit, so many pixels further on in each trip of the loops around.
    fn unit(
        &self,
        b: &mut Builder,
        done: &Done,
        units: &Units,
        moves: &[(LoopVar, usize)],
        factors: &[Factors],
        finish: &Finish<'_>,
    ) {
        let (lanes, vectors) = (usize::from(self.machine.lanes), done.vectors.count);
        let ty = Type::I32.x(self.machine.lanes);
        let moved = |at: &Addr, pixel: i64| {
            let step = |at: Addr, &(i, n): &(LoopVar, usize)| at.step(i, n as i64 * pixel);
            moves.iter().fold(at.clone(), step)
        };
        let [row, column] = units.strip.at;
        let at = self
            .pixel_strides(1, row)
            .and(&self.pixel_strides(2, column + units.first));
        let (start, pixel) = (done.start.moved(&at), self.pixel_strides(2, 1));
        let y = moved(&start.y, pixel.y);
        let r = start.r.as_ref().map(|r| moved(r, pixel.r));
        let line = (units.strip.line + units.first) * ROW;
        let space = start.sums.as_ref().expect("tiles have a work space");
        let sums = moved(&space.clone().plus(line as i64), ROW as i64);
        let mut codes = Vec::new();
        for p in 0..units.pixels {
            for (v, &factors) in factors.iter().enumerate() {
                let from = (units.tile * vectors + v) * SUMS + p * ROW;
                let sum = b.load(ty, sums.clone().plus(from as i64));
                let channel = v * lanes * self.r_bytes();
                let r = r
                    .as_ref()
                    .map(|r| r.clone().plus(p as i64 * pixel.r + channel as i64));
                codes.push(finish.code(b, factors, sum, r.as_ref()));
            }
        }
        let (out, last) = (self.op.out, done.vectors.last);
        let place = |v: usize| {
            let channel = (v * lanes * self.y.dtype.bytes()) as i64;
            let at = |p: usize| y.clone().plus(p as i64 * pixel.y + channel);
            (0..units.pixels).map(at).collect::<Vec<_>>()
        };
        if out.dtype == DType::U8 {
            return store_bytes(b, self.machine, out, &codes, &place(0), (vectors, last));
        }
        for v in 0..vectors {
            let own: Vec<Val> = codes.iter().skip(v).step_by(vectors).copied().collect();
            let valid = if v + 1 == vectors { last } else { lanes };
            store_pixels(b, self.machine, out, &own, &place(v), valid);
        }
    }
}

impl Done {
    fn factors(&self, b: &mut Builder, finish: &Finish<'_>) -> Vec<Factors> {
        (0..self.vectors.count)
            .map(|v| finish.factors(b, &self.start.constants, v))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(counts: &[usize]) -> VecDeque<Units> {
        let strip = Strip {
            line: 0,
            at: [0, 0],
            pixels: 0,
        };
        let of = |(tile, &count): (usize, &usize)| Units {
            tile,
            strip,
            first: 0,
            pixels: 2,
            count,
        };
        counts.iter().enumerate().map(of).collect()
    }

    #[test]
    fn every_unit_is_made_once_and_in_order() {
        for counts in [&[7, 7][..], &[3, 1, 3, 1], &[1], &[8, 8, 8, 8]] {
            for chunks in 1..20 {
                let all: usize = counts.iter().sum();
                let quota = all.div_ceil(chunks + 1);
                let mut left = units(counts);
                let (mut done, mut at) = (Vec::new(), 0);
                while at < chunks {
                    let (steps, each) = next(&mut left, quota, chunks - at);
                    assert!(steps > 0);
                    for step in 0..steps {
                        for own in spread(&each, 4).into_iter().flatten() {
                            let first = own.first / own.pixels + step * quota;
                            done.extend((first..first + own.count).map(|n| (own.tile, n)));
                        }
                    }
                    at += steps;
                }
                for own in left {
                    let first = own.first / own.pixels;
                    done.extend((first..first + own.count).map(|n| (own.tile, n)));
                }
                let tiles = counts.iter().enumerate();
                let expected: Vec<_> = tiles
                    .flat_map(|(t, &n)| (0..n).map(move |k| (t, k)))
                    .collect();
                assert_eq!(done, expected, "{counts:?} over {chunks}");
            }
        }
    }
}
