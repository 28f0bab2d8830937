//! Runs emitted objects: in this process on the host, through an emulator elsewhere; and builds kernels of one operation.

use crate::kernels::Random;
use lowbit_kernel::{Attr, Builder, Call, Kernel, OpCode, Place, Program, Role, Scalar, Type};
use lowbit_llvm::{Options, emit};
use lowbit_targets::{ALL, Arch, Feature, Probe, ResolvedTarget, resolve};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// One use of an operation.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) code: OpCode,
    pub(crate) ty: Type,
    pub(crate) args: Vec<Type>,
    pub(crate) attr: Attr,
}

impl Case {
    pub(crate) fn new(code: OpCode, ty: Type, args: &[Type], attr: Attr) -> Self {
        Self {
            code,
            ty,
            args: args.to_vec(),
            attr,
        }
    }

    /// The use that a row's operation and result type stand for; several where an attribute chooses.
    pub(crate) fn of_row(code: OpCode, ty: Type) -> Vec<Self> {
        let same = |n| {
            vec![Self {
                code,
                ty,
                args: vec![ty; n],
                attr: Attr::None,
            }]
        };
        let factors = |s: Scalar| Type::new(s, ty.lanes * (4 / s.bytes() as u16));
        let dot = |s| {
            vec![Self::new(
                code,
                ty,
                &[ty, factors(s), factors(s)],
                Attr::None,
            )]
        };
        match code {
            OpCode::Dot4 | OpCode::Dot4s => dot(Scalar::I8),
            OpCode::Dot2Narrow => {
                let factors = Type::I8.x(2 * ty.lanes);
                vec![Self::new(code, ty, &[ty, factors, factors], Attr::None)]
            }
            OpCode::Dot2 => dot(Scalar::I16),
            OpCode::Pack4U8 => vec![Self::new(
                code,
                ty,
                &[Type::I32.x(ty.lanes / 4); 4],
                Attr::None,
            )],
            OpCode::Zip4 => (0..4)
                .map(|part| Self::new(code, ty, &[ty; 4], Attr::Int(part)))
                .collect(),
            OpCode::Lut256 => vec![Self::new(code, ty, &[ty], Attr::None)],
            OpCode::Dot4Tile => [1, 3, 16]
                .map(|steps| {
                    let factors = [ty.lanes / 4 * steps, 64 * steps].map(|n| Type::I8.x(n));
                    Self::new(code, ty, &[ty, factors[0], factors[1]], Attr::None)
                })
                .into(),
            _ => same(code.def().arity),
        }
    }

    pub(crate) fn input_bytes(&self) -> usize {
        let table = if self.code == OpCode::Lut256 { 256 } else { 0 };
        self.args.iter().map(|t| t.bytes()).sum::<usize>() + table
    }

    /// Random operands in the operation's domain, then the table where there is one.
    pub(crate) fn input(&self, random: &mut Random) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (k, ty) in self.args.iter().enumerate() {
            for _ in 0..ty.lanes {
                let x = self.lane(k, ty.scalar, random.next());
                bytes.extend_from_slice(&x.to_le_bytes()[..ty.scalar.bytes()]);
            }
        }
        let rest = self.input_bytes() - bytes.len();
        bytes.extend(random.bytes(rest));
        bytes
    }

    fn lane(&self, k: usize, scalar: Scalar, x: u64) -> u64 {
        match (self.code, k) {
            (OpCode::Shl | OpCode::Ashr | OpCode::Lshr, 1) => x % u64::from(scalar.bits()),
            (OpCode::Requant, 2) => 1 + x % 62,
            (OpCode::Udiv, 1) => x | 1,
            // the sum of two products with activations up to 255, and an accumulator, fit 16 bits
            (OpCode::Dot2Narrow, 0) => (x % 8192).wrapping_sub(4096),
            (OpCode::Dot2Narrow, 2) => (x % 95).wrapping_sub(47),
            // Small and large magnitudes, so that clamps and comparisons go both ways.
            _ => ((x as i64) >> (x % 56)) as u64,
        }
    }

    pub(crate) fn kernel(&self, name: &str) -> Kernel {
        let mut b = Builder::new(name);
        let x = b.buffer("x", Role::In, self.input_bytes());
        let y = b.buffer("y", Role::Out, self.ty.bytes());
        let mut at = 0;
        let mut args = Vec::new();
        for ty in &self.args {
            args.push(b.load(*ty, x.at(at)));
            at += ty.bytes() as i64;
        }
        let attr = if self.code == OpCode::Lut256 {
            Attr::At(x.at(at))
        } else {
            self.attr.clone()
        };
        let v = b.op(self.code, self.ty, &args, attr);
        b.store(v, y.at(0));
        b.finish()
    }
}

