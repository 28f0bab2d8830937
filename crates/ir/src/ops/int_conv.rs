use lowbit_num::{Dyadic, Format, SumShift, add_residual, high_product, requantize};
use serde::{Deserialize, Serialize};

use super::int_rescale::{Codes, codes_of};
use super::scalar::vectorized;
use super::{OpError, Operation, arity, format_name};
use crate::{DType, Stage, Tensor, Type};

/// Convolution of codes with everything that follows it up to the next stored tensor.
///
/// `acc[o] = Σ x · w`, where taps outside the tensor read `pad_code`; then what [`Epilogue`] says. Operands: x `u8`
/// `[N, H, W, C]`, weights `i8` `[O, KH, KW, C / groups]`, b `i32` `[O]`, and those of the epilogue. The zero-point of x
/// is folded into b. A matrix product with constant weights is one with `KH = KW = 1`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct IntConv {
    /// Step along height and width, at least 1.
    pub stride: [usize; 2],
    /// Distance of taps along height and width, at least 1.
    pub dilation: [usize; 2],
    /// Rows and columns before and after, for height and width.
    pub pad: [[usize; 2]; 2],
    /// Channel groups.
    pub groups: usize,
    /// What taps outside the tensor read: the zero-point of x.
    pub pad_code: u8,
    /// The format that the weights are stored in; all of them are its codes.
    #[serde(with = "format_name")]
    pub weights: Format,
    /// What becomes of the accumulator.
    pub epilogue: Epilogue,
    /// The codes of the result.
    pub out: Codes,
}

/// What becomes of an accumulator of [`IntConv`]. All results are limited to the codes of the operation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Epilogue {
    /// `acc + b`.
    Accumulator,
    /// [`lowbit_num::requantize_hi`]; operand m `i32` `[O]`.
    High,
    /// [`lowbit_num::requantize`] of `acc + b`; operands m `i32` `[O]` and c `u8` `[O]`.
    Exact {
        /// The code of zero.
        zero_point: i32,
    },
    /// [`add_residual`]; operands m `i32` `[O]` and r `u8` or `i16` of the result's shape.
    Residual {
        /// Fraction bits of the convolution's term.
        f: u8,
        /// Fraction bits of the sum.
        p: u8,
        /// Multiplier of the residual.
        m2: i32,
    },
}

impl IntConv {
    /// Height and width of the result for an operand of height and width `size` and a kernel `kernel`.
    pub fn output_size(&self, size: [usize; 2], kernel: [usize; 2]) -> Option<[usize; 2]> {
        let extent = |i: usize| {
            let padded = size[i]
                .checked_add(self.pad[i][0])?
                .checked_add(self.pad[i][1])?;
            let reach = self.dilation[i]
                .checked_mul(kernel[i].checked_sub(1)?)?
                .checked_add(1)?;
            Some(padded.checked_sub(reach)? / self.stride[i].max(1) + 1)
        };
        Some([extent(0)?, extent(1)?])
    }

    fn check_weights(&self, w: &Tensor) -> Result<(), OpError> {
        let odd = |&&q: &&i8| !self.weights.admits(q.into());
        match w.as_slice::<i8>().iter().find(odd) {
            None => Ok(()),
            Some(q) => Err(OpError::Value(format!(
                "weight {q} is no code of {}",
                self.weights
            ))),
        }
    }

    fn check_epilogue(&self, inputs: &[&Type], result: &[usize]) -> Result<(), OpError> {
        let channels = &result[3..];
        let vector = |i: usize, dtype: DType| {
            let ok = inputs[i].dtype == dtype && inputs[i].shape == channels;
            ok.then_some(()).ok_or_else(|| {
                OpError::shape(format!(
                    "operand {i} is {}, expected {dtype}{channels:?}",
                    inputs[i]
                ))
            })
        };
        vector(2, DType::I32)?;
        match self.epilogue {
            Epilogue::Accumulator => arity(inputs, 3..=3, "3"),
            Epilogue::High => arity(inputs, 4..=4, "4").and_then(|()| vector(3, DType::I32)),
            Epilogue::Exact { .. } => {
                arity(inputs, 5..=5, "5")?;
                vector(3, DType::I32)?;
                vector(4, DType::U8)
            }
            Epilogue::Residual { .. } => {
                arity(inputs, 5..=5, "5")?;
                vector(3, DType::I32)?;
                let codes = matches!(inputs[4].dtype, DType::U8 | DType::I16);
                let fits = codes && inputs[4].shape == result;
                fits.then_some(()).ok_or_else(|| {
                    OpError::shape(format!(
                        "the residual is {}, expected u8{result:?} or i16{result:?}",
                        inputs[4]
                    ))
                })
            }
        }
    }
}

