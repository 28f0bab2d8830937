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
    let tables = tables(op, operands, storage.dtype);
    let mut b = Builder::new("softmax");
    let x = b.buffer("x", Role::In, storage.bytes);
    let t = b.buffer("tables", Role::Const, tables.len());
    let softmax = Softmax {
        op,
        n,
        dtype: storage.dtype,
        tables: t,
        machine,
    };
    let rows = Rows::new(&[storage, result]);
    if softmax.fits_registers() {
        let y = b.buffer("y", Role::Out, result.bytes);
        rows.emit_groups(&mut b, GROUP, &mut |b, rows| {
            let at = rows.iter().map(|row| [row.addr(0, x), row.addr(1, y)]);
            softmax.held(b, &at.collect::<Vec<_>>());
        });
        let args = vec![Arg::Operand(0), Arg::Const(tables), Arg::Result];
        return vec![Step {
            kernel: b.finish(),
            args,
        }];
    }
    let e = b.buffer("exponentials", Role::Scratch, n * EXPONENTIAL);
    let y = b.buffer("y", Role::Out, result.bytes);
    rows.emit(&mut b, |b, rows| {
        let max = softmax.maximum(b, rows.addr(0, x));
        let sum = softmax.exponentials(b, max, [rows.addr(0, x), e.at(0)]);
        let (reciprocal, shift) = reciprocal(b, sum, op.bits);
        softmax.probabilities(b, [reciprocal, shift], [e.at(0), rows.addr(1, y)]);
    });
    let args = vec![
        Arg::Operand(0),
        Arg::Const(tables),
        Arg::Scratch(0, n * EXPONENTIAL),
        Arg::Result,
    ];
    vec![Step {
        kernel: b.finish(),
        args,
    }]
}

/// Bytes of an exponential: at most 2^15.
const EXPONENTIAL: usize = 2;

/// For 8-bit operands the low bytes of the exponentials of all 256 differences, then the high ones; else both tables of the
/// definition.
fn tables(op: &IntSoftmax, operands: &[Operand<'_>], dtype: DType) -> Vec<u8> {
    let [t1, t2] = [1, 2].map(|i| {
        let table = operands[i].constant.expect("tables are constant");
        table.as_slice::<u16>()
    });
    if dtype != DType::U8 {
        return t1.iter().chain(t2).flat_map(|x| x.to_le_bytes()).collect();
    }
    let byte = |k: usize| (0..256).map(move |d| op.exponential(d, t1, t2).to_le_bytes()[k]);
    byte(0).chain(byte(1)).collect()
}

/// Rows at a time where their exponentials stay in registers.
const GROUP: usize = 5;

/// Exponentials in registers: their sum, and what they are from each element on.
struct Held {
    sum: Val,
    parts: Vec<(i64, Exponentials)>,
}

enum Exponentials {
    /// Low and high bytes of a vector.
    Bytes([Val; 2]),
    One(Val),
}

struct Softmax<'a> {
    op: &'a IntSoftmax,
    /// Elements of a row.
    n: usize,
    dtype: DType,
    tables: BufId,
    machine: &'a Machine,
}

