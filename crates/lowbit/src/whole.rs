//! Files that are there whole or not at all.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::Error;

static WRITING: Mutex<()> = Mutex::new(());

/// Held while files are written and put in their places. Who ends the process on a signal holds it too, so that nothing
/// is left halfway.
pub fn writing() -> MutexGuard<'static, ()> {
    WRITING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Finds out, before hours of work, whether a folder can be written: its own place where it exists, else the nearest
/// folder above it. Nothing is left there.
///
/// # Errors
/// It cannot.
pub fn check_folder(folder: &Path) -> Result<(), Error> {
    let nearest = folder.ancestors().find(|p| p.exists());
    let nearest = nearest.unwrap_or(Path::new("."));
    if !nearest.is_dir() {
        return Err(Error::Other(format!(
            "cannot write into {}: {} is a file, not a folder; give another folder",
            folder.display(),
            nearest.display()
        )));
    }
    let _writing = writing();
    match tempfile::tempfile_in(nearest) {
        Ok(_) => Ok(()),
        Err(e) => Err(Error::file("write into", folder, e)),
    }
}

/// Writes a file, and its folder where there is none: a failure leaves what was there before. A link is followed; what
/// is no plain file (a pipe, a terminal, `/dev/null`) is written to and never replaced.
///
/// # Errors
/// The folder cannot be made or written.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let wrong = |e| Error::file("write", path, e);
    match std::fs::metadata(path) {
        Ok(there) if !there.is_file() => std::fs::write(path, bytes).map_err(wrong),
        Ok(_) => replace(&path.canonicalize().map_err(wrong)?, bytes),
        Err(_) => replace(path, bytes),
    }
}

fn replace(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let Some(name) = path.file_name().and_then(|n| n.to_str()) else {
        return Err(Error::Other(format!(
            "cannot write {}: it names no file",
            path.display()
        )));
    };
    fill_folder(folder, |beside| {
        std::fs::write(beside.join(name), bytes).map_err(|e| Error::file("write", path, e))?;
        Ok(vec![name.into()])
    })?;
    Ok(())
}

/// Fills a folder: `fill` writes files into another one beside it, and only when all are written they are renamed into
/// place, in the order that `fill` returns their names. Returns the paths.
///
/// # Errors
/// Those of `fill`, or the folder cannot be made or written; what was there before is then left alone.
pub(crate) fn fill_folder(
    folder: &Path,
    fill: impl FnOnce(&Path) -> Result<Vec<String>, Error>,
) -> Result<Vec<PathBuf>, Error> {
    check_folder(folder)?;
    let _writing = writing();
    let is_new = !folder.exists();
    std::fs::create_dir_all(folder).map_err(|e| Error::file("create", folder, e))?;
    let filled = filled(folder, fill);
    if filled.is_err() && is_new {
        // the first failure is the one to tell
        let _ = std::fs::remove_dir(folder);
    }
    filled
}

/// Fills a folder with files, in their order, see [`fill_folder`].
///
/// # Errors
/// The folder cannot be made or written.
pub(crate) fn write_all(
    folder: &Path,
    files: impl IntoIterator<Item = (String, Vec<u8>)>,
) -> Result<Vec<PathBuf>, Error> {
    fill_folder(folder, |beside| {
        let write = |(file, bytes): (String, Vec<u8>)| {
            std::fs::write(beside.join(&file), bytes)
                .map_err(|e| Error::file("write", &folder.join(&file), e))?;
            Ok(file)
        };
        files.into_iter().map(write).collect()
    })
}

fn filled(
    folder: &Path,
    fill: impl FnOnce(&Path) -> Result<Vec<String>, Error>,
) -> Result<Vec<PathBuf>, Error> {
    let beside = tempfile::Builder::new()
        .prefix(".lowbit-")
        .tempdir_in(folder)
        .map_err(|e| Error::file("write into", folder, e))?;
    let names = fill(beside.path())?;
    let place = |name: String| {
        let to = folder.join(&name);
        std::fs::rename(beside.path().join(&name), &to)
            .map_err(|e| Error::file("write", &to, e))?;
        Ok(to)
    };
    names.into_iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(folder: &Path) -> usize {
        std::fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn a_failure_leaves_what_was_there() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("a/b");
        let fails = |beside: &Path| {
            std::fs::write(beside.join("x"), "half").unwrap();
            Err(Error::Other("full".into()))
        };
        assert!(fill_folder(&folder, fails).is_err() && !folder.exists());
        let works = |beside: &Path| {
            std::fs::write(beside.join("x"), "whole").unwrap();
            Ok(vec!["x".into()])
        };
        assert_eq!(fill_folder(&folder, works).unwrap(), [folder.join("x")]);
        assert!(fill_folder(&folder, fails).is_err());
        assert_eq!(std::fs::read(folder.join("x")).unwrap(), b"whole");
        assert_eq!(entries(&folder), 1);
    }

    #[test]
    fn links_are_followed_and_devices_stay() {
        use std::os::unix::fs::{FileTypeExt, symlink};
        let root = tempfile::tempdir().unwrap();
        let (file, link, null) = (
            root.path().join("file"),
            root.path().join("link"),
            root.path().join("null"),
        );
        std::fs::write(&file, "old").unwrap();
        symlink(&file, &link).unwrap();
        symlink("/dev/null", &null).unwrap();
        write_file(&link, b"new").unwrap();
        write_file(&null, b"new").unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"new");
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        let device = std::fs::metadata(&null).unwrap().file_type();
        assert!(device.is_char_device());
        assert!(write_file(root.path(), b"new").is_err());
        assert_eq!(entries(root.path()), 3);
    }

    #[test]
    fn files_are_no_folders() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        std::fs::write(&file, "").unwrap();
        for folder in [file.clone(), file.join("in/it")] {
            let message = check_folder(&folder).unwrap_err().to_string();
            assert!(message.contains("is a file, not a folder"), "{message}");
        }
        check_folder(&root.path().join("new/er")).unwrap();
        assert_eq!(entries(root.path()), 1);
    }
}