impl Operation for IntConv {
    const NAME: &'static str = "int_conv";
    const STAGES: &'static [Stage] = &[Stage::Integer];

    fn infer(&self, inputs: &[&Type]) -> Result<Type, OpError> {
        arity(inputs, 3..=5, "3 to 5")?;
        self.out.check()?;
        for (operand, dtype, expected) in [(0, DType::U8, "u8"), (1, DType::I8, "i8")] {
            if inputs[operand].dtype != dtype {
                return Err(OpError::DType {
                    operand,
                    expected,
                    found: inputs[operand].dtype,
                });
            }
        }
        let (&[n, h, w, c], &[o, kh, kw, cg]) = (&inputs[0].shape[..], &inputs[1].shape[..]) else {
            return Err(OpError::shape(format!(
                "expected four axes each, found {} and {}",
                inputs[0], inputs[1]
            )));
        };
        if self.groups == 0 || cg * self.groups != c || o % self.groups != 0 {
            return Err(OpError::shape(format!(
                "{c} channels in, {o} out and {cg} a group do not fit {} groups",
                self.groups
            )));
        }
        let [oh, ow] = self
            .output_size([h, w], [kh, kw])
            .ok_or_else(|| OpError::shape(format!("a {kh}×{kw} kernel does not fit {h}×{w}")))?;
        let shape = vec![n, oh, ow, o];
        self.check_epilogue(inputs, &shape)?;
        Ok(Type::new(self.out.dtype, shape))
    }

    fn eval(&self, inputs: &[&Tensor]) -> Result<Tensor, OpError> {
        let types: Vec<Type> = inputs.iter().map(|t| t.ty()).collect();
        let ty = self.infer(&types.iter().collect::<Vec<_>>())?;
        self.check_weights(inputs[1])?;
        let mut acc = self.accumulate(inputs[0], inputs[1], &ty.shape);
        self.finish(inputs, &mut acc);
        Ok(self.out.tensor(&ty.shape, acc))
    }
}

impl IntConv {
    /// `Σ x · w` for every element of the result, before b is added. Shapes as in the operation.
    ///
    /// # Panics
    /// When an operand is not of the documented type.
    pub fn accumulate(&self, x: &Tensor, w: &Tensor, result: &[usize]) -> Vec<i32> {
        let (codes, weights) = (x.as_slice::<u8>(), w.as_slice::<i8>());
        let (&[_, height, width, c], &[_, kh, kw, cg]) = (x.shape(), w.shape()) else {
            unreachable!("infer has checked the ranks");
        };
        let (oh, ow, o) = (result[1], result[2], result[3]);
        let is_depthwise = cg == 1 && o == c;
        let mut wide: Vec<i16> = weights.iter().map(|&q| q.into()).collect();
        if is_depthwise {
            let of = |i: usize| i16::from(weights[i % o * kh * kw + i / o]);
            wide = (0..wide.len()).map(of).collect();
        }
        let mut acc = vec![0; result.iter().product()];
        let k = kh * kw * c;
        let together = if is_depthwise { 1 } else { PATCHES };
        let mut patches = vec![0i16; together * k];
        for (i, out) in acc.chunks_mut(together * o).enumerate() {
            let patches = &mut patches[..out.len() / o * k];
            for (j, patch) in patches.chunks_exact_mut(k).enumerate() {
                let pixel = i * together + j;
                let (n, y, x) = (pixel / (oh * ow), pixel / ow % oh, pixel % ow);
                let image = &codes[n * height * width * c..][..height * width * c];
                self.gather([height, width, c], [kh, kw], image, [y, x], patch);
            }
            if is_depthwise {
                vectorized(
                    #[inline(always)]
                    || depthwise(patches, &wide, out),
                );
            } else if self.groups == 1 {
                dot_products(patches, &wide, k, out);
            } else {
                self.grouped(patches, &wide, [kh * kw, c, cg], out);
            }
        }
        acc
    }

