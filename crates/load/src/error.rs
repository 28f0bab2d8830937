//! Why an object is not loaded.

/// Why an object cannot be mapped or lacks an entry.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The bytes are no ELF object file, or a damaged one.
    #[error("not a usable ELF object ({0}); give the .o file that `lowbit compile` wrote")]
    NotElf(String),
    /// An ELF file, but linked already or a core dump.
    #[error(
        "an ELF file of kind {0}, not a relocatable object; give the .o file that `lowbit compile` wrote"
    )]
    NotRelocatable(String),
    /// The object is for another processor than this process runs on.
    #[error(
        "the object is for {found}, and this process runs on {host}; run it there, or compile for this target"
    )]
    WrongMachine {
        /// Machine of the object.
        found: String,
        /// Machine of this process.
        host: &'static str,
    },
    /// The object refers to something that it does not hold.
    #[error("symbol `{0}` is undefined; an object must hold all that it calls and reads")]
    Undefined(String),
    /// The object does not export an entry.
    #[error("there is no function `{0}` in the object; check the model's name")]
    MissingSymbol(String),
    /// The object has data that would have to be writable.
    #[error("section `{0}` is writable data; an object keeps what it writes in the caller's arena")]
    Writable(String),
    /// A section's size, alignment or place makes no sense.
    #[error("section `{name}`: {why}")]
    Section {
        /// The section's name.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// A relocation that is not known, does not fit, or is out of place.
    #[error("section `{section}`, offset {offset:#x}: {why}")]
    Relocation {
        /// Name of the section that it patches.
        section: String,
        /// Byte offset in that section.
        offset: u64,
        /// What is wrong with it.
        why: String,
    },
    /// The system refuses memory, or to make it executable.
    #[error("cannot map the object into memory: {0}")]
    Map(String),
}

/// The result of everything here that can fail.
pub type Result<T, E = LoadError> = std::result::Result<T, E>;
