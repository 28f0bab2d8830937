//! Installs what building and testing need on Debian and its kin.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell::{self, has, root};

/// For building: LLVM and what it links, cmake and libclang for solvers, a C compiler for the examples.
const BUILD: &[&str] = &[
    "llvm-19-dev",
    "libpolly-19-dev",
    "libclang-19-dev",
    "libzstd-dev",
    "zlib1g-dev",
    "libxml2-dev",
    "libffi-dev",
    "cmake",
    "make",
    "gcc",
    "g++",
    "libc6-dev",
    "pkg-config",
];

/// For running AArch64 objects here.
const ARM: &[&str] = &[
    "gcc-aarch64-linux-gnu",
    "libc6-dev-arm64-cross",
    "qemu-user",
];

/// For the tests' browser.
const BROWSER: &[&str] = &["chromium"];

/// For the tests' oracles.
const PYTHON: &[&str] = &["python3", "python3-venv"];

fn packages(tests: bool) -> Result<()> {
    let tests: &[&[&str]] = if tests { &[PYTHON, BROWSER] } else { &[] };
    let wanted = [&[BUILD, ARM], tests].concat().concat();
    if !has("dpkg-query") {
        eprintln!(
            "setup: this is no Debian system; these must be there by other means: {}",
            wanted.join(" ")
        );
        return Ok(());
    }
    let missing: Vec<&str> = wanted.into_iter().filter(|p| !installed(p)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    let root_user = Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|o| o.stdout == b"0\n");
    let sudo = !root_user
        && Command::new("sudo")
            .args(["-n", "true"])
            .output()
            .is_ok_and(|o| o.status.success());
    if !root_user && !sudo {
        bail!(
            "packages are missing and there is no right to install them; type:\n  sudo apt-get update && sudo apt-get install -y --no-install-recommends {list}"
        );
    }
    eprintln!("setup: installing {list}");
    let apt = |args: &[&str]| {
        let mut command = Command::new(if sudo { "sudo" } else { "apt-get" });
        if sudo {
            command.args(["-n", "apt-get"]);
        }
        shell::run(command.env("DEBIAN_FRONTEND", "noninteractive").args(args))
    };
    apt(&["-qq", "update"])?;
    apt(&[
        &["-qq", "install", "-y", "--no-install-recommends"],
        &missing[..],
    ]
    .concat())
}

fn installed(package: &str) -> bool {
    let query = Command::new("dpkg-query")
        .args(["-W", "-f", "${Status}", package])
        .output();
    query.is_ok_and(|o| o.stdout.ends_with(b"ok installed"))
}

/// Everything, the tests' Python included; returns that.
pub(crate) fn run_all() -> Result<PathBuf> {
    packages(true)?;
    python()
}

/// What building needs.
pub(crate) fn run() -> Result<()> {
    packages(false)
}

/// A Python with the pinned packages of `tests/requirements.txt`, made once for each version of that file.
fn python() -> Result<PathBuf> {
    let file = root().join("tests/requirements.txt");
    let text = std::fs::read_to_string(&file)
        .with_context(|| format!("cannot read {}", file.display()))?;
    let digest = text.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    });
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| std::env::var_os("HOME").map(|h| PathBuf::from(h).join(".cache")));
    let folder = cache
        .context("neither XDG_CACHE_HOME nor HOME is set")?
        .join(format!("lowbit/python-{digest:016x}"));
    let python = folder.join("bin/python");
    let done = folder.join("complete");
    if !done.is_file() {
        eprintln!("setup: making a Python environment in {}", folder.display());
        run_python(&folder, &file)?;
        std::fs::write(&done, "").with_context(|| format!("cannot write {}", done.display()))?;
    }
    Ok(python)
}

fn run_python(folder: &PathBuf, requirements: &PathBuf) -> Result<()> {
    shell::run(
        Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(folder),
    )?;
    let pip = folder.join("bin/python");
    shell::run(
        Command::new(pip)
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "-r",
            ])
            .arg(requirements),
    )
}
