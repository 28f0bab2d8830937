//! The compiler as a library: one module a command.
#![forbid(unsafe_code)]

mod artefact;
mod compile;
mod error;
mod eval;
mod header;
mod model;
mod object;
mod progress;
mod qemu;

pub use artefact::{Artefact, is_artefact, object_name};
pub use compile::{Compiled, Options, compile, ranges_from_name, ranges_name};
pub use error::Error;
pub use eval::eval;
pub use header::header;
pub use lowbit_report as report;
pub use model::{Model, Shapes};
pub use object::{Runner, encode, top1};
pub use progress::{Progress, Silent};
