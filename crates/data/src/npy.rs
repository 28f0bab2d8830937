//! The `.npy` format: its header, and whole files in and out.
//!
//! Source: NumPy Enhancement Proposal 1, versions 1.0 to 3.0. A header is believed only after the file is known to hold what it declares.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;

use crate::array::{Array, Codes, Dtype, count};
use crate::error::{DataError, Result, format};
use crate::store::Store;

const MAGIC: &[u8] = b"\x93NUMPY";
const LONGEST_HEADER: usize = 1 << 16;

/// What a header declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) dtype: Dtype,
    pub(crate) big_endian: bool,
    pub(crate) fortran: bool,
    pub(crate) shape: Vec<usize>,
    /// Bytes before the first element.
    pub(crate) length: u64,
}

impl Header {
    /// Bytes that the elements occupy; the message says why the shape is absurd.
    pub(crate) fn data_bytes(&self) -> Result<u64, String> {
        count(&self.shape)
            .and_then(|n| n.checked_mul(self.dtype.bytes()))
            .filter(|&n| isize::try_from(n).is_ok())
            .map(|n| n as u64)
            .ok_or_else(|| format!("declares the impossible shape {:?}", self.shape))
    }

    /// Reads a header from the start of a `.npy` stream; the message says what is wrong with it.
    pub(crate) fn read(stream: &mut impl Read) -> Result<Self, String> {
        let mut start = [0; 8];
        fill(stream, &mut start)?;
        if &start[..6] != MAGIC {
            return Err("is not a .npy array (its magic number is missing)".into());
        }
        let width = match start[6] {
            1 => 2,
            2 | 3 => 4,
            other => {
                return Err(format!(
                    "has the .npy version {other}; 1, 2 and 3 are known"
                ));
            }
        };
        let mut size = [0; 4];
        fill(stream, &mut size[..width])?;
        let size = u32::from_le_bytes(size) as usize;
        if size > LONGEST_HEADER {
            return Err(format!(
                "has a header of {size} bytes, which no array needs"
            ));
        }
        let mut text = vec![0; size];
        fill(stream, &mut text)?;
        let text = String::from_utf8_lossy(&text);
        let mut header =
            parse(&text).map_err(|why| format!("has the header {:?}: {why}", text.trim_end()))?;
        header.length = (start.len() + width + size) as u64;
        Ok(header)
    }
}

fn fill(stream: &mut impl Read, buffer: &mut [u8]) -> Result<(), String> {
    stream
        .read_exact(buffer)
        .map_err(|error| format!("ends or fails within the array's header ({error})"))
}

fn parse(text: &str) -> Result<Header, String> {
    let mut cursor = Cursor(text.trim());
    let (mut descr, mut fortran, mut shape) = (None, None, None);
    cursor.expect('{')?;
    while !cursor.accept('}') {
        let key = cursor.string()?;
        cursor.expect(':')?;
        match key {
            "descr" => descr = Some(cursor.descr()?),
            "fortran_order" => fortran = Some(cursor.boolean()?),
            "shape" => shape = Some(cursor.tuple()?),
            other => return Err(format!("unknown key {other:?}")),
        }
        if !cursor.accept(',') {
            cursor.expect('}')?;
            break;
        }
    }
    let (dtype, big_endian) = descr.ok_or("no `descr`")?;
    Ok(Header {
        dtype,
        big_endian,
        fortran: fortran.ok_or("no `fortran_order`")?,
        shape: shape.ok_or("no `shape`")?,
        length: 0,
    })
}

/// The rest of a Python dictionary literal.
struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    fn accept(&mut self, mark: char) -> bool {
        let rest = self.0.trim_start().strip_prefix(mark);
        if let Some(rest) = rest {
            self.0 = rest;
        }
        rest.is_some()
    }

    fn expect(&mut self, mark: char) -> Result<(), String> {
        self.accept(mark)
            .then_some(())
            .ok_or_else(|| format!("`{mark}` expected"))
    }

    fn string(&mut self) -> Result<&'a str, String> {
        let text = self.0.trim_start();
        let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'));
        let quote = quote.ok_or("a string expected")?;
        let (string, rest) = text[1..].split_once(quote).ok_or("a string does not end")?;
        self.0 = rest;
        Ok(string)
    }

    fn word(&mut self) -> &'a str {
        let text = self.0.trim_start();
        let end = text
            .find(|c: char| !c.is_ascii_alphanumeric())
            .unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        self.0 = rest;
        word
    }

    fn boolean(&mut self) -> Result<bool, String> {
        match self.word() {
            "True" => Ok(true),
            "False" => Ok(false),
            other => Err(format!("True or False expected, {other:?} found")),
        }
    }

    fn tuple(&mut self) -> Result<Vec<usize>, String> {
        let mut axes = Vec::new();
        self.expect('(')?;
        while !self.accept(')') {
            let digits = self.word();
            let axis = digits.trim_end_matches('L').parse();
            axes.push(axis.map_err(|_| format!("the axis {digits:?} is no length"))?);
            if !self.accept(',') {
                self.expect(')')?;
                break;
            }
        }
        Ok(axes)
    }

    fn descr(&mut self) -> Result<(Dtype, bool), String> {
        if self.0.trim_start().starts_with('[') {
            return Err(
                "structured elements are not supported; save each field as its own array".into(),
            );
        }
        let descr = self.string()?;
        let (order, kind) = match descr.chars().next() {
            Some(order @ ('<' | '>' | '|' | '=')) => (order, &descr[1..]),
            _ => ('<', descr),
        };
        Ok((element(kind, descr)?, order == '>'))
    }
}

