//! Machine code against the interpreter, on every target that this machine can run.

mod common;
mod entries;
mod kernels;
mod matrix;
mod ops;
mod rows;
mod tiles;
