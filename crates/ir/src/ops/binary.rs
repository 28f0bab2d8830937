use serde::{Deserialize, Serialize};

use super::scalar::{
    Positions, Scalar, broadcast_strides, extend, long_rows, vectorized, with_float,
};
use super::{OpError, Operation, UnaryFn, arity, checked, infer_of};
use crate::derive::{Adjoint, Derivatives, Differentiable, Emit};
use crate::{DType, Element, Stage, Tensor, Type, ValueId, broadcast_shapes, with_data};

/// An elementwise function of two operands of one element type, broadcast by NumPy's rule.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Binary(pub BinaryFn);

/// The functions of [`Binary`]. Comparisons give `bool`; `And`, `Or`, `Xor` take `bool`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names are the field's")]
pub enum BinaryFn {
    Add,
    Sub,
    Mul,
    /// Integers divide towards zero.
    Div,
    Max,
    Min,
    Pow,
    Equal,
    Greater,
    GreaterOrEqual,
    And,
    Or,
    Xor,
}

impl BinaryFn {
    fn compares(self) -> bool {
        matches!(self, Self::Equal | Self::Greater | Self::GreaterOrEqual)
    }

    fn is_logic(self) -> bool {
        matches!(self, Self::And | Self::Or | Self::Xor)
    }

    /// Whether it takes numbers and gives numbers of their type.
    pub(crate) fn is_arithmetic(self) -> bool {
        !self.compares() && !self.is_logic()
    }