/// A program of one call for each case, with an input and an output each.
pub(crate) fn program(cases: &[Case]) -> Program {
    let kernels: Vec<_> = cases
        .iter()
        .enumerate()
        .map(|(k, c)| c.kernel(&format!("k{k}")))
        .collect();
    let call = |k| Call {
        kernel: k,
        label: format!("{k}"),
        args: vec![Place::Input(k), Place::Output(k)],
        beside: false,
    };
    Program {
        name: "t".to_owned(),
        calls: (0..kernels.len()).map(call).collect(),
        kernels,
        inputs: cases.iter().map(Case::input_bytes).collect(),
        outputs: cases.iter().map(|c| c.ty.bytes()).collect(),
        ..Program::default()
    }
}

/// Every level on every family it exists for, with all its optional features and with none, where they differ.
pub(crate) fn targets() -> Vec<ResolvedTarget> {
    let mut all = Vec::new();
    for level in ALL {
        for arch in level.archs {
            let plain = resolve(Some(arch.default_triple()), Some(level.name))
                .expect("levels resolve by name");
            let mut full = plain.clone();
            full.features
                .extend(level.optional.iter().filter(|f| f.arch() == *arch));
            if full != plain {
                all.push(full);
            }
            all.push(plain);
        }
    }
    all
}

/// How code for a target can run here.
pub(crate) enum Machine {
    Host,
    /// The host, which executes all but the tiles.
    Tiles,
    Emulator,
}

pub(crate) fn machine(target: &ResolvedTarget) -> Option<Machine> {
    let host = resolve(None, None).expect("the host has a level");
    let lacks = || {
        let has = |f: &&Feature| host.features.contains(f) || f.probe() == Probe::Base;
        let lacking = target.features.iter().copied().filter(|f| !has(&f));
        lacking.collect::<Vec<_>>()
    };
    match target.arch {
        arch if arch == host.arch => match lacks()[..] {
            [] => Some(Machine::Host),
            [Feature::AmxTile, Feature::AmxInt8] => {
                lowbit_load::emulate_tiles().then_some(Machine::Tiles)
            }
            _ => None,
        },
        Arch::Aarch64 => emulator(Arch::Aarch64).map(|_| Machine::Emulator),
        Arch::X86_64 => None,
    }
}

/// Compiler and emulator of a family, if both are there.
fn emulator(arch: Arch) -> Option<(&'static str, &'static str)> {
    let (compiler, emulator) = match arch {
        Arch::Aarch64 => ("aarch64-linux-gnu-gcc", "qemu-aarch64"),
        Arch::X86_64 => ("x86_64-linux-gnu-gcc", "qemu-x86_64"),
    };
    let found = |tool: &str| {
        let version = Command::new(tool)
            .arg("--version")
            .stdout(Stdio::null())
            .status();
        version.is_ok_and(|s| s.success())
    };
    (found(compiler) && found(emulator)).then_some((compiler, emulator))
}

/// What `check_cpu` answers on an emulated processor, if there is an emulator.
pub(crate) fn emulated_check(
    program: &Program,
    target: &ResolvedTarget,
    processor: &str,
) -> Option<i32> {
    let (compiler, emulator) = emulator(target.arch)?;
    let object = emit(program, target, &Options::default())
        .expect("the program is well-formed")
        .object;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes);
    let name = &program.name;
    write("t.o", &object).expect("the folder is writable");
    let source =
        format!("int {name}_check_cpu(void);\nint main(void) {{ return {name}_check_cpu(); }}\n");
    write("main.c", source.as_bytes()).expect("the folder is writable");
    link(
        compiler,
        folder.path(),
        &["-static", "-o", "t", "main.c", "t.o"],
    );
    let mut run = Command::new(emulator);
    run.args(["-cpu", processor, "./t"])
        .current_dir(folder.path())
        .stderr(Stdio::null());
    run.status().expect("the emulator starts").code()
}

