use std::path::PathBuf;

/// Why a model cannot be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The bytes are no ONNX model.
    #[error("{path} is no ONNX model: {what}; give a file that onnx.checker accepts", path = path.display())]
    NotOnnx {
        /// The file.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// The model's inputs, weights or structure are at fault.
    #[error("{0}")]
    Model(String),
    /// A node cannot be imported.
    #[error(transparent)]
    Node(#[from] Problem),
}

/// A node that cannot be imported or compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("node '{name}' ({op}, opset {opset}): {message}")]
pub struct Problem {
    /// Name of the node, or of its first output where it has none.
    pub name: String,
    /// Operator, with its domain where that is not ONNX's own.
    pub op: String,
    /// Version of the operator set that the model asks for.
    pub opset: i64,
    /// The attribute, operand or shape at fault, and what to do.
    pub message: String,
}
