//! Convolutions by products of matrix tiles: sixteen pixels by sixteen channels, 64 bytes of a run at a time.
//!
//! A tile of the operand is read in place, a row for each pixel, since neighbouring pixels lie equally far apart. A tile of
//! weights is read from the order that vectors use, a row for each step. Up to four tiles of sums are kept at a time: two by
//! two, or four of pixels where these are all. They pass through a small work space to the vectors that make codes of them.

use lowbit_kernel::{Builder, Type, Val};
use lowbit_num::Format;
use lowbit_targets::TileCosts;

use super::conv::{Conv, Start, Vectors, nest};
use super::conv_pack::Reduction;
use super::epilogue::Finish;
use super::tile::{self, Dot, Shape};

/// Most rows of a tile, and steps of four bytes in a row.
const MOST: usize = 16;
/// Bytes of a row of sums: sixteen channels.
const ROW: usize = 64;
/// Bytes that the work space has for a tile of sums.
const SUMS: usize = MOST * ROW;
/// Tiles of sums at a time; the other four registers hold factors.
const BLOCK: usize = 4;
/// Quarters of a cycle that making codes of a vector of sums takes.
const FINISH: u64 = 18;
/// Pixels whose codes are stored together.
const TOGETHER: usize = 4;

/// What the choice of tiles depends on besides their costs.
pub(super) struct Layer<'a> {
    /// Rows and columns of the output.
    pub(super) size: [usize; 2],
    /// Vectors of its channels.
    pub(super) vectors: usize,
    pub(super) reduction: &'a Reduction,
    /// Bytes between the operand's pixels for neighbours of the output.
    pub(super) pitch: usize,
    /// Bytes behind the operand that may be read.
    pub(super) slack: usize,
    pub(super) format: Format,
}

/// The tiles of a layer: estimated quarters of a cycle, and the sum in chunks. `None` where the sum in chunks would read
/// more behind its operand than it may.
pub(super) fn choose(layer: &Layer<'_>, costs: &TileCosts) -> Option<(u64, Shape, Reduction)> {
    let Layer {
        size,
        vectors,
        reduction,
        pitch,
        slack,
        format,
    } = *layer;
    let chunked = reduction.chunked(MOST);
    let pads = chunked.behind() > 0;
    if chunked.behind() > slack || (pads && !format.admits(0)) || size.contains(&0) {
        return None;
    }
    let per_row = size[1].div_ceil(MOST);
    let columns = size[1].div_ceil(per_row);
    let wide = if per_row * size[0] <= BLOCK { 1 } else { 2 };
    let shape = Shape {
        rows: 1,
        columns,
        vectors: wide.min(vectors),
    };
    let pixels = (per_row * size[0]) as u64;
    let vectors_of = shape.vectors as u64;
    let block = BLOCK as u64 / vectors_of;
    let chunks = (chunked.steps() / chunked.chunk()) as u64;
    let blocks = pixels.div_ceil(block) * (vectors as u64).div_ceil(vectors_of);
    let products = pixels * vectors as u64;
    // tenths of a cycle
    let row = 4 * chunked.chunk();
    let unit = 1 << (64 | pitch | row).trailing_zeros();
    let operand = costs.loading(columns as u64, row as u64, unit);
    let weights = costs.loading(chunked.chunk() as u64, ROW as u64, 64);
    let operands = pixels * (vectors as u64).div_ceil(vectors_of);
    let loads = operands * operand + blocks * vectors_of * weights;
    let sums = chunks * (products * costs.rows(columns as u64)).max(loads);
    let tenths = sums + products * costs.store + costs.configure;
    let finish = products * columns as u64 * FINISH;
    Some((tenths * 4 / 10 + finish, shape, chunked))
}

/// What is done with a block of tiles, given where each begins: row and column.
type Body<'a> = dyn FnMut(&mut Builder, &Start, &[[usize; 2]]) + 'a;

