//! For build scripts of Rust applications: compiles a model and links the object.
//!
//! ```no_run
//! # fn main() -> Result<(), lowbit::Error> {
//! lowbit::build::compile("net.onnx").data("net.toml").bits(8.0).emit()?;
//! # Ok(()) }
//! ```
//!
//! The application then writes `include!(concat!(env!("OUT_DIR"), "/net.rs"));` and has a module `net` with the sizes, a
//! safe `run` and `check_cpu`.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::compile::Options;
use crate::object::{element_bytes, port_bytes};
use crate::report::{Port, Report};
use crate::{Error, Silent};

/// A compilation in a build script.
pub struct Build {
    options: Options,
}

/// Starts from a model; paths are relative to the package.
pub fn compile(model: impl Into<PathBuf>) -> Build {
    let mut options = Options::new(model);
    options.eval = Some(0);
    Build { options }
}

impl Build {
    /// Calibrates with this data.
    pub fn data(mut self, path: impl Into<PathBuf>) -> Self {
        self.options.data = Some(path.into());
        self
    }

    /// Bounds the average bits of a weight.
    pub fn bits(mut self, bits: f64) -> Self {
        self.options.budget.bits = Some(bits);
        self
    }

    /// Names the processor; the default is the baseline of Cargo's target, so that the application runs on all of them.
    pub fn cpu(mut self, cpu: impl Into<String>) -> Self {
        self.options.cpu = Some(cpu.into());
        self
    }

    /// Cuts layers that take long into as many parts; the module has a `run_parallel` besides, which hands them to the
    /// application's threads.
    pub fn threads(mut self, threads: usize) -> Self {
        self.options.threads = threads.max(1);
        self
    }

    /// Compiles, archives and links.
    ///
    /// # Errors
    /// What `compile` finds, or that this is no build script.
    pub fn emit(mut self) -> Result<(), Error> {
        let out = variable("OUT_DIR")?;
        self.options.target = Some(variable("TARGET")?);
        if self.options.cpu.is_none() {
            let arch = variable("CARGO_CFG_TARGET_ARCH")?;
            self.options.cpu = Some(if arch == "x86_64" {
                "x86-64".into()
            } else {
                "generic".into()
            });
        }
        let compiled = crate::compile(&self.options, &Silent)?;
        let folder = Path::new(&out);
        compiled.artefact.write(folder, &compiled.plan)?;
        let report = &compiled.artefact.report;
        let name = &report.model.name;
        archive(folder, name, &compiled.artefact.object)?;
        let path = folder.join(format!("{name}.rs"));
        std::fs::write(&path, module(report)).map_err(|e| Error::file("write", &path, e))?;
        let mut lines = format!(
            "cargo:rustc-link-search=native={out}\ncargo:rustc-link-lib=static={name}_lowbit\ncargo:rerun-if-changed={}\n",
            self.options.model.display()
        );
        if let Some(data) = &self.options.data {
            lines += &format!("cargo:rerun-if-changed={}\n", data.display());
        }
        std::io::stdout()
            .write_all(lines.as_bytes())
            .map_err(|e| Error::file("write", Path::new("stdout"), e))
    }
}

fn variable(name: &str) -> Result<String, Error> {
    std::env::var(name).map_err(|_| {
        Error::Usage(format!(
            "{name} is not set: lowbit::build is for build scripts"
        ))
    })
}

fn archive(folder: &Path, name: &str, object: &[u8]) -> Result<(), Error> {
    let path = folder.join(format!("lib{name}_lowbit.a"));
    let fail = |e| Error::file("write", &path, e);
    let file = std::fs::File::create(&path).map_err(fail)?;
    let member = format!("{name}.o");
    let mut builder = ar::GnuBuilder::new(file, vec![member.clone().into_bytes()]);
    let header = ar::Header::new(member.into_bytes(), object.len() as u64);
    builder.append(&header, object).map_err(fail)
}

fn rust_type(port: &Port) -> &str {
    &port.r#type
}

