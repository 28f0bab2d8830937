//! Lowering: an integer graph becomes a program of kernels over one arena.
//!
//! Each node becomes calls of kernels whose texts are built for its shapes and the target's few numbers ([`Machine`]);
//! equal texts are kept once. A tensor that a padded convolution reads has a border of its zero-point around it. Reshapes
//! share memory, and so do slices and transpositions that only products of activations read. The arena is planned over the lifetimes of all tensors and work spaces.
//! For several threads, layers that take long are cut into parts, a call each, that may run at the same time.

mod arena;
mod border;
mod broadcast;
mod check;
mod concat;
mod conv;
mod conv_blocks;
mod conv_pack;
mod conv_tiles;
mod depthwise;
mod depthwise_pack;
mod driver;
mod elementwise;
mod epilogue;
mod extremum;
mod gather;
mod lookup;
mod machine;
mod matmul;
mod matmul_pack;
mod moved;
mod node;
mod normalize;
mod pad;
mod pool;
mod product;
mod rescale;
mod rows;
pub(crate) mod select;
mod slice;
mod softmax;
mod split;
pub(crate) mod storage;
mod sum;
#[cfg(test)]
mod testing;
mod tile;
mod transpose;
mod unpack;
mod view;

use lowbit_kernel::{Buffer, Role};

pub use arena::{Lifetime, Plan, lower_bound, plan};
pub use check::{MemoryError, check_memory};
pub use driver::{Located, LowerError, Lowered, Room, lower};
pub use machine::Machine;
pub use node::{Arg, Operand, Step, Storage};

/// A kernel's buffer for a tensor, with the bytes behind it that may be read.
pub(crate) fn slack_buffer(name: &str, role: Role, storage: &Storage) -> Buffer {
    Buffer {
        name: name.into(),
        role,
        len: storage.bytes,
        slack: storage.slack,
        align: 1,
    }
}