/// Runs a program's object; `None` (with a line that says so) where this machine cannot.
pub(crate) fn run(
    program: &Program,
    target: &ResolvedTarget,
    inputs: &[Vec<u8>],
) -> Option<Vec<Vec<u8>>> {
    let object = emit(program, target, &Options::default())
        .expect("the program is well-formed")
        .object;
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("t.o"), object).expect("the folder is writable");
    match machine(target) {
        Some(Machine::Host) => Some(run_here(program, folder.path(), inputs, true)),
        Some(Machine::Tiles) => Some(run_here(program, folder.path(), inputs, false)),
        Some(Machine::Emulator) => Some(run_emulated(program, folder.path(), inputs)),
        None => {
            println!(
                "not run: this machine cannot run {} on {}",
                target.level.name, target.triple
            );
            None
        }
    }
}

fn link(compiler: &str, folder: &Path, args: &[&str]) {
    let status = Command::new(compiler)
        .current_dir(folder)
        .args(args)
        .status()
        .expect("the C compiler starts");
    assert!(status.success(), "{compiler} {args:?}");
}

#[repr(align(64))]
#[derive(Clone, Copy)]
struct Line(#[allow(dead_code)] [u8; 64]);

type Run = unsafe extern "C" fn(*const *const u8, *const *mut u8, *mut Line) -> i32;
type Step = unsafe extern "C" fn(i32, *const *const u8, *const *mut u8, *mut Line) -> i32;
type Check = unsafe extern "C" fn() -> i32;

/// An object in this process.
pub(crate) struct Loaded {
    library: libloading::Library,
    name: String,
}

impl Loaded {
    /// Links and maps `t.o` of a folder, an object just emitted for a program of that name.
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        link("cc", folder, &["-shared", "-nostdlib", "-o", "t.so", "t.o"]);
        // SAFETY: the object has no initialisers.
        let library = unsafe { libloading::Library::new(folder.join("t.so")) };
        Self {
            library: library.expect("the object loads"),
            name: name.to_owned(),
        }
    }

    fn symbol<T>(&self, name: &str) -> libloading::Symbol<'_, T> {
        // SAFETY: callers name the type that the backend documents for the symbol.
        unsafe { self.library.get(format!("{}_{name}", self.name).as_bytes()) }.expect("exported")
    }

    pub(crate) fn check(&self) -> i32 {
        let check = self.symbol::<Check>("check_cpu");
        // SAFETY: it takes nothing.
        unsafe { check() }
    }

    /// Runs it, or one step of it. Buffers must have the program's sizes, or be null.
    pub(crate) fn run(
        &self,
        step: Option<i32>,
        inputs: &[*const u8],
        outputs: &[*mut u8],
        arena: *mut u8,
    ) -> i32 {
        let (inputs, outputs, arena) = (inputs.as_ptr(), outputs.as_ptr(), arena.cast());
        // SAFETY: the object is the one emitted for the caller's program, whose sizes the buffers have.
        unsafe {
            match step {
                Some(k) => self.symbol::<Step>("step")(k, inputs, outputs, arena),
                None => self.symbol::<Run>("run")(inputs, outputs, arena),
            }
        }
    }
}

/// An arena of zeros, aligned.
pub(crate) struct Arena(Vec<Line>);

impl Arena {
    pub(crate) fn new(bytes: usize) -> Self {
        Self(vec![Line([0; 64]); bytes.div_ceil(64).max(1)])
    }

    pub(crate) fn pointer(&mut self) -> *mut u8 {
        self.0.as_mut_ptr().cast()
    }
}

