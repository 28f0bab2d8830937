//! Convolutions by products of matrix tiles: sixteen pixels by sixteen channels, 64 bytes of a run at a time.
//!
//! A tile of the operand is read in place, a row for each pixel, since neighbouring pixels lie equally far apart; where the
//! image is narrow a tile spans several of its rows and what lies between them. A tile of weights is read from the order that
//! vectors use, a row for each step. Up to four tiles of sums are kept at a time: two by two, or four of pixels where these
//! are few. This file chooses how a layer is cut into such blocks, and their order; [`super::conv_blocks`] writes one.

use lowbit_kernel::{BufId, Builder};
use lowbit_num::Format;
use lowbit_num::formats::Run;
use lowbit_targets::TileCosts;

use super::conv::{ChannelBlocks, Conv, PANEL, Start, Strides, Vectors, nest};
use super::conv_blocks::{Done, LEAD};
use super::conv_pack::Reduction;
use super::epilogue::Finish;
use super::tile::{Dot, Shape};

/// Most rows of a tile, and steps of four bytes in a row.
pub(super) const MOST: usize = 16;
/// Bytes of a row of sums: sixteen channels.
pub(super) const ROW: usize = 64;
/// Bytes that the work space has for a tile of sums.
pub(super) const SUMS: usize = MOST * ROW;
/// Tiles of sums at a time; the other four registers hold factors.
const BLOCK: usize = 4;
/// Quarters of a cycle that making codes of a vector of sums takes.
const FINISH: u64 = 14;
/// Passes over the weights of four tiles of pixels each: that few where all pixels are near, and that many where a block of
/// them is.
const TWICE: usize = 2;
const OFTEN: usize = 4;
/// Blocks that are written one by one inside a loop over others.
const FEW: usize = 4;
/// Bytes of a layer's weights that stay in the second-level cache beside the pixels.
const NEAR: usize = 1280 * 1024;
/// Bytes that are read again and again and stay in the first-level cache.
const ROOM: usize = 32 * 1024;
/// Bytes of a layer's weights that are brought near before they are wanted.
const FAR: usize = 32 * 1024;
/// Chunks of a short sum.
const SHORT: usize = 1;
/// Passes over the weights among which that can be spread.
const MANY: usize = 64;
/// Bytes of a cache line.
pub(super) const LINE: usize = 64;

/// What the choice of tiles depends on besides their costs.
pub(super) struct Layer<'a> {
    /// Rows and columns of the output.
    pub(super) size: [usize; 2],
    /// Vectors of its channels.
    pub(super) vectors: usize,
    pub(super) reduction: &'a Reduction,
    /// Bytes between the operand's rows and between its pixels for neighbours of the output.
    pub(super) pitch: [usize; 2],
    /// Bytes behind the operand that may be read.
    pub(super) slack: usize,
    pub(super) format: Format,
}

/// How pixels are cut into tiles.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Cut {
    /// Image rows of a tile, and pixels of each.
    rows: usize,
    columns: usize,
    /// Rows of the tile from one image row to the next.
    apart: usize,
}

impl Cut {
    fn of([height, width]: [usize; 2], [row, pixel]: [usize; 2]) -> Self {
        let apart = if row % pixel.max(1) == 0 {
            row / pixel.max(1)
        } else {
            0
        };
        if apart >= width && 2 * width <= MOST {
            let rows = (1 + (MOST - width) / apart).min(height);
            return Self {
                rows,
                columns: width,
                apart,
            };
        }
        let columns = width.div_ceil(width.div_ceil(MOST));
        Self {
            rows: 1,
            columns,
            apart,
        }
    }

    /// Rows of a tile.
    fn lines(&self) -> usize {
        (self.rows - 1) * self.apart + self.columns
    }

    fn tiles(&self, [height, width]: [usize; 2]) -> usize {
        height.div_ceil(self.rows) * width.div_ceil(self.columns)
    }
}