    /// Shows what each position of the result reads to `visit`: the codes of all taps, all channels of a tap together.
    ///
    /// # Panics
    /// When x is not of the documented type, or `kernel` does not fit it.
    pub fn each_patch(&self, x: &Tensor, kernel: [usize; 2], mut visit: impl FnMut(&[i16])) {
        let &[n, height, width, c] = x.shape() else {
            panic!("x has four axes")
        };
        let [oh, ow] = self
            .output_size([height, width], kernel)
            .expect("infer has checked it");
        let mut patch = vec![0i16; kernel[0] * kernel[1] * c];
        let (codes, size) = (x.as_slice::<u8>(), [height, width, c]);
        for p in 0..n * oh * ow {
            let image = &codes[p / (oh * ow) * height * width * c..];
            self.gather(size, kernel, image, [p / ow % oh, p % ow], &mut patch);
            visit(&patch);
        }
    }

    fn gather(
        &self,
        x: [usize; 3],
        k: [usize; 2],
        codes: &[u8],
        at: [usize; 2],
        patch: &mut [i16],
    ) {
        let [height, width, c] = x;
        for ky in 0..k[0] {
            let y = (at[0] * self.stride[0] + ky * self.dilation[0]).checked_sub(self.pad[0][0]);
            for kx in 0..k[1] {
                let x =
                    (at[1] * self.stride[1] + kx * self.dilation[1]).checked_sub(self.pad[1][0]);
                let tap = &mut patch[(ky * k[1] + kx) * c..][..c];
                match (y, x) {
                    (Some(y), Some(x)) if y < height && x < width => {
                        let source = &codes[(y * width + x) * c..][..c];
                        tap.iter_mut().zip(source).for_each(|(t, &s)| *t = s.into());
                    }
                    _ => tap.fill(self.pad_code.into()),
                }
            }
        }
    }

    fn grouped(
        &self,
        patches: &[i16],
        weights: &[i16],
        [taps, c, cg]: [usize; 3],
        out: &mut [i32],
    ) {
        let (k, pixels) = (taps * cg, patches.len() / (taps * c));
        let (o, own) = (out.len() / pixels, weights.len() / self.groups);
        let mut rows = vec![0i16; pixels * k];
        let mut sums = vec![0i32; pixels * o / self.groups];
        for g in 0..self.groups {
            for (to, from) in rows.chunks_exact_mut(cg).zip(patches.chunks_exact(c)) {
                to.copy_from_slice(&from[g * cg..][..cg]);
            }
            dot_products(&rows, &weights[g * own..][..own], k, &mut sums);
            let per_group = o / self.groups;
            for (to, from) in out.chunks_exact_mut(o).zip(sums.chunks_exact(per_group)) {
                to[g * per_group..][..per_group].copy_from_slice(from);
            }
        }
    }

    /// Turns accumulators into codes in place; operands as in the operation.
    ///
    /// # Panics
    /// When an operand is not of the documented type.
    pub fn finish(&self, inputs: &[&Tensor], acc: &mut [i32]) {
        let b = inputs[2].as_slice::<i32>();
        let (lo, hi, o) = (self.out.lo, self.out.hi, b.len());
        match self.epilogue {
            Epilogue::Accumulator => {
                acc.iter_mut()
                    .enumerate()
                    .for_each(|(i, a)| *a = (*a + b[i % o]).clamp(lo, hi));
            }
            Epilogue::High => {
                let m = inputs[3].as_slice::<i32>();
                for row in acc.chunks_exact_mut(o) {
                    for ((a, &b), &m) in row.iter_mut().zip(b).zip(m) {
                        *a = high_product(*a + b, m).clamp(lo, hi);
                    }
                }
            }
            Epilogue::Exact { zero_point } => {
                let (m, c) = (inputs[3].as_slice::<i32>(), inputs[4].as_slice::<u8>());
                let scales: Vec<Dyadic> = m
                    .iter()
                    .zip(c)
                    .map(|(&m, &c)| Dyadic::new(m, c).expect("multipliers are dyadic numbers"))
                    .collect();
                for (i, a) in acc.iter_mut().enumerate() {
                    *a = requantize((*a + b[i % o]).into(), scales[i % o], zero_point, lo, hi);
                }
            }
            Epilogue::Residual { f, p, m2 } => {
                let (m, r) = (inputs[3].as_slice::<i32>(), codes_of(inputs[4]));
                let sum = SumShift { f, p, m2 };
                for (i, (a, r)) in acc.iter_mut().zip(r).enumerate() {
                    let t = high_product(*a + b[i % o], m[i % o]);
                    *a = add_residual(t, r, sum, lo, hi);
                }
            }
        }
    }
}

