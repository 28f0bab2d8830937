//! Tensor data in files beside the model.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;

use crate::proto;

/// Bytes of a tensor that lie in a file of their own, which must be inside the model's folder.
pub(crate) fn read(t: &proto::Tensor, folder: Option<&Path>) -> Result<Bytes, String> {
    let location = entry(t, "location").ok_or("its external data names no file")?;
    let folder = folder.ok_or("its data is external, but the model was not read from a folder")?;
    let path = inside(location, folder)?;
    let unreadable =
        |e: std::io::Error| format!("its external data {} cannot be read: {e}", path.display());
    let mut file = File::open(&path).map_err(unreadable)?;
    let size = file.metadata().map_err(unreadable)?;
    if !size.is_file() {
        return Err(format!("its external data '{location}' is no file"));
    }
    let start = number(t, "offset")?.unwrap_or(0);
    let length = number(t, "length")?.unwrap_or_else(|| size.len().saturating_sub(start));
    if start.checked_add(length).is_none_or(|end| end > size.len()) {
        return Err(format!(
            "its external data '{location}' has {} bytes; it asks for {length} from {start} on",
            size.len()
        ));
    }
    file.seek(SeekFrom::Start(start)).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(length)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    Ok(bytes.into())
}

/// The file that a location names, symbolic links followed.
fn inside(location: &str, folder: &Path) -> Result<PathBuf, String> {
    let path = folder.join(location);
    let real = |p: &Path| {
        p.canonicalize()
            .map_err(|e| format!("its external data {} cannot be read: {e}", p.display()))
    };
    let plain = Path::new(location)
        .components()
        .all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if plain && real(&path)?.starts_with(real(folder)?) {
        Ok(path)
    } else {
        Err(format!(
            "its external data '{location}' lies outside the model's folder; move it beside the model"
        ))
    }
}

fn entry<'a>(t: &'a proto::Tensor, key: &str) -> Option<&'a str> {
    let entry = t.external_data.iter().find(|e| e.key == key)?;
    Some(&entry.value)
}

fn number(t: &proto::Tensor, key: &str) -> Result<Option<u64>, String> {
    let parse = |v: &str| {
        v.parse()
            .map_err(|_| format!("its external {key} '{v}' is no number"))
    };
    entry(t, key).map(parse).transpose()
}
