//! The numeric contract: dyadic scales, the ways to requantise, and the weight and activation formats.
//!
//! Every value of the integer stage is a code; its real value is `scale · (code − zero_point)`. A scale is a
//! [`Dyadic`] number. This crate is the only definition of how codes are rounded: the interpreter, the constant
//! folder, the kernels' tests and the importer of tables all call it. Floats appear in [`real`] alone.
#![no_std]
#![forbid(unsafe_code)]

mod dyadic;
pub mod formats;
pub mod real;
mod requant;
mod root;

pub use dyadic::{Dyadic, DyadicError};
pub use formats::Format;
pub use requant::{
    SumShift, add_residual, clamp, high_product, requantize, requantize_hi, rounding_shift,
};
pub use root::isqrt;
