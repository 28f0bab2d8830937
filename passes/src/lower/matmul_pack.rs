//! The right operand of a product of two activations, packed to `[vector of columns][group of four][lane][4]`, less 128.

use lowbit_kernel::{Addr, Builder, Scalar, Type, Val};

use super::Machine;
use super::rows::chunks;

/// `n` columns of sums over `k` elements.
#[derive(Clone, Copy)]
pub(crate) struct Panel<'a> {
    pub(crate) machine: &'a Machine,
    pub(crate) n: usize,
    pub(crate) k: usize,
}

/// Bytes less 128, as a dword.
const FLIP: i64 = 0x8080_8080;

impl Panel<'_> {
    fn lanes(&self) -> usize {
        self.machine.lanes.into()
    }

    /// Steps of a sum.
    pub(crate) fn groups(&self) -> usize {
        self.k.div_ceil(4)
    }

    /// Vectors of columns.
    pub(crate) fn vectors(&self) -> usize {
        self.n.div_ceil(self.lanes())
    }

    /// Bytes of a vector of columns.
    pub(crate) fn vector_bytes(&self) -> usize {
        self.groups() * self.machine.vector_bytes()
    }

    /// Bytes of the panel.
    pub(crate) fn bytes(&self) -> usize {
        self.vectors() * self.vector_bytes()
    }

    /// Bytes of what the columns start from.
    pub(crate) fn sums_bytes(&self) -> usize {
        self.vectors() * self.machine.vector_bytes()
    }

    /// Packs a matrix whose columns, and whose summed elements, are `strides` bytes apart.
    pub(crate) fn pack(&self, b: &mut Builder, x: &Addr, strides: [i64; 2], panel: &Addr) {
        let rest = self.n % self.lanes();
        let whole = self.n / self.lanes();
        for (first, trips, columns) in [(0, whole, self.lanes()), (whole, 1, rest)] {
            if trips == 0 || columns == 0 {
                continue;
            }
            b.for_(trips as u32, &[], |b, v, _| {
                let step = self.lanes() as i64 * strides[0];
                let x = x.clone().plus(first as i64 * step).step(v, step);
                let vector = self.vector_bytes() as i64;
                let panel = panel.clone().plus(first as i64 * vector).step(v, vector);
                match strides {
                    [1, row] if row != 1 => self.pack_rows(b, &x, row, columns, &panel),
                    [column, 1] => self.pack_columns(b, &x, column, columns, &panel),
                    _ => self.pack_bytes(b, &x, strides, columns, &panel),
                }
                Vec::new()
            });
        }
    }

    /// Columns whose elements are contiguous: blocks of four by four dwords are turned over, what is left dword by dword.
    fn pack_columns(&self, b: &mut Builder, x: &Addr, column: i64, columns: usize, panel: &Addr) {
        let (blocks, runs) = (columns / 4, self.k / 16);
        if blocks * runs == 0 {
            return self.pack_dwords(b, x, column, columns, [0, self.k], panel);
        }
        let width = self.machine.vector_bytes() as i64;
        let ty = Type::I32.x(4);
        let flip = b.constant(ty, FLIP);
        b.for_(blocks as u32, &[], |b, j, _| {
            let (x, panel) = (x.clone().step(j, 4 * column), panel.clone().step(j, 16));
            b.for_(runs as u32, &[], |b, g, _| {
                let columns = [0, 1, 2, 3].map(|c| {
                    let v = b.load(ty, x.clone().plus(c * column).step(g, 16));
                    b.xor(v, flip)
                });
                for (d, v) in transposed(b, columns).into_iter().enumerate() {
                    b.store(v, panel.clone().plus(d as i64 * width).step(g, 4 * width));
                }
                Vec::new()
            });
            Vec::new()
        });
        let at = 4 * blocks as i64;
        let (x_rest, panel_rest) = (x.clone().plus(at * column), panel.clone().plus(4 * at));
        let rest = columns - 4 * blocks;
        self.pack_dwords(b, &x_rest, column, rest, [0, 16 * runs], &panel_rest);
        self.pack_dwords(b, x, column, columns, [16 * runs, self.k], panel);
    }

    /// Elements from one on up to another of columns whose elements are contiguous, dword by dword.
    fn pack_dwords(
        &self,
        b: &mut Builder,
        x: &Addr,
        column: i64,
        columns: usize,
        [from, to]: [usize; 2],
        panel: &Addr,
    ) {
        if columns == 0 || from == to {
            return;
        }
        let width = self.machine.vector_bytes() as i64;
        let flip = b.constant(Type::I32, FLIP);
        let (x, panel) = (
            x.clone().plus(from as i64),
            panel.clone().plus(from as i64 / 4 * width),
        );
        b.for_(columns as u32, &[], |b, j, _| {
            let (x, panel) = (x.clone().step(j, column), panel.clone().step(j, 4));
            let (whole, rest) = ((to - from) / 4, (to - from) % 4);
            if whole > 0 {
                b.for_(whole as u32, &[], |b, g, _| {
                    let v = b.load(Type::I32, x.clone().step(g, 4));
                    let v = b.xor(v, flip);
                    b.store(v, panel.clone().step(g, width));
                    Vec::new()
                });
            }
            if rest > 0 {
                let v = b.load(Type::I32, x.plus(whole as i64 * 4));
                let v = b.xor(v, flip);
                let mask = b.constant(Type::I32, (1 << (8 * rest)) - 1);
                let v = b.and(v, mask);
                b.store(v, panel.plus(whole as i64 * width));
            }
            Vec::new()
        });
    }

    /// Rows of contiguous columns: four at a time are interleaved by bytes.
    fn pack_rows(&self, b: &mut Builder, x: &Addr, row: i64, columns: usize, panel: &Addr) {
        let width = self.machine.vector_bytes() as i64;
        let whole = self.k / 4;
        if whole > 0 {
            b.for_(whole as u32, &[], |b, g, _| {
                let (x, panel) = (x.clone().step(g, 4 * row), panel.clone().step(g, width));
                interleave(b, &x, row, [columns, 4], &panel);
                Vec::new()
            });
        }
        if !self.k.is_multiple_of(4) {
            let at = whole as i64;
            let (x, panel) = (x.clone().plus(at * 4 * row), panel.clone().plus(at * width));
            interleave(b, &x, row, [columns, self.k % 4], &panel);
        }
    }

    fn pack_bytes(
        &self,
        b: &mut Builder,
        x: &Addr,
        [column, element]: [i64; 2],
        columns: usize,
        panel: &Addr,
    ) {
        let width = self.machine.vector_bytes() as i64;
        let flip = b.constant(Type::I8, 0x80);
        b.for_(columns as u32, &[], |b, j, _| {
            let (x, panel) = (x.clone().step(j, column), panel.clone().step(j, 4));
            let parts = [(0, self.k / 4, 4), (self.k / 4, 1, self.k % 4)];
            for (first, trips, bytes) in parts.into_iter().filter(|p| p.1 * p.2 > 0) {
                let (x, panel) = (
                    x.clone().plus(first as i64 * 4 * element),
                    panel.clone().plus(first as i64 * width),
                );
                b.for_(trips as u32, &[], |b, g, _| {
                    for byte in 0..4 {
                        let v = if byte < bytes {
                            let at = x.clone().plus(byte as i64 * element);
                            let v = b.load(Type::I8, at.step(g, 4 * element));
                            b.xor(v, flip)
                        } else {
                            b.constant(Type::I8, 0)
                        };
                        b.store(v, panel.clone().plus(byte as i64).step(g, width));
                    }
                    Vec::new()
                });
            }
            Vec::new()
        });
    }

    /// Writes what the accumulators of every column start from: `da · Σ b' + K · da · db`.
    pub(crate) fn sums(&self, b: &mut Builder, [panel, sums]: [&Addr; 2], [da, db]: [i32; 2]) {
        let width = self.machine.vector_bytes() as i64;
        let ty = Type::I32.x(self.machine.lanes);
        let bytes = Type::I8.x(width as u16);
        let constant = i64::from(da) * i64::from(db) * self.k as i64;
        b.for_(self.vectors() as u32, &[], |b, v, _| {
            let mut start = b.constant(ty, constant);
            if da != 0 {
                let ones = b.constant(bytes, 1);
                let zero = b.constant(ty, 0);
                let sum = b.for_(self.groups() as u32, &[zero], |b, g, sum| {
                    let at = panel.clone().step(v, self.vector_bytes() as i64);
                    let w = b.load(bytes, at.step(g, width));
                    vec![dot(b, self.machine, sum[0], ones, w)]
                })[0];
                let factor = b.constant(ty, da.into());
                let product = b.mul(sum, factor);
                start = b.add(product, start);
            }
            b.store(start, sums.clone().step(v, width));
            Vec::new()
        });
    }
}

