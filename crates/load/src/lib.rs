//! Maps a generated object into the process and calls it, without a linker.
//!
//! [`Module::load`] reads a relocatable ELF object for the processor that this process runs on (x86-64 or AArch64), puts its constants on pages that can only be
//! read and its code on pages that can be read and executed, applies its relocations, and finds `NAME_run`, `NAME_check_cpu` and, where it
//! is there, `NAME_step`.
//!
//! # Safety contract
//! Calling machine code is only as safe as the code. The functions here are safe to call under one condition that no check can prove: **the
//! object was written by this compiler, and the [`Sizes`] are those of its own header.** Such an object calls nothing outside of itself, reads its inputs,
//! writes its outputs and arena within those sizes, and keeps no state. Whoever loads bytes of another origin runs them with the rights of the
//! process. What is checked: an object that is damaged, has undefined symbols, data to be written, or an unknown relocation is refused before
//! any of it runs; buffers of other lengths than `Sizes` panic before the call. Call [`Module::check_cpu`] first: a processor without an instruction ends
//! the process when it meets it.

mod arena;
mod error;
mod image;
mod memory;
mod module;
mod pool;
mod relocate;
#[cfg(test)]
mod tests;
mod tiles;

pub use arena::Arena;
pub use error::{LoadError, Result};
pub use module::{ForEach, Module, Sizes};
pub use pool::Pool;
pub use tiles::{emulate_tiles, tiles_permitted};
