//! Tensors of a model: typed fields, raw bytes, external files.

use std::path::Path;

use lowbit_ir::{DType, Data, Tensor, elements};

use crate::float8::Float8;
use crate::{external, proto};

/// ONNX's element types, by number.
pub(crate) mod code {
    pub(crate) const FLOAT: i32 = 1;
    pub(crate) const UINT8: i32 = 2;
    pub(crate) const INT8: i32 = 3;
    pub(crate) const UINT16: i32 = 4;
    pub(crate) const INT16: i32 = 5;
    pub(crate) const INT32: i32 = 6;
    pub(crate) const INT64: i32 = 7;
    pub(crate) const BOOL: i32 = 9;
    pub(crate) const FLOAT16: i32 = 10;
    pub(crate) const DOUBLE: i32 = 11;
    pub(crate) const UINT32: i32 = 12;
    pub(crate) const UINT64: i32 = 13;
    pub(crate) const BFLOAT16: i32 = 16;
    pub(crate) const FLOAT8E4M3FN: i32 = 17;
    pub(crate) const FLOAT8E4M3FNUZ: i32 = 18;
    pub(crate) const FLOAT8E5M2: i32 = 19;
    pub(crate) const FLOAT8E5M2FNUZ: i32 = 20;
    pub(crate) const UINT4: i32 = 21;
    pub(crate) const INT4: i32 = 22;
}

/// The element type of the graph that holds ONNX's: small floats become `f32`, small integers 8 bits.
pub(crate) fn dtype(onnx: i32) -> Result<DType, String> {
    Ok(match onnx {
        code::FLOAT | code::FLOAT16 | code::BFLOAT16 => DType::F32,
        code if Float8::of(code).is_some() => DType::F32,
        code::DOUBLE => DType::F64,
        code::BOOL => DType::Bool,
        code::INT8 | code::INT4 => DType::I8,
        code::UINT8 | code::UINT4 => DType::U8,
        code::INT16 => DType::I16,
        code::UINT16 => DType::U16,
        code::INT32 => DType::I32,
        code::UINT32 => DType::U32,
        code::INT64 => DType::I64,
        code::UINT64 => DType::U64,
        8 => return Err("text tensors are not supported".into()),
        14 | 15 => return Err("complex numbers are not supported".into()),
        other => return Err(format!("element type {other} is not supported")),
    })
}

/// The range of integers of 4 bits.
pub(crate) fn nibble(onnx: i32) -> Option<(i128, i128)> {
    match onnx {
        code::INT4 => Some((-8, 7)),
        code::UINT4 => Some((0, 15)),
        _ => None,
    }
}

/// Bits that an element takes in raw data.
fn raw_bits(onnx: i32) -> usize {
    match onnx {
        code::UINT4 | code::INT4 => 4,
        code::BOOL | code::INT8 | code::UINT8 => 8,
        code if Float8::of(code).is_some() => 8,
        code::FLOAT16 | code::BFLOAT16 | code::INT16 | code::UINT16 => 16,
        code::DOUBLE | code::INT64 | code::UINT64 => 64,
        _ => 32,
    }
}

/// Largest tensor that is read, in elements.
const LARGEST: usize = 1 << 31;

/// Extents of a tensor, checked.
pub(crate) fn extents(dims: &[i64]) -> Result<Vec<usize>, String> {
    let shape: Result<Vec<usize>, _> = dims.iter().map(|&d| usize::try_from(d)).collect();
    let shape = shape.map_err(|_| format!("dimensions {dims:?} have a negative extent"))?;
    bounded(&shape)?;
    Ok(shape)
}

/// Refuses shapes that are too large, empty ones as if their extents of 0 were 1, so that no product of extents overflows.
pub(crate) fn bounded(shape: &[usize]) -> Result<(), String> {
    let filled: Vec<usize> = shape.iter().map(|&d| d.max(1)).collect();
    match elements(&filled) {
        Some(n) if n <= LARGEST => Ok(()),
        _ => Err(format!("dimensions {shape:?} are too large")),
    }
}

/// The first element of a float tensor that a test holds for.
pub(crate) fn first(tensor: &Tensor, test: fn(f64) -> bool) -> Option<usize> {
    match tensor.data() {
        Data::F32(v) => v.iter().position(|&x| test(x.into())),
        Data::F64(v) => v.iter().position(|&x| test(x)),
        _ => None,
    }
}

/// Reads a tensor. External data lies inside `folder`.
pub(crate) fn read(t: &proto::Tensor, folder: Option<&Path>) -> Result<Tensor, String> {
    let shape = extents(&t.dims)?;
    let count: usize = shape.iter().product();
    dtype(t.data_type)?;
    let raw = if t.data_location == 1 {
        Some(external::read(t, folder)?)
    } else {
        t.raw_data.clone()
    };
    let data = match raw {
        Some(raw) => from_raw(t.data_type, count, &raw)?,
        None => from_fields(t, count)?,
    };
    if data.len() != count {
        return Err(format!(
            "{} elements for dimensions {:?}, which have {count}",
            data.len(),
            t.dims
        ));
    }
    Ok(Tensor::from_data(shape, data))
}