fn element(kind: &str, descr: &str) -> Result<Dtype, String> {
    Ok(match kind {
        "b1" => Dtype::Bool,
        "i1" => Dtype::I8,
        "i2" => Dtype::I16,
        "i4" => Dtype::I32,
        "i8" => Dtype::I64,
        "u1" => Dtype::U8,
        "u2" => Dtype::U16,
        "u4" => Dtype::U32,
        "u8" => Dtype::U64,
        "f2" => Dtype::F16,
        "f4" => Dtype::F32,
        "f8" => Dtype::F64,
        "O" => {
            return Err(
                "pickled Python objects are never read; save the array with a numeric dtype".into(),
            );
        }
        _ => {
            return Err(format!(
                "elements of type '{descr}' are not numbers of a known size; save the array as integers or floats of 8 to 64 bits"
            ));
        }
    })
}

/// Reads a whole `.npy` file as real values, row-major whatever its order.
///
/// # Errors
/// The file cannot be read, is damaged, or holds no numbers.
pub fn read_npy(path: &Path) -> Result<Array> {
    let store = Store::npy(path)?;
    Ok(Array {
        shape: store.shape().to_vec(),
        data: store.f32(0, store.len())?,
    })
}

/// Reads a whole `.npy` file as integer codes, row-major whatever its order.
///
/// # Errors
/// As [`read_npy`]; also where a value is not a whole number.
pub fn read_npy_codes(path: &Path) -> Result<Codes> {
    let store = Store::npy(path)?;
    Ok(Codes {
        shape: store.shape().to_vec(),
        data: store.i64(0, store.len())?,
    })
}

mod sealed {
    pub trait Sealed {}
}

/// An element type that [`write_npy`] can write.
pub trait Element: sealed::Sealed + Copy {
    #[doc(hidden)]
    const DESCR: &'static str;
    #[doc(hidden)]
    fn put(self, out: &mut impl Write) -> std::io::Result<()>;
}

macro_rules! elements {
    ($($type:ty: $descr:literal),*) => {$(
        impl sealed::Sealed for $type {}
        impl Element for $type {
            const DESCR: &'static str = $descr;
            fn put(self, out: &mut impl Write) -> std::io::Result<()> {
                out.write_all(&self.to_le_bytes())
            }
        }
    )*};
}

elements!(f32: "<f4", i8: "|i1", u8: "|u1", i16: "<i2", i32: "<i4", i64: "<i8");

/// Writes an array of `shape`, row-major, as a version 1.0 `.npy` file.
///
/// # Errors
/// The file cannot be written; it may then be there in part.
///
/// # Panics
/// Where `values` are not as many as `shape` says.
pub fn write_npy<T: Element>(path: &Path, shape: &[usize], values: &[T]) -> Result<()> {
    assert_eq!(
        count(shape),
        Some(values.len()),
        "values do not fill {shape:?}"
    );
    let write = || {
        let mut out = BufWriter::new(File::create(path)?);
        out.write_all(&header_bytes(T::DESCR, shape))?;
        values.iter().try_for_each(|value| value.put(&mut out))?;
        out.flush()
    };
    write().map_err(|source| DataError::Write {
        path: path.to_path_buf(),
        source,
    })
}

fn header_bytes(descr: &str, shape: &[usize]) -> Vec<u8> {
    let axes: String = shape.iter().map(|axis| format!("{axis}, ")).collect();
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({axes}), }}");
    let pad = (64 - (MAGIC.len() + 4 + text.len() + 1) % 64) % 64;
    text.extend(std::iter::repeat_n(' ', pad));
    text.push('\n');
    let size = u16::try_from(text.len()).expect("a shape's text is short");
    [MAGIC, &[1, 0], &size.to_le_bytes(), text.as_bytes()].concat()
}

pub(crate) fn damaged(path: &Path, name: &str, why: &str) -> DataError {
    if name.is_empty() {
        format(path, format!("the file {why}"))
    } else {
        format(path, format!("array `{name}` {why}"))
    }
}
