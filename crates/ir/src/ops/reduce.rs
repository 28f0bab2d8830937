use serde::{Deserialize, Serialize};

use super::scalar::{Positions, Scalar, strides, vectorized, with_float};
use super::{BinaryFn, OpError, Operation, arity, checked, infer_of};
use crate::derive::{Adjoint, Derivatives, Differentiable};
use crate::{DType, Stage, Tensor, Type};

/// Reduces over axes.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Reduce {
    /// What is computed over the axes.
    pub f: ReduceFn,
    /// The axes, ascending, without repetition.
    pub axes: Vec<usize>,
    /// Whether the axes stay with extent 1.
    pub keep: bool,
}

/// The functions of [`Reduce`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names say it")]
pub enum ReduceFn {
    Sum,
    Mean,
    Max,
    Min,
}

impl Operation for Reduce {
    const NAME: &'static str = "reduce";
    const STAGES: &'static [Stage] = &[Stage::Float];

    fn infer(&self, inputs: &[&Type]) -> Result<Type, OpError> {
        arity(inputs, 1..=1, "1")?;
        let x = inputs[0];
        if x.dtype == DType::Bool {
            return Err(OpError::DType {
                operand: 0,
                expected: "a number",
                found: x.dtype,
            });
        }
        let ascending = self.axes.windows(2).all(|w| w[0] < w[1]);
        if !ascending || self.axes.last().is_some_and(|&a| a >= x.rank()) {
            return Err(OpError::shape(format!(
                "axes {:?} do not fit {x}",
                self.axes
            )));
        }
        if self.axes.iter().any(|&a| x.shape[a] == 0) && self.f != ReduceFn::Sum {
            return Err(OpError::shape(format!(
                "{x} has nothing to reduce along axes {:?}",
                self.axes
            )));
        }
        let kept = x
            .shape
            .iter()
            .enumerate()
            .filter_map(|(a, &d)| match self.axes.contains(&a) {
                false => Some(d),
                true => self.keep.then_some(1),
            });
        checked(x.dtype, kept.collect())
    }

    fn eval(&self, inputs: &[&Tensor]) -> Result<Tensor, OpError> {
        let shape = infer_of(self, inputs)?.shape;
        Ok(with_float!(inputs[0], S => {
            let x = inputs[0].as_slice::<S>();
            let elements = match self.rows(inputs[0].shape()) {
                Some(extents) => self.by_rows(x, extents),
                None => {
                    let (outer, inner) = self.positions(inputs[0].shape());
                    outer.iter().map(|&o| self.real(inner.iter().map(|&i| x[o + i]))).collect()
                }
            };
            Tensor::new(shape, elements)
        }, else {
            let x = inputs[0].to_i64().ok_or_else(|| OpError::Value("an integer beyond 2^63".into()))?;
            let (outer, inner) = self.positions(inputs[0].shape());
            let fold = |&o: &usize| self.integer(inner.iter().map(|&i| x[o + i]));
            Tensor::from_i64(inputs[0].dtype(), shape, outer.iter().map(fold).collect())
        }))
    }
}

impl Reduce {
    /// Where each result's elements start, and their distances from there.
    fn positions(&self, shape: &[usize]) -> (Vec<usize>, Vec<usize>) {
        let strides = strides(shape);
        let part = |reduced: bool| {
            let axes: Vec<usize> = (0..shape.len())
                .filter(|a| self.axes.contains(a) == reduced)
                .collect();
            let extents: Vec<usize> = axes.iter().map(|&a| shape[a]).collect();
            let steps: Vec<isize> = axes.iter().map(|&a| strides[a] as isize).collect();
            Positions::new(&extents, &steps, 0).collect()
        };
        (part(false), part(true))
    }

    /// Extents of what is reduced, as rows, and of a row, where the axes lie side by side and hold elements.
    fn rows(&self, shape: &[usize]) -> Option<[usize; 2]> {
        let (first, last) = (*self.axes.first()?, *self.axes.last()?);
        let extent = |axes: &[usize]| axes.iter().product::<usize>();
        let (rows, row) = (extent(&shape[first..=last]), extent(&shape[last + 1..]));
        (last - first + 1 == self.axes.len() && rows > 0 && row > 0).then_some([rows, row])
    }