/// Patches that are multiplied in one pass over the weights.
const PATCHES: usize = 8;
/// Rows of weights whose sums are in registers together, for two rows of the other operand.
const TOGETHER: usize = 4;

/// `out[i, j] = Σ rows[i] · weights[j]` with rows `[N, k]`, weights `[O, k]` and out `[N, O]`; the sums must fit 32 bits.
pub fn dot_products(rows: &[i16], weights: &[i16], k: usize, out: &mut [i32]) {
    vectorized(Products {
        rows,
        weights,
        k,
        out,
    });
}

struct Products<'a> {
    rows: &'a [i16],
    weights: &'a [i16],
    k: usize,
    out: &'a mut [i32],
}

impl pulp::NullaryFnOnce for Products<'_> {
    type Output = ();

    // what is not inlined is not compiled for the widest vectors
    #[inline(always)]
    fn call(self) {
        let Self {
            rows,
            weights,
            k,
            out,
        } = self;
        let (k, o) = (k.max(1), weights.len() / k.max(1));
        let of = |i: usize| &rows[i * k..][..k];
        let n = rows.len() / k;
        for (at, four) in weights.chunks(TOGETHER * k).enumerate() {
            let columns = at * TOGETHER..o.min((at + 1) * TOGETHER);
            // a block that is not full multiplies its last row again
            let last = columns.len() - 1;
            let w: [&[i16]; TOGETHER] = std::array::from_fn(|j| &four[j.min(last) * k..][..k]);
            for i in (0..n).step_by(2) {
                let pair = [i, (i + 1).min(n - 1)];
                for (i, sums) in pair.into_iter().zip(two_by_four(pair.map(of), w)) {
                    out[i * o..][columns.clone()].copy_from_slice(&sums[..columns.len()]);
                }
            }
        }
    }
}

#[inline(always)]
fn two_by_four([x, y]: [&[i16]; 2], [a, b, c, d]: [&[i16]; TOGETHER]) -> [[i32; TOGETHER]; 2] {
    let mut sums = [[0i32; TOGETHER]; 2];
    let rows = x.iter().zip(y);
    for (((((&x, &y), &a), &b), &c), &d) in rows.zip(a).zip(b).zip(c).zip(d) {
        for (sums, x) in sums.iter_mut().zip([x, y]) {
            for (sum, w) in sums.iter_mut().zip([a, b, c, d]) {
                *sum += i32::from(x) * i32::from(w);
            }
        }
    }
    sums
}

