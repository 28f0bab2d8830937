//! ONNX `TensorProto` files, the form of the test data that ships with models.

use std::path::{Path, PathBuf};

use prost::Message;

use crate::array::{Array, Codes, Dtype, count};
use crate::error::{DataError, Result, format, read};

/// The fields of `onnx.TensorProto` that hold numbers. Source: onnx/onnx.proto3.
#[derive(Clone, PartialEq, Message)]
struct TensorProto {
    #[prost(int64, repeated, tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(float, repeated, tag = "4")]
    float_data: Vec<f32>,
    #[prost(int32, repeated, tag = "5")]
    int32_data: Vec<i32>,
    #[prost(int64, repeated, tag = "7")]
    int64_data: Vec<i64>,
    #[prost(bytes = "vec", tag = "9")]
    raw_data: Vec<u8>,
    #[prost(double, repeated, tag = "10")]
    double_data: Vec<f64>,
    #[prost(uint64, repeated, tag = "11")]
    uint64_data: Vec<u64>,
    #[prost(int32, tag = "14")]
    data_location: i32,
}

/// A tensor as little-endian elements.
struct Tensor {
    shape: Vec<usize>,
    dtype: Dtype,
    bytes: Vec<u8>,
}

/// Reads a `TensorProto` file as real values.
///
/// # Errors
/// The file cannot be read, is damaged, or holds no numbers.
pub fn read_pb(path: &Path) -> Result<Array> {
    let tensor = load(path)?;
    Ok(Array {
        data: tensor.dtype.to_f32(&tensor.bytes),
        shape: tensor.shape,
    })
}

/// Reads a `TensorProto` file as integer codes.
///
/// # Errors
/// As [`read_pb`]; also where a value is not a whole number.
pub fn read_pb_codes(path: &Path) -> Result<Codes> {
    let tensor = load(path)?;
    let fault = |index| format(path, format!("element {index} is not a whole number"));
    Ok(Codes {
        data: tensor.dtype.to_i64(&tensor.bytes).map_err(fault)?,
        shape: tensor.shape,
    })
}

fn load(path: &Path) -> Result<Tensor> {
    let bytes = std::fs::read(path).map_err(read(path))?;
    let fault = |why: String| format(path, why);
    let proto = TensorProto::decode(bytes.as_slice())
        .map_err(|error| fault(format!("is no ONNX tensor ({error})")))?;
    tensor(proto).map_err(fault)
}

fn tensor(proto: TensorProto) -> Result<Tensor, String> {
    if proto.data_location != 0 {
        return Err("keeps its data in another file; save the tensor with its data inside".into());
    }
    let dims = proto.dims.iter().map(|&n| usize::try_from(n).ok());
    let shape: Option<Vec<usize>> = dims.collect();
    let shape = shape.ok_or_else(|| format!("has the impossible shape {:?}", proto.dims))?;
    let dtype = element(proto.data_type)?;
    let bytes = if proto.raw_data.is_empty() {
        typed(&proto, dtype)
    } else {
        proto.raw_data
    };
    let wanted = count(&shape).and_then(|n| n.checked_mul(dtype.bytes()));
    if wanted != Some(bytes.len()) {
        let there = bytes.len() / dtype.bytes();
        return Err(format!(
            "declares the shape {shape:?} and holds {there} elements"
        ));
    }
    Ok(Tensor {
        shape,
        dtype,
        bytes,
    })
}

fn element(code: i32) -> Result<Dtype, String> {
    Ok(match code {
        1 => Dtype::F32,
        2 => Dtype::U8,
        3 => Dtype::I8,
        4 => Dtype::U16,
        5 => Dtype::I16,
        6 => Dtype::I32,
        7 => Dtype::I64,
        9 => Dtype::Bool,
        10 => Dtype::F16,
        11 => Dtype::F64,
        12 => Dtype::U32,
        13 => Dtype::U64,
        _ => {
            return Err(format!(
                "has the ONNX element type {code}; save it as integers or floats of 8 to 64 bits"
            ));
        }
    })
}