/// The tiles of a layer: estimated quarters of a cycle, and the sum in chunks. `None` where the sum in chunks would read
/// more behind its operand than it may.
pub(super) fn choose(layer: &Layer<'_>, costs: &TileCosts) -> Option<(u64, Shape, Reduction)> {
    let chunked = layer.reduction.chunked(MOST);
    let pads = chunked.behind() > 0;
    let clean = !pads || layer.format.admits(0);
    if chunked.behind() > layer.slack || !clean || layer.size.contains(&0) {
        return None;
    }
    let cut = Cut::of(layer.size, layer.pitch);
    let wide = match cut.tiles(layer.size) {
        // weights pass once or twice
        n if n <= TWICE * BLOCK => 1,
        // what a block of pixels reads stays in the first-level cache, and weights pass by
        n if n <= OFTEN * BLOCK && passes_by(layer) => 1,
        // codes fill cache lines, which counts where sums are short
        _ if layer.vectors >= BLOCK
            && chunked.run_chunks() * chunked.run_starts().len() <= SHORT =>
        {
            BLOCK
        }
        _ => 2,
    };
    let shape = Shape {
        rows: cut.rows,
        columns: cut.columns,
        vectors: wide.min(layer.vectors),
    };
    Some((
        time(layer, &cut, shape.vectors, &chunked, costs),
        shape,
        chunked,
    ))
}

/// Whether weights of many taps, of 8 bits, pass by a block of pixels again and again: where two vectors of them have no room in
/// the first-level cache, and what four tiles of pixels read has.
fn passes_by(layer: &Layer<'_>) -> bool {
    let sum = layer.reduction.steps() * 4;
    let taps = layer.reduction.run_starts().len() > 1;
    let two = 2 * sum * MOST;
    let reads = (OFTEN + 2) * layer.pitch[0];
    taps && layer.format.bits() == 8
        && two > PANEL
        && two / 2 * layer.vectors <= NEAR
        && reads <= ROOM
}

/// Estimated quarters of a cycle.
fn time(layer: &Layer<'_>, cut: &Cut, wide: usize, chunked: &Reduction, costs: &TileCosts) -> u64 {
    let (tiles, lines) = (cut.tiles(layer.size) as u64, cut.lines() as u64);
    let (vectors, wide) = (layer.vectors as u64, wide as u64);
    let blocks = tiles.div_ceil(BLOCK as u64 / wide) * vectors.div_ceil(wide);
    let products = tiles * vectors;
    let chunks = (chunked.steps() / chunked.chunk()) as u64;
    let row = 4 * chunked.chunk();
    let unit = 1 << (64 | layer.pitch[1] | row).trailing_zeros();
    let operand = costs.loading(lines, row as u64, unit);
    let weights = costs.loading(chunked.chunk() as u64, ROW as u64, 64);
    let loads = tiles * vectors.div_ceil(wide) * operand + blocks * wide * weights;
    // tenths of a cycle
    let sums = chunks * (products * costs.rows(lines)).max(loads);
    let tiled = sums + products * costs.store + costs.configure;
    let pixels = (layer.size[0] * layer.size[1]) as u64;
    let finish = pixels * vectors * FINISH * 10 / 4;
    // codes are made while the next block is summed, but for one block in a few
    (tiled.max(finish) + tiled.min(finish) / (1 + chunks)) * 4 / 10
}

/// A tile: where it starts, and its pixels that are not another's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Tile {
    /// Row and column of its first pixel.
    pub(super) at: [usize; 2],
    pub(super) strips: Vec<Strip>,
}

/// Pixels of a tile that lie in one image row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Strip {
    /// Row of the tile.
    pub(super) line: usize,
    /// Row and column of the first pixel.
    pub(super) at: [usize; 2],
    pub(super) pixels: usize,
}

/// Tiles that are summed at the same time, from a place on.
#[derive(Clone)]
pub(super) struct Block {
    pub(super) from: Strides,
    pub(super) tiles: Vec<Tile>,
    pub(super) vectors: Vectors,
    pub(super) ahead: Ahead,
    pub(super) panel: Option<Panel>,
}

