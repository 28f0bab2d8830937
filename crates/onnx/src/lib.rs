//! ONNX importer: file to float graph.
//!
//! Each operator is decomposed into the few operations of the graph IR, channels last inside. What is constant is
//! computed at import, so shape arithmetic folds away.
#![forbid(unsafe_code)]

mod check;
mod error;
mod external;
mod float8;
mod model;
mod node;
mod ops;
pub mod proto;
mod tensor;

pub use check::{Checked, Origin, check};
pub use error::{ImportError, Problem};
pub use model::{Imported, OPSETS, Options, import, import_bytes};

/// The operators of ONNX's own domain that are read, in no order.
pub fn operators() -> impl Iterator<Item = &'static str> {
    ops::names()
}

/// Reads a tensor of a model or of an `input_N.pb`.
///
/// # Errors
/// What makes it unreadable.
pub fn read_tensor(t: &proto::Tensor) -> Result<lowbit_ir::Tensor, String> {
    tensor::read(t, None)
}