fn dot(b: &mut Builder, machine: &Machine, sum: Val, a: Val, w: Val) -> Val {
    match machine.signed_dot {
        true => b.dot4s(sum, a, w),
        false => b.dot4(sum, a, w),
    }
}

/// Dwords of `rows` bytes below one another, for each of some columns; what is missing of four is zero.
fn interleave(b: &mut Builder, x: &Addr, row: i64, [columns, rows]: [usize; 2], panel: &Addr) {
    for chunk in chunks(columns, 16) {
        let ty = Type::I8.x(chunk.lanes);
        let flip = b.constant(ty, 0x80);
        let first = chunk.first(x, 1);
        b.for_(chunk.trips, &[], |b, i, _| {
            let lanes = i64::from(chunk.lanes);
            let rows: Vec<Val> = (0..4)
                .map(|r| {
                    if r >= rows {
                        return b.constant(ty, 0);
                    }
                    let at = first.clone().plus(r as i64 * row).step(i, lanes);
                    let v = b.load(ty, at);
                    b.xor(v, flip)
                })
                .collect();
            let to = chunk.first(panel, 4).step(i, 4 * lanes);
            if chunk.lanes == 1 {
                for (r, &v) in rows.iter().enumerate() {
                    b.store(v, to.clone().plus(r as i64));
                }
            } else {
                let [even, odd] = [[0, 1], [2, 3]].map(|[l, r]| zipped(b, rows[l], rows[r]));
                let pairs = Type::I16.x(chunk.lanes);
                let [even, odd] = [even, odd].map(|v| b.bitcast(pairs, v));
                let all = zipped(b, even, odd);
                b.store(all, to);
            }
            Vec::new()
        });
    }
}

