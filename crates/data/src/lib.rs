//! Sample data: descriptors, arrays, images, labels.
//!
//! [`Dataset::open`] reads what `--data` takes (a TOML descriptor, `.npz`, `.npy`, a folder of ONNX `input_N.pb`) against the inputs of a model
//! and hands out samples one at a time; [`Dataset::random`] makes seeded ones where there is no data. What a descriptor means, in this order:
//! an image is decoded to RGB, resized so that its short side is `resize`, cropped at its centre; values become `(x·scale − mean) / std` in `f32`,
//! by channel of what is stored; channels move to where the model has them; unit axes come and go, neighbouring axes join and split, until the shape is
//! the model's.
//!
//! Nothing here knows a model beyond [`InputSpec`], and nothing quantises. Samples are never all in memory at once, except where a compressed archive
//! holds them, and then as stored.

mod array;
mod dataset;
mod descriptor;
mod digest;
mod error;
mod fit;
mod image;
mod labels;
mod npy;
mod pb;
mod random;
mod source;
mod split;
mod store;
mod table;

pub use array::{Array, Codes, Dtype, InputSpec};
pub use dataset::Dataset;
pub use error::{DataError, Result};
pub use npy::{Element, read_npy, read_npy_codes, write_npy};
pub use pb::{read_pb, read_pb_codes};
pub use split::{Split, spread};