/// The application's module: constants and a safe wrapper.
fn module(report: &Report) -> String {
    let name = &report.model.name;
    let count = |p: &Port| port_bytes(p) / element_bytes(p);
    let list = |ports: &[Port], each: &dyn Fn(usize, &Port) -> String| -> String {
        ports.iter().enumerate().map(|(k, p)| each(k, p)).collect()
    };
    let constants = |kind: &str, ports: &[Port]| {
        list(ports, &|k, p| {
            format!(
                "    pub const {kind}{k}_ELEMENTS: usize = {};\n    pub const {kind}{k}_SCALE: f32 = {:e};\n    pub const {kind}{k}_ZERO_POINT: i32 = {};\n",
                count(p),
                p.scale as f32,
                p.zero_point
            )
        })
    };
    let (inputs, outputs) = (&report.model.inputs, &report.model.outputs);
    let parameters = list(inputs, &|k, p| {
        format!("input{k}: &[{}; {}], ", rust_type(p), count(p))
    }) + &list(outputs, &|k, p| {
        format!("output{k}: &mut [{}; {}], ", rust_type(p), count(p))
    });
    let ins = list(inputs, &|k, _| format!("input{k}.as_ptr().cast(), "));
    let outs = list(outputs, &|k, _| format!("output{k}.as_mut_ptr().cast(), "));
    let parallel = match report.reproduce.threads {
        Some(_) => parallel(
            name,
            &parameters,
            [&ins, &outs],
            [inputs.len(), outputs.len()],
        ),
        None => String::new(),
    };
    format!(
        "/// An integer-only network, compiled by lowbit {version}.\n#[allow(dead_code)]\npub mod {name} {{\n\
         {}{}    /// Memory for intermediate results.\n    #[repr(align(64))]\n    pub struct Arena([u8; {arena}]);\n\n\
         impl Arena {{\n        pub const fn new() -> Self {{\n            Self([0; {arena}])\n        }}\n    }}\n\n\
         impl Default for Arena {{\n        fn default() -> Self {{\n            Self::new()\n        }}\n    }}\n\n\
         unsafe extern \"C\" {{\n        fn {name}_run(inputs: *const *const u8, outputs: *const *mut u8, arena: *mut u8) -> i32;\n\
         fn {name}_check_cpu() -> i32;\n    }}\n\n\
         /// Whether this processor has what the network uses.\n    pub fn check_cpu() -> bool {{\n        \
         // SAFETY: the function reads the processor's identification, and asks Linux for what of it must be asked for\n        \
         unsafe {{ {name}_check_cpu() == 0 }}\n    }}\n\n\
         /// Runs the network; call it where [`check_cpu`] holds.\n    pub fn run({parameters}arena: &mut Arena) {{\n        \
         let inputs: [*const u8; {}] = [{ins}];\n        let outputs: [*mut u8; {}] = [{outs}];\n        \
         // SAFETY: every pointer leads to as many bytes as the network's header asks for, and the arena is aligned\n        \
         let code = unsafe {{ {name}_run(inputs.as_ptr(), outputs.as_ptr(), arena.0.as_mut_ptr()) }};\n        \
         assert_eq!(code, 0);\n    }}\n{parallel}}}\n",
        constants("INPUT", inputs),
        constants("OUTPUT", outputs),
        inputs.len(),
        outputs.len(),
        version = report.reproduce.lowbit_version,
        arena = report.totals.arena_bytes.max(1),
    )
}

/// The wrapper of `NAME_run_parallel`.
fn parallel(name: &str, parameters: &str, lists: [&str; 2], counts: [usize; 2]) -> String {
    let ([ins, outs], [inputs, outputs]) = (lists, counts);
    format!(
        "
    /// Calls its first argument once with every number below the second one, on threads of its choice, and waits for all.
    pub type ForEach<'a> = &'a (dyn Fn(&(dyn Fn(i32) + Sync), i32) + Sync);
    type Task = unsafe extern \"C\" fn(*mut u8, i32);
    type ParallelFor = unsafe extern \"C\" fn(*mut u8, Task, *mut u8, i32);

    unsafe extern \"C\" {{
        fn {name}_run_parallel(inputs: *const *const u8, outputs: *const *mut u8, arena: *mut u8, parallel_for: ParallelFor, context: *mut u8) -> i32;
    }}

    struct Argument(*mut u8);
    // SAFETY: the parts of a layer write different bytes of memory that outlives the call, which waits for all of them
    unsafe impl Sync for Argument {{}}
    impl Argument {{
        fn pointer(&self) -> *mut u8 {{
            self.0
        }}
    }}

    unsafe extern \"C\" fn hand_out(context: *mut u8, task: Task, argument: *mut u8, parts: i32) {{
        // SAFETY: `run_parallel` gave the network this pointer
        let for_each = unsafe {{ *context.cast::<ForEach<'_>>() }};
        let argument = Argument(argument);
        // SAFETY: the network asks for every part to be run once, on any thread, before this returns
        for_each(&|part| unsafe {{ task(argument.pointer(), part) }}, parts);
    }}

    /// Runs the network with the parts of its large layers on the threads of `for_each`; call it where [`check_cpu`] holds.
    pub fn run_parallel({parameters}arena: &mut Arena, for_each: ForEach<'_>) {{
        let inputs: [*const u8; {inputs}] = [{ins}];
        let outputs: [*mut u8; {outputs}] = [{outs}];
        let mut for_each = for_each;
        let context = std::ptr::from_mut(&mut for_each).cast();
        // SAFETY: as in `run`; `for_each` outlives the call
        let code = unsafe {{ {name}_run_parallel(inputs.as_ptr(), outputs.as_ptr(), arena.0.as_mut_ptr(), hand_out, context) }};
        assert_eq!(code, 0);
    }}
"
    )
}
