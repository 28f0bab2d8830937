use serde::{Deserialize, Serialize};

use super::scalar::{Scalar, vectorized, with_float};
use super::{BinaryFn, OpError, Operation, arity, infer_of};
use crate::derive::{Adjoint, Derivatives, Differentiable};
use crate::{DType, Stage, Tensor, Type};

/// An elementwise function of one operand. What can be written with other operations is no variant here.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Unary(pub UnaryFn);

/// The functions of [`Unary`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names are the field's")]
pub enum UnaryFn {
    Abs,
    Ceil,
    Cos,
    /// Gauss error function.
    Erf,
    Exp,
    Floor,
    Log,
    Neg,
    /// Boolean negation.
    Not,
    /// `1 / x`.
    Reciprocal,
    Relu,
    /// Rounds half to even.
    Round,
    Sigmoid,
    Sign,
    Sin,
    Sqrt,
    Tanh,
}

impl UnaryFn {
    /// Whether the function is constant between jumps.
    fn is_step(self) -> bool {
        matches!(
            self,
            Self::Ceil | Self::Floor | Self::Not | Self::Round | Self::Sign
        )
    }

    fn takes_integers(self) -> bool {
        matches!(self, Self::Abs | Self::Neg | Self::Relu | Self::Sign)
    }

    #[inline(always)]
    fn real<S: Scalar>(self, x: S) -> S {
        match self {
            Self::Abs => x.unary(f32::abs, f64::abs),
            Self::Ceil => x.unary(f32::ceil, f64::ceil),
            Self::Cos => x.unary(libm::cosf, libm::cos),
            Self::Erf => x.unary(libm::erff, libm::erf),
            Self::Exp => x.exp(),
            Self::Floor => x.unary(f32::floor, f64::floor),
            Self::Log => x.unary(libm::logf, libm::log),
            Self::Neg => -x,
            Self::Not => unreachable!("infer allows booleans alone"),
            Self::Reciprocal => S::ONE / x,
            // NaN stays
            Self::Relu => {
                if x < S::ZERO {
                    S::ZERO
                } else {
                    x
                }
            }
            Self::Round => x.unary(f32::round_ties_even, f64::round_ties_even),
            Self::Sigmoid => S::ONE / (S::ONE + (-x).exp()),
            Self::Sign => sign(x),
            Self::Sin => x.unary(libm::sinf, libm::sin),
            Self::Sqrt => x.sqrt(),
            Self::Tanh => x.unary(libm::tanhf, libm::tanh),
        }
    }

    /// Applies the function to every element.
    pub(crate) fn update<S: Scalar>(self, x: &mut [S]) {
        macro_rules! each {
            ($($f:ident)*) => {
                match self {
                    $(Self::$f => vectorized(#[inline(always)] || x.iter_mut().for_each(|x| *x = Self::$f.real(*x))),)*
                }
            };
        }
        each!(Abs Ceil Cos Erf Exp Floor Log Neg Not Reciprocal Relu Round Sigmoid Sign Sin Sqrt Tanh);
    }

    fn integer(self, x: i64) -> i64 {
        match self {
            Self::Abs => x.wrapping_abs(),
            Self::Neg => x.wrapping_neg(),
            Self::Relu => x.max(0),
            Self::Sign => x.signum(),
            _ => unreachable!("infer allows floats alone"),
        }
    }
}

#[inline(always)]
fn sign<S: Scalar>(x: S) -> S {
    if x > S::ZERO {
        S::ONE
    } else if x < S::ZERO {
        -S::ONE
    } else {
        x
    }
}

impl Operation for Unary {
    const NAME: &'static str = "unary";
    const STAGES: &'static [Stage] = &[Stage::Float];

    fn infer(&self, inputs: &[&Type]) -> Result<Type, OpError> {
        arity(inputs, 1..=1, "1")?;
        let found = inputs[0].dtype;
        let expected = match self.0 {
            UnaryFn::Not if found != DType::Bool => "bool",
            UnaryFn::Not => return Ok(Type::new(found, inputs[0].shape.clone())),
            f if !found.is_float() && (found == DType::Bool || !f.takes_integers()) => "a float",
            _ => return Ok(Type::new(found, inputs[0].shape.clone())),
        };
        Err(OpError::DType {
            operand: 0,
            expected,
            found,
        })
    }

    fn eval(&self, inputs: &[&Tensor]) -> Result<Tensor, OpError> {
        infer_of(self, inputs)?;
        let (x, shape) = (inputs[0], inputs[0].shape());
        if self.0 == UnaryFn::Not {
            return Ok(Tensor::new(
                shape,
                x.as_slice::<bool>().iter().map(|b| !b).collect(),
            ));
        }
        Ok(with_float!(x, S => {
            let mut y = x.as_slice::<S>().to_vec();
            self.0.update(&mut y);
            Tensor::new(shape, y)
        }, else {
            let wide = x.to_i64().ok_or_else(|| OpError::Value("an integer beyond 2^63".into()))?;
            Tensor::from_i64(x.dtype(), shape, wide.into_iter().map(|x| self.0.integer(x)).collect())
        }))
    }
}

impl Differentiable for Unary {
    fn gradient(&self, at: &mut Adjoint<'_>) -> Derivatives {
        let (x, y, g) = (at.inputs[0], at.output, at.seed);
        if self.0.is_step() {
            return Ok(vec![at.straight_through.then_some(g)]);
        }
        let e = &mut at.emit;
        let slope = match self.0 {
            UnaryFn::Relu => {
                let zero = e.number(x, 0.0);
                let positive = e.binary(BinaryFn::Greater, x, zero)?;
                return Ok(vec![Some(e.keep_where(positive, g)?)]);
            }
            UnaryFn::Log => return Ok(vec![Some(e.div(g, x)?)]),
            UnaryFn::Neg => return Ok(vec![Some(e.unary(UnaryFn::Neg, g)?)]),
            UnaryFn::Abs => e.unary(UnaryFn::Sign, x)?,
            UnaryFn::Cos => {
                let sin = e.unary(UnaryFn::Sin, x)?;
                e.unary(UnaryFn::Neg, sin)?
            }
            UnaryFn::Erf => {
                let square = e.mul(x, x)?;
                let exponent = e.unary(UnaryFn::Neg, square)?;
                let bell = e.unary(UnaryFn::Exp, exponent)?;
                e.scale(bell, std::f64::consts::FRAC_2_SQRT_PI)?
            }
            UnaryFn::Exp => y,
            UnaryFn::Reciprocal => {
                let square = e.mul(y, y)?;
                e.unary(UnaryFn::Neg, square)?
            }
            UnaryFn::Sigmoid => {
                let square = e.mul(y, y)?;
                e.sub(y, square)?
            }
            UnaryFn::Sin => e.unary(UnaryFn::Cos, x)?,
            UnaryFn::Sqrt => {
                let root = e.unary(UnaryFn::Reciprocal, y)?;
                e.scale(root, 0.5)?
            }
            UnaryFn::Tanh => {
                let square = e.mul(y, y)?;
                let negative = e.unary(UnaryFn::Neg, square)?;
                e.shift(negative, 1.0)?
            }
            UnaryFn::Ceil | UnaryFn::Floor | UnaryFn::Not | UnaryFn::Round | UnaryFn::Sign => {
                unreachable!("steps have returned above")
            }
        };
        Ok(vec![Some(e.mul(g, slope)?)])
    }

    fn relevance(&self, at: &mut Adjoint<'_>) -> Derivatives {
        at.passed()
    }
}
