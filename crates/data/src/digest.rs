//! One hash that names the data of a compilation.

use std::fs::File;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Result, read};

/// A file and the name under which it enters the hash.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

impl Named {
    /// A file under its last name.
    pub(crate) fn last(path: &Path) -> Self {
        let name = path.file_name().unwrap_or_default();
        Self {
            name: name.to_string_lossy().into_owned(),
            path: path.to_path_buf(),
        }
    }
}

/// SHA-256, in lower-case hexadecimal, of the list that `sha256sum` prints for the files: each one's hash, two spaces, name, line feed.
pub(crate) fn of_files(files: &[Named]) -> Result<String> {
    let mut list = Sha256::new();
    for file in files {
        list.update(format!("{}  {}\n", of_file(&file.path)?, file.name));
    }
    Ok(hex(list))
}

fn of_file(path: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    let mut file = File::open(path).map_err(read(path))?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        match std::io::Read::read(&mut file, &mut buffer).map_err(read(path))? {
            0 => return Ok(hex(hash)),
            n => hash.update(&buffer[..n]),
        }
    }
}

fn hex(hash: Sha256) -> String {
    let digest = hash.finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
