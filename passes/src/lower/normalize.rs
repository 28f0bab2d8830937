use lowbit_ir::DType;
use lowbit_ir::ops::IntNormalize;
use lowbit_kernel::{Addr, Builder, Role, Scalar, Type, Val};

use super::elementwise::{scalar_of, store_codes, widen};
use super::rows::{Rows, chunks};
use super::{Arg, Machine, Operand, Step, Storage};

pub(crate) fn lower(
    op: &IntNormalize,
    operands: &[Operand<'_>],
    result: &Storage,
    machine: &Machine,
) -> Vec<Step> {
    let storage = operands[0].storage;
    let n = *storage.shape.last().expect("normalisation has a last axis");
    let [m, shift] = [1, 2].map(|i| operands[i].constant.expect("scale and shift are constant"));
    let m: Vec<u8> = m
        .as_slice::<i32>()
        .iter()
        .flat_map(|x| x.to_le_bytes())
        .collect();
    let shift: Vec<u8> = shift
        .as_slice::<i64>()
        .iter()
        .flat_map(|x| x.to_le_bytes())
        .collect();
    let mut b = Builder::new("normalize");
    let x = b.buffer("x", Role::In, storage.bytes);
    let mb = b.buffer("m", Role::Const, m.len());
    let sb = b.buffer("b", Role::Const, shift.len());
    let y = b.buffer("y", Role::Out, result.bytes);
    let lanes = (machine.lanes / 2).max(1);
    Rows::new(&[storage, result]).emit(&mut b, |b, row| {
        let sums = sums(b, row.addr(0, x), n, storage.dtype, lanes);
        let (q, shift) = reciprocal_root(b, op, sums, n);
        for chunk in chunks(n, lanes) {
            let wide = Type::I64.x(chunk.lanes);
            let [s1, q, shift] = [sums[0], q, shift].map(|v| b.splat(wide, v));
            let extent = b.constant(wide, n as i64);
            let c = b.constant(wide, op.c.into());
            b.for_(chunk.trips, &[], |b, i, _| {
                let codes = b.load(
                    Type {
                        scalar: scalar_of(storage.dtype),
                        lanes: chunk.lanes,
                    },
                    chunk.addr(&row.addr(0, x), storage.dtype.bytes(), i),
                );
                let codes = widen_64(b, codes, storage.dtype);
                let scaled = b.mul(codes, extent);
                let d = b.sub(scaled, s1);
                let product = b.mul(d, q);
                let z = b.ashr(product, shift);
                let m = b.load(Type::I32.x(chunk.lanes), chunk.addr(&mb.at(0), 4, i));
                let m = b.sext(Scalar::I64, m);
                let bias = b.load(wide, chunk.addr(&sb.at(0), 8, i));
                let product = b.mul(z, m);
                let sum = b.add(product, bias);
                let v = b.ashr(sum, c);
                let [lo, hi] = [op.out.lo, op.out.hi].map(|k| b.constant(wide, k.into()));
                let v = b.smax(v, lo);
                let v = b.smin(v, hi);
                let v = b.trunc(Scalar::I32, v);
                store_codes(
                    b,
                    v,
                    op.out,
                    chunk.addr(&row.addr(1, y), op.out.dtype.bytes(), i),
                );
                Vec::new()
            });
        }
    });
    vec![Step {
        kernel: b.finish(),
        args: vec![
            Arg::Operand(0),
            Arg::Const(m),
            Arg::Const(shift),
            Arg::Result,
        ],
    }]
}

fn widen_64(b: &mut Builder, v: Val, dtype: DType) -> Val {
    let v = widen(b, v, dtype);
    b.sext(Scalar::I64, v)
}

/// `Σ x` and `Σ x²` as scalars of 64 bits.
fn sums(b: &mut Builder, x: Addr, n: usize, dtype: DType, lanes: u16) -> [Val; 2] {
    let zero = b.constant(Type::I64, 0);
    let mut total = [zero, zero];
    for chunk in chunks(n, lanes) {
        let zero = b.constant(Type::I64.x(chunk.lanes), 0);
        let ty = Type {
            scalar: scalar_of(dtype),
            lanes: chunk.lanes,
        };
        let parts = b.for_(chunk.trips, &[zero, zero], |b, i, sums| {
            let codes = b.load(ty, chunk.addr(&x, dtype.bytes(), i));
            let codes = widen_64(b, codes, dtype);
            let square = b.mul(codes, codes);
            vec![b.add(sums[0], codes), b.add(sums[1], square)]
        });
        total = [0, 1].map(|k| {
            let part = b.reduce_add(parts[k]);
            b.add(total[k], part)
        });
    }
    total
}

/// `q` and the shift of the definition, as scalars of 64 bits.
fn reciprocal_root(b: &mut Builder, op: &IntNormalize, [s1, s2]: [Val; 2], n: usize) -> (Val, Val) {
    let extent = b.constant(Type::I64, n as i64);
    let epsilon = b.constant(Type::I64, op.epsilon as i64);
    let scaled = b.mul(s2, extent);
    let square = b.mul(s1, s1);
    let variance = b.sub(scaled, square);
    let v = b.add(variance, epsilon);
    let zeros = b.clz(v);
    let even = b.constant(Type::I64, !1);
    let e = b.and(zeros, even);
    let raised = b.shl(v, e);
    let half = b.constant(Type::I64, 32);
    let top = b.lshr(raised, half);
    let top = b.trunc(Scalar::I32, top);
    let root = root(b, top);
    let all = b.constant(Type::I32, -1);
    let q = b.udiv(all, root);
    let q = b.zext(Scalar::I64, q);
    let one = b.constant(Type::I64, 1);
    let half_e = b.lshr(e, one);
    let most = b.constant(Type::I64, 36);
    (q, b.sub(most, half_e))
}

/// `⌊√v⌋` of an unsigned 32-bit scalar, bit by bit.
fn root(b: &mut Builder, v: Val) -> Val {
    let mut r = b.constant(Type::I32, 0);
    for bit in (0..16).rev() {
        let one = b.constant(Type::I32, 1 << bit);
        let trial = b.or(r, one);
        let square = b.mul(trial, trial);
        r = b.select_ult(v, square, r, trial);
    }
    r
}

#[cfg(test)]
mod tests {
    use lowbit_ir::Tensor;
    use lowbit_ir::ops::Codes;

    use super::super::testing::{check, tensor};
    use super::*;

    #[test]
    fn equals_the_definition() {
        for (dtype, n) in [
            (DType::U8, 1),
            (DType::U8, 128),
            (DType::U8, 37),
            (DType::I16, 45),
        ] {
            let m = Tensor::new([n], (0..n as i32).map(|i| (i - 9) * 4000).collect());
            let shift = Tensor::new([n], (0..n as i64).map(|i| (i + 100) << 22).collect());
            for out in [Codes::U8, Codes::I16] {
                let op = IntNormalize {
                    epsilon: 3,
                    c: 22,
                    out,
                };
                check(
                    &op.into(),
                    &[&tensor(dtype, &[2, 5, n], n as u64), &m, &shift],
                );
            }
        }
    }
}
