use serde::{Deserialize, Serialize};

use super::scalar::{Scalar, product_transposed, turned, vectorized, with_float};
use super::{BinaryFn, OpError, Operation, Pad, PadMode, arity, checked, floats, infer_of};
use crate::derive::{Adjoint, Derivatives, Differentiable, Emit};
use crate::{Stage, Tensor, Type, ValueId};

/// Two-dimensional cross-correlation, channels last. A one-dimensional one has height 1.
///
/// Operands: x `[N, H, W, C]`, weights `[O, KH, KW, C / groups]`, optionally bias `[O]`.
/// Result: `[N, H', W', O]` with `H' = (H + pad − dilation·(KH − 1) − 1) / stride + 1`, rounded down.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Conv {
    /// Step along height and width, at least 1.
    pub stride: [usize; 2],
    /// Distance of taps along height and width, at least 1.
    pub dilation: [usize; 2],
    /// Zeros before and after, for height and width.
    pub pad: [[usize; 2]; 2],
    /// Channel groups; the channel counts of input and output are multiples of it.
    pub groups: usize,
}

impl Conv {
    /// Height and width of the result, or `None` where the kernel does not fit.
    pub fn output_size(&self, size: [usize; 2], kernel: [usize; 2]) -> Option<[usize; 2]> {
        let extent = |i: usize| {
            let padded = size[i]
                .checked_add(self.pad[i][0])?
                .checked_add(self.pad[i][1])?;
            let reach = self.dilation[i]
                .checked_mul(kernel[i].checked_sub(1)?)?
                .checked_add(1)?;
            padded
                .checked_sub(reach)?
                .checked_div(self.stride[i])?
                .checked_add(1)
        };
        Some([extent(0)?, extent(1)?])
    }

    fn body<S: Scalar>(&self, inputs: &[&Tensor], shape: &[usize]) -> Tensor {
        let (x, w) = (inputs[0].as_slice::<S>(), inputs[1].as_slice::<S>());
        let (&[_, height, width, c], &[o, kh, kw, cg]) = (inputs[0].shape(), inputs[1].shape())
        else {
            unreachable!("infer has checked the ranks");
        };
        let geometry = Geometry {
            op: self,
            size: [height, width, c],
            kernel: [kh, kw],
            out: [shape[1], shape[2]],
        };
        let mut y = vec![S::ZERO; shape.iter().product()];
        if cg == 1 && o == c {
            geometry.depthwise(x, w, &mut y);
        } else {
            geometry.grouped(x, w, &mut y, [o, cg]);
        }
        if let Some(bias) = inputs.get(2).filter(|b| !b.is_empty()) {
            BinaryFn::Add.update(&mut y, bias.as_slice::<S>(), false);
        }
        Tensor::new(shape, y)
    }
}

struct Geometry<'a> {
    op: &'a Conv,
    size: [usize; 3],
    kernel: [usize; 2],
    out: [usize; 2],
}