impl Softmax<'_> {
    fn looks_up(&self) -> bool {
        self.dtype == DType::U8 && self.machine.fast_tables
    }

    /// Whether the exponentials of a row can stay in registers.
    fn fits_registers(&self) -> bool {
        self.looks_up() && self.op.bits == 8 && self.n <= 2 * self.machine.vector_bytes()
    }

    /// Rows whose exponentials stay in registers, one step of all of them after another: what a step waits for is there
    /// by the time that the next rows are through it.
    fn held(&self, b: &mut Builder, rows: &[[Addr; 2]]) {
        let max: Vec<Val> = rows.iter().map(|r| self.maximum(b, r[0].clone())).collect();
        let pairs = rows.iter().zip(max);
        let values: Vec<Held> = pairs.map(|(r, max)| self.hold(b, max, &r[0])).collect();
        let reciprocals = values
            .iter()
            .map(|held| reciprocal(b, held.sum, self.op.bits));
        let reciprocals: Vec<(Val, Val)> = reciprocals.collect();
        for ((row, held), by) in rows.iter().zip(values).zip(reciprocals) {
            for (at, exponentials) in held.parts {
                let codes = codes(b, exponentials, by.into());
                b.store(codes, row[1].clone().plus(at));
            }
        }
    }

    fn hold(&self, b: &mut Builder, max: Val, x: &Addr) -> Held {
        let mut sum = b.constant(Type::I32, 0);
        let mut parts = Vec::new();
        for chunk in chunks(self.n, self.machine.vector_bytes() as u16) {
            let lanes = if chunk.lanes >= 16 { chunk.lanes } else { 1 };
            for at in (chunk.start..chunk.end()).step_by(lanes.into()) {
                let x = x.clone().plus(at as i64);
                let part = if lanes == 1 {
                    let value = self.exponential(b, max, x);
                    sum = b.add(sum, value);
                    Exponentials::One(value)
                } else {
                    let bytes = self.bytes(b, lanes, max, x);
                    let own = sum_of(b, bytes);
                    sum = b.add(sum, own);
                    Exponentials::Bytes(bytes)
                };
                parts.push((at as i64, part));
            }
        }
        Held { sum, parts }
    }

    fn ty(&self, lanes: u16) -> Type {
        Type {
            scalar: scalar_of(self.dtype),
            lanes,
        }
    }

    /// Largest code of a row, as an `i32`.
    fn maximum(&self, b: &mut Builder, x: Addr) -> Val {
        let bytes = self.dtype.bytes();
        // bytes are compared as they are, moved to signed ones
        let narrow = self.dtype == DType::U8;
        let codes = |b: &mut Builder, lanes: u16, at: Addr| {
            let codes = b.load(self.ty(lanes), at);
            if !narrow {
                return widen(b, codes, self.dtype);
            }
            let flip = b.constant(self.ty(lanes), 0x80);
            b.xor(codes, flip)
        };
        let most = self.machine.vector_bytes() / if narrow { 1 } else { 4 };
        let mut best = None;
        for chunk in chunks(self.n, most as u16) {
            let first = codes(b, chunk.lanes, chunk.first(&x, bytes));
            let v = b.for_(chunk.trips, &[first], |b, i, v| {
                let codes = codes(b, chunk.lanes, chunk.addr(&x, bytes, i));
                vec![b.smax(v[0], codes)]
            })[0];
            let v = b.reduce_smax(v);
            best = Some(best.map_or(v, |best| b.smax(best, v)));
        }
        let best = best.expect("a row has elements");
        if !narrow {
            return best;
        }
        let flip = b.constant(Type::I8, 0x80);
        let best = b.xor(best, flip);
        b.zext(Scalar::I32, best)
    }

    /// Writes the exponential of every element and returns their sum.
    fn exponentials(&self, b: &mut Builder, max: Val, [x, e]: [Addr; 2]) -> Val {
        let mut total = b.constant(Type::I32, 0);
        let vectors = self.looks_up();
        let most = if vectors {
            self.machine.vector_bytes()
        } else {
            1
        };
        for chunk in chunks(self.n, most as u16) {
            let each = |a: &Addr, bytes: usize, i| chunk.addr(a, bytes, i);
            if vectors && chunk.lanes >= 16 {
                let ty = Type::I32.x(chunk.lanes / 4);
                let zero = b.constant(ty, 0);
                let sums = b.for_(chunk.trips, &[zero, zero], |b, i, sums| {
                    let at = [each(&x, 1, i), each(&e, EXPONENTIAL, i)];
                    self.looked_up(b, chunk.lanes, max, at, sums)
                });
                let eight = b.constant(ty, 8);
                let high = b.shl(sums[1], eight);
                let sum = b.add(sums[0], high);
                let sum = b.reduce_add(sum);
                total = b.add(total, sum);
                continue;
            }
            total = b.for_(chunk.trips, &[total], |b, i, sum| {
                let mut sum = sum[0];
                for lane in 0..i64::from(chunk.lanes) {
                    let bytes = self.dtype.bytes();
                    let x = each(&x, bytes, i).plus(lane * bytes as i64);
                    let e = each(&e, EXPONENTIAL, i).plus(lane * EXPONENTIAL as i64);
                    let value = self.exponential(b, max, x);
                    sum = b.add(sum, value);
                    let value = b.trunc(Scalar::I16, value);
                    b.store(value, e);
                }
                vec![sum]
            })[0];
        }
        total
    }

    /// Exponentials of a vector of bytes; adds their low and their high bytes to sums of groups of four.
    fn looked_up(
        &self,
        b: &mut Builder,
        lanes: u16,
        max: Val,
        [x, e]: [Addr; 2],
        sums: &[Val],
    ) -> Vec<Val> {
        let parts = self.bytes(b, lanes, max, x);
        let order: Vec<u16> = (0..lanes).flat_map(|k| [k, lanes + k]).collect();
        let values = b.shuffle(parts[0], parts[1], &order);
        b.store(values, e);
        let ones = b.constant(Type::I8.x(lanes), 1);
        let sum = |(&sum, part): (&Val, Val)| b.dot4(sum, part, ones);
        sums.iter().zip(parts).map(sum).collect()
    }

    /// Low and high bytes of the exponentials of a vector of bytes.
    fn bytes(&self, b: &mut Builder, lanes: u16, max: Val, x: Addr) -> [Val; 2] {
        let ty = Type::I8.x(lanes);
        let codes = b.load(ty, x);
        let max = b.trunc(Scalar::I8, max);
        let max = b.splat(ty, max);
        let d = b.sub(max, codes);
        [0, 256].map(|at| b.lut256(d, self.tables.at(at)))
    }

    /// The exponential of one element, as an `i32`.
    fn exponential(&self, b: &mut Builder, max: Val, x: Addr) -> Val {
        let code = b.load(self.ty(1), x);
        let code = widen(b, code, self.dtype);
        let d = b.sub(max, code);
        if self.dtype != DType::U8 {
            return wide_exponential(b, self.op, d, self.tables);
        }
        let [low, high] = [0, 256].map(|at| {
            let byte = b.load(Type::I8, self.tables.at(at).indexed(d, 1));
            b.zext(Scalar::I32, byte)
        });
        let eight = b.constant(Type::I32, 8);
        let high = b.shl(high, eight);
        b.or(low, high)
    }

    fn probabilities(&self, b: &mut Builder, by: [Val; 2], [e, y]: [Addr; 2]) {
        let bits = self.op.bits;
        for chunk in chunks(self.n, self.machine.lanes) {
            let top = b.constant(Type::I32.x(chunk.lanes), (1 << bits) - 1);
            let scalar = if bits == 8 { Scalar::I8 } else { Scalar::I16 };
            b.for_(chunk.trips, &[], |b, i, _| {
                let v = b.load(Type::I16.x(chunk.lanes), chunk.addr(&e, EXPONENTIAL, i));
                let v = b.zext(Scalar::I32, v);
                let v = divided(b, v, by);
                let v = b.umin(v, top);
                let v = b.trunc(scalar, v);
                b.store(v, chunk.addr(&y, usize::from(bits / 8), i));
                Vec::new()
            });
        }
    }
}