fn from_raw(onnx: i32, count: usize, raw: &[u8]) -> Result<Data, String> {
    let expected = (count * raw_bits(onnx)).div_ceil(8);
    if raw.len() != expected {
        return Err(format!(
            "raw data has {} bytes, {count} elements need {expected}",
            raw.len()
        ));
    }
    macro_rules! parse {
        ($t:ty, $v:ident) => {
            Data::$v(
                raw.chunks_exact(size_of::<$t>())
                    .map(|c| <$t>::from_le_bytes(c.try_into().expect("chunks are exact")))
                    .collect(),
            )
        };
    }
    let half = |f: fn(u16) -> f32| {
        Data::F32(
            raw.chunks_exact(2)
                .map(|c| f(u16::from_le_bytes([c[0], c[1]])))
                .collect(),
        )
    };
    let nibble = |i: usize| {
        if i.is_multiple_of(2) {
            raw[i / 2] & 15
        } else {
            raw[i / 2] >> 4
        }
    };
    Ok(match onnx {
        code::FLOAT => parse!(f32, F32),
        code::DOUBLE => parse!(f64, F64),
        code::INT8 => parse!(i8, I8),
        code::UINT8 => parse!(u8, U8),
        code::INT16 => parse!(i16, I16),
        code::UINT16 => parse!(u16, U16),
        code::INT32 => parse!(i32, I32),
        code::UINT32 => parse!(u32, U32),
        code::INT64 => parse!(i64, I64),
        code::UINT64 => parse!(u64, U64),
        code::BOOL => Data::Bool(raw.iter().map(|&b| b != 0).collect()),
        code::FLOAT16 => half(|x| half::f16::from_bits(x).to_f32()),
        code::BFLOAT16 => half(|x| half::bf16::from_bits(x).to_f32()),
        code::UINT4 => Data::U8((0..count).map(nibble).collect()),
        code::INT4 => Data::I8((0..count).map(|i| ((nibble(i) << 4) as i8) >> 4).collect()),
        other => {
            let format = Float8::of(other).expect("the caller has checked the type");
            Data::F32(raw.iter().map(|&x| format.decode(x)).collect())
        }
    })
}

fn from_fields(t: &proto::Tensor, count: usize) -> Result<Data, String> {
    let ints = || t.int32_data.iter();
    let bits = |f: fn(u16) -> f32| Data::F32(ints().map(|&x| f(x as u16)).collect());
    let whole = t.int32_data.len() == count.div_ceil(2);
    let nibbles = if whole { count } else { 2 * t.int32_data.len() };
    let packed =
        |i: usize| (t.int32_data.get(i / 2).copied().unwrap_or(0) >> (i % 2 * 4)) as u8 & 15;
    Ok(match t.data_type {
        code::FLOAT => Data::F32(t.float_data.clone()),
        code::DOUBLE => Data::F64(t.double_data.clone()),
        code::INT8 => Data::I8(ints().map(|&x| x as i8).collect()),
        code::UINT8 => Data::U8(ints().map(|&x| x as u8).collect()),
        code::INT16 => Data::I16(ints().map(|&x| x as i16).collect()),
        code::UINT16 => Data::U16(ints().map(|&x| x as u16).collect()),
        code::INT32 => Data::I32(t.int32_data.clone()),
        code::UINT32 => Data::U32(t.uint64_data.iter().map(|&x| x as u32).collect()),
        code::INT64 => Data::I64(t.int64_data.clone()),
        code::UINT64 => Data::U64(t.uint64_data.clone()),
        code::BOOL => Data::Bool(ints().map(|&x| x != 0).collect()),
        code::FLOAT16 => bits(|x| half::f16::from_bits(x).to_f32()),
        code::BFLOAT16 => bits(|x| half::bf16::from_bits(x).to_f32()),
        code::UINT4 => Data::U8((0..nibbles).map(packed).collect()),
        code::INT4 => {
            let signed = |i| ((packed(i) << 4) as i8) >> 4;
            Data::I8((0..nibbles).map(signed).collect())
        }
        other => {
            let format = Float8::of(other).expect("the caller has checked the type");
            Data::F32(ints().map(|&x| format.decode(x as u8)).collect())
        }
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn raw_data_of_the_wrong_length_is_refused() {
        let t = proto::Tensor {
            dims: vec![2],
            data_type: code::FLOAT,
            raw_data: Some(Bytes::from_static(&[0; 7])),
            ..Default::default()
        };
        assert!(read(&t, None).unwrap_err().contains("7 bytes"));
    }

    #[test]
    fn hostile_dimensions_are_refused() {
        assert!(extents(&[1 << 62]).is_err());
        assert!(extents(&[-1]).is_err());
        assert!(extents(&[1 << 33, 1 << 33]).is_err());
        assert!(extents(&[0, 1 << 40, 1 << 40]).is_err());
    }
}