/// Where the unpacked weights of a block are.
#[derive(Clone, Copy)]
pub(super) struct Panel {
    pub(super) at: BufId,
    /// Whether it is this block that unpacks them there.
    pub(super) fills: bool,
    /// Chunks that there is room for: those of a run, where no other block reads them again.
    pub(super) chunks: usize,
}

/// Weights that are brought near while a block is summed: cache lines in each of its chunks.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Ahead {
    pub(super) lines: usize,
    /// From where the block itself reads on, or else from where the last block of its layer ended.
    pub(super) stream: bool,
}

/// Blocks one after the other, again and again.
struct Blocks {
    trips: usize,
    step: Strides,
    blocks: Vec<Block>,
}

impl Conv<'_> {
    /// Bytes of the work space for sums.
    pub(super) fn sums_bytes(&self) -> usize {
        match self.dot {
            Dot::Tile => BLOCK * SUMS,
            _ => 0,
        }
    }

    fn cut(&self) -> Cut {
        let along = |axis: usize| self.pixel_strides(axis, 1).x.unsigned_abs() as usize;
        Cut::of([self.y.shape[1], self.y.shape[2]], [along(1), along(2)])
    }

    /// Rows of a tile.
    pub(super) fn lines(&self) -> usize {
        self.cut().lines()
    }

    /// All codes of an image and a group.
    pub(super) fn tiles(
        &self,
        b: &mut Builder,
        start: &Start,
        panel: Option<BufId>,
        finish: &Finish<'_>,
    ) {
        let mut parts = self.channel_parts(finish.constants);
        let channels: usize = parts.iter().map(|p| p.trips).sum();
        let mut pixels = self.pixel_blocks(self.shape.vectors);
        let passes: usize = pixels.iter().map(|p| p.trips * p.blocks.len()).sum();
        // what `passes_by` chose
        let pass_by = panel.is_none() && passes > TWICE && self.shape.vectors == 1 && channels > 1;
        if !pass_by && passes <= FEW && (panel.is_none() || self.unpacks_by_chunks(&parts)) {
            return self.pixels_inside(b, start, &parts, panel, finish);
        }
        let pixels_first = pass_by || panel.is_none() && self.pixels_first(channels);
        let lines = self.lines_ahead(passes);
        let block = (lines * LINE * self.chunks()) as i64;
        let (by_pixels, by_channels) = match pixels_first {
            true => (channels as i64 * block, block),
            false => (block, passes as i64 * block),
        };
        read_ahead(&mut pixels, lines, by_pixels);
        let mut before = 0;
        for part in &mut parts {
            part.step.ahead = by_channels;
            part.first.ahead = before * by_channels;
            before += part.trips as i64;
        }
        let start = &start.moved(&Strides {
            ahead: (self.packed.bytes.len() / self.op.groups) as i64,
            ..Strides::default()
        });
        match (pixels_first, channels <= FEW) {
            (true, true) => self.channels_inside(b, start, &parts, &pixels, finish),
            (true, false) => self.pixels_outside(b, start, &parts, &pixels, finish),
            (false, _) => {
                for part in &parts {
                    let first = start.moved(&part.first);
                    nest(b, &[(part.trips, part.step)], first, &mut |b, s| {
                        let s = self.unpacked(b, s, panel, part.vectors.count);
                        let mut pixels = self.pixel_blocks(part.vectors.count);
                        read_ahead(&mut pixels, lines, by_pixels);
                        let all: Vec<Blocks> =
                            pixels.iter().map(|p| p.with(&[part.whole()])).collect();
                        self.chain(b, &s, &all, finish);
                    });
                }
            }
        }
    }

    /// Cache lines of the next layer's weights, which follow in memory and are taken to be as many as this layer's, that each chunk
    /// brings near.
    fn lines_ahead(&self, passes: usize) -> usize {
        let far = self.packed.bytes.len() / self.op.groups >= FAR && passes <= MANY;
        let chunk = self.shape.vectors * self.reduction.chunk();
        if far { chunk.div_ceil(passes) } else { 0 }
    }

    /// Whether all channels of a block of pixels come before the next block of pixels. What is used again and again should stay in
    /// the first-level cache: the weights of a block of channels, or what a block of pixels reads.
    fn pixels_first(&self, channels: usize) -> bool {
        let weights = self.packed.bytes.len() / self.op.groups;
        let panel = weights / channels.max(1);
        let [kh, kw] = [
            self.operands[1].storage.shape[1],
            self.operands[1].storage.shape[2],
        ];
        let spatial = kh * kw > 1;
        let reads = 2 * self.lines() * (self.reduction.steps() * 4).div_ceil(kw);
        weights <= PANEL
            || (!spatial || panel > 4 * PANEL) && weights <= NEAR && reads <= 3 * PANEL / 2
    }

    /// Loops over blocks of channels, all pixels in each.
    fn pixels_inside(
        &self,
        b: &mut Builder,
        start: &Start,
        parts: &[ChannelBlocks],
        panel: Option<BufId>,
        finish: &Finish<'_>,
    ) {
        let of = |part: &ChannelBlocks| {
            let mut pixels = self.pixel_blocks(part.vectors.count);
            let passes: usize = pixels.iter().map(|p| p.trips * p.blocks.len()).sum();
            let chunks = match passes {
                1 if self.reduction.run_chunks() > LEAD => self.reduction.run_chunks(),
                _ => self.chunks(),
            };
            let panel = |fills| panel.map(|at| Panel { at, fills, chunks });
            for block in pixels.iter_mut().flat_map(|p| &mut p.blocks) {
                block.panel = panel(false);
            }
            let first = &mut pixels[0].blocks[0];
            first.panel = panel(true);
            let bytes = self.packed.vector * part.vectors.count / self.chunks();
            first.ahead = Ahead {
                lines: bytes / LINE,
                stream: true,
            };
            let each = |p: &Blocks, trip: usize| {
                let by = p.step.times(trip as i64).and(&part.first);
                p.blocks
                    .iter()
                    .map(move |block| block.with(&by, part.vectors))
                    .collect::<Vec<_>>()
            };
            let blocks = pixels
                .iter()
                .flat_map(|p| (0..p.trips).flat_map(move |t| each(p, t)));
            Blocks {
                trips: part.trips,
                step: part.step,
                blocks: blocks.collect(),
            }
        };
        let all: Vec<Blocks> = parts.iter().map(of).collect();
        self.chain(b, start, &all, finish);
    }

    /// Chunks of a sum.
    pub(super) fn chunks(&self) -> usize {
        self.reduction.run_starts().len() * self.reduction.run_chunks()
    }

    /// Whether the weights of each chunk can be unpacked by themselves.
    fn unpacks_by_chunks(&self, parts: &[ChannelBlocks]) -> bool {
        parts.iter().all(|part| {
            let chunk = self.reduction.chunk() * part.vectors.count;
            let mut runs = self.op.weights.runs(chunk * self.chunks() * ROW, ROW);
            let whole = |run: Run| chunk.is_multiple_of(run.vectors());
            runs.next().is_some_and(whole) && runs.next().is_none()
        })
    }

    /// Loops over blocks of pixels, all channels in each.
    fn channels_inside(
        &self,
        b: &mut Builder,
        start: &Start,
        parts: &[ChannelBlocks],
        pixels: &[Blocks],
        finish: &Finish<'_>,
    ) {
        let channels: Vec<(Strides, Vectors)> =
            parts.iter().flat_map(ChannelBlocks::each).collect();
        let all: Vec<Blocks> = pixels.iter().map(|p| p.with(&channels)).collect();
        self.chain(b, start, &all, finish);
    }

    /// For every block of pixels, loops over blocks of channels.
    fn pixels_outside(
        &self,
        b: &mut Builder,
        start: &Start,
        parts: &[ChannelBlocks],
        pixels: &[Blocks],
        finish: &Finish<'_>,
    ) {
        for pixels in pixels {
            nest(
                b,
                &[(pixels.trips, pixels.step)],
                start.clone(),
                &mut |b, s| {
                    for block in &pixels.blocks {
                        let all: Vec<Blocks> = parts
                            .iter()
                            .map(|part| Blocks {
                                trips: part.trips,
                                step: part.step,
                                blocks: vec![block.with(&part.first, part.vectors)],
                            })
                            .collect();
                        self.chain(b, s, &all, finish);
                    }
                },
            );
        }
    }

    /// Blocks in order; the codes of each are made while the next one is summed.
    fn chain(&self, b: &mut Builder, start: &Start, all: &[Blocks], finish: &Finish<'_>) {
        let mut before: Option<Done> = None;
        for Blocks {
            trips,
            step,
            blocks,
        } in all
        {
            for block in blocks {
                before = Some(self.products(b, start, block, before, finish));
            }
            let last = blocks.last().expect("some blocks");
            if *trips == 1 {
                continue;
            }
            let second = start.moved(step);
            b.for_(*trips as u32 - 1, &[], |b, i, _| {
                let mut before = Done::new(&start.stepped(i, step), last);
                for block in blocks {
                    before =
                        self.products(b, &second.stepped(i, step), block, Some(before), finish);
                }
                Vec::new()
            });
            before = Some(Done::new(
                &start.moved(&step.times(*trips as i64 - 1)),
                last,
            ));
        }
        if let Some(done) = before {
            self.finish(b, &done, finish);
        }
    }

    /// All pixels in blocks for channels of `wide` vectors each.
    fn pixel_blocks(&self, wide: usize) -> Vec<Blocks> {
        let [height, width] = [self.y.shape[1], self.y.shape[2]];
        let (cut, most) = (self.cut(), BLOCK / wide);
        let across = width.div_ceil(cut.columns);
        let tile = |row: usize, t: usize| cut.tile([row, t], [height, width]);
        let whole = height / cut.rows;
        let mut all = Vec::new();
        if cut.rows == 1 && across >= most && height > 1 {
            let tiles: Vec<Tile> = (0..across).map(|t| tile(0, t)).collect();
            all.push((height, self.pixel_strides(1, 1), chunks(&tiles, most)));
            return blocks(all);
        }
        if cut.rows == 1 && height == 1 {
            let full = width / cut.columns / most;
            let tiles =
                |range: std::ops::Range<usize>| range.map(|t| tile(0, t)).collect::<Vec<_>>();
            if full > 0 {
                let step = self.pixel_strides(2, most * cut.columns);
                all.push((full, step, vec![tiles(0..most)]));
            }
            if full * most < across {
                all.push((
                    1,
                    Strides::default(),
                    chunks(&tiles(full * most..across), most),
                ));
            }
            return blocks(all);
        }
        // several rows of tiles in a block
        let many = (most / across).max(1);
        let rows = |range: std::ops::Range<usize>| {
            range
                .flat_map(|r| (0..across).map(move |t| (r, t)))
                .map(|(r, t)| tile(r * cut.rows, t))
                .collect::<Vec<_>>()
        };
        let full = whole / many;
        if full > 0 {
            let step = self.pixel_strides(1, many * cut.rows);
            all.push((full, step, chunks(&rows(0..many), most)));
        }
        let rest = rows(full * many..height.div_ceil(cut.rows));
        if !rest.is_empty() {
            all.push((1, Strides::default(), chunks(&rest, most)));
        }
        blocks(all)
    }
}