/// Lanes of two vectors in turn.
fn zipped(b: &mut Builder, l: Val, r: Val) -> Val {
    let n = b.ty(l).lanes;
    let order: Vec<u16> = (0..n).flat_map(|k| [k, n + k]).collect();
    b.shuffle(l, r, &order)
}

/// Four rows of four dwords as columns.
fn transposed(b: &mut Builder, rows: [Val; 4]) -> [Val; 4] {
    let [lows, highs] = [[0, 4, 1, 5], [2, 6, 3, 7]]
        .map(|order| [[0, 1], [2, 3]].map(|[l, r]| b.shuffle(rows[l], rows[r], &order)));
    let [first, second] = [lows, highs]
        .map(|[l, r]| [[0, 1, 4, 5], [2, 3, 6, 7]].map(|order| b.shuffle(l, r, &order)));
    [first[0], first[1], second[0], second[1]]
}

/// Sums of `k` contiguous bytes, each less 128 where the dot product takes signed ones, of four rows that are `row` bytes
/// apart: one dword each.
pub(crate) fn row_sums(b: &mut Builder, machine: &Machine, k: usize, x: &Addr, row: i64) -> Val {
    let ty = Type::I32.x(4);
    let starts = [0, 1, 2, 3].map(|r| x.clone().plus(r * row));
    let (runs, rest) = (k / 16, k % 16);
    let bytes = Type::I8.x(16);
    let ones = b.constant(bytes, 1);
    let zeros = [b.constant(ty, 0); 4];
    let sums = b.for_(runs as u32, &zeros, |b, i, sums| {
        let one = |(&sum, at): (&Val, &Addr)| {
            let mut v = b.load(bytes, at.clone().step(i, 16));
            if machine.signed_dot {
                let flip = b.constant(bytes, 0x80);
                v = b.xor(v, flip);
            }
            dot(b, machine, sum, v, ones)
        };
        sums.iter().zip(&starts).map(one).collect()
    });
    let parts = transposed(b, [sums[0], sums[1], sums[2], sums[3]]);
    let [one, two] = [[0, 1], [2, 3]].map(|[l, r]| b.add(parts[l], parts[r]));
    let mut total = b.add(one, two);
    if rest > 0 {
        let last = starts.map(|at| {
            let sum = row_sum(b, machine, rest, at.plus(16 * runs as i64));
            b.splat(ty, sum)
        });
        let [l, r] = [[0, 1], [2, 3]].map(|[l, r]| b.shuffle(last[l], last[r], &[0, 4, 0, 4]));
        let last = b.shuffle(l, r, &[0, 1, 4, 5]);
        total = b.add(total, last);
    }
    total
}

/// Sum of `k` contiguous bytes, each less 128 where the dot product takes signed ones.
pub(crate) fn row_sum(b: &mut Builder, machine: &Machine, k: usize, x: Addr) -> Val {
    let less = if machine.signed_dot { 128 } else { 0 };
    let mut total = b.constant(Type::I32, 0);
    for chunk in chunks(k, machine.vector_bytes() as u16) {
        if chunk.lanes < 16 {
            total = b.for_(chunk.trips, &[total], |b, i, sum| {
                let mut sum = sum[0];
                for k in 0..chunk.lanes {
                    let at = chunk.addr(&x, 1, i).plus(k.into());
                    let v = b.load(Type::I8, at);
                    let v = b.zext(Scalar::I32, v);
                    let less = b.constant(Type::I32, less);
                    let v = b.sub(v, less);
                    sum = b.add(sum, v);
                }
                vec![sum]
            })[0];
            continue;
        }
        let (ty, bytes) = (Type::I32.x(chunk.lanes / 4), Type::I8.x(chunk.lanes));
        let zero = b.constant(ty, 0);
        let ones = b.constant(bytes, 1);
        let sum = b.for_(chunk.trips, &[zero], |b, i, sum| {
            let mut v = b.load(bytes, chunk.addr(&x, 1, i));
            if machine.signed_dot {
                let flip = b.constant(bytes, 0x80);
                v = b.xor(v, flip);
            }
            vec![dot(b, machine, sum[0], v, ones)]
        })[0];
        let sum = b.reduce_add(sum);
        total = b.add(total, sum);
    }
    total
}