impl Geometry<'_> {
    /// Where a tap of an output lies in the image, if inside.
    fn source(&self, at: [usize; 2], tap: [usize; 2]) -> Option<usize> {
        let place = |i: usize| {
            let p = at[i] * self.op.stride[i] + tap[i] * self.op.dilation[i];
            p.checked_sub(self.op.pad[i][0])
                .filter(|&p| p < self.size[i])
        };
        Some((place(0)? * self.size[1] + place(1)?) * self.size[2])
    }

    fn depthwise<S: Scalar>(&self, x: &[S], w: &[S], y: &mut [S]) {
        let (c, taps) = (self.size[2], self.kernel[0] * self.kernel[1]);
        let mut by_tap = Vec::with_capacity(w.len());
        turned(w, 0, [taps, c], taps as isize, &mut by_tap);
        let image = self.size.iter().product::<usize>().max(1);
        let result = (self.out[0] * self.out[1] * c).max(1);
        let images = x.chunks_exact(image).zip(y.chunks_exact_mut(result));
        let [rows, columns] = [0, 1].map(|i| {
            (0..self.out[i])
                .map(|at| self.inside(i, at))
                .collect::<Vec<_>>()
        });
        let [_, width, _] = self.size;
        let [down, right] = self.op.dilation;
        vectorized(
            #[inline(always)]
            || {
                for (x, y) in images {
                    let pixels = rows
                        .iter()
                        .flat_map(|r| columns.iter().map(move |c| (r, c)));
                    for (out, (row, column)) in y.chunks_exact_mut(c.max(1)).zip(pixels) {
                        let taps = Taps {
                            count: [row.count, column.count],
                            x: (row.place * width + column.place) * c,
                            x_steps: [down * width * c, right * c],
                            w: (row.first * self.kernel[1] + column.first) * c,
                            w_steps: [self.kernel[1] * c, c],
                        };
                        let first = weigh::<S, 32>(x, &by_tap, &taps, 0, out);
                        let first = weigh::<S, 8>(x, &by_tap, &taps, first, out);
                        weigh::<S, 1>(x, &by_tap, &taps, first, out);
                    }
                }
            },
        );
    }

    /// The taps of an output that lie inside the image along an axis.
    fn inside(&self, axis: usize, at: usize) -> Inside {
        let from = at * self.op.stride[axis];
        let (pad, apart) = (self.op.pad[axis][0], self.op.dilation[axis]);
        let before = |p: usize| {
            p.saturating_sub(from)
                .div_ceil(apart)
                .min(self.kernel[axis])
        };
        let first = before(pad);
        Inside {
            first,
            count: before(pad + self.size[axis]) - first,
            place: (from + first * apart).saturating_sub(pad),
        }
    }

    /// Bands of patches, from all images, times the weights.
    fn grouped<S: Scalar>(&self, x: &[S], w: &[S], y: &mut [S], [o, cg]: [usize; 2]) {
        let (groups, k) = (self.op.groups, self.kernel[0] * self.kernel[1] * cg);
        let per_group = o / groups;
        let pixels = y.len() / o.max(1);
        let pointwise =
            self.kernel == [1, 1] && self.op.stride == [1, 1] && self.op.pad == [[0, 0]; 2];
        if groups == 1 && pointwise {
            return product_transposed(x, w, y, [pixels, o, k]);
        }
        let band = (BAND / k.max(1)).clamp(1, pixels.max(1));
        let mut patches = vec![S::ZERO; band * k];
        let mut part = vec![S::ZERO; if groups > 1 { band * per_group } else { 0 }];
        for g in 0..groups {
            for first in (0..pixels).step_by(band) {
                let rows = band.min(pixels - first);
                let patches = &mut patches[..rows * k];
                for (i, patch) in patches.chunks_exact_mut(k.max(1)).enumerate() {
                    self.patch(x, first + i, g * cg, cg, patch);
                }
                let (w, extents) = (
                    &w[g * per_group * k..][..per_group * k],
                    [rows, per_group, k],
                );
                if groups == 1 {
                    product_transposed(patches, w, &mut y[first * o..][..rows * o], extents);
                    continue;
                }
                let part = &mut part[..rows * per_group];
                product_transposed(patches, w, part, extents);
                for (i, row) in part.chunks_exact(per_group.max(1)).enumerate() {
                    y[(first + i) * o + g * per_group..][..per_group].copy_from_slice(row);
                }
            }
        }
    }

    /// What the `pixel`-th output, counted over all images, reads.
    fn patch<S: Scalar>(&self, x: &[S], pixel: usize, channel: usize, cg: usize, patch: &mut [S]) {
        let (own, image) = (
            self.out[0] * self.out[1],
            self.size.iter().product::<usize>(),
        );
        let (x, pixel) = (&x[pixel / own * image..][..image], pixel % own);
        let at = [pixel / self.out[1], pixel % self.out[1]];
        if self.op.groups == 1 && self.op.dilation[1] == 1 {
            return self.patch_rows(x, at, patch);
        }
        for (t, tap) in patch.chunks_exact_mut(cg.max(1)).enumerate() {
            match self.source(at, [t / self.kernel[1], t % self.kernel[1]]) {
                Some(from) => tap.copy_from_slice(&x[from + channel..][..cg]),
                None => tap.fill(S::ZERO),
            }
        }
    }

    /// A patch of all channels, whose taps lie side by side along the width.
    fn patch_rows<S: Scalar>(&self, x: &[S], at: [usize; 2], patch: &mut [S]) {
        let ([height, width, c], kw) = (self.size, self.kernel[1]);
        let left = at[1] * self.op.stride[1];
        let inside = |column: usize| column.saturating_sub(self.op.pad[1][0]).min(width);
        let (from, to) = (inside(left), inside(left + kw));
        let blank = (self.op.pad[1][0].saturating_sub(left)).min(kw) * c;
        for (r, row) in patch.chunks_exact_mut((kw * c).max(1)).enumerate() {
            let line = at[0] * self.op.stride[0] + r * self.op.dilation[0];
            match line.checked_sub(self.op.pad[0][0]).filter(|&l| l < height) {
                Some(line) if from < to => {
                    let taps = &x[(line * width + from) * c..(line * width + to) * c];
                    row[..blank].fill(S::ZERO);
                    row[blank..][..taps.len()].copy_from_slice(taps);
                    row[blank + taps.len()..].fill(S::ZERO);
                }
                _ => row.fill(S::ZERO),
            }
        }
    }
}

