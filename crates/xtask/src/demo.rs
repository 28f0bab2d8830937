use std::process::Command;

use anyhow::{Context, Result};

use crate::setup;
use crate::shell::{self, cargo, output, root};

/// From nothing to a running application.
pub(crate) fn run() -> Result<()> {
    setup::run()?;
    eprintln!("demo: building lowbit (a few minutes the first time)");
    shell::run(cargo().args(["build", "--release", "--quiet"]))?;
    let lowbit = root().join("target/release/lowbit");
    let out = root().join("target/demo");
    eprintln!(
        "demo: lowbit compile tests/models/digits.onnx --data tests/models/digits.toml --bits 8 -o target/demo"
    );
    shell::run(
        Command::new(&lowbit)
            .args([
                "compile",
                "tests/models/digits.onnx",
                "--data",
                "tests/models/digits.toml",
                "--bits",
                "8",
                "-o",
            ])
            .arg(&out),
    )?;
    eprintln!("demo: make -C examples/c && examples/c/digits");
    shell::run(Command::new("make").args(["--quiet", "-C", "examples/c", "clean", "digits"]))?;
    shell::run(Command::new("examples/c/digits").arg("--brief"))?;
    let report = json(&std::fs::read_to_string(out.join("report.json"))?)?;
    let bench = json(&output(
        Command::new(&lowbit).arg("bench").arg(&out).arg("--json"),
    )?)?;
    let percent = |key: &str| {
        report["accuracy"][key]
            .as_f64()
            .map_or("–".into(), |x| format!("{:.2} %", 100.0 * x))
    };
    println!("\n  float accuracy    {}", percent("float_top1"));
    println!(
        "  object accuracy   {}   on {} samples",
        percent("top1"),
        report["accuracy"]["samples"]
    );
    println!(
        "  object size       {} bytes",
        report["totals"]["object_bytes"]
    );
    println!(
        "  arena             {} bytes",
        report["totals"]["arena_bytes"]
    );
    println!(
        "  latency           {:.2} µs",
        bench["median_us"].as_f64().unwrap_or(0.0)
    );
    println!(
        "\nNext: target/demo/digits.h, examples/c/main.c, lowbit --help, docs/architecture.md"
    );
    Ok(())
}

fn json(text: &str) -> Result<serde_json::Value> {
    serde_json::from_str(text).context("a report that cannot be read")
}