impl Conv<'_> {
    /// Bytes of the work space for sums.
    pub(super) fn sums_bytes(&self) -> usize {
        match self.dot {
            Dot::Tile => BLOCK * SUMS,
            _ => 0,
        }
    }

    /// All pixels, a block of tiles at a time; the body is given the row and column, from the start, of the first pixel of
    /// each. A last tile that would end behind its row starts before the end of the one before.
    pub(super) fn tiles(&self, b: &mut Builder, start: &Start, body: &mut Body<'_>) {
        let [height, width] = [self.y.shape[1], self.y.shape[2]];
        let (pixels, block) = (self.shape.columns, BLOCK / self.shape.vectors);
        let per_row = width.div_ceil(pixels);
        let column = |t: usize| (t * pixels).min(width - pixels);
        let along = |axis: usize, n: usize| self.pixel_strides(axis, n);
        if per_row < block {
            for rows in tile::parts(height, block / per_row) {
                let tiles = (0..rows.size).flat_map(|r| (0..per_row).map(move |t| [r, column(t)]));
                let tiles: Vec<[usize; 2]> = tiles.collect();
                let start = start.moved(&along(1, rows.first));
                let loops = [(rows.count, along(1, rows.size))];
                nest(b, &loops, start, &mut |b, s| body(b, s, &tiles));
            }
            return;
        }
        let whole = width / pixels / block;
        let first: Vec<[usize; 2]> = (0..block).map(|t| [0, column(t)]).collect();
        let rest: Vec<[usize; 2]> = (whole * block..per_row).map(|t| [0, column(t)]).collect();
        let rows = [(height, along(1, 1))];
        nest(b, &rows, start.clone(), &mut |b, start| {
            let blocks = [(whole, along(2, block * pixels))];
            nest(b, &blocks, start.clone(), &mut |b, s| body(b, s, &first));
            for tiles in rest.chunks(block) {
                body(b, start, tiles);
            }
        });
    }

    /// Codes of a block of tiles.
    pub(super) fn products(
        &self,
        b: &mut Builder,
        start: &Start,
        tiles: &[[usize; 2]],
        vectors: Vectors,
        finish: &Finish<'_>,
    ) {
        let pixels = self.shape.columns;
        let ty = Type::I32.x((pixels * ROW / 4) as u16);
        let mut init = Vec::new();
        for _ in tiles {
            for v in 0..vectors.count {
                let at = finish.bias_at(&start.constants, v);
                init.push(b.load_rows(ty, at, pixels, 0));
            }
        }
        let chunk = self.reduction.chunk();
        let bytes = (vectors.count * ROW) as i64;
        let sums = self
            .reduction
            .walk(b, &init, chunk, &mut |b, sums, place, _| {
                let moved = Start {
                    x: place.apply_x(&start.x),
                    w: place.apply_w(&start.w, bytes),
                    ..start.clone()
                };
                self.chunk(b, sums, &moved, tiles, vectors.count)
            });
        let space = start.sums.as_ref().expect("tiles have a work space");
        for (k, &sum) in sums.iter().enumerate() {
            b.store(sum, space.clone().plus((k * SUMS) as i64));
        }
        for (k, &tile) in tiles.iter().enumerate() {
            for v in 0..vectors.count {
                let from = ((k * vectors.count + v) * SUMS) as i64;
                self.finish_tile(b, start, from, tile, (v, vectors), finish);
            }
        }
    }

    /// Adds a chunk of steps. The operand's next tile is loaded behind the first product of the one before.
    fn chunk(
        &self,
        b: &mut Builder,
        sums: &[Val],
        start: &Start,
        tiles: &[[usize; 2]],
        vectors: usize,
    ) -> Vec<Val> {
        let (chunk, pixels) = (self.reduction.chunk(), self.shape.columns);
        let weights = |b: &mut Builder, v: usize| {
            let ty = Type::I8.x((chunk * ROW) as u16);
            let at = start.w.clone().plus((v * ROW) as i64);
            b.load_rows(ty, at, chunk, (vectors * ROW) as i64)
        };
        let operand = |b: &mut Builder, [row, column]: [usize; 2]| {
            let ty = Type::I8.x((4 * chunk * pixels) as u16);
            let at = self.pixel_strides(1, row).x + self.pixel_strides(2, column).x;
            let pitch = self.pixel_strides(2, 1).x;
            b.load_rows(ty, start.x.clone().plus(at), pixels, pitch)
        };
        let mut w = vec![weights(b, 0)];
        let mut next = Some(operand(b, tiles[0]));
        w.extend((1..vectors).map(|v| weights(b, v)));
        let mut result = Vec::with_capacity(sums.len());
        for k in 0..tiles.len() {
            let a = next.take().expect("loaded for every tile");
            for v in 0..vectors {
                result.push(b.dot4_tile(sums[k * vectors + v], a, w[v]));
                if v == 0 {
                    next = tiles.get(k + 1).map(|&tile| operand(b, tile));
                }
            }
        }
        result
    }

    /// Makes codes of the tile of sums that lies `from` bytes into the work space.
    fn finish_tile(
        &self,
        b: &mut Builder,
        start: &Start,
        from: i64,
        [row, column]: [usize; 2],
        (v, vectors): (usize, Vectors),
        finish: &Finish<'_>,
    ) {
        let lanes = usize::from(self.machine.lanes);
        let ty = Type::I32.x(self.machine.lanes);
        let valid = match v + 1 == vectors.count {
            true => vectors.last,
            false => lanes,
        };
        let start = start
            .moved(&self.pixel_strides(1, row))
            .moved(&self.pixel_strides(2, column));
        let space = start.sums.as_ref().expect("tiles have a work space");
        for part in tile::parts(self.shape.columns, TOGETHER) {
            let step = self.pixel_strides(2, part.size);
            let moved = start.moved(&self.pixel_strides(2, part.first));
            let sums = space.clone().plus(from + (part.first * ROW) as i64);
            b.for_(part.count as u32, &[], |b, i, _| {
                let codes: Vec<Val> = (0..part.size)
                    .map(|p| {
                        let at = sums.clone().plus((p * ROW) as i64);
                        b.load(ty, at.step(i, (part.size * ROW) as i64))
                    })
                    .collect();
                let place = |p: usize| {
                    let at = self.pixel_strides(2, p);
                    let channel = v * lanes;
                    let y = moved.y.clone().plus(at.y);
                    let y = y.plus((channel * self.y.dtype.bytes()) as i64);
                    let r = moved.r.clone();
                    let r = r.map(|r| r.plus(at.r + (channel * self.r_bytes()) as i64));
                    (y.step(i, step.y), r.map(|r| r.step(i, step.r)))
                };
                let (y, r): (Vec<_>, Vec<_>) = (0..part.size).map(place).unzip();
                let r: Option<Vec<_>> = r.into_iter().collect();
                finish.store(b, &moved.constants, v, &codes, &y, r.as_deref(), valid);
                Vec::new()
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use lowbit_kernel::{Block, OpCode, Stmt};
    use lowbit_targets::resolve;

    use super::super::testing::{check_conv, conv_kernel};
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