impl Cut {
    /// The `t`-th tile across, from an image row on; one that would end behind the last row or column starts before the end of the
    /// one before.
    fn tile(&self, [row, t]: [usize; 2], [height, width]: [usize; 2]) -> Tile {
        let at = [
            row.min(height - self.rows),
            (t * self.columns).min(width - self.columns),
        ];
        let first = t * self.columns;
        let strip = |r: usize| Strip {
            line: (r - at[0]) * self.apart + first - at[1],
            at: [r, first],
            pixels: self.columns.min(width - first),
        };
        Tile {
            at,
            strips: (row..(row + self.rows).min(height)).map(strip).collect(),
        }
    }
}

fn chunks(tiles: &[Tile], most: usize) -> Vec<Vec<Tile>> {
    tiles.chunks(most).map(<[Tile]>::to_vec).collect()
}

fn blocks(all: Vec<(usize, Strides, Vec<Vec<Tile>>)>) -> Vec<Blocks> {
    let block = |tiles| Block {
        from: Strides::default(),
        tiles,
        vectors: Vectors { count: 0, last: 0 },
        ahead: Ahead::default(),
        panel: None,
    };
    all.into_iter()
        .map(|(trips, step, tiles)| Blocks {
            trips,
            step,
            blocks: tiles.into_iter().map(block).collect(),
        })
        .collect()
}