/// Elements that are stored in the field of their type; the narrow ones lie in wider fields.
fn typed(proto: &TensorProto, dtype: Dtype) -> Vec<u8> {
    let narrow = |width: usize| {
        let bytes = proto
            .int32_data
            .iter()
            .flat_map(move |v| v.to_le_bytes().into_iter().take(width));
        bytes.collect()
    };
    match dtype {
        Dtype::F32 => proto
            .float_data
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect(),
        Dtype::F64 => proto
            .double_data
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect(),
        Dtype::I64 => proto
            .int64_data
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect(),
        Dtype::U64 => proto
            .uint64_data
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect(),
        Dtype::U32 => proto
            .uint64_data
            .iter()
            .flat_map(|&v| (v as u32).to_le_bytes())
            .collect(),
        other => narrow(other.bytes()),
    }
}

/// The samples of a folder: its own `input_N.pb`, or those of each subfolder in the order of the numbers in their names.
pub(crate) fn samples(folder: &Path, inputs: usize) -> Result<Vec<Vec<PathBuf>>> {
    if folder.join("input_0.pb").is_file() {
        return Ok(vec![files(folder, inputs)?]);
    }
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(read(folder))? {
        let path = entry.map_err(read(folder))?.path();
        if path.join("input_0.pb").is_file() {
            folders.push(path);
        }
    }
    if folders.is_empty() {
        return Err(DataError::UnknownKind {
            path: folder.to_path_buf(),
            found: "the folder holds no input_0.pb, nor does a folder in it".into(),
        });
    }
    folders.sort_by_cached_key(|path| (number(path), path.clone()));
    folders.iter().map(|folder| files(folder, inputs)).collect()
}

fn files(folder: &Path, inputs: usize) -> Result<Vec<PathBuf>> {
    let file = |n| folder.join(format!("input_{n}.pb"));
    if file(inputs).exists() {
        return Err(format(
            &file(inputs),
            format!("is one more than the model has inputs ({inputs}); remove it"),
        ));
    }
    Ok((0..inputs).map(file).collect())
}

fn number(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    let digits = name.trim_start_matches(|c: char| !c.is_ascii_digit());
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(proto: &TensorProto) -> tempfile::TempPath {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), proto.encode_to_vec()).unwrap();
        file.into_temp_path()
    }

    #[test]
    fn raw_and_typed_data_are_read() {
        let raw = TensorProto {
            dims: vec![1, 2],
            data_type: 1,
            raw_data: [1.5_f32, -2.0]
                .iter()
                .flat_map(|v| v.to_le_bytes())
                .collect(),
            ..TensorProto::default()
        };
        assert_eq!(
            read_pb(&write(&raw)).unwrap(),
            Array {
                shape: vec![1, 2],
                data: vec![1.5, -2.0]
            }
        );
        let typed = TensorProto {
            dims: vec![3],
            data_type: 3,
            int32_data: vec![-128, 0, 127],
            ..TensorProto::default()
        };
        assert_eq!(read_pb_codes(&write(&typed)).unwrap().data, [-128, 0, 127]);
        let half = TensorProto {
            dims: vec![],
            data_type: 10,
            int32_data: vec![0x3c00],
            ..TensorProto::default()
        };
        assert_eq!(read_pb(&write(&half)).unwrap().data, [1.0]);
    }

    #[test]
    fn shapes_that_lie_are_refused() {
        for dims in [vec![4], vec![-1], vec![i64::MAX, i64::MAX]] {
            let proto = TensorProto {
                dims,
                data_type: 1,
                float_data: vec![0.0; 3],
                ..TensorProto::default()
            };
            assert!(
                read_pb(&write(&proto))
                    .unwrap_err()
                    .to_string()
                    .contains("shape")
            );
        }
    }
}
