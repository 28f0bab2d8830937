//! From accumulators to stored codes: what follows the sums of a convolution.

use lowbit_ir::DType;
use lowbit_ir::ops::{Codes, Epilogue, IntConv};
use lowbit_kernel::{Addr, Builder, Scalar, Type, Val};

use super::elementwise::store_codes;
use super::{Machine, Operand};

/// Constants by channel, for each vector of channels: bias, then what the epilogue needs.
pub(crate) struct Constants {
    pub(crate) bytes: Vec<u8>,
    /// Bytes of a group of channels.
    pub(crate) group: usize,
    /// Bytes of a vector of channels.
    pub(crate) vector: usize,
}

impl Constants {
    /// For groups of `channels` channels each.
    pub(crate) fn new(
        op: &IntConv,
        operands: &[Operand<'_>],
        machine: &Machine,
        channels: usize,
    ) -> Self {
        let lanes = usize::from(machine.lanes);
        let table = Table::new(op, operands, machine);
        let per_group = channels.div_ceil(lanes);
        let mut bytes = Vec::new();
        for g in 0..op.groups {
            for v in 0..per_group {
                let channel = |l: usize| {
                    let own = v * lanes + l;
                    (own < channels).then_some(g * channels + own)
                };
                table.write(&mut bytes, (0..lanes).map(channel));
            }
        }
        let vector = table.columns.len() * lanes * 4;
        Self {
            bytes,
            group: per_group * vector,
            vector,
        }
    }
}

/// The constants of a layer, a column each: bias, multiplier, shift.
pub(crate) struct Table {
    columns: Vec<(Vec<i32>, i32)>,
}

impl Table {
    pub(crate) fn new(op: &IntConv, operands: &[Operand<'_>], machine: &Machine) -> Self {
        let constant = |i: usize| operands[i].constant.expect("parameters are constant");
        let mut bias = constant(2).as_slice::<i32>().to_vec();
        if machine.signed_dot {
            // activations are read less 128
            let weights = constant(1).as_slice::<i8>();
            let per_channel = weights.len() / bias.len();
            for (b, row) in bias
                .iter_mut()
                .zip(weights.chunks_exact(per_channel.max(1)))
            {
                *b = b.wrapping_add(128 * row.iter().map(|&q| i32::from(q)).sum::<i32>());
            }
        }
        let mut columns = vec![(bias, 0)];
        if op.epilogue != Epilogue::Accumulator {
            columns.push((constant(3).as_slice::<i32>().to_vec(), 0));
        }
        if matches!(op.epilogue, Epilogue::Exact { .. }) {
            columns.push((
                constant(4)
                    .as_slice::<u8>()
                    .iter()
                    .map(|&c| c.into())
                    .collect(),
                1,
            ));
        }
        Self { columns }
    }

    /// Number of columns.
    pub(crate) fn columns(&self) -> usize {
        self.columns.len()
    }

    /// Appends each column for the channels of a vector; lanes without a channel get a harmless value.
    pub(crate) fn write(
        &self,
        bytes: &mut Vec<u8>,
        channels: impl Iterator<Item = Option<usize>> + Clone,
    ) {
        for (column, missing) in &self.columns {
            let value = |c: Option<usize>| c.map_or(*missing, |c| column[c]);
            bytes.extend(channels.clone().flat_map(|c| value(c).to_le_bytes()));
        }
    }
}

/// Writes results of a convolution.
pub(crate) struct Finish<'a> {
    pub(crate) op: &'a IntConv,
    pub(crate) constants: &'a Constants,
    pub(crate) machine: &'a Machine,
    /// Of the residual's codes.
    pub(crate) residual: Option<DType>,
}

impl Finish<'_> {
    fn column(&self, b: &mut Builder, constants: &Addr, v: usize, column: usize) -> Val {
        let lanes = self.machine.lanes;
        let at = (column * usize::from(lanes) * 4) as i64;
        b.load(Type::I32.x(lanes), self.bias_at(constants, v).plus(at))
    }

