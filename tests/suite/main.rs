//! Conformance with what ONNX itself ships.

mod operators;
mod targets;