/// Lets every block read `lines` lines ahead in each chunk, each block `bytes` bytes further on.
fn read_ahead(pixels: &mut [Blocks], lines: usize, bytes: i64) {
    let mut before = 0;
    for Blocks {
        trips,
        step,
        blocks,
    } in pixels
    {
        step.ahead = blocks.len() as i64 * bytes;
        for (k, block) in blocks.iter_mut().enumerate() {
            block.ahead.lines = lines;
            block.from.ahead = (before + k as i64) * bytes;
        }
        before += (*trips * blocks.len()) as i64;
    }
}

impl Block {
    /// The same pixels for channels.
    fn with(&self, by: &Strides, vectors: Vectors) -> Self {
        Self {
            from: self.from.and(by),
            tiles: self.tiles.clone(),
            vectors,
            ahead: self.ahead,
            panel: self.panel,
        }
    }
}

impl Blocks {
    /// The same pixels for blocks of channels.
    fn with(&self, channels: &[(Strides, Vectors)]) -> Self {
        let each = |block: &Block| {
            channels
                .iter()
                .map(|(by, v)| block.with(by, *v))
                .collect::<Vec<_>>()
        };
        Self {
            trips: self.trips,
            step: self.step,
            blocks: self.blocks.iter().flat_map(each).collect(),
        }
    }
}

