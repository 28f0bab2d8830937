use lowbit_ir::DType;
use lowbit_ir::ops::IntNormalize;
use lowbit_kernel::{Addr, BufId, Builder, Role, Scalar, Type, Val};

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
    let normalize = Normalize {
        op,
        n,
        dtype: storage.dtype,
        constants: [mb, sb],
        lanes: (machine.lanes / 2).max(1),
    };
    Rows::new(&[storage, result]).emit_groups(&mut b, GROUP, &mut |b, rows| {
        let at = rows.iter().map(|row| [row.addr(0, x), row.addr(1, y)]);
        normalize.rows(b, &at.collect::<Vec<_>>());
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

/// Rows at a time: roots and quotients of one are found while those of others are waited for.
const GROUP: usize = 4;

struct Normalize<'a> {
    op: &'a IntNormalize,
    /// Elements of a row.
    n: usize,
    dtype: DType,
    /// Scale and shift.
    constants: [BufId; 2],
    /// Elements at a time.
    lanes: u16,
}

impl Normalize<'_> {
    fn rows(&self, b: &mut Builder, rows: &[[Addr; 2]]) {
        let sums: Vec<[Val; 2]> = rows
            .iter()
            .map(|row| sums(b, row[0].clone(), self.n, self.dtype, self.lanes))
            .collect();
        let roots: Vec<(Val, Val)> = sums
            .iter()
            .map(|&sums| reciprocal_root(b, self.op, sums, self.n))
            .collect();
        for ((row, sums), by) in rows.iter().zip(sums).zip(roots) {
            let s1 = b.trunc(Scalar::I32, sums[0]);
            self.codes(b, row, s1, by.into());
        }
    }

    /// Every factor fits 32 bits: |n · x − Σ x| < 2^24, q ≤ 2^17, |z| ≤ 2^12 √n.
    fn codes(&self, b: &mut Builder, [x, y]: &[Addr; 2], s1: Val, [q, shift]: [Val; 2]) {
        let (op, [mb, sb]) = (self.op, self.constants);
        for chunk in chunks(self.n, self.lanes) {
            let wide = Type::I64.x(chunk.lanes);
            let [q, shift] = [q, shift].map(|v| b.splat(wide, v));
            let narrow = Type::I32.x(chunk.lanes);
            let s1 = b.splat(narrow, s1);
            let extent = b.constant(narrow, self.n as i64);
            let c = b.constant(wide, op.c.into());
            b.for_(chunk.trips, &[], |b, i, _| {
                let ty = Type {
                    scalar: scalar_of(self.dtype),
                    lanes: chunk.lanes,
                };
                let codes = b.load(ty, chunk.addr(x, self.dtype.bytes(), i));
                let codes = widen(b, codes, self.dtype);
                let scaled = b.mul(codes, extent);
                let d = b.sub(scaled, s1);
                let d = b.sext(Scalar::I64, d);
                let product = b.mul(d, q);
                let z = b.ashr(product, shift);
                let z = b.trunc(Scalar::I32, z);
                let z = b.sext(Scalar::I64, z);
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
                store_codes(b, v, op.out, chunk.addr(y, op.out.dtype.bytes(), i));
                Vec::new()
            });
        }
    }
}

fn widen_64(b: &mut Builder, v: Val, dtype: DType) -> Val {
    let v = widen(b, v, dtype);
    b.sext(Scalar::I64, v)
}

/// `Σ x` and `Σ x²` as scalars of 64 bits.
fn sums(b: &mut Builder, x: Addr, n: usize, dtype: DType, lanes: u16) -> [Val; 2] {
    match dtype {
        DType::U8 => byte_sums(b, x, n, 4 * lanes),
        _ => wide_sums(b, x, n, dtype, lanes),
    }
}