    /// Where the constants of the `v`-th vector of channels are, the first of which is the bias.
    pub(crate) fn bias_at(&self, constants: &Addr, v: usize) -> Addr {
        constants.clone().plus((v * self.constants.vector) as i64)
    }

    /// What the sums of the `v`-th vector of channels start from.
    pub(crate) fn bias(&self, b: &mut Builder, constants: &Addr, v: usize) -> Val {
        self.column(b, constants, v, 0)
    }

    /// What the codes of the `v`-th vector of channels are made with.
    pub(crate) fn factors(&self, b: &mut Builder, constants: &Addr, v: usize) -> Factors {
        let scaled = self.op.epilogue != Epilogue::Accumulator;
        let exact = matches!(self.op.epilogue, Epilogue::Exact { .. });
        Factors {
            multiplier: scaled.then(|| self.column(b, constants, v, 1)),
            shift: exact.then(|| self.column(b, constants, v, 2)),
        }
    }

    /// Codes before they are clamped, as `i32`, of a vector of sums; the residual's codes are at `r`.
    pub(crate) fn code(&self, b: &mut Builder, by: Factors, sum: Val, r: Option<&Addr>) -> Val {
        let (epilogue, fused) = (self.op.epilogue, self.machine.native_dot2);
        let r = r.zip(self.residual);
        requantized(b, (epilogue, fused), sum, by.multiplier, by.shift, r)
    }

    /// Stores one vector of channels for several pixels; `valid` lanes are channels.
    #[allow(clippy::too_many_arguments, reason = "the places of one store")]
    pub(crate) fn store(
        &self,
        b: &mut Builder,
        constants: &Addr,
        v: usize,
        sums: &[Val],
        y: &[Addr],
        r: Option<&[Addr]>,
        valid: usize,
    ) {
        let factors = self.factors(b, constants, v);
        let codes: Vec<Val> = sums
            .iter()
            .enumerate()
            .map(|(p, &sum)| self.code(b, factors, sum, r.map(|r| &r[p])))
            .collect();
        store_pixels(b, self.machine, self.op.out, &codes, y, valid);
    }
}

/// Constants of a vector of channels.
#[derive(Clone, Copy)]
pub(crate) struct Factors {
    multiplier: Option<Val>,
    shift: Option<Val>,
}

/// Stores codes of several pixels, a vector of channels each, of which `valid` lanes are channels.
pub(crate) fn store_pixels(
    b: &mut Builder,
    machine: &Machine,
    out: Codes,
    codes: &[Val],
    y: &[Addr],
    valid: usize,
) {
    if out.dtype == DType::U8 {
        return store_bytes(b, machine, out, codes, y, (1, valid));
    }
    for (&v, at) in codes.iter().zip(y) {
        if valid == usize::from(machine.lanes) {
            store_codes(b, v, out, at.clone());
        } else {
            for lane in 0..valid {
                let x = b.extract(v, lane as u16);
                let at = at.clone().plus((lane * out.dtype.bytes()) as i64);
                store_codes(b, x, out, at);
            }
        }
    }
}

/// Stores codes of several pixels as bytes, `vectors` vectors of channels each, one pixel after the other; `valid` lanes of the
/// last one are channels. Four vectors are packed at a time: the in-lane interleaving is undone by one permutation of dwords.
pub(crate) fn store_bytes(
    b: &mut Builder,
    machine: &Machine,
    out: Codes,
    codes: &[Val],
    y: &[Addr],
    (vectors, valid): (usize, usize),
) {
    let lanes = machine.lanes;
    let quarter = lanes / 4;
    let valid = (vectors - 1) * usize::from(lanes) + valid;
    for (four, y) in codes.chunks(4).zip(y.chunks(4 / vectors)) {
        let part = |i: usize| four[i.min(four.len() - 1)];
        let mut packed = b.pack4_u8([part(0), part(1), part(2), part(3)]);
        let ty = b.ty(packed);
        if out.lo > 0 {
            let lo = b.constant(ty, out.lo.into());
            packed = b.umax(packed, lo);
        }
        if out.hi < 255 {
            let hi = b.constant(ty, out.hi.into());
            packed = b.umin(packed, hi);
        }
        let dwords = b.bitcast(Type::I32.x(lanes), packed);
        let order: Vec<u16> = (0..4)
            .flat_map(|p| (0..quarter).map(move |l| l * 4 + p))
            .collect();
        let ordered = if quarter == 1 {
            dwords
        } else {
            b.shuffle(dwords, dwords, &order)
        };
        let own = vectors as u16 * quarter;
        for (p, at) in y.iter().enumerate() {
            store_pixel(b, ordered, p as u16 * own, own, at, valid);
        }
    }
}

