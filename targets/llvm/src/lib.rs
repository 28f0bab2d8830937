//! Lowers a kernel-IR program to one object file through LLVM.
//!
//! [`emit`] turns a verified [`Program`](lowbit_kernel::Program) into an ELF object that exports `NAME_run` and `NAME_check_cpu`
//! and nothing else: no undefined symbol, no writable data, no floating-point instruction. [`scan`] proves that by reading the
//! object back. How an operation becomes instructions is read from the target's rows; only the sequences that rows name are code here.

mod check;
mod emit;
mod entry;
mod generate;
mod kernel;
mod ops;
mod rules;
mod scan;
mod tiles;

pub use emit::{EmitError, Emitted, Options, emit};
pub use scan::{FloatInstruction, Report, ScanError, disassemble, kernel_bytes, scan};