impl ChannelBlocks {
    /// The first of these blocks, where it starts.
    fn whole(&self) -> (Strides, Vectors) {
        (Strides::default(), self.vectors)
    }

    fn each(&self) -> impl Iterator<Item = (Strides, Vectors)> + '_ {
        (0..self.trips).map(|n| (self.first.and(&self.step.times(n as i64)), self.vectors))
    }
}

#[cfg(test)]
mod tests {
    use lowbit_kernel::{Block, OpCode, Stmt};
    use lowbit_targets::resolve;

    use super::super::testing::{check_conv, check_formats, conv_kernel};
    use super::*;
    use crate::lower::Machine;

    fn uses_tiles(block: &Block) -> bool {
        block.stmts.iter().any(|s| match s {
            Stmt::Let(_, op) => op.code == OpCode::Dot4Tile,
            Stmt::For(f) => uses_tiles(&f.body),
            _ => false,
        })
    }

    #[test]
    fn large_layers_take_tiles_and_small_ones_vectors() {
        let target = resolve(None, Some("sapphirerapids")).unwrap();
        let machine = Machine::of(&target);
        let tiled = |x, o, kernel| uses_tiles(&conv_kernel(x, o, kernel, &machine).body);
        assert!(tiled([1, 14, 14, 256], 256, [3, 3]));
        assert!(tiled([1, 7, 7, 512], 512, [1, 1]));
        assert!(!tiled([1, 1, 1, 640], 128, [1, 1]), "a single pixel");
        let vectors = Machine::of(&resolve(None, Some("icelake-server")).unwrap());
        assert!(!uses_tiles(
            &conv_kernel([1, 14, 14, 256], 256, [3, 3], &vectors).body
        ));
    }