/// Taps that lie inside an image along an axis: the first one, how many there are, and where the first one lies.
struct Inside {
    first: usize,
    count: usize,
    place: usize,
}

/// Taps of a depthwise convolution: rows and columns of them, where the elements of x and the weights of the first one
/// start, and how far rows and columns are apart.
struct Taps {
    count: [usize; 2],
    x: usize,
    x_steps: [usize; 2],
    w: usize,
    w_steps: [usize; 2],
}

/// Sums of x times w by channel over taps, for as many blocks of `N` channels as there are from the `first` on; gives
/// the first that is left.
#[inline(always)]
fn weigh<S: Scalar, const N: usize>(
    x: &[S],
    w: &[S],
    taps: &Taps,
    mut first: usize,
    out: &mut [S],
) -> usize {
    for out in out[first..].chunks_exact_mut(N) {
        let mut sums = [S::ZERO; N];
        for row in 0..taps.count[0] {
            let mut from = taps.x + row * taps.x_steps[0] + first;
            let mut at = taps.w + row * taps.w_steps[0] + first;
            for _ in 0..taps.count[1] {
                let (x, w) = (&x[from..][..N], &w[at..][..N]);
                for ((s, &x), &w) in sums.iter_mut().zip(x).zip(w) {
                    *s += x * w;
                }
                from += taps.x_steps[1];
                at += taps.w_steps[1];
            }
        }
        out.copy_from_slice(&sums);
        first += N;
    }
    first
}

/// Elements of patches that are gathered at once: they stay in the second-level cache.
const BAND: usize = 1 << 16;

impl Operation for Conv {
    const NAME: &'static str = "conv";
    const STAGES: &'static [Stage] = &[Stage::Float];