fn run_here(program: &Program, folder: &Path, inputs: &[Vec<u8>], has_all: bool) -> Vec<Vec<u8>> {
    let loaded = Loaded::new(folder, &program.name);
    assert_eq!(loaded.check() == 0, has_all, "what the processor has");
    let mut outputs: Vec<_> = program
        .outputs
        .iter()
        .map(|&n| vec![0xa5; n + 64])
        .collect();
    let ins: Vec<_> = inputs.iter().map(|x| x.as_ptr()).collect();
    let outs: Vec<_> = outputs.iter_mut().map(|y| y.as_mut_ptr()).collect();
    let mut arena = Arena::new(program.arena_bytes);
    assert_eq!(loaded.run(None, &ins, &outs, arena.pointer()), 0);
    for (y, &n) in outputs.iter_mut().zip(&program.outputs) {
        assert!(
            y[n..].iter().all(|&b| b == 0xa5),
            "nothing is written past the output"
        );
        y.truncate(n);
    }
    outputs
}

/// Inputs on standard input, outputs on standard output, one after the other.
fn run_emulated(program: &Program, folder: &Path, inputs: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let declare = |what: &str, sizes: &[usize]| {
        let buffers: Vec<_> = sizes
            .iter()
            .enumerate()
            .map(|(k, n)| format!("static char {what}{k}[{n}];\n"))
            .collect();
        let names: Vec<_> = (0..sizes.len()).map(|k| format!("{what}{k}")).collect();
        format!(
            "{}static void *{what}[] = {{{}}};\n",
            buffers.concat(),
            names.join(", ")
        )
    };
    let each = |call: &str, what: &str, sizes: &[usize], stream: &str| -> String {
        let one = |(k, n): (usize, &usize)| {
            format!("  if ({call}({what}{k}, 1, {n}, {stream}) != {n}) return 9;\n")
        };
        sizes.iter().enumerate().map(one).collect()
    };
    let (name, arena) = (&program.name, program.arena_bytes.max(64));
    let source = format!(
        "#include <stdio.h>\nint {name}_run(const void *const *, void *const *, void *);\nint {name}_check_cpu(void);\n\
         {}{}static _Alignas(64) char arena[{arena}];\nint main(void) {{\n  if ({name}_check_cpu()) return 8;\n{}\
         int r = {name}_run((const void *const *)in, out, arena);\n  if (r) return r;\n{}  return 0;\n}}\n",
        declare("in", &program.inputs),
        declare("out", &program.outputs),
        each("fread", "in", &program.inputs, "stdin"),
        each("fwrite", "out", &program.outputs, "stdout"),
    );
    std::fs::write(folder.join("main.c"), source).expect("the folder is writable");
    let (compiler, emulator) = emulator(Arch::Aarch64).expect("`machine` found it");
    link(compiler, folder, &["-static", "-o", "t", "main.c", "t.o"]);
    let mut child = Command::new(emulator)
        .args(["-cpu", "max", "./t"])
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the emulator starts");
    let (mut stdin, all) = (child.stdin.take().expect("piped"), inputs.concat());
    let writer = std::thread::spawn(move || stdin.write_all(&all));
    let answer = child.wait_with_output().expect("the emulator ends");
    writer
        .join()
        .expect("no panic")
        .expect("all inputs are read");
    assert!(
        answer.status.success(),
        "the emulated program ended with {}",
        answer.status
    );
    let mut rest = &answer.stdout[..];
    let take = |&n: &usize| {
        let (head, tail) = rest.split_at(n);
        rest = tail;
        head.to_vec()
    };
    program.outputs.iter().map(take).collect()
}

/// Runs a program on random inputs and compares every output with the interpreter's.
pub(crate) fn compare(cases: &[Case], target: &ResolvedTarget, seed: u64) {
    let program = program(cases);
    let mut random = Random(seed);
    let inputs: Vec<_> = cases.iter().map(|c| c.input(&mut random)).collect();
    let expected = program
        .run(&inputs.iter().map(Vec::as_slice).collect::<Vec<_>>())
        .expect("operands are in the domain");
    let Some(found) = run(&program, target, &inputs) else {
        return;
    };
    for ((case, want), have) in cases.iter().zip(expected).zip(found) {
        assert_eq!(
            want, have,
            "{} {}: {case:?}",
            target.level.name, target.triple
        );
    }
}
