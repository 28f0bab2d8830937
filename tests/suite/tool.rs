//! Running the command and other programs.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// What a run of the command left.
pub(crate) struct Ran {
    /// The exit code; none where a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// The JSON object on standard output.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

impl std::fmt::Debug for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            code,
            stdout,
            stderr,
        } = self;
        write!(f, "exit {code:?}\n{stdout}\n{stderr}")
    }
}

/// The workspace's folder.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The command, with a cache of the tests' own.
pub(crate) fn command() -> Command {
    static CACHE: OnceLock<tempfile::TempDir> = OnceLock::new();
    let cache = CACHE.get_or_init(|| tempfile::tempdir().unwrap());
    let mut command = Command::new(env!("CARGO_BIN_EXE_lowbit"));
    command.env("LOWBIT_CACHE", cache.path());
    command
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Ran {
    let shown = format!("{command:?}");
    let out = command.output().unwrap_or_else(|e| panic!("{shown}: {e}"));
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran {
        code: out.status.code(),
        stdout: text(out.stdout),
        stderr: text(out.stderr),
    }
}

/// Runs `lowbit` with arguments.
pub(crate) fn lowbit<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Ran {
    run(command().args(args))
}

/// Runs `lowbit` where it must work.
pub(crate) fn works<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Ran {
    let ran = lowbit(args);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    ran
}

/// Runs another program where it must work.
pub(crate) fn succeed(command: &mut Command) -> Output {
    let shown = format!("{command:?}");
    let out = command.output().unwrap_or_else(|e| panic!("{shown}: {e}"));
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{shown}: {}\n{text}", out.status);
    out
}

/// Whether a program is on the path.
pub(crate) fn has(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|p| std::env::split_paths(&p).any(|dir| dir.join(program).is_file()))
}

/// The model that the repository carries.
pub(crate) fn model() -> PathBuf {
    root().join("tests/models/digits.onnx")
}

/// Its data.
pub(crate) fn data() -> PathBuf {
    root().join("tests/models/digits.toml")
}

/// A folder that `compile` wrote of that model, for this machine: made once, only read by tests.
pub(crate) fn digits() -> &'static Path {
    static OUT: OnceLock<tempfile::TempDir> = OnceLock::new();
    let make = || {
        let folder = tempfile::tempdir().unwrap();
        compile(folder.path(), &[]);
        folder
    };
    OUT.get_or_init(make).path()
}

/// Compiles that model into a folder.
pub(crate) fn compile(folder: &Path, extra: &[&str]) -> Ran {
    let (model, data) = (model(), data());
    let fixed = [
        OsStr::new("compile"),
        model.as_os_str(),
        OsStr::new("--data"),
        data.as_os_str(),
        OsStr::new("-o"),
        folder.as_os_str(),
    ];
    works(fixed.into_iter().chain(extra.iter().map(OsStr::new)))
}

/// Names of what lies in a folder, sorted.
pub(crate) fn entries(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Every file of a folder with its bytes, sorted by name.
pub(crate) fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let read = |name: String| {
        let bytes = std::fs::read(folder.join(&name)).unwrap();
        (name, bytes)
    };
    entries(folder).into_iter().map(read).collect()
}

pub(crate) fn write(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}