    /// Applies the function to every element and its partner, which stands on the left where `turned`. Partners that
    /// are fewer repeat.
    pub(crate) fn update<S: Scalar>(self, x: &mut [S], y: &[S], turned: bool) {
        macro_rules! each {
            ($($f:ident)*) => {
                match (self, turned) {
                    $((Self::$f, false) => vectorized(#[inline(always)] || update(x, y, |x, y| Self::$f.real(x, y))),
                    (Self::$f, true) => vectorized(#[inline(always)] || update(x, y, |x, y| Self::$f.real(y, x))),)*
                    _ => unreachable!("comparisons have a body of their own"),
                }
            };
        }
        each!(Add Sub Mul Div Max Min Pow);
    }

    #[inline(always)]
    fn real<S: Scalar>(self, x: S, y: S) -> S {
        match self {
            Self::Add => x + y,
            Self::Sub => x - y,
            Self::Mul => x * y,
            Self::Div => x / y,
            Self::Max => x.largest(y),
            Self::Min => x.smallest(y),
            Self::Pow => x.binary(y, libm::powf, libm::pow),
            _ => unreachable!("comparisons have a body of their own"),
        }
    }

    fn integer(self, x: i64, y: i64) -> Result<i64, OpError> {
        Ok(match self {
            Self::Add => x.wrapping_add(y),
            Self::Sub => x.wrapping_sub(y),
            Self::Mul => x.wrapping_mul(y),
            Self::Div => x
                .checked_div(y)
                .ok_or_else(|| OpError::Value("an integer is divided by zero".into()))?,
            Self::Max => x.max(y),
            Self::Min => x.min(y),
            Self::Pow => libm::pow(x as f64, y as f64) as i64,
            _ => unreachable!("comparisons have a body of their own"),
        })
    }

    fn logic(self, x: bool, y: bool) -> bool {
        match self {
            Self::And => x && y,
            Self::Or => x || y,
            _ => x != y,
        }
    }
}

impl Operation for Binary {
    const NAME: &'static str = "binary";
    const STAGES: &'static [Stage] = &[Stage::Float, Stage::Integer];

    fn infer(&self, inputs: &[&Type]) -> Result<Type, OpError> {
        arity(inputs, 2..=2, "2")?;
        if inputs[0].dtype != inputs[1].dtype {
            return Err(OpError::shape(format!(
                "operands of one element type, found {} and {}",
                inputs[0], inputs[1]
            )));
        }
        let found = inputs[0].dtype;
        if self.0.is_logic() != (found == DType::Bool) && self.0 != BinaryFn::Equal {
            let expected = if self.0.is_logic() {
                "bool"
            } else {
                "a number"
            };
            return Err(OpError::DType {
                operand: 0,
                expected,
                found,
            });
        }
        let shape = broadcast_shapes(&inputs[0].shape, &inputs[1].shape).ok_or_else(|| {
            OpError::shape(format!("{} and {} do not broadcast", inputs[0], inputs[1]))
        })?;
        checked(
            if self.0.compares() {
                DType::Bool
            } else {
                found
            },
            shape,
        )
    }

    fn eval(&self, inputs: &[&Tensor]) -> Result<Tensor, OpError> {
        let shape = infer_of(self, inputs)?.shape;
        let (a, b) = (inputs[0], inputs[1]);
        if self.0.compares() {
            return Ok(with_data!(a.data(), x => {
                let y = same(x, b);
                let found = match self.0 {
                    BinaryFn::Equal => zipped(x, a, y, b, &shape, |x, y| x == y),
                    BinaryFn::Greater => zipped(x, a, y, b, &shape, |x, y| x > y),
                    _ => zipped(x, a, y, b, &shape, |x, y| x >= y),
                };
                Tensor::new(shape.clone(), found)
            }));
        }
        if self.0.is_logic() {
            let (x, y) = (a.as_slice::<bool>(), b.as_slice::<bool>());
            return Ok(Tensor::new(
                shape.clone(),
                zipped(x, a, y, b, &shape, |&x, &y| self.0.logic(x, y)),
            ));
        }
        with_float!(a, S => {
            Ok(self.arithmetic::<S>(a, b, shape))
        }, else {
            let beyond = || OpError::Value("an integer beyond 2^63".into());
            let (x, y) = (a.to_i64().ok_or_else(beyond)?, b.to_i64().ok_or_else(beyond)?);
            let wide: Result<Vec<i64>, OpError> =
                zipped(&x, a, &y, b, &shape, |&x, &y| self.0.integer(x, y)).into_iter().collect();
            Ok(Tensor::from_i64(a.dtype(), shape, wide?))
        })
    }
}

impl Binary {
    fn arithmetic<S: Scalar>(&self, a: &Tensor, b: &Tensor, shape: Vec<usize>) -> Tensor {
        let (x, y) = (a.as_slice::<S>(), b.as_slice::<S>());
        let strides = [a, b].map(|t| broadcast_strides(t.shape(), &shape));
        let (extents, [by_x, by_y]) = long_rows(&shape, strides);
        let mut result = Vec::with_capacity(shape.iter().product());
        let (n, outer) = extents.split_last().map_or((1, &[][..]), |(&n, o)| (n, o));
        let inner = |s: &[isize]| s.last().is_some_and(|&s| s != 0);
        let (long_x, long_y) = (inner(&by_x), inner(&by_y));
        let starts = Positions::new(outer, &by_x, 0).zip(Positions::new(outer, &by_y, 0));
        for (i, j) in starts.take_while(|_| n > 0) {
            let first = result.len();
            if long_x || !long_y {
                let y = if long_y { &y[j..][..n] } else { &y[j..=j] };
                extend(&mut result, &x[i..], n, long_x);
                self.0.update(&mut result[first..], y, false);
            } else {
                extend(&mut result, &y[j..], n, true);
                self.0.update(&mut result[first..], &x[i..=i], true);
            }
        }
        Tensor::new(shape, result)
    }
}

#[inline(always)]
fn update<S: Scalar>(x: &mut [S], y: &[S], f: impl Fn(S, S) -> S) {
    if let &[y] = y {
        return x.iter_mut().for_each(|x| *x = f(*x, y));
    }
    for row in x.chunks_mut(y.len().max(1)) {
        row.iter_mut().zip(y).for_each(|(x, &y)| *x = f(*x, y));
    }
}

/// The elements of `b`, of the type that `x` has.
fn same<'a, T: Element>(_: &[T], b: &'a Tensor) -> &'a [T] {
    b.as_slice()
}

fn zipped<T, R>(
    x: &[T],
    a: &Tensor,
    y: &[T],
    b: &Tensor,
    shape: &[usize],
    f: impl Fn(&T, &T) -> R,
) -> Vec<R> {
    if a.shape() == b.shape() {
        return x.iter().zip(y).map(|(x, y)| f(x, y)).collect();
    }
    if y.len() == 1 && a.shape() == shape {
        return x.iter().map(|x| f(x, &y[0])).collect();
    }
    if a.shape() == shape && shape.ends_with(b.shape()) && !y.is_empty() {
        return x
            .chunks_exact(y.len())
            .flat_map(|row| row.iter().zip(y))
            .map(|(x, y)| f(x, y))
            .collect();
    }
    let strides = [a, b].map(|t| broadcast_strides(t.shape(), shape));
    let positions =
        Positions::new(shape, &strides[0], 0).zip(Positions::new(shape, &strides[1], 0));
    positions.map(|(i, j)| f(&x[i], &y[j])).collect()
}

impl Differentiable for Binary {
    fn gradient(&self, at: &mut Adjoint<'_>) -> Derivatives {
        let (x, y, result, g) = (at.inputs[0], at.inputs[1], at.output, at.seed);
        let left = |at: &mut Adjoint<'_>| {
            let e = &mut at.emit;
            match self.0 {
                BinaryFn::Mul => e.mul(g, y),
                BinaryFn::Div => e.div(g, y),
                BinaryFn::Max | BinaryFn::Min => {
                    let chosen = self.picks_left(e, x, y)?;
                    e.keep_where(chosen, g)
                }
                BinaryFn::Pow => {
                    let less = e.shift(y, -1.0)?;
                    let power = e.binary(BinaryFn::Pow, x, less)?;
                    let slope = e.mul(y, power)?;
                    e.mul(g, slope)
                }
                _ => Ok(g),
            }
        };
        let right = |at: &mut Adjoint<'_>| {
            let e = &mut at.emit;
            match self.0 {
                BinaryFn::Mul => e.mul(g, x),
                BinaryFn::Div => {
                    let slope = e.div(result, y)?;
                    let product = e.mul(g, slope)?;
                    e.unary(UnaryFn::Neg, product)
                }
                BinaryFn::Max | BinaryFn::Min => {
                    let chosen = self.picks_left(e, x, y)?;
                    e.keep_unless(chosen, g)
                }
                BinaryFn::Pow => {
                    let log = e.unary(UnaryFn::Log, x)?;
                    let slope = e.mul(result, log)?;
                    e.mul(g, slope)
                }
                BinaryFn::Sub => e.unary(UnaryFn::Neg, g),
                _ => Ok(g),
            }
        };
        Ok(vec![at.broadcast_to(0, left)?, at.broadcast_to(1, right)?])
    }

    /// A constant gets nothing. The terms of a sum get shares as large as their totals, the factors of a product half
    /// each, a quotient gives all to what is divided, a power to its base.
    fn relevance(&self, at: &mut Adjoint<'_>) -> Derivatives {
        let constant = |k: usize| at.emit.graph.as_const(at.inputs[k]).is_some();
        let one = [constant(1), constant(0)];
        match self.0 {
            BinaryFn::Max | BinaryFn::Min => self.gradient(at),
            BinaryFn::Pow | BinaryFn::Div => at.passed_to(0),
            _ if one[0] => at.passed_to(0),
            _ if one[1] => at.passed_to(1),
            BinaryFn::Mul => {
                let shares = at.proportional(self)?;
                at.halved(shares)
            }
            _ => {
                let shares = at.proportional(self)?;
                self.balanced(at, shares)
            }
        }
    }
}

