//! One stored array, read row by row from many threads.
//!
//! What lies on disk uncompressed stays there. A compressed array is unpacked once: into memory, or into an unnamed temporary file where it
//! is large, so that memory does not grow with the number of samples.

use std::fs::File;
use std::io::{BufReader, Read, Seek, Write};
use std::path::{Path, PathBuf};

use zip::{CompressionMethod, ZipArchive};

use crate::array::{Dtype, count};
use crate::error::{DataError, Result, format, read};
use crate::npy::{Header, damaged};

const LARGE: u64 = 1 << 28;

/// A row-major array of numbers.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    name: String,
    dtype: Dtype,
    big_endian: bool,
    shape: Vec<usize>,
    bytes: Bytes,
}

#[derive(Debug)]
enum Bytes {
    Memory(Vec<u8>),
    File { file: File, offset: u64 },
}

impl Store {
    /// Opens a `.npy` file.
    pub(crate) fn npy(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(read(path))?;
        let header =
            Header::read(&mut BufReader::new(&file)).map_err(|why| damaged(path, "", &why))?;
        let size = file.metadata().map_err(read(path))?.len();
        let there = size.saturating_sub(header.length);
        check_size(&header, there).map_err(|why| damaged(path, "", &why))?;
        let bytes = Bytes::File {
            file,
            offset: header.length,
        };
        Self::new(path, "", header, bytes)
    }

    /// Opens an array of a `.npz` file; without a name, its only one.
    pub(crate) fn npz(path: &Path, name: Option<&str>) -> Result<Self> {
        let file = File::open(path).map_err(read(path))?;
        let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|error| {
            format(
                path,
                format!("is no .npz archive, or is cut short ({error})"),
            )
        })?;
        let name = choose(path, &archive, name)?;
        let (header, bytes) = entry(path, &mut archive, &name)?;
        Self::new(path, &name, header, bytes)
    }

    /// Opens `path` by its ending; `array` names the array of an archive.
    pub(crate) fn open(path: &Path, array: Option<&str>) -> Result<Self> {
        match (extension(path).as_str(), array) {
            ("npz", _) => Self::npz(path, array),
            ("npy", None) => Self::npy(path),
            ("npy", Some(name)) => Err(format(
                path,
                format!("holds one array without a name; leave `array = \"{name}\"` out"),
            )),
            (other, _) => Err(format(
                path,
                format!("arrays are read from .npz and .npy, not from `.{other}`"),
            )),
        }
    }

    fn new(path: &Path, name: &str, header: Header, bytes: Bytes) -> Result<Self> {
        let mut store = Self {
            path: path.to_path_buf(),
            name: name.into(),
            dtype: header.dtype,
            big_endian: header.big_endian,
            shape: header.shape,
            bytes,
        };
        if header.fortran && store.shape.len() > 1 {
            let columns = store.raw(0, store.len())?;
            store.bytes = Bytes::Memory(row_major(&columns, &store.shape, store.dtype.bytes()));
            store.big_endian = false;
        }
        Ok(store)
    }

    pub(crate) fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub(crate) fn len(&self) -> usize {
        count(&self.shape).expect("a checked header's shape fits")
    }

    /// `n` elements from `start` on, as real values.
    pub(crate) fn f32(&self, start: usize, n: usize) -> Result<Vec<f32>> {
        Ok(self.dtype.to_f32(&self.raw(start, n)?))
    }

    /// `n` elements from `start` on, as integers.
    pub(crate) fn i64(&self, start: usize, n: usize) -> Result<Vec<i64>> {
        let raw = self.raw(start, n)?;
        self.dtype.to_i64(&raw).map_err(|index| {
            let why = format!(
                "holds something else than a whole number at element {}",
                start + index
            );
            damaged(&self.path, &self.name, &why)
        })
    }

    fn raw(&self, start: usize, n: usize) -> Result<Vec<u8>> {
        let width = self.dtype.bytes();
        let (start, size) = (start * width, n * width);
        let mut raw = match &self.bytes {
            Bytes::Memory(bytes) => bytes[start..start + size].to_vec(),
            Bytes::File { file, offset } => {
                let mut raw = vec![0; size];
                read_at(file, &mut raw, offset + start as u64).map_err(read(&self.path))?;
                raw
            }
        };
        if self.big_endian {
            raw.chunks_exact_mut(width).for_each(<[u8]>::reverse);
        }
        Ok(raw)
    }
}

/// The ending of a path in lower case.
pub(crate) fn extension(path: &Path) -> String {
    let ending = path.extension().unwrap_or_default();
    ending.to_string_lossy().to_lowercase()
}

/// Names of the arrays of a `.npz` file, in its order.
pub(crate) fn array_names(path: &Path) -> Result<Vec<String>> {
    let file = File::open(path).map_err(read(path))?;
    let archive = ZipArchive::new(BufReader::new(file)).map_err(|error| {
        format(
            path,
            format!("is no .npz archive, or is cut short ({error})"),
        )
    })?;
    Ok(names(&archive))
}

fn names<R: Read + Seek>(archive: &ZipArchive<R>) -> Vec<String> {
    let stem = |name: &str| name.strip_suffix(".npy").unwrap_or(name).to_string();
    archive
        .file_names()
        .filter_map(|name| name.ok().map(|name| stem(&name)))
        .collect()
}

