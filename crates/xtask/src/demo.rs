use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::setup;
use crate::shell::{self, cargo, output, root};

const MODEL: &str = "tests/models/digits.onnx";
const DATA: &str = "tests/models/digits.toml";
const HOST: &str = "target/demo";
const ARM: &str = "target/demo-aarch64";
const ARM_COMPILER: &str = "aarch64-linux-gnu-gcc";

/// From nothing to a running application, on this processor and on another one.
pub(crate) fn run() -> Result<()> {
    setup::run()?;
    if !root().join("target/release/lowbit").is_file() {
        eprintln!("demo: building lowbit: a few minutes, the first time only");
    }
    shell::run(cargo().args(["build", "--release", "--bin", "lowbit"]))?;

    step("a trained network, and what one command makes of it");
    compile(HOST, &[])?;

    step("link the object into a C application (examples/c) and run it");
    let make = format!("make -C examples/c MODEL=../../{HOST}");
    type_line(&make);
    shell::run(Command::new("make").args(["--quiet", "-C", "examples/c", "clean", "digits"]))?;
    type_line("examples/c/digits --brief");
    shell::run(Command::new("examples/c/digits").arg("--brief"))?;

    step("the same network for AArch64, run by an emulator");
    compile(
        ARM,
        &["--target", "aarch64-unknown-linux-gnu", "--eval", "none"],
    )?;
    let right = on_arm()?;

    summary(&right)
}

fn step(what: &str) {
    println!("\n── {what}\n");
}

fn type_line(text: &str) {
    println!("$ {text}");
}

fn lowbit() -> Command {
    Command::new(root().join("target/release/lowbit"))
}

fn compile(folder: &str, extra: &[&str]) -> Result<()> {
    let fixed = [
        "compile", MODEL, "--data", DATA, "--bits", "8", "-o", folder,
    ];
    let args = [&fixed, extra].concat();
    type_line(&format!("lowbit {}", args.join(" ")));
    shell::run(lowbit().args(args).env("LOWBIT_QUIET", "1"))
}

/// Links the C application for AArch64 and gives its last line.
fn on_arm() -> Result<String> {
    let program = format!("{ARM}/digits");
    let include = format!("-I{ARM}");
    let object = format!("{ARM}/digits.o");
    let args = [
        "-O2",
        "-static",
        "-std=c99",
        &include,
        "examples/c/main.c",
        &object,
        "-o",
        &program,
    ];
    type_line(&format!("{ARM_COMPILER} {}", args.join(" ")));
    shell::run(Command::new(ARM_COMPILER).args(args))?;
    type_line(&format!("qemu-aarch64 {program}"));
    let text = output(Command::new("qemu-aarch64").args([&program, "--brief"]))?;
    let last = text.lines().last().unwrap_or_default().to_owned();
    println!("{last}");
    Ok(last)
}

fn summary(arm: &str) -> Result<()> {
    let report = json(&std::fs::read_to_string(
        root().join(HOST).join("report.json"),
    )?)?;
    let bench = json(&output(
        lowbit()
            .args(["bench", HOST, "--json"])
            .env("LOWBIT_QUIET", "1"),
    )?)?;
    let (accuracy, totals) = (&report["accuracy"], &report["totals"]);
    let object = totals["object_bytes"].as_u64().unwrap_or(0);
    step("what you have now");
    let rows = [
        ("float accuracy", percent(&accuracy["float_top1"])),
        (
            "object accuracy",
            format!(
                "{}   the same {} samples, through the object itself",
                percent(&accuracy["top1"]),
                accuracy["samples"]
            ),
        ),
        (
            "object size",
            format!("{object} bytes   the float model has {}", size(MODEL)?),
        ),
        (
            "arena",
            format!(
                "{} bytes   all the memory that a run needs",
                totals["arena_bytes"]
            ),
        ),
        (
            "latency",
            format!(
                "{:.1} µs   one core",
                bench["median_us"].as_f64().unwrap_or(0.0)
            ),
        ),
        ("on AArch64", arm.to_owned()),
        (
            "float code",
            format!("{} instructions", report["proofs"]["float_instructions"]),
        ),
    ];
    for (name, value) in rows {
        println!("  {name:16} {value}");
    }
    println!(
        "\nLook at  {HOST}/report.html   in a browser: which layer has which bits, and why\n         \
         {HOST}/digits.h      what an application includes\n         \
         examples/c/main.c       how it uses it; examples/rust does the same from a build script\n\
         Then     lowbit --help, with a model of your own (the command is target/release/lowbit)"
    );
    Ok(())
}

fn size(file: &str) -> Result<u64> {
    let path = root().join(file);
    let data = std::fs::metadata(&path).with_context(|| format!("cannot read {file}"))?;
    Ok(data.len())
}

fn percent(x: &Value) -> String {
    x.as_f64()
        .map_or("–".into(), |x| format!("{:.2} %", 100.0 * x))
}

fn json(text: &str) -> Result<Value> {
    serde_json::from_str(text).context("a report that cannot be read")
}
