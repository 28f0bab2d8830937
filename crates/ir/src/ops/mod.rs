//! Operations, one file each.

use serde::{Deserialize, Serialize};

use crate::derive::{Adjoint, Derivatives, Differentiable};
use crate::{DType, Stage, Tensor, Type, elements};

/// What every operation says about itself. All of it is mandatory.
pub trait Operation {
    /// The name in the text form and in messages.
    const NAME: &'static str;

    /// The stages that it is legal in.
    const STAGES: &'static [Stage];

    /// The type of the result, or what is wrong with the operands.
    fn infer(&self, inputs: &[&Type]) -> Result<Type, OpError>;

    /// The reference body. Operands fit [`Operation::infer`]; what only values can show (an index out of bounds) is
    /// an error.
    fn eval(&self, inputs: &[&Tensor]) -> Result<Tensor, OpError>;
}

/// What is wrong with an operation's operands or attributes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpError {
    /// Too few or too many operands.
    #[error("expects {expected} operands, found {found}")]
    Arity {
        /// How many the operation takes, as a person would write it: `2`, `2 or 3`.
        expected: &'static str,
        /// How many there are.
        found: usize,
    },
    /// An operand's element type is not supported.
    #[error("operand {operand} has element type {found}; expected {expected}")]
    DType {
        /// Index of the operand.
        operand: usize,
        /// What would be accepted.
        expected: &'static str,
        /// What is there.
        found: DType,
    },
    /// Shapes or attributes do not fit together.
    #[error("{0}")]
    Shape(String),
    /// A value makes the operation meaningless.
    #[error("{0}")]
    Value(String),
}

impl OpError {
    /// A shape error from a message.
    pub fn shape(message: impl Into<String>) -> Self {
        Self::Shape(message.into())
    }
}

/// Checks the number of operands.
///
/// # Errors
/// [`OpError::Arity`] outside `range`.
pub(crate) fn arity(
    inputs: &[&Type],
    range: std::ops::RangeInclusive<usize>,
    expected: &'static str,
) -> Result<(), OpError> {
    if range.contains(&inputs.len()) {
        Ok(())
    } else {
        Err(OpError::Arity {
            expected,
            found: inputs.len(),
        })
    }
}

/// Largest tensor, in bytes, that a shape rule accepts.
const LARGEST: usize = 1 << 40;

/// A type whose size is bounded.
///
/// # Errors
/// [`OpError::Shape`] where the tensor would take more than 2^40 bytes.
pub(crate) fn checked(dtype: DType, shape: Vec<usize>) -> Result<Type, OpError> {
    let bytes = elements(&shape).and_then(|n| n.checked_mul(dtype.bytes()));
    match bytes {
        Some(n) if n <= LARGEST => Ok(Type::new(dtype, shape)),
        _ => Err(OpError::Shape(format!(
            "a result of shape {shape:?} is too large"
        ))),
    }
}

/// Checks that all operands are of one float type.
///
/// # Errors
/// [`OpError::DType`] for the first that is not.
pub(crate) fn floats(inputs: &[&Type]) -> Result<(), OpError> {
    let odd = |t: &&Type| !t.dtype.is_float() || t.dtype != inputs[0].dtype;
    match inputs.iter().position(odd) {
        None => Ok(()),
        Some(operand) => {
            let expected = "the same float type for all operands";
            Err(OpError::DType {
                operand,
                expected,
                found: inputs[operand].dtype,
            })
        }
    }
}

/// The type that an operation gives for tensors.
///
/// # Errors
/// What the shape rule says.
pub(crate) fn infer_of(op: &impl Operation, inputs: &[&Tensor]) -> Result<Type, OpError> {
    let types: Vec<Type> = inputs.iter().map(|t| t.ty()).collect();
    op.infer(&types.iter().collect::<Vec<_>>())
}

macro_rules! operations {
    (floats { $($float:ident :: $on_floats:ident,)* } codes { $($int:ident :: $on_codes:ident,)* }) => {
        operations! { $($float::$on_floats,)* $($int::$on_codes,)* }

        impl Op {
            /// The reverse-mode rule; see [`Differentiable::gradient`]. Codes are constant between jumps.
            ///
            /// # Errors
            /// What the shape rules of emitted nodes say.
            pub fn gradient(&self, at: &mut Adjoint<'_>) -> Derivatives {
                match self {
                    $(Self::$on_floats(op) => op.gradient(at),)*
                    _ => Ok(vec![None; at.inputs.len()]),
                }
            }

            /// The relevance rule; see [`Differentiable::relevance`]. Codes get none.
            ///
            /// # Errors
            /// What the shape rules of emitted nodes say.
            pub fn relevance(&self, at: &mut Adjoint<'_>) -> Derivatives {
                match self {
                    $(Self::$on_floats(op) => op.relevance(at),)*
                    _ => Ok(vec![None; at.inputs.len()]),
                }
            }

            /// Names of the operations that have derivatives.
            pub const DIFFERENTIABLE: &'static [&'static str] = &[$($on_floats::NAME,)*];
        }
    };
    ($($module:ident :: $op:ident,)*) => {
        $(mod $module;)*
        $(pub use $module::$op;)*

        /// An operation with its attributes.
        #[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
        #[allow(missing_docs, reason = "each variant holds the operation it is named after")]
        pub enum Op {
            $($op($op),)*
        }

        impl Op {
            /// Names of all operations.
            pub const ALL: &'static [&'static str] = &[$($op::NAME,)*];

            /// The name in the text form and in messages.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$op(_) => $op::NAME,)*
                }
            }

            /// The stages that it is legal in.
            pub fn stages(&self) -> &'static [Stage] {
                match self {
                    $(Self::$op(_) => $op::STAGES,)*
                }
            }

            /// The type of the result.
            ///
            /// # Errors
            /// What is wrong with the operands.
            pub fn infer(&self, inputs: &[&Type]) -> Result<Type, OpError> {
                match self {
                    $(Self::$op(op) => op.infer(inputs),)*
                }
            }

            /// The reference body.
            ///
            /// # Errors
            /// What only values can show, such as an index out of bounds.
            pub fn eval(&self, inputs: &[&Tensor]) -> Result<Tensor, OpError> {
                match self {
                    $(Self::$op(op) => op.eval(inputs),)*
                }
            }
        }

        $(impl From<$op> for Op {
            fn from(op: $op) -> Self {
                Self::$op(op)
            }
        })*
    };
}

operations! {
    floats {
        conv::Conv,
        matmul::MatMul,
        unary::Unary,
        binary::Binary,
        select::Select,
        reduce::Reduce,
        pool::Pool,
        softmax::Softmax,
        normalize::Normalize,
        reshape::Reshape,
        transpose::Transpose,
        concat::Concat,
        slice::Slice,
        pad::Pad,
        gather::Gather,
        broadcast::Broadcast,
        cast::Cast,
    }
    codes {
        int_conv::IntConv,
        int_lookup::IntLookup,
        int_matmul::IntMatMul,
        int_mean::IntMean,
        int_normalize::IntNormalize,
        int_product::IntProduct,
        int_softmax::IntSoftmax,
        int_sum::IntSum,
    }
}

mod format_name;
mod int_rescale;
mod product;
mod scalar;
mod window;

pub use binary::BinaryFn;
pub use int_conv::{Epilogue, dot_products};
pub use int_normalize::ReciprocalRoot;
pub use int_rescale::{Codes, Rescale};
pub use pad::PadMode;
pub use pool::PoolKind;
pub use reduce::ReduceFn;
pub(crate) use scalar::{Scalar, with_float};
pub use unary::UnaryFn;