/// Exponentials times the reciprocal of their sum, rounded; they may reach 2^bits.
fn divided(b: &mut Builder, v: Val, [reciprocal, shift]: [Val; 2]) -> Val {
    let ty = b.ty(v);
    let [reciprocal, shift] = [reciprocal, shift].map(|v| b.splat(ty, v));
    let one = b.constant(ty, 1);
    let v = b.mul(v, reciprocal);
    let v = b.lshr(v, shift);
    let v = b.add(v, one);
    b.lshr(v, one)
}

/// Exponentials over their sum, as bytes.
fn codes(b: &mut Builder, exponentials: Exponentials, by: [Val; 2]) -> Val {
    match exponentials {
        Exponentials::Bytes(bytes) => {
            let parts = widened(b, bytes).map(|v| divided(b, v, by));
            b.pack4_u8(parts)
        }
        Exponentials::One(value) => {
            let value = divided(b, value, by);
            let top = b.constant(Type::I32, 255);
            let value = b.umin(value, top);
            b.trunc(Scalar::I8, value)
        }
    }
}

/// The sum of numbers whose low and high bytes these are.
fn sum_of(b: &mut Builder, bytes: [Val; 2]) -> Val {
    let lanes = b.ty(bytes[0]).lanes;
    let zero = b.constant(Type::I32.x(lanes / 4), 0);
    let ones = b.constant(Type::I8.x(lanes), 1);
    let eight = b.constant(Type::I32.x(lanes / 4), 8);
    let [low, high] = bytes.map(|part| b.dot4(zero, part, ones));
    let high = b.shl(high, eight);
    let sums = b.add(low, high);
    b.reduce_add(sums)
}

/// Low and high bytes as numbers of 32 bits, in the order that [`Builder::pack4_u8`] takes back to that of the bytes.
fn widened(b: &mut Builder, [low, high]: [Val; 2]) -> [Val; 4] {
    let lanes = b.ty(low).lanes;
    let zero = b.constant(Type::I16.x(lanes / 2), 0);
    let words = interleaved(b, low, high).map(|v| b.bitcast(Type::I16.x(lanes / 2), v));
    let [first, second] = words.map(|v| interleaved(b, v, zero));
    let dwords = [first[0], first[1], second[0], second[1]];
    dwords.map(|v| b.bitcast(Type::I32.x(lanes / 4), v))
}

/// The first halves of all 128-bit lanes, `p` and `q` in turn, and the second ones.
fn interleaved(b: &mut Builder, p: Val, q: Val) -> [Val; 2] {
    let ty = b.ty(p);
    let own = 16 / ty.scalar.bytes() as u16;
    [0, own / 2].map(|half| {
        let groups = (0..ty.lanes).step_by(own.into());
        let pairs = groups.flat_map(|g| g + half..g + half + own / 2);
        let order: Vec<u16> = pairs.flat_map(|k| [k, ty.lanes + k]).collect();
        b.shuffle(p, q, &order)
    })
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