/// Of bytes, in pairs of 16 bits: both sums of at most 4096 of them fit 32.
fn byte_sums(b: &mut Builder, x: Addr, n: usize, lanes: u16) -> [Val; 2] {
    let zero = b.constant(Type::I32, 0);
    let mut total = [zero, zero];
    for chunk in chunks(n, lanes) {
        let pair = chunk.lanes >= 2;
        let zero = b.constant(Type::I32.x(chunk.lanes.div_ceil(2)), 0);
        let parts = b.for_(chunk.trips, &[zero, zero], |b, i, sums| {
            let codes = b.load(Type::I8.x(chunk.lanes), chunk.addr(&x, 1, i));
            if !pair {
                let code = b.zext(Scalar::I32, codes);
                let square = b.mul(code, code);
                return vec![b.add(sums[0], code), b.add(sums[1], square)];
            }
            let codes = b.zext(Scalar::I16, codes);
            let ones = b.constant(Type::I16.x(chunk.lanes), 1);
            vec![b.dot2(sums[0], codes, ones), b.dot2(sums[1], codes, codes)]
        });
        total = [0, 1].map(|k| {
            let part = b.reduce_add(parts[k]);
            b.add(total[k], part)
        });
    }
    total.map(|sum| b.zext(Scalar::I64, sum))
}

fn wide_sums(b: &mut Builder, x: Addr, n: usize, dtype: DType, lanes: u16) -> [Val; 2] {
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
    let q = b.sext(Scalar::I64, q);
    let one = b.constant(Type::I64, 1);
    let half_e = b.lshr(e, one);
    let most = b.constant(Type::I64, 36);
    (q, b.sub(most, half_e))
}

/// `⌊√v⌋` of an unsigned 32-bit scalar of at least 2^30: a line that is off by at most 4.2 %, and two of Newton's steps, which
/// never fall below the result and leave less than one.
fn root(b: &mut Builder, v: Val) -> Val {
    let int = |b: &mut Builder, x| b.constant(Type::I32, x);
    let (sixteen, one) = (int(b, 16), int(b, 1));
    let top = b.lshr(v, sixteen);
    // ⅔ and 0.3542 in steps of 2^-16
    let slope = int(b, 43691);
    let line = b.mul(top, slope);
    let line = b.lshr(line, sixteen);
    let start = int(b, 23210);
    let mut r = b.add(line, start);
    for _ in 0..2 {
        let quotient = b.udiv(v, r);
        let sum = b.add(r, quotient);
        r = b.lshr(sum, one);
    }
    let most = int(b, 65535);
    let r = b.umin(r, most);
    let square = b.mul(r, r);
    let less = b.sub(r, one);
    b.select_ult(v, square, less, r)
}

#[cfg(test)]
mod tests {
    use lowbit_ir::Tensor;
    use lowbit_ir::ops::Codes;

    use super::super::testing::{check, tensor};
    use super::*;

    #[test]
    fn roots_are_exact() {
        let count = 4096;
        let mut b = Builder::new("roots");
        let x = b.buffer("x", Role::In, 4 * count);
        let y = b.buffer("y", Role::Out, 4 * count);
        b.for_(count as u32, &[], |b, i, _| {
            let v = b.load(Type::I32, x.at(0).step(i, 4));
            let r = root(b, v);
            b.store(r, y.at(0).step(i, 4));
            Vec::new()
        });
        let squares = (0..count as u64 / 4).flat_map(|k| {
            let r = 32768 + k * 32767 / (count as u64 / 4 - 1);
            [r * r - u64::from(k > 0), r * r, r * r + r, r * r + 2 * r]
        });
        let v: Vec<u32> = squares.map(|v| v as u32).collect();
        let bytes = v.iter().flat_map(|v| v.to_le_bytes()).collect();
        let mut memory = [bytes, vec![0; 4 * count]];
        lowbit_kernel::run_kernel(&b.finish(), &mut memory).expect("the kernel runs");
        let found = memory[1].chunks_exact(4);
        for (v, r) in v.iter().zip(found) {
            let r = u32::from_le_bytes(r.try_into().expect("four bytes"));
            assert_eq!(u64::from(r), lowbit_num::isqrt((*v).into()), "{v}");
        }
    }

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
