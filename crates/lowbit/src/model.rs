//! A model and its data, as every command opens them.

use std::path::Path;

use lowbit_data::{Array, Dataset, Dtype, InputSpec};
use lowbit_ir::{DType, Graph, Tensor};
use lowbit_onnx::{Imported, Options};
use lowbit_passes::{Control, run_passes, simplify};
use sha2::{Digest, Sha256};

use crate::Error;

/// Shapes of inputs by name, `""` for the only input.
pub type Shapes = Vec<(String, Vec<usize>)>;

/// An imported and simplified model.
pub struct Model {
    /// The simplified graph, in the float stage.
    pub graph: Graph,
    /// Version of ONNX's operator set.
    pub opset: i64,
    /// SHA-256 of the file.
    pub sha256: String,
}

impl Model {
    /// Reads a model.
    ///
    /// # Errors
    /// The file cannot be read, or holds nodes that cannot be imported.
    pub fn open(path: &Path, shapes: &Shapes) -> Result<Self, Error> {
        let options = Options {
            shapes: shapes.clone(),
            ..Options::default()
        };
        let Imported { graph, opset, .. } = lowbit_onnx::import(path, &options)?;
        let bytes = std::fs::read(path).map_err(|e| Error::file("read", path, e))?;
        let graph = run_passes(graph, simplify::PIPELINE, Control::default());
        Ok(Self {
            graph,
            opset,
            sha256: sha256(&bytes),
        })
    }

    /// What every sample must fit.
    pub fn inputs(&self) -> Vec<InputSpec> {
        let graph = &self.graph;
        graph
            .inputs()
            .iter()
            .map(|&v| InputSpec {
                name: graph.value(v).name.clone(),
                shape: graph.shape(v).to_vec(),
                dtype: stored(graph.ty(v).dtype),
            })
            .collect()
    }

    /// Reads the data for this model.
    ///
    /// # Errors
    /// It cannot be read or does not fit.
    pub fn data(&self, path: &Path) -> Result<Dataset, Error> {
        Ok(Dataset::open(path, &self.inputs())?)
    }

    /// Tensors of a sample.
    ///
    /// # Errors
    /// The sample cannot be read.
    pub fn sample(&self, data: &Dataset, i: usize) -> Result<Vec<Tensor>, lowbit_data::DataError> {
        let arrays = data.sample(i)?;
        let types = self.graph.inputs().iter().map(|&v| self.graph.ty(v).dtype);
        Ok(arrays
            .into_iter()
            .zip(types)
            .map(|(a, dtype)| tensor(a, dtype))
            .collect())
    }
}

/// An array as a tensor of an element type.
pub(crate) fn tensor(array: Array, dtype: DType) -> Tensor {
    if dtype == DType::F32 {
        return Tensor::new(array.shape, array.data);
    }
    if dtype.is_float() {
        return Tensor::from_f64(
            dtype,
            array.shape,
            array.data.into_iter().map(f64::from).collect(),
        );
    }
    Tensor::from_i64(
        dtype,
        array.shape,
        array.data.into_iter().map(|x| x as i64).collect(),
    )
}

fn stored(dtype: DType) -> Dtype {
    match dtype {
        DType::F32 => Dtype::F32,
        DType::F64 => Dtype::F64,
        DType::Bool => Dtype::Bool,
        DType::I8 => Dtype::I8,
        DType::U8 => Dtype::U8,
        DType::I16 => Dtype::I16,
        DType::U16 => Dtype::U16,
        DType::I32 => Dtype::I32,
        DType::U32 => Dtype::U32,
        DType::I64 => Dtype::I64,
        DType::U64 => Dtype::U64,
    }
}

/// SHA-256 in hexadecimal digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}
