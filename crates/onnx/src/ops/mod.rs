//! Operators, by family. Each decomposes into the few operations of the graph.

mod activation;
mod constant;
mod conv;
mod elementwise;
mod gather;
mod linear;
mod norm;
mod pad;
mod pool;
mod quantize;
mod reduce;
mod resize;
mod shape;
mod slice;
mod window;

use lowbit_ir::ValueId;

use crate::node::{Node, Result};

/// Imports a node: its operands to its outputs.
pub(crate) type Import = fn(&mut Node<'_>) -> Result<Vec<ValueId>>;

/// All operators of ONNX's own domain, with their importers.
pub(crate) const OPERATORS: &[&[(&str, Import)]] = &[
    activation::OPERATORS,
    constant::OPERATORS,
    conv::OPERATORS,
    elementwise::OPERATORS,
    gather::OPERATORS,
    linear::OPERATORS,
    norm::OPERATORS,
    pad::OPERATORS,
    pool::OPERATORS,
    quantize::OPERATORS,
    reduce::OPERATORS,
    resize::OPERATORS,
    shape::OPERATORS,
    slice::OPERATORS,
];

/// The names of all operators.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    OPERATORS.iter().copied().flatten().map(|(name, _)| *name)
}

/// The importer of an operator.
pub(crate) fn find(op: &str) -> Option<Import> {
    OPERATORS
        .iter()
        .copied()
        .flatten()
        .find(|(name, _)| *name == op)
        .map(|(_, import)| *import)
}
