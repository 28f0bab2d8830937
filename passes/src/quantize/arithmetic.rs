use lowbit_ir::ops::{Binary, BinaryFn, Codes, IntProduct, IntSum};
use lowbit_ir::{Node, Op};
use lowbit_num::real;

use super::fuse::{Group, positive_factor};
use super::params::rescale;
use super::{Affine, Builder, Coded, Stop, clamped, problem};

/// Numerators of a sum have this many bits, so that two products of 8-bit codes fit 32 bits.
const NUMERATOR_BITS: i32 = 21;
/// The same for codes of residual streams of 16 bits.
const STREAM_BITS: i32 = 14;

impl Builder<'_> {
    /// A sum or difference of two stored tensors.
    pub(crate) fn sum(&mut self, group: Group) -> Result<Coded, Stop> {
        let node = self.float.node(group.root);
        let Op::Binary(op) = &node.op else {
            unreachable!("the root of the group is a sum")
        };
        let sign = if op.0 == BinaryFn::Sub { -1.0 } else { 1.0 };
        let (a, b) = (self.stored(node.inputs[0])?, self.stored(node.inputs[1])?);
        let affine = self.result_affine(group.output);
        self.weighted_sum(group, [(a, 1.0), (b, sign)], affine)
    }

    pub(crate) fn add_stored(
        &mut self,
        group: Group,
        a: Coded,
        b: Coded,
        affine: Affine,
    ) -> Result<Coded, Stop> {
        self.weighted_sum(group, [(a, 1.0), (b, 1.0)], affine)
    }

    fn weighted_sum(
        &mut self,
        group: Group,
        terms: [(Coded, f64); 2],
        affine: Affine,
    ) -> Result<Coded, Stop> {
        let op = sum_of(&terms, affine, clamped(&affine, group.lo, group.hi))?;
        self.emit(group.output, op, &terms.map(|(t, _)| t.id), affine)
    }

    /// The same values in other codes.
    pub(crate) fn recode(&mut self, from: Coded, to: Affine) -> Result<Coded, Stop> {
        if from.affine == to {
            return Ok(from);
        }
        let op = sum_of(&[(from, 1.0)], to, to.codes())?;
        let name = self.out.value(from.id).name.clone();
        let id = self.out.push_quantized(name, op, &[from.id], to.quant())?;
        Ok(Coded { id, affine: to })
    }

    /// A product with one positive number, which costs nothing, or of two tensors.
    pub(crate) fn multiply(&mut self, node: &Node, f: BinaryFn) -> Result<Coded, Stop> {
        if let Some((v, factor)) = positive_factor(self.float, node) {
            let x = self.operand(v)?;
            let affine = x.affine.scaled(factor);
            let quant = self.out.intern(affine.quant());
            let name = self.float.value(node.output).name.clone();
            let same = lowbit_ir::ops::Reshape {
                shape: self.float.shape(v).to_vec(),
            };
            let id = self.out.push(name, same, &[x.id])?;
            self.out.set_quant(id, Some(quant));
            return Ok(Coded { id, affine });
        }
        if f == BinaryFn::Div {
            return problem(
                "a quotient of two tensors has no integer form; divide by a constant, or multiply by its reciprocal",
            );
        }
        let (a, b) = (self.operand(node.inputs[0])?, self.operand(node.inputs[1])?);
        self.product(node, a, b)
    }

    fn product(&mut self, node: &Node, a: Coded, b: Coded) -> Result<Coded, Stop> {
        if a.affine.is_wide() || b.affine.is_wide() {
            return problem(
                "an operand has 16 bits because it is given out; only 8-bit tensors can be multiplied",
            );
        }
        let affine = self.result_affine(node.output);
        let ratio = a.affine.scale * b.affine.scale / affine.scale;
        let rescale = rescale(ratio, affine.zero_point, 65025.0).map_err(Stop::Problem)?;
        let op = IntProduct {
            zero_points: [a, b].map(|t| t.affine.zero_point as u8),
            rescale,
            out: affine.codes(),
        };
        self.emit(node.output, op, &[a.id, b.id], affine)
    }

    /// The larger or smaller of two tensors: both in the codes of the result, then compared.
    pub(crate) fn extremum(&mut self, node: &Node) -> Result<Coded, Stop> {
        let Op::Binary(op) = &node.op else {
            unreachable!("an extremum is a binary operation")
        };
        let affine = self.narrow_affine(node.output, 8);
        let mut ids = Vec::new();
        for &v in &node.inputs {
            let x = self.operand(v)?;
            ids.push(self.recode(x, affine)?.id);
        }
        self.emit(node.output, Binary(op.0), &ids, affine)
    }
}

fn sum_of(terms: &[(Coded, f64)], y: Affine, out: Codes) -> Result<IntSum, Stop> {
    let ratios: Vec<f64> = terms
        .iter()
        .map(|(t, sign)| sign * t.affine.scale / y.scale)
        .collect();
    let largest = ratios.iter().fold(0.0f64, |a, r| a.max(r.abs()));
    let all = || terms.iter().map(|(t, _)| t.affine).chain([y]);
    let bits = if all().any(|a| a.is_wide() && !a.is_stream()) {
        30
    } else if all().any(|a| a.is_stream()) {
        STREAM_BITS
    } else {
        NUMERATOR_BITS
    };
    let Some(c) = (1..=46)
        .rev()
        .find(|&c| largest * real::power_of_two(c) < real::power_of_two(bits))
    else {
        return problem(format!(
            "its operands' scales exceed the result's {largest:.3e} times"
        ));
    };
    let m: Vec<i32> = ratios
        .iter()
        .map(|r| real::round_i64(r * real::power_of_two(c)) as i32)
        .collect();
    let zero: i64 = terms
        .iter()
        .zip(&m)
        .map(|((t, _), &m)| i64::from(t.affine.zero_point) * i64::from(m))
        .sum();
    let k = (i64::from(y.zero_point) << c) + (1i64 << (c - 1)) - zero;
    Ok(IntSum {
        m,
        k,
        c: c as u8,
        out,
    })
}
