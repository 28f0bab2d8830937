use lowbit_ir::DType;
use lowbit_ir::ops::IntSoftmax;
use lowbit_kernel::{Addr, BufId, Builder, Role, Scalar, Type, Val};

use super::elementwise::{scalar_of, widen};
use super::rows::{Rows, chunks};
use super::{Arg, Machine, Operand, Step, Storage};

pub(crate) fn lower(
    op: &IntSoftmax,
    operands: &[Operand<'_>],
    result: &Storage,
    machine: &Machine,
) -> Vec<Step> {
    let storage = operands[0].storage;
    let n = *storage.shape.last().expect("softmax has a last axis");
    let tables = Tables::new(op, operands, storage.dtype);
    let mut b = Builder::new("softmax");
    let x = b.buffer("x", Role::In, storage.bytes);
    let t = b.buffer("tables", Role::Const, tables.bytes.len());
    let e = b.buffer("exponentials", Role::Scratch, n * 4);
    let y = b.buffer("y", Role::Out, result.bytes);
    Rows::new(&[storage, result]).emit(&mut b, |b, rows| {
        let max = maximum(b, rows.addr(0, x), n, storage.dtype, machine);
        let sum = exponentials(b, op, max, [rows.addr(0, x), e.at(0)], n, storage.dtype, t);
        let (reciprocal, shift) = reciprocal(b, sum, op.bits);
        probabilities(
            b,
            op.bits,
            [reciprocal, shift],
            [e.at(0), rows.addr(1, y)],
            n,
            machine,
        );
    });
    let args = vec![
        Arg::Operand(0),
        Arg::Const(tables.bytes),
        Arg::Scratch(0, n * 4),
        Arg::Result,
    ];
    vec![Step {
        kernel: b.finish(),
        args,
    }]
}

/// For 8-bit operands the exponentials of all 256 differences; else both tables of the definition.
struct Tables {
    bytes: Vec<u8>,
}

impl Tables {
    fn new(op: &IntSoftmax, operands: &[Operand<'_>], dtype: DType) -> Self {
        let [t1, t2] = [1, 2].map(|i| {
            operands[i]
                .constant
                .expect("tables are constant")
                .as_slice::<u16>()
        });
        let bytes = if dtype == DType::U8 {
            (0..256)
                .flat_map(|d| op.exponential(d, t1, t2).to_le_bytes())
                .collect()
        } else {
            t1.iter().chain(t2).flat_map(|x| x.to_le_bytes()).collect()
        };
        Self { bytes }
    }
}

fn maximum(b: &mut Builder, x: Addr, n: usize, dtype: DType, machine: &Machine) -> Val {
    let mut best = None;
    for chunk in chunks(n, machine.lanes) {
        let ty = Type {
            scalar: scalar_of(dtype),
            lanes: chunk.lanes,
        };
        let first = b.load(ty, chunk.first(&x, dtype.bytes()));
        let first = widen(b, first, dtype);
        let v = b.for_(chunk.trips, &[first], |b, i, v| {
            let codes = b.load(ty, chunk.addr(&x, dtype.bytes(), i));
            let codes = widen(b, codes, dtype);
            vec![b.smax(v[0], codes)]
        })[0];
        let v = b.reduce_smax(v);
        best = Some(best.map_or(v, |best| b.smax(best, v)));
    }
    best.expect("a row has elements")
}

/// Writes the exponential of every element and returns their sum.
fn exponentials(
    b: &mut Builder,
    op: &IntSoftmax,
    max: Val,
    [x, e]: [Addr; 2],
    n: usize,
    dtype: DType,
    tables: BufId,
) -> Val {
    let zero = b.constant(Type::I32, 0);
    b.for_(n as u32, &[zero], |b, i, sum| {
        let code = b.load(
            Type {
                scalar: scalar_of(dtype),
                lanes: 1,
            },
            x.step(i, dtype.bytes() as i64),
        );
        let code = widen(b, code, dtype);
        let d = b.sub(max, code);
        let value = if dtype == DType::U8 {
            b.load(Type::I32, tables.at(0).indexed(d, 4))
        } else {
            wide_exponential(b, op, d, tables)
        };
        b.store(value, e.step(i, 4));
        vec![b.add(sum[0], value)]
    })[0]
}

fn wide_exponential(b: &mut Builder, op: &IntSoftmax, d: Val, tables: BufId) -> Val {
    let d = b.zext(Scalar::I64, d);
    let m = b.constant(Type::I64, op.m.into());
    let c = b.constant(Type::I64, op.c.into());
    let top = b.constant(Type::I64, 65535);
    let product = b.mul(d, m);
    let u = b.lshr(product, c);
    let u = b.umin(u, top);
    let u = b.trunc(Scalar::I32, u);
    let eight = b.constant(Type::I32, 8);
    let mask = b.constant(Type::I32, 255);
    let (high, low) = (b.lshr(u, eight), b.and(u, mask));
    let [high, low] = [(high, 0), (low, 512)].map(|(index, at)| {
        let entry = b.load(Type::I16, tables.at(at).indexed(index, 2));
        b.zext(Scalar::I32, entry)
    });
    let product = b.mul(high, low);
    let fifteen = b.constant(Type::I32, 15);
    b.lshr(product, fifteen)
}

/// `R` and `h − 1` of the definition.
fn reciprocal(b: &mut Builder, sum: Val, bits: u8) -> (Val, Val) {
    let zeros = b.clz(sum);
    let shifted = b.shl(sum, zeros);
    let sixteen = b.constant(Type::I32, 16);
    let divisor = b.lshr(shifted, sixteen);
    let all = b.constant(Type::I32, -1);
    let reciprocal = b.udiv(all, divisor);
    let from = b.constant(Type::I32, 48 - i64::from(bits));
    let h = b.sub(from, zeros);
    let most = b.constant(Type::I32, 32);
    let h = b.smin(h, most);
    let one = b.constant(Type::I32, 1);
    (reciprocal, b.sub(h, one))
}

fn probabilities(
    b: &mut Builder,
    bits: u8,
    [reciprocal, shift]: [Val; 2],
    [e, y]: [Addr; 2],
    n: usize,
    machine: &Machine,
) {
    for chunk in chunks(n, machine.lanes) {
        let ty = Type::I32.x(chunk.lanes);
        let [reciprocal, shift] = [reciprocal, shift].map(|v| b.splat(ty, v));
        let one = b.constant(ty, 1);
        let top = b.constant(ty, (1 << bits) - 1);
        let scalar = if bits == 8 { Scalar::I8 } else { Scalar::I16 };
        b.for_(chunk.trips, &[], |b, i, _| {
            let v = b.load(ty, chunk.addr(&e, 4, i));
            let v = b.mul(v, reciprocal);
            let v = b.lshr(v, shift);
            let v = b.add(v, one);
            let v = b.lshr(v, one);
            let v = b.umin(v, top);
            let v = b.trunc(scalar, v);
            b.store(v, chunk.addr(&y, usize::from(bits / 8), i));
            Vec::new()
        });
    }
}

#[cfg(test)]
mod tests {
    use lowbit_ir::Tensor;

    use super::super::testing::{check, tensor};
    use super::*;

    #[test]
    fn equals_the_definition() {
        let table = |step: f64| {
            let entry = |i: i32| (libm::exp(-f64::from(i) / step) * 32768.0 + 0.5) as u16;
            Tensor::new([256], (0..256).map(entry).collect())
        };
        let (t1, t2) = (table(16.0), table(4096.0));
        for (dtype, scale) in [(DType::U8, 0.05), (DType::I16, 0.0004), (DType::I32, 1e-8)] {
            let d = lowbit_num::real::dyadic(scale * 4096.0).unwrap();
            for bits in [8, 16] {
                let op = IntSoftmax {
                    m: d.m(),
                    c: d.c(),
                    bits,
                };
                for n in [1, 2, 10, 65, 131] {
                    check(
                        &op.clone().into(),
                        &[&tensor(dtype, &[3, 2, n], n as u64), &t1, &t2],
                    );
                }
            }
        }
    }
}
