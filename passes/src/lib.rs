//! Passes: float graph to integer graph to kernel IR.
//!
//! ```text
//! float graph ──simplify::PIPELINE──▶ float graph ──calibrate──▶ ranges ──quantize──▶ integer graph ──lower──▶ program
//! ```
#![forbid(unsafe_code)]

pub mod allocate;
pub mod bounds;
pub mod calibrate;
pub mod equalize;
pub mod finetune;
pub mod latency;
pub mod loss;
pub mod lower;
mod pass;
pub mod quantize;
pub mod sensitivity;
pub mod simplify;

pub use pass::{Control, Pass, Show, run_passes};
