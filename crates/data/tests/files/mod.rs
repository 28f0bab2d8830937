//! Small files for the tests, written byte by byte where the crate's own writer must not be trusted.

use std::io::Write;
use std::path::{Path, PathBuf};

pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn root(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn text(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

pub(crate) fn npy(descr: &str, shape: &[usize], data: &[u8]) -> Vec<u8> {
    array(descr, "False", shape, data)
}

pub(crate) fn fortran(descr: &str, shape: &[usize], data: &[u8]) -> Vec<u8> {
    array(descr, "True", shape, data)
}

fn array(descr: &str, fortran: &str, shape: &[usize], data: &[u8]) -> Vec<u8> {
    let shape: Vec<_> = shape.iter().map(usize::to_string).collect();
    let shape = shape.join(", ");
    let text =
        format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': ({shape},), }}\n");
    let size = (text.len() as u16).to_le_bytes();
    [b"\x93NUMPY\x01\0", &size[..], text.as_bytes(), data].concat()
}

pub(crate) fn npz(path: &Path, stored: bool, arrays: &[(&str, &[u8])]) {
    let method = if stored {
        zip::CompressionMethod::Stored
    } else {
        zip::CompressionMethod::Deflated
    };
    let options = zip::write::SimpleFileOptions::default().compression_method(method);
    let mut archive = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    for (name, bytes) in arrays {
        archive.start_file(format!("{name}.npy"), options).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap();
}

pub(crate) fn png(path: &Path, width: u32, height: u32, colour: [u8; 3]) {
    let image = image::RgbImage::from_pixel(width, height, image::Rgb(colour));
    image.save(path).unwrap();
}
