use lowbit_ir::ops::{Conv, Epilogue, IntConv};
use lowbit_ir::{Node, Op, Tensor, ValueId};
use lowbit_num::{Format, real};

use super::fit::Rounding;
use super::fuse::Group;
use super::{Affine, Builder, Coded, Layer, Stop, clamped, problem, weights};

/// The smallest and one past the largest scale of the high-product form.
const HIGH: std::ops::Range<f64> = 1.0 / 65536.0..0.5;

/// A layer on its way: what the forms of the epilogue are chosen from.
pub(crate) struct Draft {
    /// Format of the weights.
    pub(crate) format: Format,
    /// Weight codes `[O, KH, KW, C / groups]`.
    pub(crate) codes: Vec<i8>,
    /// Scale of the weights, by channel.
    pub(crate) weight_scale: Vec<f64>,
    /// Bias, by channel.
    pub(crate) bias: Vec<f64>,
    /// How the codes were found.
    pub(crate) rounding: Rounding,
    /// Bounds of the accumulator over all inputs, by channel.
    bounds: Vec<(i64, i64)>,
    /// Sum of the weight codes, by channel.
    sums: Vec<i64>,
    x: Affine,
}

/// Constants of an epilogue, by channel.
struct Constants {
    epilogue: Epilogue,
    b: Vec<i64>,
    m: Vec<i32>,
    c: Vec<u8>,
}

impl Builder<'_> {
    pub(crate) fn conv(&mut self, group: Group) -> Result<Coded, Stop> {
        let node = self.float.node(group.root);
        let Op::Conv(op) = &node.op else {
            unreachable!("the root of the group is a convolution")
        };
        let (op, inputs, root) = (op.clone(), node.inputs.clone(), node.output);
        let formats = self.formats.of(&self.float.value(root).name);
        let x = self.layer_input(inputs[0], formats.activation.bits())?;
        if x.affine.is_wide() {
            return problem(
                "its input has 16 bits because it is given out; only 8-bit inputs can be convolved",
            );
        }
        let affine = self.result_affine(group.output);
        let draft = self.draft(node, x, affine)?;
        let residual = group.residual.map(|r| self.stored(r)).transpose()?;
        if let Some(r) = residual {
            if let Some(constants) = draft.residual(r.affine, affine) {
                return self.finish_conv(group, &op, &inputs, x, Some(r), draft, constants, affine);
            }
            let inner = match affine.is_wide() {
                true => self.stream_affine(root),
                false => self.narrow_affine(root, 8),
            };
            let stored = self.separate(group, &op, &inputs, x, draft, inner)?;
            return self.add_stored(group, stored, r, affine);
        }
        let constants = draft.plain(affine)?;
        self.finish_conv(group, &op, &inputs, x, None, draft, constants, affine)
    }

    /// What a layer reads, in no more bits than it wants.
    pub(crate) fn layer_input(&mut self, v: ValueId, bits: u32) -> Result<Coded, Stop> {
        let x = self.stored(v)?;
        if x.affine.bits() <= bits || x.affine.is_wide() && !self.is_stream(v) {
            return Ok(x);
        }
        if let Some(&known) = self.recoded.get(&(v, bits)) {
            return Ok(known);
        }
        let affine = self.narrow_affine(v, bits);
        let coded = self.recode(x, affine)?;
        self.recoded.insert((v, bits), coded);
        Ok(coded)
    }

    /// The convolution alone, stored with 8 bits, where it cannot be proved that the sum fits.
    fn separate(
        &mut self,
        group: Group,
        op: &Conv,
        inputs: &[ValueId],
        x: Coded,
        draft: Draft,
        affine: Affine,
    ) -> Result<Coded, Stop> {
        let alone = Group {
            residual: None,
            lo: f64::NEG_INFINITY,
            hi: f64::INFINITY,
            output: self.float.node(group.root).output,
            ..group
        };
        let constants = draft.plain(affine)?;
        self.finish_conv(alone, op, inputs, x, None, draft, constants, affine)
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one node")]
    fn finish_conv(
        &mut self,
        group: Group,
        op: &Conv,
        inputs: &[ValueId],
        x: Coded,
        residual: Option<Coded>,
        draft: Draft,
        constants: Constants,
        affine: Affine,
    ) -> Result<Coded, Stop> {
        let root = self.float.node(group.root).output;
        let name = self.float.value(root).name.clone();
        let shape = self.float.shape(inputs[1]).to_vec();
        let Some(b) = narrow(&constants.b) else {
            return problem("a bias is too large beside the scale of its channel for 32 bits");
        };
        let channels = [shape[0]];
        let w = self
            .out
            .constant(format!("{name}.weight"), Tensor::new(shape, draft.codes));
        let mut operands = vec![
            x.id,
            w,
            self.out
                .constant(format!("{name}.b"), Tensor::new(channels, b)),
        ];
        if !constants.m.is_empty() {
            operands.push(
                self.out
                    .constant(format!("{name}.m"), Tensor::new(channels, constants.m)),
            );
        }
        if !constants.c.is_empty() {
            operands.push(
                self.out
                    .constant(format!("{name}.c"), Tensor::new(channels, constants.c)),
            );
        }
        operands.extend(residual.map(|r| r.id));
        let conv = IntConv {
            stride: op.stride,
            dilation: op.dilation,
            pad: op.pad,
            groups: op.groups,
            pad_code: x.affine.zero_point as u8,
            weights: draft.format,
            epilogue: constants.epilogue,
            out: clamped(&affine, group.lo, group.hi),
        };
        let id = self
            .out
            .push_quantized(name.clone(), conv, &operands, affine.quant())?;
        self.layers.push(Layer {
            name,
            float: root,
            int: id,
            accumulator_scale: draft
                .weight_scale
                .iter()
                .map(|s| s * x.affine.scale)
                .collect(),
            bias: draft.bias,
            weight_scale: draft.weight_scale,
            weights: draft.format,
            activation_bits: x.affine.bits(),
            rounding: draft.rounding,
        });
        Ok(Coded { id, affine })
    }

    fn draft(&mut self, node: &Node, x: Coded, y: Affine) -> Result<Draft, Stop> {
        let inputs = &node.inputs;
        let Some(weights) = self.float.as_const(inputs[1]) else {
            return problem(
                "its weights are computed in the model; only constant weights can be compiled",
            );
        };
        let channels = weights.shape()[0];
        let bias = match inputs.get(2).map(|&b| self.float.as_const(b)) {
            None => vec![0.0; channels],
            Some(Some(b)) => b.to_f64(),
            Some(None) => {
                return problem(
                    "its bias is computed in the model; only a constant bias can be compiled",
                );
            }
        };
        let weights = weights.to_f64();
        let format = self.formats.of(&self.float.value(node.output).name).weight;
        let mut draft = Draft::nearest(&weights, format, bias, [x.affine, y]);
        self.fit_layer(&mut draft, node, x, &weights, y)?;
        Ok(draft)
    }
}

