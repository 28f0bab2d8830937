//! Kernel IR: structured loops over signless integer vectors, with *semantic* operations.
//!
//! What a machine does in one instruction (`dot4`, `mulhi`, `pack4_u8` …) is one operation here and is never taken apart and found
//! again. A [`Kernel`] reads and writes byte buffers at affine addresses; values are SSA, accumulators are carried through loops as
//! values. A [`Program`] is the calls of one inference over an arena. Each has a text form, a verifier and an interpreter; the
//! interpreter is the definition that every target equals bit for bit.
//!
//! ```text
//! kernel scale(@x: in 640 slack 64, @w: const 64 align 64, @y: out 640 align 64) {
//!   %0 = load i8x64 @w[0]                          // type, then @buffer[bytes + counter*bytes + %index*bytes]
//!   for i0 in 10 unroll (%1 = %0) -> (%4) {        // trips; (inside = before) -> (after)
//!     %2 = load i8x64 @x[0 + i0*64]
//!     %3 = umax i8x64 %2, %1
//!     store %3, @y[0 + i0*64]
//!     yield %3
//!   }
//! }
//! ```
#![forbid(unsafe_code)]

mod builder;
mod interp;
mod ir;
pub mod ops;
mod parse;
mod print;
mod program;
mod types;
mod verify;

pub use builder::Builder;
pub use interp::{RunError, State, run_kernel};
pub use ir::{Addr, Attr, Block, BufId, Buffer, For, Kernel, LoopVar, Op, Role, Stmt, Val};
pub use ops::OpCode;
pub use parse::ParseError;
pub use program::{Call, Place, Program, ProgramError};
pub use types::{Scalar, Type};
pub use verify::{VerifyError, verify};