    /// Each result takes its elements in their order, side by side with its neighbours.
    fn by_rows<S: Scalar>(&self, x: &[S], [rows, row]: [usize; 2]) -> Vec<S> {
        let blocks = x.chunks_exact(rows * row);
        if row == 1 {
            return blocks.map(|b| self.real(b.iter().copied())).collect();
        }
        let fold = |block: &[S], f: fn(S, S) -> S| {
            let (first, rest) = block.split_at(row);
            let mut best = first.to_vec();
            for x in rest.chunks_exact(row) {
                best.iter_mut().zip(x).for_each(|(b, &x)| *b = f(x, *b));
            }
            best
        };
        match self.f {
            ReduceFn::Max => blocks.flat_map(|b| fold(b, S::largest)).collect(),
            ReduceFn::Min => blocks.flat_map(|b| fold(b, S::smallest)).collect(),
            ReduceFn::Sum => blocks.flat_map(|b| sums(b, row)).map(S::real).collect(),
            ReduceFn::Mean => {
                let n = rows as f64;
                let sums = blocks.flat_map(|b| sums(b, row));
                sums.map(|s| S::real(s / n)).collect()
            }
        }
    }

    fn real<S: Scalar>(&self, x: impl ExactSizeIterator<Item = S>) -> S {
        let n = x.len();
        match self.f {
            ReduceFn::Sum => S::real(x.map(Scalar::wide).sum()),
            ReduceFn::Mean => S::real(x.map(Scalar::wide).sum::<f64>() / n as f64),
            ReduceFn::Max => x.reduce(|a, b| b.largest(a)).expect("there are elements"),
            ReduceFn::Min => x.reduce(|a, b| b.smallest(a)).expect("there are elements"),
        }
    }

    fn integer(&self, x: impl ExactSizeIterator<Item = i64>) -> i64 {
        let n = x.len() as i64;
        match self.f {
            ReduceFn::Sum => x.fold(0, i64::wrapping_add),
            ReduceFn::Mean => x.fold(0, i64::wrapping_add) / n,
            ReduceFn::Max => x.max().expect("there are elements"),
            ReduceFn::Min => x.min().expect("there are elements"),
        }
    }
}

/// Sums of the columns of rows.
fn sums<S: Scalar>(block: &[S], row: usize) -> Vec<f64> {
    let (first, rest) = block.split_at(row);
    let mut sums: Vec<f64> = first.iter().map(|x| x.wide()).collect();
    vectorized(
        #[inline(always)]
        || {
            for x in rest.chunks_exact(row) {
                sums.iter_mut().zip(x).for_each(|(s, x)| *s += x.wide());
            }
        },
    );
    sums
}

impl Differentiable for Reduce {
    fn gradient(&self, at: &mut Adjoint<'_>) -> Derivatives {
        let (x, e) = (at.inputs[0], &mut at.emit);
        let from = e.shape(x);
        let mut kept = from.clone();
        self.axes.iter().for_each(|&a| kept[a] = 1);
        let g = e.reshape(at.seed, &kept)?;
        let result = match self.f {
            ReduceFn::Sum => g,
            ReduceFn::Mean => {
                let n: usize = self.axes.iter().map(|&a| from[a]).product();
                e.scale(g, 1.0 / n as f64)?
            }
            ReduceFn::Max | ReduceFn::Min => {
                let best = e.reshape(at.output, &kept)?;
                let found = e.binary(BinaryFn::Equal, x, best)?;
                let one = e.number(x, 1.0);
                let share = e.keep_where(found, one)?;
                let count = e.reduce(ReduceFn::Sum, share, &self.axes)?;
                let each = e.div(g, count)?;
                e.mul(share, each)?
            }
        };
        Ok(vec![Some(e.broadcast(result, &from)?)])
    }

    fn relevance(&self, at: &mut Adjoint<'_>) -> Derivatives {
        match self.f {
            ReduceFn::Sum | ReduceFn::Mean => at.proportional(self),
            ReduceFn::Max | ReduceFn::Min => self.gradient(at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_give_what_positions_give() {
        let shape = [3, 4, 5, 7];
        let x: Vec<f64> = (0..3 * 4 * 5 * 7)
            .map(|i| f64::from(i * 7919 % 1013) / 7.0 - 60.0)
            .collect();
        let all: [&[usize]; 5] = [&[0, 1, 2], &[1, 2], &[3], &[0, 1, 2, 3], &[1]];
        for f in [ReduceFn::Sum, ReduceFn::Mean, ReduceFn::Max, ReduceFn::Min] {
            for axes in all {
                let op = Reduce {
                    f,
                    axes: axes.to_vec(),
                    keep: false,
                };
                let rows = op.by_rows(&x, op.rows(&shape).expect("the axes lie side by side"));
                let (outer, inner) = op.positions(&shape);
                let one = |&o: &usize| op.real(inner.iter().map(|&i| x[o + i]));
                let expected: Vec<f64> = outer.iter().map(one).collect();
                assert_eq!(rows, expected, "{op:?}");
            }
        }
        let apart = Reduce {
            f: ReduceFn::Sum,
            axes: vec![0, 2],
            keep: false,
        };
        assert_eq!(apart.rows(&shape), None);
    }
}
