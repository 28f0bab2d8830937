//! Results that are dear to make, kept between runs: key → bytes.
//!
//! An entry is a file named by the digest of its key, written beside its place and renamed, and led by the digest of what
//! it holds: whatever happens while it is written, a reader finds all of it or nothing.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::whole::write_file;
use crate::{Error, Progress};

/// Bytes of a digest.
const DIGEST: usize = 32;

/// What an entry depends on. Equal parts in equal order make equal keys; this compiler's version is one of them.
#[derive(Clone)]
pub struct Key {
    kind: &'static str,
    hash: Sha256,
}

impl Key {
    /// A key of a kind of entry (letters, digits and dashes: it is a folder's name).
    pub fn new(kind: &'static str) -> Self {
        let hash = Sha256::new();
        Self { kind, hash }.with(env!("CARGO_PKG_VERSION"))
    }

    /// Adds a part: a digest of the model, a flag, a seed in text…
    #[must_use]
    pub fn with(mut self, part: impl AsRef<[u8]>) -> Self {
        let part = part.as_ref();
        self.hash.update((part.len() as u64).to_le_bytes());
        self.hash.update(part);
        self
    }

    fn file(&self) -> PathBuf {
        let digest = self.hash.clone().finalize();
        let name: String = digest.iter().map(|b| format!("{b:02x}")).collect();
        Path::new(self.kind).join(name)
    }
}

/// A folder of entries, or none.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: Option<PathBuf>,
}

impl Default for Cache {
    fn default() -> Self {
        Self::platform()
    }
}

impl Cache {
    /// The folder that `LOWBIT_CACHE` names, else `lowbit` in the platform's cache folder.
    pub fn platform() -> Self {
        let named = std::env::var_os("LOWBIT_CACHE").filter(|f| !f.is_empty());
        let own = || dirs::cache_dir().map(|f| f.join("lowbit"));
        Self {
            folder: named.map(PathBuf::from).or_else(own),
        }
    }

    /// A cache in a folder, which is made when the first entry is kept.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: Some(folder.into()),
        }
    }

    /// A cache that never holds anything.
    pub fn none() -> Self {
        Self { folder: None }
    }

    /// The error of an entry that is whole and not what its key promises.
    pub(crate) fn damaged() -> Error {
        Error::Other("an entry of the cache does not fit; --no-cache makes it anew".into())
    }

    /// Whether it can hold anything.
    pub(crate) fn is_open(&self) -> bool {
        self.folder.is_some()
    }

    /// What is kept for a key; nothing where the entry is missing or damaged.
    pub fn get(&self, key: &Key) -> Option<Vec<u8>> {
        let bytes = std::fs::read(self.folder.as_ref()?.join(key.file())).ok()?;
        let (digest, content) = bytes.split_at_checked(DIGEST)?;
        (Sha256::digest(content).as_slice() == digest).then(|| content.to_vec())
    }

    /// Keeps bytes for a key.
    ///
    /// # Errors
    /// The folder cannot be made or written.
    pub fn put(&self, key: &Key, content: &[u8]) -> Result<(), Error> {
        let Some(folder) = &self.folder else {
            return Ok(());
        };
        let digest = Sha256::digest(content);
        write_file(&folder.join(key.file()), &[&digest, content].concat())
    }

    /// What is kept for a key, or what `make` gives, which is kept from then on. A cache that cannot be written is told
    /// to the user and costs nothing but time.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn get_or(
        &self,
        key: &Key,
        progress: &dyn Progress,
        make: impl FnOnce() -> Result<Vec<u8>, Error>,
    ) -> Result<Vec<u8>, Error> {
        if let Some(kept) = self.get(key) {
            return Ok(kept);
        }
        let made = make()?;
        self.keep(key, &made, progress);
        Ok(made)
    }

    /// [`Cache::put`], which only tells the user where it fails.
    pub fn keep(&self, key: &Key, content: &[u8], progress: &dyn Progress) {
        if let Err(e) = self.put(key, content) {
            progress.note(&format!(
                "{e}: the next run starts anew; LOWBIT_CACHE=FOLDER names another cache"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Silent;

    fn cache() -> (tempfile::TempDir, Cache) {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path().join("new"));
        (folder, cache)
    }

    fn only_file(folder: &Path) -> PathBuf {
        let files: Vec<PathBuf> = std::fs::read_dir(folder.join("new/table"))
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        assert_eq!(files.len(), 1, "{files:?}");
        files[0].clone()
    }

    #[test]
    fn what_is_put_is_got_by_equal_keys_only() {
        let (_folder, cache) = cache();
        let key = Key::new("table").with("ab").with("c");
        assert_eq!(cache.get(&key), None);
        cache.put(&key, b"content").unwrap();
        assert_eq!(cache.get(&key).as_deref(), Some(&b"content"[..]));
        assert_eq!(cache.get(&Key::new("table").with("a").with("bc")), None);
        assert_eq!(cache.get(&Key::new("other").with("ab").with("c")), None);
    }

    #[test]
    fn damaged_entries_are_missing() {
        let (folder, cache) = cache();
        let key = Key::new("table");
        cache.put(&key, &[7; 100]).unwrap();
        let file = only_file(folder.path());
        let whole = std::fs::read(&file).unwrap();
        for damaged in [&whole[..10], &whole[..whole.len() - 1], b"", &[0; 132]] {
            std::fs::write(&file, damaged).unwrap();
            assert_eq!(cache.get(&key), None);
        }
        let made = cache.get_or(&key, &Silent, || Ok(vec![8])).unwrap();
        assert_eq!((made, cache.get(&key)), (vec![8], Some(vec![8])));
    }

    #[test]
    fn a_cache_that_cannot_be_written_still_gives_results() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        for cache in [Cache::at(&file), Cache::none()] {
            let made = cache.get_or(&Key::new("table"), &Silent, || Ok(vec![1]));
            assert_eq!(made.unwrap(), [1]);
            assert_eq!(cache.get(&Key::new("table")), None);
        }
        assert!(Cache::at(&file).put(&Key::new("table"), b"x").is_err());
    }

    #[test]
    fn failures_are_not_kept() {
        let (_folder, cache) = cache();
        let key = Key::new("table");
        let failed = cache.get_or(&key, &Silent, || Err(Error::Other("no".into())));
        assert!(failed.is_err() && cache.get(&key).is_none());
    }
}
