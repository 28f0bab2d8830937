//! Lowering: an integer graph becomes a program of kernels over one arena.

mod broadcast;
mod concat;
mod elementwise;
mod extremum;
mod gather;
mod lookup;
mod machine;
mod matmul;
mod node;
mod normalize;
mod pad;
mod pool;
mod product;
mod rescale;
mod rows;
mod select;
mod slice;
mod softmax;
mod sum;
#[cfg(test)]
mod testing;
mod transpose;
mod view;

pub use machine::Machine;
pub use node::{Arg, Operand, Step, Storage};