impl Draft {
    /// The nearest codes of a format for weights `[O, …]`, of a layer that reads `x` and gives `y`.
    pub(crate) fn nearest(
        weights: &[f64],
        format: Format,
        bias: Vec<f64>,
        [x, y]: [Affine; 2],
    ) -> Self {
        let channels = bias.len();
        let per_channel = weights.len() / channels.max(1);
        let format = weights::resolve(weights, per_channel, format);
        let mut draft = Self {
            format,
            rounding: Rounding::Nearest,
            codes: Vec::with_capacity(weights.len()),
            weight_scale: Vec::with_capacity(channels),
            bias,
            bounds: Vec::with_capacity(channels),
            sums: Vec::with_capacity(channels),
            x,
        };
        let scales = weights::scales(weights, per_channel, format);
        for (o, &scale) in scales.iter().enumerate() {
            let scale = draft.admitted(scale, o, y);
            let row = &weights[o * per_channel..][..per_channel];
            draft.push(weights::codes(row, scale, format), scale);
        }
        draft
    }

    /// Takes other codes and scales, channel by channel.
    pub(crate) fn replace(&mut self, channels: Vec<(Vec<i8>, f64)>) {
        self.codes.clear();
        self.weight_scale.clear();
        self.bounds.clear();
        self.sums.clear();
        for (codes, scale) in channels {
            self.push(codes.into_iter(), scale);
        }
    }

    fn push(&mut self, codes: impl Iterator<Item = i8>, scale: f64) {
        let start = self.codes.len();
        self.codes.extend(codes);
        let (mut lo, mut hi) = (0, 0);
        let most = i64::from(self.x.codes().hi);
        for &q in &self.codes[start..] {
            lo += i64::from(q.min(0)) * most;
            hi += i64::from(q.max(0)) * most;
        }
        self.bounds.push((lo, hi));
        self.sums.push((lo + hi) / most);
        self.weight_scale.push(scale);
    }

    /// The scale of channel `o` nearest to `scale` that the forms of the epilogue admit.
    pub(crate) fn admitted(&self, mut scale: f64, o: usize, y: Affine) -> f64 {
        let unit = y.scale / self.x.scale;
        if scale == 0.0 {
            scale = unit
                * if self.format.admits(0) {
                    1.0 / 256.0
                } else {
                    HIGH.start
                };
        } else if scale < HIGH.start * unit {
            scale = scale.max(HIGH.start * unit).min(2.0 * scale);
        }
        // a bias beyond 2^30 steps of the accumulator needs larger steps
        scale.max(self.bias[o].abs() / (self.x.scale * 1_073_741_824.0))
    }

    /// The weights that the codes stand for.
    pub(crate) fn real(&self) -> Vec<f64> {
        let per_channel = self.codes.len() / self.weight_scale.len().max(1);
        let rows = self.codes.chunks_exact(per_channel.max(1));
        let rows = rows.zip(&self.weight_scale);
        rows.flat_map(|(row, scale)| row.iter().map(move |&q| scale * f64::from(q)))
            .collect()
    }