    #[test]
    fn tiles_cover_every_pixel_once() {
        for (size, apart) in [
            ([7, 7], 9),
            ([7, 7], 7),
            ([3, 2], 4),
            ([25, 5], 7),
            ([8, 8], 10),
            ([1, 49], 0),
            ([4, 37], 39),
            ([2, 16], 16),
        ] {
            let cut = Cut::of(size, [apart * 8, 8]);
            assert!(cut.lines() <= MOST, "{cut:?}");
            let across = size[1].div_ceil(cut.columns);
            let mut seen = vec![0; size[0] * size[1]];
            for row in (0..size[0]).step_by(cut.rows) {
                for tile in (0..across).map(|t| cut.tile([row, t], size)) {
                    for strip in &tile.strips {
                        // the rows of a tile are where the operand's pixels are
                        let [r, c] = [0, 1].map(|a| strip.at[a] - tile.at[a]);
                        assert_eq!(strip.line, r * cut.apart + c);
                        assert!(strip.line + strip.pixels <= cut.lines());
                        let first = strip.at[0] * size[1] + strip.at[1];
                        seen[first..first + strip.pixels]
                            .iter_mut()
                            .for_each(|n| *n += 1);
                    }
                }
            }
            assert!(seen.iter().all(|&n| n == 1), "{size:?}: {seen:?}");
        }
    }

    #[test]
    fn every_order_of_blocks_equals_the_definition() {
        // narrow maps: tiles of several image rows, all pixels for each block of channels
        check_conv([1, 7, 7, 64], 40, [3, 3], [1, 1], [1, 1], 1);
        check_conv([1, 14, 14, 32], 48, [3, 3], [2, 2], [1, 1], 1);
        check_conv([1, 5, 3, 48], 20, [3, 3], [1, 1], [1, 1], 1);
        // all blocks of channels for each block of pixels: few, and many with an incomplete last one
        check_conv([1, 6, 32, 64], 64, [1, 1], [1, 1], [1, 1], 1);
        check_conv([1, 3, 50, 16], 330, [1, 1], [1, 1], [1, 1], 1);
        // weights that pass by blocks of pixels, the last one with fewer
        check_conv([1, 14, 14, 96], 40, [3, 3], [1, 1], [1, 1], 1);
        // a block of channels for all blocks of pixels
        check_conv([1, 18, 16, 64], 48, [3, 3], [1, 1], [1, 1], 1);
    }

    #[test]
    fn weights_are_unpacked_between_products() {
        check_formats([1, 7, 7, 64], 40, [3, 3], 1);
        check_formats([1, 3, 5, 16], 32, [3, 3], 1);
        check_formats([1, 3, 5, 32], 16, [3, 3], 1);
        check_formats([1, 4, 4, 256], 32, [1, 1], 1);
        check_formats([1, 6, 16, 64], 32, [1, 1], 1);
    }

    #[test]
    fn equals_the_definition() {
        // [N, H, W, C], O, kernel, stride, dilation, groups: rows of one tile, of several, with a last one that overlaps
        check_conv([1, 9, 16, 64], 40, [3, 3], [1, 1], [1, 1], 1);
        check_conv([1, 3, 35, 16], 32, [3, 3], [1, 1], [1, 1], 1);
        check_conv([2, 3, 20, 24], 16, [3, 3], [2, 2], [1, 1], 1);
        check_conv([1, 7, 7, 160], 70, [1, 1], [1, 1], [1, 1], 1);
        check_conv([1, 5, 37, 8], 33, [3, 3], [1, 1], [2, 2], 1);
        check_conv([1, 4, 70, 32], 64, [1, 3], [1, 1], [1, 1], 2);
    }
}