/// Products channel by channel; weights by tap.
#[inline(always)]
fn depthwise(patch: &[i16], weights: &[i16], out: &mut [i32]) {
    let channels = out.len();
    out.fill(0);
    let taps = patch
        .chunks_exact(channels)
        .zip(weights.chunks_exact(channels));
    for (tap, w) in taps {
        for ((acc, &x), &w) in out.iter_mut().zip(tap).zip(w) {
            *acc += i32::from(x) * i32::from(w);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conv(groups: usize, epilogue: Epilogue, out: Codes) -> IntConv {
        IntConv {
            stride: [2, 1],
            dilation: [1, 2],
            pad: [[1, 0], [2, 1]],
            groups,
            pad_code: 3,
            weights: Format::Int8,
            epilogue,
            out,
        }
    }

    fn operands(groups: usize) -> (Tensor, Tensor, Tensor) {
        let x = (0..2 * 5 * 6 * 4).map(|i| (i * 37 % 251) as u8).collect();
        let w = (0..8 * 3 * 2 * (4 / groups))
            .map(|i| ((i * 53 % 255) as i16 - 127) as i8)
            .collect();
        let b = (0..8).map(|i| i * 100 - 300).collect::<Vec<i32>>();
        (
            Tensor::new([2, 5, 6, 4], x),
            Tensor::new([8, 3, 2, 4 / groups], w),
            Tensor::new([8], b),
        )
    }

    fn naive(op: &IntConv, x: &Tensor, w: &Tensor, b: &Tensor, at: [usize; 4]) -> i32 {
        let (codes, weights) = (x.as_slice::<u8>(), w.as_slice::<i8>());
        let cg = w.shape()[3];
        let group = at[3] / (8 / op.groups);
        let mut acc = b.as_slice::<i32>()[at[3]];
        for (ky, kx, ci) in
            (0..3).flat_map(|a| (0..2).flat_map(move |b| (0..cg).map(move |c| (a, b, c))))
        {
            let y = (at[1] * 2 + ky) as isize - 1;
            let column = (at[2] + kx * 2) as isize - 2;
            let inside = (0..5).contains(&y) && (0..6).contains(&column);
            let code = if inside {
                codes[((at[0] * 5 + y as usize) * 6 + column as usize) * 4 + group * cg + ci]
            } else {
                3
            };
            acc += i32::from(code) * i32::from(weights[((at[3] * 3 + ky) * 2 + kx) * cg + ci]);
        }
        acc
    }

    #[test]
    fn accumulators_equal_the_direct_sum() {
        for groups in [1, 2, 4] {
            let (x, w, b) = operands(groups);
            let op = conv(groups, Epilogue::Accumulator, Codes::I32);
            let y = op.eval(&[&x, &w, &b]).unwrap();
            let &[n, oh, ow, o] = y.shape() else {
                panic!("four axes")
            };
            for i in 0..y.len() {
                let at = [i / (oh * ow * o), i / (ow * o) % oh, i / o % ow, i % o];
                assert!(at[0] < n);
                assert_eq!(
                    y.as_slice::<i32>()[i],
                    naive(&op, &x, &w, &b, at),
                    "{groups} {at:?}"
                );
            }
        }
    }

    #[test]
    fn weights_are_codes_of_their_format() {
        let (x, w, b) = operands(1);
        for &format in Format::ALL {
            let weights = format;
            let op = IntConv {
                weights,
                ..conv(1, Epilogue::Accumulator, Codes::I32)
            };
            let all: Vec<i8> = format.codes().map(|c| c as i8).collect();
            let codes = (0..w.len()).map(|i| all[i % all.len()]).collect();
            let good = Tensor::new(w.shape(), codes);
            assert!(op.eval(&[&x, &good, &b]).is_ok(), "{format}");
            assert_eq!(op.eval(&[&x, &w, &b]).is_ok(), format == Format::Int8);
        }
    }

    #[test]
    fn epilogues_agree_within_a_step() {
        let (x, w, b) = operands(1);
        let scale = 0.001_7;
        let d = lowbit_num::real::dyadic(scale).unwrap();
        let exact = conv(1, Epilogue::Exact { zero_point: 128 }, Codes::U8);
        let m = Tensor::new([8], vec![d.m(); 8]);
        let c = Tensor::new([8], vec![d.c(); 8]);
        let a = exact.eval(&[&x, &w, &b, &m, &c]).unwrap();
        let high = conv(1, Epilogue::High, Codes::U8);
        let fold = lowbit_num::real::round_i64(128.5 / scale) as i32;
        let b2 = Tensor::new([8], b.as_slice::<i32>().iter().map(|b| b + fold).collect());
        let m2 = Tensor::new([8], vec![lowbit_num::real::fixed32(scale).unwrap(); 8]);
        let h = high.eval(&[&x, &w, &b2, &m2]).unwrap();
        let pairs = a.as_slice::<u8>().iter().zip(h.as_slice::<u8>());
        assert!(pairs.clone().all(|(a, h)| a.abs_diff(*h) <= 1));
        assert!(a.as_slice::<u8>().iter().any(|&a| a > 0 && a < 255));
    }
}
