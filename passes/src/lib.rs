//! Passes: float graph to integer graph to kernel IR.
#![forbid(unsafe_code)]

pub mod bounds;
pub mod lower;
pub mod quantize;
