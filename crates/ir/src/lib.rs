//! Graph IR: straight-line SSA over tensors.
//!
//! A [`Graph`] is a list of [`Node`]s in an order that respects their data flow. Each node applies one [`Op`] to
//! values and defines one value; a value is an input, a constant or a node's result, and has a [`Type`]: element
//! type, static shape and, in the integer stage, the quantisation of its codes. The same container serves both
//! stages; [`Stage`] says which operations and element types are legal where, and [`verify`](Graph::verify) checks it.
//!
//! An operation lives in one file, `ops/<name>.rs`, with everything it means: attributes, shape rule and reference
//! body. Spatial operations are channels-last, and there are few of them: what other formats call by a hundred names
//! is decomposed where it is imported.
//!
//! The reference bodies are the definition. In the integer stage they are exact, and object code on every target
//! equals them bit for bit.
#![forbid(unsafe_code)]

mod chain;
pub mod derive;
pub mod eval;
mod graph;
pub mod ops;
mod tensor;
mod text;
mod types;
mod verify;

pub use cranelift_entity::SecondaryMap;

pub use graph::{Def, Graph, Node, NodeId, Output, QuantId, Rewrite, Value, ValueId};
pub use ops::{Op, OpError};
pub use tensor::{Data, Element, Tensor};
pub use text::{ParseError, parse};
pub use types::{DType, Quant, Real, Type, broadcast_shapes, elements};
pub use verify::{Stage, VerifyError};
