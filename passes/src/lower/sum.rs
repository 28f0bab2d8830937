use lowbit_ir::DType;
use lowbit_ir::ops::{Codes, IntSum};
use lowbit_kernel::{Builder, Role, Scalar, Val};

use super::elementwise::{Nest, store_codes};
use super::view::View;
use super::{Arg, Machine, Operand, Step, Storage};

pub(crate) fn lower(
    op: &IntSum,
    operands: &[Operand<'_>],
    result: &Storage,
    machine: &Machine,
) -> Vec<Step> {
    let mut b = Builder::new("sum");
    let inputs: Vec<_> = (0..operands.len())
        .map(|i| b.buffer(format!("x{i}"), Role::In, operands[i].storage.bytes))
        .collect();
    let y = b.buffer("y", Role::Out, result.bytes);
    let views: Vec<View> = operands.iter().map(|o| View::of(o.storage)).collect();
    let narrow = fits_32_bits(op, operands);
    let lanes = if narrow {
        machine.lanes
    } else {
        machine.lanes / 2
    };
    Nest::new(&View::of(result), &views).emit(&mut b, lanes, |b, at| {
        let codes: Vec<Val> = inputs
            .iter()
            .enumerate()
            .map(|(i, &x)| at.load_wide(b, i + 1, x))
            .collect();
        let total = if narrow {
            sum_32(b, op, &codes)
        } else {
            sum_64(b, op, &codes)
        };
        store_codes(b, total, op.out, at.addr(0, y));
    });
    let args = (0..operands.len())
        .map(Arg::Operand)
        .chain([Arg::Result])
        .collect();
    vec![Step {
        kernel: b.finish(),
        args,
    }]
}

fn sum_32(b: &mut Builder, op: &IntSum, codes: &[Val]) -> Val {
    let ty = b.ty(codes[0]);
    let mut total = b.constant(ty, op.k);
    for (&x, &m) in codes.iter().zip(&op.m) {
        let m = b.constant(ty, m.into());
        let product = b.mul(x, m);
        total = b.add(total, product);
    }
    let shift = b.constant(ty, op.c.into());
    b.ashr(total, shift)
}

/// In 64 bits, clamped there: only then do the codes fit `i32`.
fn sum_64(b: &mut Builder, op: &IntSum, codes: &[Val]) -> Val {
    let ty = b.ty(codes[0]).with(Scalar::I64);
    let mut total = b.constant(ty, op.k);
    for (&x, &m) in codes.iter().zip(&op.m) {
        let m = b.constant(ty, m.into());
        let x = b.sext(Scalar::I64, x);
        let product = b.mul(x, m);
        total = b.add(total, product);
    }
    let shift = b.constant(ty, op.c.into());
    let total = b.ashr(total, shift);
    let Codes { lo, hi, .. } = op.out;
    let [lo, hi] = [lo, hi].map(|x| b.constant(ty, x.into()));
    let total = b.smax(total, lo);
    let total = b.smin(total, hi);
    b.trunc(Scalar::I32, total)
}

/// Whether no partial sum can leave 32 bits, whatever the codes.
fn fits_32_bits(op: &IntSum, operands: &[Operand<'_>]) -> bool {
    if op.c > 31 {
        return false;
    }
    let (mut lo, mut hi) = (op.k, op.k);
    let mut inside = i32::try_from(op.k).is_ok();
    for (x, &m) in operands.iter().zip(&op.m) {
        let (first, last) = code_range(x.storage.dtype);
        let ends = [first * i64::from(m), last * i64::from(m)];
        lo += ends[0].min(ends[1]);
        hi += ends[0].max(ends[1]);
        let products = ends.iter().all(|&p| i32::try_from(p).is_ok());
        inside &= products && i32::try_from(lo).is_ok() && i32::try_from(hi).is_ok();
    }
    inside
}

fn code_range(dtype: DType) -> (i64, i64) {
    let (lo, hi) = dtype.integer_range().expect("codes are integers");
    (lo as i64, hi as i64)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check, tensor};
    use super::*;

    #[test]
    fn equals_the_definition() {
        let narrow = IntSum {
            m: vec![1 << 20, -(1 << 19)],
            k: 7 << 20,
            c: 20,
            out: Codes::U8,
        };
        let x = tensor(DType::U8, &[2, 5, 7, 13], 1);
        check(
            &narrow.clone().into(),
            &[&x, &tensor(DType::U8, &[2, 5, 7, 13], 2)],
        );
        check(&narrow.clone().into(), &[&x, &tensor(DType::U8, &[13], 3)]);
        check(
            &narrow.clone().into(),
            &[&x, &tensor(DType::U8, &[5, 1, 1], 4)],
        );
        let wide = IntSum {
            m: vec![1 << 29, 1 << 20],
            k: 1 << 33,
            c: 34,
            out: Codes {
                lo: -9,
                ..Codes::I16
            },
        };
        check(
            &wide.into(),
            &[
                &tensor(DType::I16, &[3, 37], 5),
                &tensor(DType::U8, &[37], 6),
            ],
        );
        let one = IntSum {
            m: vec![1 << 20],
            k: 1 << 19,
            c: 20,
            out: Codes {
                hi: 200,
                ..Codes::U8
            },
        };
        check(&one.into(), &[&tensor(DType::U8, &[1], 7)]);
    }
}
