//! Lowering: an integer graph becomes a program of kernels over one arena.

mod machine;
mod node;

pub use machine::Machine;
pub use node::{Arg, Operand, Step, Storage};