/// Stores the bytes of `count` dwords from `first` on, or the first `valid` of them.
fn store_pixel(b: &mut Builder, dwords: Val, first: u16, count: u16, at: &Addr, valid: usize) {
    if count == 1 && valid == 4 {
        let dword = b.extract(dwords, first);
        b.store(dword, at.clone());
    } else if valid == usize::from(count) * 4 {
        let v = b.slice(dwords, first, count);
        b.store(v, at.clone());
    } else {
        let ty = b.ty(dwords);
        let bytes = b.bitcast(Type::I8.x(ty.lanes * 4), dwords);
        store_some(b, bytes, first * 4, valid, at);
    }
}

/// Stores `n` bytes of a vector from `first` on.
pub(crate) fn store_some(b: &mut Builder, bytes: Val, first: u16, n: usize, at: &Addr) {
    let (mut done, mut width) = (0, 64);
    while done < n {
        if done + width > n {
            width /= 2;
            continue;
        }
        let from = first + done as u16;
        let v = if width == 1 {
            b.extract(bytes, from)
        } else {
            b.slice(bytes, from, width as u16)
        };
        b.store(v, at.clone().plus(done as i64));
        done += width;
    }
}

/// Codes before they are clamped, as `i32`. Where `dot2` is one instruction, the residual is added by it.
pub(crate) fn requantized(
    b: &mut Builder,
    (epilogue, fused): (Epilogue, bool),
    sum: Val,
    multiplier: Option<Val>,
    shift: Option<Val>,
    r: Option<(&Addr, DType)>,
) -> Val {
    let ty = b.ty(sum);
    match (epilogue, multiplier, shift, r) {
        (Epilogue::Accumulator, ..) => sum,
        (Epilogue::High, Some(m), ..) => b.mulhi(sum, m),
        (Epilogue::Exact { zero_point }, Some(m), Some(c), _) => {
            let scaled = b.requant(sum, m, c);
            let zero = b.constant(ty, zero_point.into());
            b.add(scaled, zero)
        }
        (Epilogue::Residual { f, p, m2 }, Some(m), _, Some((r, dtype))) => {
            let t = b.mulhi(sum, m);
            let raise = b.constant(ty, (p - f).into());
            let t = b.shl(t, raise);
            let codes = match dtype {
                DType::I16 => {
                    let words = b.load(Type::I16.x(ty.lanes), r.clone());
                    b.sext(Scalar::I32, words)
                }
                _ => {
                    let bytes = b.load(Type::I8.x(ty.lanes), r.clone());
                    b.zext(Scalar::I32, bytes)
                }
            };
            let m2 = b.constant(ty, m2.into());
            let total = if fused && ty.is_vector() {
                // m2 is less than 2^15: the upper halves add nothing
                let words = Type::I16.x(2 * ty.lanes);
                let (codes, m2) = (b.bitcast(words, codes), b.bitcast(words, m2));
                b.dot2(t, codes, m2)
            } else {
                let scaled = b.mul(codes, m2);
                b.add(t, scaled)
            };
            let p = b.constant(ty, p.into());
            b.ashr(total, p)
        }
        _ => unreachable!("the epilogue's constants are loaded"),
    }
}
