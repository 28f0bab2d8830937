use serde::{Deserialize, Serialize};

use super::scalar::{Scalar, with_float};
use super::{BinaryFn, Conv, OpError, Operation, Pad, PadMode, Slice, arity, checked, infer_of};
use crate::derive::{Adjoint, Derivatives, Differentiable, Emit};
use crate::{Element, Stage, Tensor, Type, ValueId, with_data};

/// Pooling over windows of a channels-last tensor `[N, H, W, C]`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Pool {
    /// What is computed over a window.
    pub kind: PoolKind,
    /// Height and width of the window.
    pub kernel: [usize; 2],
    /// Step along height and width, at least 1.
    pub stride: [usize; 2],
    /// Distance of taps along height and width, at least 1.
    pub dilation: [usize; 2],
    /// Rows and columns before and after, for height and width. A maximum ignores them.
    pub pad: [[usize; 2]; 2],
}

/// The functions of [`Pool`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolKind {
    /// The largest element.
    Max,
    /// Sum of the elements inside the tensor, divided by how many there are.
    Mean,
    /// Sum divided by the number of taps that lie inside the tensor or its padding as the model declares it: the
    /// first `declared` rows and columns after the end count, overhang from rounding the extent up does not.
    PaddedMean {
        /// Rows and columns after the end that count as padding.
        declared: [usize; 2],
    },
}

impl Operation for Pool {
    const NAME: &'static str = "pool";
    const STAGES: &'static [Stage] = &[Stage::Float, Stage::Integer];

    fn infer(&self, inputs: &[&Type]) -> Result<Type, OpError> {
        arity(inputs, 1..=1, "1")?;
        let x = inputs[0];
        if self.kind != PoolKind::Max && !x.dtype.is_float() {
            return Err(OpError::DType {
                operand: 0,
                expected: "a float",
                found: x.dtype,
            });
        }
        if self.dilation.contains(&0) {
            return Err(OpError::shape("dilations must be at least 1"));
        }
        checked(x.dtype, self.result_shape(&x.shape)?)
    }

    fn eval(&self, inputs: &[&Tensor]) -> Result<Tensor, OpError> {
        let shape = infer_of(self, inputs)?.shape;
        if self.kind == PoolKind::Max {
            return with_data!(inputs[0].data(), v => self.largest(v, inputs[0].shape(), &shape));
        }
        Ok(
            with_float!(inputs[0], S => self.mean::<S>(inputs[0], &shape), else unreachable!("infer has checked it")),
        )
    }
}

impl Pool {
    fn largest<T: Element>(
        &self,
        x: &[T],
        from: &[usize],
        shape: &[usize],
    ) -> Result<Tensor, OpError> {
        let mut y = Vec::with_capacity(shape.iter().product());
        self.each_window(from, shape, |taps, c| {
            let Some((&first, rest)) = taps.split_first() else {
                return Err(OpError::shape("a window lies wholly in the padding"));
            };
            let start = y.len();
            y.extend_from_slice(&x[first..][..c]);
            for &tap in rest {
                for (y, &x) in y[start..].iter_mut().zip(&x[tap..][..c]) {
                    // a number that differs from itself is NaN, and wins
                    #[allow(
                        clippy::eq_op,
                        reason = "the test for NaN that works for every element type"
                    )]
                    if x > *y || x != x {
                        *y = x;
                    }
                }
            }
            Ok(())
        })?;
        Ok(Tensor::new(shape, y))
    }

    fn mean<S: Scalar>(&self, x: &Tensor, shape: &[usize]) -> Tensor {
        let (from, x) = (x.shape(), x.as_slice::<S>());
        let mut y = Vec::with_capacity(shape.iter().product());
        let mut sums = vec![0.0f64; shape[3]];
        let mut pixel = 0;
        self.each_window(from, shape, |taps, c| {
            sums.fill(0.0);
            for &tap in taps {
                sums.iter_mut()
                    .zip(&x[tap..][..c])
                    .for_each(|(s, x)| *s += x.wide());
            }
            let at = [pixel / shape[2] % shape[1], pixel % shape[2]];
            let divisor = f64::from(self.counted([from[1], from[2]], at));
            y.extend(sums.iter().map(|s| S::real(s / divisor)));
            pixel += 1;
            Ok(())
        })
        .expect("the body never fails");
        Tensor::new(shape, y)
    }

    /// Calls `f` with where the taps of each window start, and the number of channels.
    fn each_window(
        &self,
        from: &[usize],
        shape: &[usize],
        mut f: impl FnMut(&[usize], usize) -> Result<(), OpError>,
    ) -> Result<(), OpError> {
        let (size, c) = ([from[1], from[2]], from[3]);
        for pixel in 0..shape[0] * shape[1] * shape[2] {
            let image = pixel / (shape[1] * shape[2]) * size[0] * size[1];
            let at = [pixel / shape[2] % shape[1], pixel % shape[2]];
            let taps: Vec<usize> = self
                .taps_inside(size, at)
                .map(|[row, column]| (image + row * size[1] + column) * c)
                .collect();
            f(&taps, c)?;
        }
        Ok(())
    }
}