    fn infer(&self, inputs: &[&Type]) -> Result<Type, OpError> {
        arity(inputs, 2..=3, "2 or 3")?;
        floats(inputs)?;
        let (&[n, h, w, c], &[o, kh, kw, cg]) = (&inputs[0].shape[..], &inputs[1].shape[..]) else {
            return Err(OpError::shape(format!(
                "expected four axes each, found {} and {}",
                inputs[0], inputs[1]
            )));
        };
        let positive = self.stride.iter().chain(&self.dilation).all(|&s| s > 0);
        if !positive || self.groups == 0 {
            return Err(OpError::shape(
                "strides, dilations and groups must be at least 1",
            ));
        }
        if cg.checked_mul(self.groups) != Some(c) || o % self.groups != 0 {
            return Err(OpError::shape(format!(
                "{c} channels in, {o} out and weights for {cg} do not fit {} groups",
                self.groups
            )));
        }
        if let Some(bias) = inputs.get(2).filter(|b| b.shape != [o]) {
            return Err(OpError::shape(format!(
                "the bias is {bias}, expected {o} elements"
            )));
        }
        let size = self.output_size([h, w], [kh, kw]);
        let [oh, ow] =
            size.ok_or_else(|| OpError::shape(format!("a {kh}×{kw} kernel does not fit {h}×{w}")))?;
        checked(inputs[0].dtype, vec![n, oh, ow, o])
    }

    fn eval(&self, inputs: &[&Tensor]) -> Result<Tensor, OpError> {
        let ty = infer_of(self, inputs)?;
        with_float!(inputs[0], S => Ok(self.body::<S>(inputs, &ty.shape)), else unreachable!("infer has checked it"))
    }
}

impl Differentiable for Conv {
    fn gradient(&self, at: &mut Adjoint<'_>) -> Derivatives {
        let (x, w, g) = (at.inputs[0], at.inputs[1], at.seed);
        let (image, kernel) = (at.emit.shape(x), at.emit.shape(w));
        let by_x = match at.wants(0) {
            true => Some(self.adjoint(&mut at.emit, &image, w, g)?),
            false => None,
        };
        let by_w = match at.wants(1) {
            true => Some(self.weight_gradient(&mut at.emit, x, g, &kernel)?),
            false => None,
        };
        let by_bias = match at.wants(2) {
            true => Some(at.emit.sum_to(g, &kernel[..1])?),
            false => None,
        };
        Ok(vec![by_x, by_w, by_bias])
    }

    /// The α-β rule with α = 1, β = 0: positive contributions alone, the bias ignored, `Z = x⁺ ∗ W⁺ + x⁻ ∗ W⁻`.
    fn relevance(&self, at: &mut Adjoint<'_>) -> Derivatives {
        let (x, w, e) = (at.inputs[0], at.inputs[1], &mut at.emit);
        let image = e.shape(x);
        let mut parts = Vec::new();
        let mut sum = None;
        for sign in [1.0, -1.0] {
            let (x, w) = (e.one_sided(x, sign)?, e.one_sided(w, sign)?);
            let product = e.conv(self.clone(), x, w)?;
            sum = Some(match sum {
                None => product,
                Some(s) => e.add(s, product)?,
            });
            parts.push((x, w));
        }
        let share = e.ratio(at.seed, sum.expect("there are two parts"))?;
        let mut relevance = None;
        for (x, w) in parts {
            let back = self.adjoint(e, &image, w, share)?;
            let part = e.mul(x, back)?;
            relevance = Some(match relevance {
                None => part,
                Some(r) => e.add(r, part)?,
            });
        }
        Ok(vec![relevance])
    }
}

impl Conv {
    /// The transposed convolution: g `[N, H', W', O]` to the shape `image` of x. It is the full convolution of g, its
    /// pixels `stride` apart, with the weights, their taps `dilation` apart: the smaller of the two is the kernel.
    pub(crate) fn adjoint(
        &self,
        e: &mut Emit<'_>,
        image: &[usize],
        w: ValueId,
        g: ValueId,
    ) -> Result<ValueId, OpError> {
        let (kernel, out) = (e.shape(w), e.shape(g));
        if kernel[1] * kernel[2] <= out[1] * out[2] {
            let w = self.mirrored(e, w, &kernel)?;
            return self.full(e, image, (g, self.stride), (w, self.dilation));
        }
        let (n, cg) = (image[0], kernel[3]);
        let taps = e.transpose(w, &[3, 1, 2, 0])?;
        let mirrored = self.mirrored_seed(e, g, &out)?;
        let product = self.full(e, image, (taps, self.dilation), (mirrored, self.stride))?;
        let apart = e.reshape(product, &[cg, image[1], image[2], self.groups, n])?;
        let turned = e.transpose(apart, &[4, 1, 2, 3, 0])?;
        e.reshape(turned, image)
    }

