//! Lowering: an integer graph becomes a program of kernels over one arena.

mod node;

pub use node::{Arg, Step, Storage};