    pub(crate) fn accumulator(&self, o: usize) -> f64 {
        self.weight_scale[o] * self.x.scale
    }

    /// Bias and the zero-point of x in steps of the accumulator, with `extra` steps of the result added.
    fn fold(&self, o: usize, ratio: f64, extra: f64) -> i64 {
        real::round_i64(self.bias[o] / self.accumulator(o) + extra / ratio)
            - i64::from(self.x.zero_point) * self.sums[o]
    }

    fn fits(&self, b: &[i64]) -> bool {
        let inside = |x: i64| i32::try_from(x).is_ok();
        b.iter()
            .zip(&self.bounds)
            .all(|(&b, &(lo, hi))| inside(b) && inside(b + lo) && inside(b + hi))
    }

    fn ratios(&self, y: Affine) -> Vec<f64> {
        (0..self.bias.len())
            .map(|o| self.accumulator(o) / y.scale)
            .collect()
    }

    /// The epilogue without a residual: the high product where it is admitted, else exact rounding.
    fn plain(&self, y: Affine) -> Result<Constants, Stop> {
        let ratios = self.ratios(y);
        if (!y.is_wide() || y.is_stream()) && ratios.iter().all(|r| HIGH.contains(r)) {
            let zero = f64::from(y.zero_point) + 0.5;
            let b: Vec<i64> = ratios
                .iter()
                .enumerate()
                .map(|(o, &r)| self.fold(o, r, zero))
                .collect();
            if self.fits(&b) {
                let m = ratios
                    .iter()
                    .map(|&r| real::fixed32(r).expect("below one half"))
                    .collect();
                return Ok(Constants {
                    epilogue: Epilogue::High,
                    b,
                    m,
                    c: Vec::new(),
                });
            }
        }
        let b: Vec<i64> = ratios
            .iter()
            .enumerate()
            .map(|(o, &r)| self.fold(o, r, 0.0))
            .collect();
        if !self.fits(&b) {
            return problem("its accumulator needs more than 32 bits");
        }
        let mut constants = Constants {
            epilogue: Epilogue::Exact {
                zero_point: y.zero_point,
            },
            b,
            m: vec![],
            c: vec![],
        };
        for &r in &ratios {
            let d = real::dyadic(r).map_err(|e| Stop::Problem(e.to_string()))?;
            constants.m.push(d.m());
            constants.c.push(d.c());
        }
        Ok(constants)
    }

    /// The epilogue with a residual, with the most fraction bits for which every step is proved to fit 32 bits.
    fn residual(&self, r: Affine, y: Affine) -> Option<Constants> {
        let ratios = self.ratios(y);
        let stops = |a: Affine| a.is_wide() && !a.is_stream();
        if stops(y) || stops(r) || !ratios.iter().all(|r| HIGH.contains(r)) {
            return None;
        }
        let largest = ratios.iter().copied().fold(0.0, f64::max);
        (6..=14).rev().find_map(|p| {
            let one = real::power_of_two(p);
            let m2 = real::round_i64(r.scale / y.scale * one);
            let f = (0..=p)
                .rev()
                .find(|&f| largest * real::power_of_two(f) < 0.5)?;
            if m2 >= 1 << 15 {
                return None;
            }
            // the product is cut to f bits of fraction before the sum: half of the last one makes that rounding
            let cut = 0.5 / real::power_of_two(f);
            let zero =
                f64::from(y.zero_point) + 0.5 + cut - f64::from(r.zero_point) * m2 as f64 / one;
            let b: Vec<i64> = ratios
                .iter()
                .enumerate()
                .map(|(o, &r)| self.fold(o, r, zero))
                .collect();
            let m: Option<Vec<i32>> = ratios
                .iter()
                .map(|&r| real::fixed32(r * real::power_of_two(f)))
                .collect();
            let m = m?;
            let fits = self.fits(&b) && self.sum_fits(&b, &m, (p - f) as u32, (m2, r));
            let epilogue = Epilogue::Residual {
                f: f as u8,
                p: p as u8,
                m2: m2 as i32,
            };
            fits.then_some(Constants {
                epilogue,
                b,
                m,
                c: Vec::new(),
            })
        })
    }

    fn sum_fits(&self, b: &[i64], m: &[i32], shift: u32, (m2, r): (i64, Affine)) -> bool {
        let term = |acc: i64, m: i32| ((acc * i64::from(m)) >> 32) << shift;
        let ends = [r.codes().lo, r.codes().hi].map(|code| i64::from(code) * m2);
        let fits = |x: i64| i32::try_from(x).is_ok();
        let inside = |x: i64| fits(x) && ends.iter().all(|&end| fits(end) && fits(x + end));
        self.bounds
            .iter()
            .zip(b.iter().zip(m))
            .all(|(&(lo, hi), (&b, &m))| inside(term(lo + b, m)) && inside(term(hi + b, m)))
    }
}

fn narrow(b: &[i64]) -> Option<Vec<i32>> {
    b.iter().map(|&b| i32::try_from(b).ok()).collect()
}