impl Differentiable for Pool {
    fn gradient(&self, at: &mut Adjoint<'_>) -> Derivatives {
        let (x, e) = (at.inputs[0], &mut at.emit);
        let image = e.shape(x);
        let by_x = match self.kind {
            PoolKind::Max => self.route(e, x, at.output, at.seed)?,
            PoolKind::Mean | PoolKind::PaddedMean { .. } => self.spread(e, &image, at.seed)?,
        };
        Ok(vec![Some(by_x)])
    }

    fn relevance(&self, at: &mut Adjoint<'_>) -> Derivatives {
        match self.kind {
            PoolKind::Max => self.gradient(at),
            PoolKind::Mean | PoolKind::PaddedMean { .. } => at.proportional(self),
        }
    }
}

impl Pool {
    /// The adjoint of a mean: each pixel's share goes to every tap.
    fn spread(&self, e: &mut Emit<'_>, image: &[usize], g: ValueId) -> Result<ValueId, OpError> {
        let &[_, h, w, c] = image else {
            unreachable!("infer has checked the rank")
        };
        let out = e.shape(g);
        let shares = (0..out[1] * out[2])
            .map(|p| 1.0 / f64::from(self.counted([h, w], [p / out[2], p % out[2]])));
        let shares = e.constant(g, &[1, out[1], out[2], 1], shares.collect());
        let share = e.mul(g, shares)?;
        let [kh, kw] = self.kernel;
        let ones = e.constant(g, &[c, kh, kw, 1], vec![1.0; c * kh * kw]);
        let conv = Conv {
            stride: self.stride,
            dilation: self.dilation,
            pad: self.pad,
            groups: c,
        };
        conv.adjoint(e, image, ones, share)
    }

    /// The adjoint of a maximum: each pixel's share goes to the taps that hold the maximum, in equal parts.
    fn route(
        &self,
        e: &mut Emit<'_>,
        x: ValueId,
        y: ValueId,
        g: ValueId,
    ) -> Result<ValueId, OpError> {
        let lowest = e.number(x, f64::NEG_INFINITY);
        let pad = |side: usize| vec![0, self.pad[0][side] as isize, self.pad[1][side] as isize, 0];
        let padding = Pad {
            low: pad(0),
            high: pad(1),
            interior: vec![0; 4],
            mode: PadMode::Constant,
        };
        let padded = e.push(padding.clone(), &[x, lowest])?;
        let (whole, out) = (e.shape(padded), e.shape(y));
        let one = e.number(x, 1.0);
        let mut holds = Vec::new();
        let mut count = None;
        for tap in 0..self.kernel[0] * self.kernel[1] {
            let view = self.tap([tap / self.kernel[1], tap % self.kernel[1]], &out);
            let seen = e.push(view.clone(), &[padded])?;
            let found = e.binary(BinaryFn::Equal, seen, y)?;
            let share = e.keep_where(found, one)?;
            count = Some(match count {
                None => share,
                Some(n) => e.add(n, share)?,
            });
            holds.push((view, share));
        }
        let count = count.ok_or_else(|| OpError::shape("a window has no taps"))?;
        let each = e.div(g, count)?;
        let mut sum = None;
        for (view, share) in holds {
            let part = e.mul(share, each)?;
            let placed = view.spread(&whole).emit(e, part)?;
            sum = Some(match sum {
                None => placed,
                Some(s) => e.add(s, placed)?,
            });
        }
        let sum = sum.expect("there is a tap");
        padding.cropped(e, sum)
    }

    /// What one tap sees of the padded operand, over all windows.
    fn tap(&self, tap: [usize; 2], out: &[usize]) -> Slice {
        let start = [0, 1].map(|i| tap[i] * self.dilation[i]);
        Slice {
            start: vec![0, start[0], start[1], 0],
            len: out.to_vec(),
            step: vec![1, self.stride[0] as isize, self.stride[1] as isize, 1],
        }
    }
}
