//! Products of two activations: the right operand is packed to vectors of columns, then rows are summed as those of a
//! convolution are.
//!
//! With `a' = a − ca` and `b' = b − 128`, what the dot product takes, and `da = ca − za`, `db = 128 − zb`:
//! `Σ (a − za)(b − zb) = Σ a'·b' + da·Σ b' + db·Σ a' + K·da·db`. Sums of a column and of a row start the accumulators.

use lowbit_ir::ops::IntMatMul;
use lowbit_kernel::{Addr, BufId, Builder, Role, Type, Val};

use super::epilogue::store_pixels;
use super::matmul_pack::{Panel, row_sum, row_sums};
use super::tile::{self, Dot, Part, Shape};
use super::view::View;
use super::{Arg, Machine, Operand, Step, Storage, rescale, slack_buffer};

pub(crate) fn lower(
    op: &IntMatMul,
    operands: &[Operand<'_>],
    result: &Storage,
    machine: &Machine,
) -> Vec<Step> {
    let views = [View::of(operands[0].storage), View::of(operands[1].storage)];
    let rank = result.shape.len();
    let (m, n) = (result.shape[rank - 2], result.shape[rank - 1]);
    let k = *views[0].shape.last().expect("a matrix has two axes");
    let signed = machine.signed_dot;
    let ca = if signed { 128 } else { 0 };
    let panel = Panel { machine, n, k };
    let product = MatMul {
        op,
        machine,
        result,
        panel,
        shape: tile::choose([1, m], n, panel.groups(), machine, Dot::of(machine)),
        m,
        offsets: [
            ca - i32::from(op.zero_points[0]),
            128 - i32::from(op.zero_points[1]),
        ],
        views: &views,
    };
    let mut b = Builder::new("matmul");
    let inputs = [0, 1].map(|i| {
        b.declare(slack_buffer(
            &format!("x{i}"),
            Role::In,
            operands[i].storage,
        ))
    });
    let rows = if product.offsets[1] == 0 { 0 } else { m * 4 };
    let scratch = [panel.bytes(), panel.sums_bytes(), rows];
    let names = ["panel", "columns", "rows"];
    let spaces = [0, 1, 2].map(|i| b.buffer(names[i], Role::Scratch, scratch[i]));
    let y = b.buffer("y", Role::Out, result.bytes);
    let start = [
        inputs[0].at(views[0].offset as i64),
        inputs[1].at(views[1].offset as i64),
        y.at(result.offset as i64),
    ];
    product.batches(&mut b, 0, start, spaces);
    let mut args = vec![Arg::Operand(0), Arg::Operand(1)];
    args.extend((0..3).map(|i| Arg::Scratch(i, scratch[i])));
    args.push(Arg::Result);
    vec![Step {
        kernel: b.finish(),
        args,
    }]
}

struct MatMul<'a> {
    op: &'a IntMatMul,
    machine: &'a Machine,
    views: &'a [View; 2],
    result: &'a Storage,
    panel: Panel<'a>,
    shape: Shape,
    /// Rows.
    m: usize,
    /// `da` and `db`.
    offsets: [i32; 2],
}

/// Where a tile starts, and how many of its columns are there.
struct Tile {
    x: Addr,
    panel: Addr,
    columns: Addr,
    rows: Addr,
    y: Addr,
    /// Rows and vectors.
    size: [usize; 2],
    /// Lanes of the last vector that are columns.
    last: usize,
}

