//! What can be wrong with data, said so that a person can mend it.

use std::path::{Path, PathBuf};

/// Why data could not be opened, read or written.
///
/// Every message names the file and the key, array or sample at fault, what was found there, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file or folder cannot be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write `{}`: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The path is of no kind that data comes in.
    #[error("`{}` is no data that can be read: {found}; give a .toml descriptor, a .npz or .npy file, or a folder of input_N.pb", path.display())]
    UnknownKind {
        /// The path as given.
        path: PathBuf,
        /// What was found there.
        found: String,
    },
    /// The descriptor is not TOML, has an unknown or missing key, or keys that contradict each other.
    #[error("descriptor `{}`: {message}", path.display())]
    Descriptor {
        /// The descriptor.
        path: PathBuf,
        /// The key, what was found, and what to do.
        message: String,
    },
    /// A file of arrays, a tensor, a table or an image is damaged or of a kind that is not supported.
    #[error("`{}`: {message}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        message: String,
    },
    /// An archive or a table lacks the array or column that was asked for.
    #[error("`{}` has no {what} `{name}`; it has {}", path.display(), quoted(present))]
    Missing {
        /// The file.
        path: PathBuf,
        /// `array` or `column`.
        what: &'static str,
        /// The name asked for.
        name: String,
        /// The names that are there.
        present: Vec<String>,
    },
    /// Data is given for an input that the model does not have, or for too few of them.
    #[error("`{}` {message}; the model's inputs are {}", path.display(), quoted(inputs))]
    Inputs {
        /// The descriptor, file or folder.
        path: PathBuf,
        /// What was found, and what to do.
        message: String,
        /// The names of the model's inputs.
        inputs: Vec<String>,
    },
    /// A sample does not fit the model's input.
    #[error(
        "input `{input}`: samples of shape {found:?} do not fit the model's {wanted:?}: {hint}"
    )]
    Shape {
        /// The model's input.
        input: String,
        /// Shape of one stored sample.
        found: Vec<usize>,
        /// Shape of the model's input.
        wanted: Vec<usize>,
        /// What to do.
        hint: String,
    },
    /// Inputs, labels and samples differ in number.
    #[error("{what}: {found}, but there are {wanted} samples; each sample needs one")]
    Count {
        /// What is counted, with its file.
        what: String,
        /// How many were found.
        found: usize,
        /// How many samples there are.
        wanted: usize,
    },
    /// A range of `[split]` is malformed, empty, or overlaps what it must not.
    #[error(
        "[split] {key} = \"{text}\": {why}; write a half-open range such as \"0..512\" or \"512..\" within the {samples} samples"
    )]
    Span {
        /// `calibrate`, `evaluate` or `tune`.
        key: &'static str,
        /// The range as written.
        text: String,
        /// What is wrong with it.
        why: String,
        /// How many samples there are.
        samples: usize,
    },
    /// A sample holds an infinity or NaN, as stored or after scaling.
    #[error(
        "input `{input}`: sample {sample} has the value {value} at element {element}; data must be finite (check scale, mean and std too)"
    )]
    NotFinite {
        /// The model's input.
        input: String,
        /// Index of the sample.
        sample: usize,
        /// Row-major index within the sample.
        element: usize,
        /// The value found.
        value: f32,
    },
}

/// The result of everything here that can fail.
pub type Result<T, E = DataError> = std::result::Result<T, E>;

fn quoted(names: &[String]) -> String {
    if names.is_empty() {
        return "none".into();
    }
    let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

pub(crate) fn read(path: &Path) -> impl FnOnce(std::io::Error) -> DataError {
    let path = path.to_path_buf();
    move |source| DataError::Read { path, source }
}

pub(crate) fn format(path: &Path, message: impl Into<String>) -> DataError {
    DataError::Format {
        path: path.to_path_buf(),
        message: message.into(),
    }
}
