//! The examples in C, built and run as their readers would. The one in Rust has its test beside it.

use std::path::Path;
use std::process::Command;

use crate::tool::{digits, has, root, succeed};

/// Copies the example, so that nothing is built in the source tree.
fn copied() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["main.c", "samples.h", "Makefile", "CMakeLists.txt"] {
        let from = root().join("examples/c").join(name);
        std::fs::copy(&from, folder.path().join(name)).unwrap();
    }
    folder
}

fn recognises_digits(program: &Path) {
    let text = String::from_utf8(succeed(&mut Command::new(program)).stdout).unwrap();
    let last = text.lines().last().unwrap();
    let right: u32 = last.split(' ').next().unwrap().parse().unwrap();
    assert!(last.ends_with("of 200 right") && right >= 190, "{text}");
}

#[test]
fn the_makefile_builds_an_application() {
    let folder = copied();
    let model = format!("MODEL={}", digits().display());
    let flags = "CFLAGS=-O2 -std=c99 -Wall -Wextra -Wpedantic -Werror";
    succeed(
        Command::new("make")
            .current_dir(folder.path())
            .args([&model, flags]),
    );
    recognises_digits(&folder.path().join("digits"));
}

#[test]
fn cmake_builds_an_application() {
    if !has("cmake") {
        println!("cmake is not here: skipped");
        return;
    }
    let folder = copied();
    let build = folder.path().join("build");
    succeed(
        Command::new("cmake")
            .arg("-S")
            .args([folder.path(), Path::new("-B"), &build])
            .arg(format!("-DMODEL={}", digits().display())),
    );
    succeed(Command::new("cmake").arg("--build").arg(&build));
    recognises_digits(&build.join("digits"));
}