    /// The full convolution of x with a mirrored kernel, cut to the height and width of `image`; each comes with the
    /// distance of its elements.
    fn full(
        &self,
        e: &mut Emit<'_>,
        image: &[usize],
        (x, apart): (ValueId, [usize; 2]),
        (w, dilation): (ValueId, [usize; 2]),
    ) -> Result<ValueId, OpError> {
        let (size, kernel) = (e.shape(x), e.shape(w));
        let margin = |i: usize| {
            let reach = (dilation[i] * (kernel[1 + i] - 1)) as isize;
            let extent = ((size[1 + i] - 1) * apart[i] + 1) as isize;
            let low = reach - self.pad[i][0] as isize;
            [low, image[1 + i] as isize + reach - extent - low]
        };
        let margins = [margin(0), margin(1)];
        let crop = |side: usize| vec![0, margins[0][side].min(0), margins[1][side].min(0), 0];
        let spread = Pad {
            low: crop(0),
            high: crop(1),
            interior: vec![0, apart[0] - 1, apart[1] - 1, 0],
            mode: PadMode::Constant,
        };
        let conv = Self {
            stride: [1, 1],
            dilation,
            pad: margins.map(|m| m.map(|p| p.max(0) as usize)),
            groups: self.groups,
        };
        let spread = spread.emit(e, x)?;
        e.conv(conv, spread, w)
    }

    /// Weights `[O, KH, KW, C / groups]` as `[C, KH, KW, O / groups]`, taps in reverse order.
    fn mirrored(&self, e: &mut Emit<'_>, w: ValueId, kernel: &[usize]) -> Result<ValueId, OpError> {
        let &[o, kh, kw, cg] = kernel else {
            unreachable!("infer has checked the rank")
        };
        let flipped = e.flip(w, &[1, 2])?;
        let apart = e.reshape(flipped, &[self.groups, o / self.groups, kh, kw, cg])?;
        let turned = e.transpose(apart, &[0, 4, 2, 3, 1])?;
        e.reshape(turned, &[self.groups * cg, kh, kw, o / self.groups])
    }

    /// A result `[N, H', W', O]` as a kernel `[groups · N, H', W', O / groups]`, pixels in reverse order.
    fn mirrored_seed(
        &self,
        e: &mut Emit<'_>,
        g: ValueId,
        out: &[usize],
    ) -> Result<ValueId, OpError> {
        let &[n, h, w, o] = out else {
            unreachable!("infer has checked the rank")
        };
        let flipped = e.flip(g, &[1, 2])?;
        let apart = e.reshape(flipped, &[n, h, w, self.groups, o / self.groups])?;
        let turned = e.transpose(apart, &[3, 0, 1, 2, 4])?;
        e.reshape(turned, &[self.groups * n, h, w, o / self.groups])
    }