impl Binary {
    /// Scales the shares of two terms so that their totals are as the magnitudes of what they were, and sum up to the
    /// relevance of the result.
    fn balanced(&self, at: &mut Adjoint<'_>, shares: Vec<Option<ValueId>>) -> Derivatives {
        let [Some(a), Some(b)] = shares[..] else {
            return Ok(shares);
        };
        let e = &mut at.emit;
        let (total, sum_a, sum_b) = (e.total(at.seed)?, e.total(a)?, e.total(b)?);
        let size_a = e.unary(UnaryFn::Abs, sum_a)?;
        let size_b = e.unary(UnaryFn::Abs, sum_b)?;
        let size = e.add(size_a, size_b)?;
        let each = e.ratio(total, size)?;
        let mut scaled = Vec::new();
        for (x, sum) in [(a, sum_a), (b, sum_b)] {
            let sign = e.unary(UnaryFn::Sign, sum)?;
            let factor = e.mul(each, sign)?;
            scaled.push(Some(e.mul(x, factor)?));
        }
        Ok(scaled)
    }

    /// Where a maximum or minimum takes its left operand.
    fn picks_left(&self, e: &mut Emit<'_>, x: ValueId, y: ValueId) -> Result<ValueId, OpError> {
        match self.0 {
            BinaryFn::Max => e.binary(BinaryFn::GreaterOrEqual, x, y),
            _ => e.binary(BinaryFn::GreaterOrEqual, y, x),
        }
    }
}