fn choose<R: Read + Seek>(
    path: &Path,
    archive: &ZipArchive<R>,
    name: Option<&str>,
) -> Result<String> {
    let present = names(archive);
    let found = match name {
        Some(name) => present.iter().find(|have| *have == name),
        None if present.len() == 1 => present.first(),
        None => None,
    };
    found.cloned().ok_or_else(|| DataError::Missing {
        path: path.to_path_buf(),
        what: "array",
        name: name.unwrap_or("(no `array` was named)").into(),
        present: present.clone(),
    })
}

fn entry(
    path: &Path,
    archive: &mut ZipArchive<BufReader<File>>,
    name: &str,
) -> Result<(Header, Bytes)> {
    let broken = |error: &dyn std::fmt::Display| {
        damaged(path, name, &format!("cannot be unpacked ({error})"))
    };
    let file_name = if archive.index_for_name(name).is_some() {
        name.to_string()
    } else {
        format!("{name}.npy")
    };
    let mut file = archive
        .by_name(&file_name)
        .map_err(|error| broken(&error))?;
    let header = Header::read(&mut file).map_err(|why| damaged(path, name, &why))?;
    let there = file.size().saturating_sub(header.length);
    check_size(&header, there).map_err(|why| damaged(path, name, &why))?;
    let start = file
        .data_start()
        .filter(|_| file.compression() == CompressionMethod::Stored);
    let bytes = match start {
        Some(start) => in_place(path, start + header.length, &header),
        None => unpack(&mut file, &header, LARGE),
    };
    let bytes = bytes.map_err(|error| broken(&error))?;
    Ok((header, bytes))
}

fn check_size(header: &Header, there: u64) -> Result<(), String> {
    let wanted = header.data_bytes()?;
    if wanted > there {
        return Err(format!(
            "is cut short: {:?} needs {wanted} bytes, and {there} are there",
            header.shape
        ));
    }
    Ok(())
}

fn in_place(path: &Path, offset: u64, header: &Header) -> std::io::Result<Bytes> {
    let file = File::open(path)?;
    let end = header.data_bytes().ok().and_then(|n| n.checked_add(offset));
    if end.is_none_or(|end| file.metadata().is_ok_and(|m| m.len() < end)) {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Bytes::File { file, offset })
}

/// Unpacks an array's elements: to memory, or to a temporary file where they are more than `large` bytes.
fn unpack(stream: &mut impl Read, header: &Header, large: u64) -> std::io::Result<Bytes> {
    let size = header.data_bytes().map_err(std::io::Error::other)?;
    if size > large {
        let mut file = tempfile::tempfile()?;
        let copied = std::io::copy(&mut stream.take(size), &mut file)?;
        file.flush()?;
        return exhausted(stream, copied, size).map(|()| Bytes::File { file, offset: 0 });
    }
    let mut bytes = Vec::new();
    stream.by_ref().take(size).read_to_end(&mut bytes)?;
    exhausted(stream, bytes.len() as u64, size).map(|()| Bytes::Memory(bytes))
}

/// Reads on to the end, where the archive's checksum is compared.
fn exhausted(stream: &mut impl Read, got: u64, wanted: u64) -> std::io::Result<()> {
    std::io::copy(stream, &mut std::io::sink())?;
    if got < wanted {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

/// Turns column-major elements of `width` bytes into row-major ones.
fn row_major(columns: &[u8], shape: &[usize], width: usize) -> Vec<u8> {
    let mut rows = Vec::with_capacity(columns.len());
    let mut index = vec![0; shape.len()];
    while rows.len() < columns.len() {
        let place = index
            .iter()
            .zip(shape)
            .rev()
            .fold(0, |at, (i, axis)| at * axis + i);
        rows.extend_from_slice(&columns[place * width..][..width]);
        for (i, &axis) in index.iter_mut().zip(shape).rev() {
            *i = (*i + 1) % axis;
            if *i != 0 {
                break;
            }
        }
    }
    rows
}

#[cfg(unix)]
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

#[cfg(windows)]
fn read_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> std::io::Result<()> {
    while !buffer.is_empty() {
        let n = std::os::windows::fs::FileExt::seek_read(file, buffer, offset)?;
        if n == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        buffer = &mut buffer[n..];
        offset += n as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unpacking_to_memory_and_to_a_file_is_the_same() {
        let header = Header {
            dtype: Dtype::U16,
            big_endian: true,
            fortran: true,
            shape: vec![2, 3],
            length: 0,
        };
        let packed: Vec<u8> = (0..12).collect();
        for large in [11, 12] {
            let bytes = unpack(&mut packed.as_slice(), &header, large).unwrap();
            let in_memory = matches!(bytes, Bytes::Memory(_));
            assert_eq!(in_memory, large == 12);
            let store = Store::new(Path::new("a.npz"), "a", header.clone(), bytes).unwrap();
            let turned = [0x0001, 0x0405, 0x0809, 0x0203, 0x0607, 0x0a0b];
            assert_eq!(store.i64(0, 6).unwrap(), turned);
        }
        assert!(unpack(&mut &packed[..11], &header, 4).is_err());
        assert!(unpack(&mut &packed[..11], &header, 40).is_err());
    }
}