    /// The derivative by the weights: x convolved with g, channels in the place of samples and samples in that of
    /// channels, stride and dilation exchanged.
    fn weight_gradient(
        &self,
        e: &mut Emit<'_>,
        x: ValueId,
        g: ValueId,
        kernel: &[usize],
    ) -> Result<ValueId, OpError> {
        let image = e.shape(x);
        let (n, cg) = (image[0], kernel[3]);
        let apart = e.reshape(x, &[n, image[1], image[2], self.groups, cg])?;
        let turned = e.transpose(apart, &[4, 1, 2, 3, 0])?;
        let x = e.reshape(turned, &[cg, image[1], image[2], self.groups * n])?;
        let g = e.transpose(g, &[3, 1, 2, 0])?;
        let conv = Self {
            stride: self.dilation,
            dilation: self.stride,
            pad: self.pad,
            groups: self.groups,
        };
        let product = e.conv(conv, x, g)?;
        let taps = e.head(product, &[cg, kernel[1], kernel[2], kernel[0]])?;
        e.transpose(taps, &[3, 1, 2, 0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_that_cross_images_give_what_each_image_gives() {
        let op = Conv {
            stride: [1, 2],
            dilation: [1, 1],
            pad: [[4, 4], [3, 4]],
            groups: 1,
        };
        let noise = |shape: &[usize]| {
            let n: usize = shape.iter().product();
            Tensor::new(
                shape,
                (0..n).map(|i| (i * 7919 % 1013) as f64 - 506.0).collect(),
            )
        };
        let (x, w) = (noise(&[3, 9, 9, 40]), noise(&[2, 9, 9, 40]));
        let all = op.eval(&[&x, &w]).unwrap();
        let pixels = all.len() / 6;
        assert_ne!(
            pixels % (BAND / (9 * 9 * 40)),
            0,
            "a band ends with an image"
        );
        let images = x.as_slice::<f64>().chunks_exact(9 * 9 * 40);
        for (image, own) in images.zip(all.as_slice::<f64>().chunks_exact(2 * pixels)) {
            let x = Tensor::new([1, 9, 9, 40], image.to_vec());
            assert_eq!(op.eval(&[&x, &w]).unwrap().as_slice::<f64>(), own);
        }
    }

    #[test]
    fn a_depthwise_one_gives_the_direct_sum() {
        let noise = |shape: &[usize], of: usize| {
            let n: usize = shape.iter().product();
            let x = (0..n).map(|i| (i * of % 1013) as f64 - 506.0).collect();
            Tensor::new(shape, x)
        };
        let geometries = [
            ([1, 1], [1, 1], [[1, 1], [1, 1]], [3, 3]),
            ([2, 1], [1, 2], [[0, 5], [4, 0]], [3, 3]),
            ([1, 3], [3, 1], [[7, 7], [0, 1]], [2, 5]),
            ([1, 1], [2, 2], [[1, 0], [1, 0]], [4, 3]),
        ];
        for (stride, dilation, pad, kernel) in geometries {
            let op = Conv {
                stride,
                dilation,
                pad,
                groups: 43,
            };
            let (x, w) = (
                noise(&[2, 7, 9, 43], 7919),
                noise(&[43, kernel[0], kernel[1], 1], 6007),
            );
            let found = op.eval(&[&x, &w]).unwrap();
            let [oh, ow] = op.output_size([7, 9], kernel).unwrap();
            let direct = |i: usize| {
                let (n, at, c) = (i / 43 / ow / oh, [i / 43 / ow % oh, i / 43 % ow], i % 43);
                let mut sum = 0.0;
                for t in 0..kernel[0] * kernel[1] {
                    let tap = [t / kernel[1], t % kernel[1]];
                    let place = |a: usize| at[a] * stride[a] + tap[a] * dilation[a];
                    let inside = |a: usize, size: usize| {
                        let p = place(a).checked_sub(pad[a][0]);
                        p.filter(|&p| p < size)
                    };
                    if let (Some(row), Some(column)) = (inside(0, 7), inside(1, 9)) {
                        let from = ((n * 7 + row) * 9 + column) * 43 + c;
                        let w = w.as_slice::<f64>()[c * kernel[0] * kernel[1] + t];
                        sum += x.as_slice::<f64>()[from] * w;
                    }
                }
                sum
            };
            let expected: Vec<f64> = (0..2 * oh * ow * 43).map(direct).collect();
            assert_eq!(found.as_slice::<f64>(), expected);
        }
    }
}
