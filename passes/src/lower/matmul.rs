use lowbit_ir::ops::IntMatMul;
use lowbit_kernel::{Addr, Builder, Role, Scalar, Type, Val};

use super::rows::chunks;
use super::view::View;
use super::{Arg, Machine, Operand, Step, Storage, rescale};

/// Columns that share the load of a row.
const COLUMNS: usize = 4;

pub(crate) fn lower(
    op: &IntMatMul,
    operands: &[Operand<'_>],
    result: &Storage,
    machine: &Machine,
) -> Vec<Step> {
    let mut b = Builder::new("matmul");
    let inputs = [0, 1].map(|i| b.buffer(format!("x{i}"), Role::In, operands[i].storage.bytes));
    let y = b.buffer("y", Role::Out, result.bytes);
    let views = [View::of(operands[0].storage), View::of(operands[1].storage)];
    let rank = result.shape.len();
    let addresses = Addresses {
        op,
        machine,
        k: *views[0].shape.last().expect("a matrix has two axes"),
    };
    let start = [
        inputs[0].at(views[0].offset as i64),
        inputs[1].at(views[1].offset as i64),
        y.at(result.offset as i64),
    ];
    addresses.batches(&mut b, &views, result, 0, rank - 2, start);
    vec![Step {
        kernel: b.finish(),
        args: vec![Arg::Operand(0), Arg::Operand(1), Arg::Result],
    }]
}

struct Addresses<'a> {
    op: &'a IntMatMul,
    machine: &'a Machine,
    k: usize,
}

impl Addresses<'_> {
    /// Loops over the axes in front of the matrices.
    fn batches(
        &self,
        b: &mut Builder,
        views: &[View; 2],
        result: &Storage,
        axis: usize,
        end: usize,
        at: [Addr; 3],
    ) {
        if axis == end {
            return self.matrix(b, views, result, at);
        }
        b.for_(result.shape[axis] as u32, &[], |b, i, _| {
            let [x0, x1, y] = at;
            let stride = |v: &View| v.broadcast_stride(axis, result.shape.len()) as i64;
            let next = [
                x0.step(i, stride(&views[0])),
                x1.step(i, stride(&views[1])),
                y.step(i, result.strides[axis] as i64),
            ];
            self.batches(b, views, result, axis + 1, end, next);
            Vec::new()
        });
    }

    fn matrix(&self, b: &mut Builder, views: &[View; 2], result: &Storage, at: [Addr; 3]) {
        let rank = result.shape.len();
        let (m, n) = (result.shape[rank - 2], result.shape[rank - 1]);
        let row = |v: &View| v.strides[v.shape.len() - 2] as i64;
        let [x0, x1, y] = at;
        b.for_(m as u32, &[], |b, i, _| {
            let (x0, y) = (
                x0.step(i, row(&views[0])),
                y.step(i, result.strides[rank - 2] as i64),
            );
            let (full, rest) = (n / COLUMNS, n % COLUMNS);
            let blocks = [(0, full, COLUMNS), (full * COLUMNS, rest, 1)];
            for (first, trips, columns) in blocks.into_iter().filter(|b| b.1 > 0) {
                b.for_(trips as u32, &[], |b, j, _| {
                    let stride = (row(&views[1]), result.strides[rank - 1] as i64);
                    let x1 = x1
                        .clone()
                        .plus(first as i64 * stride.0)
                        .step(j, columns as i64 * stride.0);
                    let y = y
                        .clone()
                        .plus(first as i64 * stride.1)
                        .step(j, columns as i64 * stride.1);
                    self.block(b, &x0, (&x1, stride.0), (&y, stride.1), columns);
                    Vec::new()
                });
            }
            Vec::new()
        });
    }

    /// One row against `columns` rows of the other operand.
    fn block(&self, b: &mut Builder, x0: &Addr, x1: (&Addr, i64), y: (&Addr, i64), columns: usize) {
        let zero = b.constant(Type::I32, 0);
        let mut totals = vec![zero; columns];
        for chunk in chunks(self.k, self.machine.lanes * 2) {
            let pair = chunk.lanes >= 2;
            let lanes = if pair { chunk.lanes / 2 } else { 1 };
            let zero = b.constant(Type::I32.x(lanes), 0);
            let sums = b.for_(chunk.trips, &vec![zero; columns], |b, i, sums| {
                let a = self.centred(b, chunk.addr(x0, 1, i), chunk.lanes, 0);
                (0..columns)
                    .map(|c| {
                        let at = chunk.addr(&x1.0.clone().plus(c as i64 * x1.1), 1, i);
                        let w = self.centred(b, at, chunk.lanes, 1);
                        if pair {
                            b.dot2(sums[c], a, w)
                        } else {
                            let [a, w] = [a, w].map(|v| b.sext(Scalar::I32, v));
                            let product = b.mul(a, w);
                            b.add(sums[c], product)
                        }
                    })
                    .collect()
            });
            for (total, sum) in totals.iter_mut().zip(sums) {
                let sum = b.reduce_add(sum);
                *total = b.add(*total, sum);
            }
        }
        for (c, &total) in totals.iter().enumerate() {
            let at = y.0.clone().plus(c as i64 * y.1);
            rescale::store(b, total, self.op.rescale, self.op.out, at);
        }
    }

    /// Codes less their zero-point, as 16 bits.
    fn centred(&self, b: &mut Builder, at: Addr, lanes: u16, operand: usize) -> Val {
        let v = b.load(Type::I8.x(lanes), at);
        let v = b.zext(Scalar::I16, v);
        let ty = b.ty(v);
        let zero = b.constant(ty, self.op.zero_points[operand].into());
        b.sub(v, zero)
    }
}

#[cfg(test)]
mod tests {
    use lowbit_ir::DType;
    use lowbit_ir::ops::{Codes, Rescale};

    use super::super::testing::{check, tensor};
    use super::*;

    #[test]
    fn equals_the_definition() {
        let rescale = Rescale::Exact {
            m: 1 << 30,
            c: 40,
            zero_point: 100,
        };
        let op = IntMatMul {
            zero_points: [3, 130],
            rescale,
            out: Codes::U8,
        };
        for k in [1, 3, 32, 65, 107] {
            let a = tensor(DType::U8, &[2, 3, 5, k], 1);
            check(
                &op.clone().into(),
                &[&a, &tensor(DType::U8, &[2, 3, 7, k], 2)],
            );
            check(&op.clone().into(), &[&a, &tensor(DType::U8, &[3, 4, k], 3)]);
        }
    }
}