impl MatMul<'_> {
    /// Loops over the axes in front of the matrices.
    fn batches(&self, b: &mut Builder, axis: usize, at: [Addr; 3], spaces: [BufId; 3]) {
        let rank = self.result.shape.len();
        if axis == rank - 2 {
            return self.matrix(b, at, spaces);
        }
        b.for_(self.result.shape[axis] as u32, &[], |b, i, _| {
            let [x0, x1, y] = at;
            let stride = |v: &View| v.broadcast_stride(axis, rank) as i64;
            let next = [
                x0.step(i, stride(&self.views[0])),
                x1.step(i, stride(&self.views[1])),
                y.step(i, self.result.strides[axis] as i64),
            ];
            self.batches(b, axis + 1, next, spaces);
            Vec::new()
        });
    }

    fn matrix(&self, b: &mut Builder, [x0, x1, y]: [Addr; 3], spaces: [BufId; 3]) {
        let [panel, columns, rows] = spaces.map(|s| s.at(0));
        let right = &self.views[1];
        let strides = [right.shape.len() - 2, right.shape.len() - 1].map(|a| right.strides[a]);
        self.panel.pack(b, &x1, strides.map(|s| s as i64), &panel);
        let [da, db] = self.offsets;
        self.panel.sums(b, [&panel, &columns], [da, db]);
        if db != 0 {
            self.row_sums(b, &x0, &rows);
        }
        let lanes = usize::from(self.machine.lanes);
        let bytes = self.op.out.dtype.bytes();
        let vectors = self.panel.vectors();
        let tail = self.panel.n % lanes;
        let (row, step) = (self.row_stride(), self.panel.vector_bytes() as i64);
        for part in tile::parts(vectors, self.shape.vectors) {
            let cut = tail > 0 && part.first + part.size * part.count == vectors;
            let whole = part.count - usize::from(cut);
            let blocks = [(part.first, whole, lanes)].into_iter();
            let last = (part.first + part.size * whole, usize::from(cut), tail);
            for (first, trips, last) in blocks.chain([last]).filter(|x| x.1 > 0) {
                b.for_(trips as u32, &[], |b, j, _| {
                    let block = |a: &Addr, one: i64| {
                        a.clone()
                            .plus(first as i64 * one)
                            .step(j, part.size as i64 * one)
                    };
                    for rows_part in tile::parts(self.m, self.shape.columns) {
                        self.rows(
                            b,
                            rows_part,
                            row,
                            Tile {
                                x: x0.clone(),
                                panel: block(&panel, step),
                                columns: block(&columns, lanes as i64 * 4),
                                rows: rows.clone(),
                                y: block(&y, (lanes * bytes) as i64),
                                size: [rows_part.size, part.size],
                                last,
                            },
                        );
                    }
                    Vec::new()
                });
            }
        }
    }

    fn row_stride(&self) -> [i64; 2] {
        let left = &self.views[0];
        let rank = self.result.shape.len();
        [
            left.strides[left.shape.len() - 2] as i64,
            self.result.strides[rank - 2] as i64,
        ]
    }

    fn rows(&self, b: &mut Builder, part: Part, stride: [i64; 2], t: Tile) {
        b.for_(part.count as u32, &[], |b, i, _| {
            let along = |a: Addr, one: i64| {
                a.plus(part.first as i64 * one)
                    .step(i, part.size as i64 * one)
            };
            let t = Tile {
                x: along(t.x, stride[0]),
                y: along(t.y, stride[1]),
                rows: along(t.rows, 4),
                ..t
            };
            self.tile(b, &t, stride);
            Vec::new()
        });
    }

    fn tile(&self, b: &mut Builder, t: &Tile, stride: [i64; 2]) {
        let [rows, vectors] = t.size;
        let lanes = usize::from(self.machine.lanes);
        let width = self.machine.vector_bytes();
        let ty = Type::I32.x(self.machine.lanes);
        let columns: Vec<Val> = (0..vectors)
            .map(|v| b.load(ty, t.columns.clone().plus((v * lanes * 4) as i64)))
            .collect();
        let mut sums = Vec::with_capacity(rows * vectors);
        for r in 0..rows {
            if self.offsets[1] == 0 {
                sums.extend(&columns);
                continue;
            }
            let row = b.load_splat(ty, t.rows.clone().plus(r as i64 * 4));
            sums.extend(columns.iter().map(|&c| b.add(c, row)));
        }
        let flip = (self.machine.signed_dot).then(|| b.constant(Type::I8.x(width as u16), 0x80));
        let sums = b.for_(self.panel.groups() as u32, &sums, |b, g, sums| {
            let weights: Vec<Val> = (0..vectors)
                .map(|v| {
                    let at = (v * self.panel.vector_bytes()) as i64;
                    let at = t.panel.clone().plus(at).step(g, width as i64);
                    b.load(Type::I8.x(width as u16), at)
                })
                .collect();
            let mut next = Vec::with_capacity(sums.len());
            for (r, sums) in sums.chunks_exact(vectors).enumerate() {
                let at = t.x.clone().plus(r as i64 * stride[0]).step(g, 4);
                let mut a = b.load_dword_splat(width as u16, at);
                if let Some(flip) = flip {
                    a = b.xor(a, flip);
                }
                next.extend(sums.iter().zip(&weights).map(|(&sum, &w)| match flip {
                    Some(_) => b.dot4s(sum, a, w),
                    None => b.dot4(sum, a, w),
                }));
            }
            next
        });
        for v in 0..vectors {
            let codes: Vec<Val> = (0..rows)
                .map(|r| rescale::codes(b, sums[r * vectors + v], self.op.rescale))
                .collect();
            let y: Vec<Addr> = (0..rows)
                .map(|r| {
                    let first = (v * lanes * self.op.out.dtype.bytes()) as i64;
                    t.y.clone().plus(first + r as i64 * stride[1])
                })
                .collect();
            let valid = if v + 1 == vectors { t.last } else { lanes };
            store_pixels(b, self.machine, self.op.out, &codes, &y, valid);
        }
    }

    /// Writes `db · Σ a'` of every row.
    fn row_sums(&self, b: &mut Builder, x: &Addr, rows: &Addr) {
        let (stride, k) = (self.row_stride()[0], self.panel.k);
        let store = |b: &mut Builder, ty: Type, sums: Val, at: Addr| {
            let factor = b.constant(ty, self.offsets[1].into());
            let product = b.mul(sums, factor);
            b.store(product, at);
        };
        let fours = if k < 16 { 0 } else { self.m / 4 };
        if fours > 0 {
            b.for_(fours as u32, &[], |b, i, _| {
                let x = x.clone().step(i, 4 * stride);
                let sums = row_sums(b, self.machine, k, &x, stride);
                store(b, Type::I32.x(4), sums, rows.clone().step(i, 16));
                Vec::new()
            });
        }
        let (first, rest) = (4 * fours as i64, self.m - 4 * fours);
        if rest > 0 {
            b.for_(rest as u32, &[], |b, i, _| {
                let x = x.clone().plus(first * stride).step(i, stride);
                let sum = row_sum(b, self.machine, k, x);
                store(b, Type::I32, sum, rows.clone().plus(4 * first).step(i, 4));
                Vec::new()
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use lowbit_ir::ops::{Codes, Operation, Rescale};
    use lowbit_ir::{DType, Op};

    use super::super::testing::{check, check_stored, machines, tensor};
    use super::*;

    /// Axes in the order of `order` in memory, the last of them `gap` bytes apart.
    fn stored(shape: &[usize], order: [usize; 3], gap: usize) -> Storage {
        let mut strides = vec![0; 3];
        let mut stride = gap;
        for &axis in order.iter().rev() {
            strides[axis] = stride;
            stride *= shape[axis];
        }
        Storage {
            strides,
            offset: 5,
            bytes: 5 + stride,
            slack: 4,
            ..Storage::dense(DType::U8, shape)
        }
    }

    #[test]
    fn operands_lie_anywhere() {
        let rescale = Rescale::Exact {
            m: 1 << 30,
            c: 40,
            zero_point: 100,
        };
        let product = IntMatMul {
            zero_points: [3, 130],
            rescale,
            out: Codes::U8,
        };
        let op = Op::from(product.clone());
        for (k, n) in [(6, 21), (32, 16), (65, 3)] {
            let (a, b) = (
                tensor(DType::U8, &[3, 5, k], 1),
                tensor(DType::U8, &[3, n, k], 2),
            );
            let expected = product.eval(&[&a, &b]).expect("shapes fit");
            let result = Storage::dense(DType::U8, expected.shape());
            for (order, gap) in [
                ([0, 1, 2], 1),
                ([1, 0, 2], 1),
                ([0, 2, 1], 1),
                ([2, 0, 1], 2),
            ] {
                let left = stored(a.shape(), [1, 0, 2], 1);
                let storages = [left, stored(b.shape(), order, gap)];
                for machine in machines() {
                    check_stored(&op, &[&a, &b], &storages, (&result, &expected), &machine);
                }
            }
        }
    }

    #[test]
    fn equals_the_definition() {
        let rescale = Rescale::Exact {
            m: 1 << 30,
            c: 40,
            zero_point: 100,
        };
        for (zero_points, out) in [
            ([3, 130], Codes::U8),
            ([0, 128], Codes::I16),
            ([255, 0], Codes::I32),
        ] {
            let op = IntMatMul {
                zero_points,
                rescale,
                out,
            };
            for (k, n) in [(1, 7), (3, 16), (32, 33), (65, 18), (107, 1)] {
                let a = tensor(DType::U8, &[2, 3, 5, k], 1);
                let each = [vec![2, 3, n, k], vec![3, n, k]];
                for shape in each {
                    check(&op.clone().into(), &[&a, &tensor(DType::U8, &shape, 2)]);
                }
            }
        }
    }
}
