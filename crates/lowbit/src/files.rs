use std::path::Path;

use crate::Error;

/// Writes a file beside its place, then renames it: a failure leaves what was there before.
///
/// # Errors
/// The folder cannot be written.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let fail = |e| Error::file("write", path, e);
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let file = tempfile::Builder::new()
        .prefix(".lowbit-")
        .tempfile_in(folder)
        .map_err(fail)?;
    std::fs::write(file.path(), bytes).map_err(fail)?;
    file.persist(path).map_err(|e| fail(e.error))?;
    Ok(())
}
