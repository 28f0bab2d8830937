//! Running an AArch64 object on another machine: linked with a small driver and run by qemu's user mode.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use lowbit_report::Report;

use crate::Error;
use crate::object::port_bytes;

const COMPILER: &str = "aarch64-linux-gnu-gcc";
const EMULATOR: &str = "qemu-aarch64";

/// A linked program that maps samples on standard input to outputs on standard output.
pub struct Program {
    folder: tempfile::TempDir,
    outputs: Vec<usize>,
    /// Whether the object cuts its layers for threads.
    parallel: bool,
}

impl Program {
    /// Links an object.
    ///
    /// # Errors
    /// The cross compiler is missing or refuses the object.
    pub fn build(object: &[u8], report: &Report) -> Result<Self, Error> {
        let folder =
            tempfile::tempdir().map_err(|e| Error::file("create", &std::env::temp_dir(), e))?;
        let inside = |name: &str| folder.path().join(name);
        let write = |path: PathBuf, bytes: &[u8]| {
            std::fs::write(&path, bytes).map_err(|e| Error::file("write", &path, e))
        };
        write(inside("net.o"), object)?;
        write(inside("driver.c"), driver(report).as_bytes())?;
        let status = Command::new(COMPILER)
            .args(["-O1", "-static", "-o"])
            .args([inside("driver"), inside("driver.c"), inside("net.o")])
            .status()
            .map_err(|e| missing(COMPILER, &e))?;
        if !status.success() {
            return Err(Error::Other(format!(
                "{COMPILER} could not link the object"
            )));
        }
        let outputs = report.model.outputs.iter().map(port_bytes).collect();
        Ok(Self {
            folder,
            outputs,
            parallel: report.reproduce.threads.is_some(),
        })
    }

    /// Whether the object cuts its layers for threads.
    pub fn is_parallel(&self) -> bool {
        self.parallel
    }

    /// Runs every sample.
    ///
    /// # Errors
    /// The emulator is missing, or the object refuses to run.
    pub fn run(&self, samples: &[Vec<Vec<u8>>]) -> Result<Vec<Vec<Vec<u8>>>, Error> {
        self.driven(samples, false)
    }

    /// Runs every sample with the parts of each layer one after the other, the last one first.
    ///
    /// # Errors
    /// As [`Program::run`].
    pub fn run_parallel(&self, samples: &[Vec<Vec<u8>>]) -> Result<Vec<Vec<Vec<u8>>>, Error> {
        self.driven(samples, true)
    }

    fn driven(&self, samples: &[Vec<Vec<u8>>], parallel: bool) -> Result<Vec<Vec<Vec<u8>>>, Error> {
        let mut input =
            tempfile::tempfile().map_err(|e| Error::file("create", self.folder.path(), e))?;
        for bytes in samples.iter().flatten() {
            input
                .write_all(bytes)
                .map_err(|e| Error::file("write", self.folder.path(), e))?;
        }
        std::io::Seek::rewind(&mut input)
            .map_err(|e| Error::file("read", self.folder.path(), e))?;
        let output = Command::new(EMULATOR)
            .args(["-cpu", "max"])
            .arg(self.folder.path().join("driver"))
            .arg(samples.len().to_string())
            .args(parallel.then_some("parallel"))
            .stdin(input)
            .output()
            .map_err(|e| missing(EMULATOR, &e))?;
        let each: usize = self.outputs.iter().sum();
        if !output.status.success() || output.stdout.len() != each * samples.len() {
            return Err(Error::Other(format!(
                "{EMULATOR} ended with {}",
                output.status
            )));
        }
        let split = |mut bytes: &[u8]| {
            self.outputs
                .iter()
                .map(|&n| {
                    let (own, rest) = bytes.split_at(n);
                    bytes = rest;
                    own.to_vec()
                })
                .collect()
        };
        Ok(output.stdout.chunks_exact(each.max(1)).map(split).collect())
    }
}

fn missing(program: &str, e: &std::io::Error) -> Error {
    Error::Other(format!(
        "an AArch64 object needs {program} to run here: {e}; install gcc-aarch64-linux-gnu and qemu-user"
    ))
}

fn driver(report: &Report) -> String {
    let name = &report.model.name;
    let declare = |kind: &str, sizes: Vec<usize>| -> String {
        sizes
            .iter()
            .enumerate()
            .map(|(k, n)| format!("static unsigned char {kind}{k}[{n}];\n"))
            .collect()
    };
    let list = |kind: &str, n: usize| {
        (0..n)
            .map(|k| format!("{kind}{k}"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let each = |kind: &str, call: &str, n: usize| -> String {
        (0..n)
            .map(|k| {
                format!("        if (!{call}({kind}{k}, sizeof {kind}{k}, 1, FILE)) return 3;\n")
            })
            .collect()
    };
    let (inputs, outputs) = (&report.model.inputs, &report.model.outputs);
    let run = format!("{name}_run(ins, outs, arena)");
    let (each_part, run) = match report.reproduce.threads {
        None => (String::new(), run),
        Some(_) => (
            format!(
                "int {name}_run_parallel(const void *const *, void *const *, void *, \
                 void (*)(void *, void (*)(void *, int), void *, int), void *);\n\
                 static void each_part(void *context, void (*task)(void *, int), void *argument, int parts)\n\
                 {{\n    (void)context;\n    while (parts-- > 0) task(argument, parts);\n}}\n"
            ),
            format!("(argc > 2 ? {name}_run_parallel(ins, outs, arena, each_part, 0) : {run})"),
        ),
    };
    format!(
        "#include <stdio.h>\n#include <stdlib.h>\n\
         int {name}_run(const void *const *, void *const *, void *);\nint {name}_check_cpu(void);\n\
         {each_part}{}{}static unsigned char arena[{}] __attribute__((aligned(64)));\n\
         int main(int argc, char **argv) {{\n    long n = argc > 1 ? atol(argv[1]) : 0;\n\
         const void *const ins[] = {{{}}};\n    void *const outs[] = {{{}}};\n\
         if ({name}_check_cpu()) return 1;\n    while (n-- > 0) {{\n{}\
         if ({run}) return 2;\n{}    }}\n    return 0;\n}}\n",
        declare("in", inputs.iter().map(port_bytes).collect()),
        declare("out", outputs.iter().map(port_bytes).collect()),
        report.totals.arena_bytes.max(1),
        list("in", inputs.len()),
        list("out", outputs.len()),
        each("in", "fread", inputs.len()).replace("FILE", "stdin"),
        each("out", "fwrite", outputs.len()).replace("FILE", "stdout"),
    )
}
