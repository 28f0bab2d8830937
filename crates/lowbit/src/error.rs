use std::path::{Path, PathBuf};

use lowbit_data::DataError;
use lowbit_ir::eval::EvalError;
use lowbit_llvm::{EmitError, ScanError};
use lowbit_load::LoadError;
use lowbit_onnx::ImportError;
use lowbit_passes::allocate::Least;
use lowbit_targets::TargetError;

/// Why a command failed; [`Error::exit_code`] says which kind of failure it is.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The model cannot be read.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The data cannot be read or does not fit the model.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The target does not exist.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Nodes that cannot be compiled.
    #[error("{} cannot be compiled:{}", count(.0.len()), list(.0))]
    Nodes(Vec<String>),
    /// A graph failed on a sample.
    #[error("sample {sample}: {error}")]
    Eval {
        /// The sample.
        sample: usize,
        /// What failed.
        error: EvalError,
    },
    /// Calibration or another step failed on the data.
    #[error("{0}")]
    Sample(String),
    /// The object cannot be emitted: a bug of the compiler.
    #[error(transparent)]
    Emit(#[from] EmitError),
    /// The object cannot be disassembled.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// The object cannot be mapped.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A file cannot be read or written.
    #[error("cannot {what} {path}: {source}", path = path.display())]
    File {
        /// `read`, `write`, …
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A path or an environment does not fit the command.
    #[error("{0}")]
    Other(String),
    /// The command was used wrongly.
    #[error("{0}")]
    Usage(String),
    /// No object meets the budgets.
    #[error("{}", .0.message)]
    Infeasible(Infeasible),
    /// The object differs from its definition.
    #[error("{0}")]
    Mismatch(String),
}

/// No object meets the budgets.
#[derive(Clone, Debug)]
pub struct Infeasible {
    /// What was asked for and what could be had, in words.
    pub message: String,
    /// The least value of each budget, where the allocator found it.
    pub least: Vec<Least>,
}

impl From<String> for Infeasible {
    fn from(message: String) -> Self {
        Self {
            message,
            least: Vec::new(),
        }
    }
}

fn count(n: usize) -> String {
    if n == 1 {
        "1 node".into()
    } else {
        format!("{n} nodes")
    }
}

fn list(nodes: &[String]) -> String {
    nodes.iter().map(|n| format!("\n  {n}")).collect()
}

impl Error {
    /// 1: the model, data, target, processor or a path is at fault; 2: wrong usage; 3: the budget cannot be met; 4: the
    /// object differs from its definition.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Infeasible(_) => 3,
            Self::Mismatch(_) => 4,
            _ => 1,
        }
    }

    pub(crate) fn file(what: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::File {
            what,
            path: path.into(),
            source,
        }
    }
}
