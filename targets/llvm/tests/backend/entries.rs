//! The exported functions on the host.

use crate::common::{Arena, Loaded, emulated_check};
use lowbit_kernel::{Place, Program};
use lowbit_llvm::{EmitError, Emitted, Options, emit, scan};
use lowbit_targets::resolve;
use std::path::Path;
use std::process::Command;
use std::ptr::{null, null_mut};
use tempfile::TempDir;

const TEXT: &str = "program p arena 128 inputs [16] outputs [16, 16] consts 16 { 01020304050607080900010203040506 }
    kernel plus(@a: in 16, @b: in 16, @y: out 16) {
      %0 = load i8x16 @a[0] %1 = load i8x16 @b[0] %2 = add i8x16 %0, %1 store %2, @y[0] }
    call plus \"first\" (input0, const+0, arena+64)
    call plus \"second\" (arena+64, const+0, output0)
    call plus \"third\" (arena+64, input0, output1)";

fn emitted(options: Options) -> Emitted {
    let program: Program = TEXT.parse().unwrap();
    emit(&program, &resolve(None, None).unwrap(), &options).unwrap()
}

fn loaded(options: Options) -> (Loaded, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("t.o"), emitted(options).object).unwrap();
    (Loaded::new(folder.path(), "p"), folder)
}

#[test]
fn run_refuses_null_pointers_and_a_misaligned_arena() {
    let (p, _folder) = loaded(Options::default());
    let (x, mut y, mut z, mut arena) = ([5_u8; 16], [0_u8; 16], [0_u8; 16], Arena::new(192));
    let (ins, outs) = ([x.as_ptr()], [y.as_mut_ptr(), z.as_mut_ptr()]);
    assert_eq!(p.run(None, &[null()], &outs, arena.pointer()), 1);
    assert_eq!(
        p.run(None, &ins, &[outs[0], null_mut()], arena.pointer()),
        1
    );
    assert_eq!(p.run(None, &ins, &outs, null_mut()), 1);
    assert_eq!(
        p.run(None, &ins, &outs, arena.pointer().wrapping_add(32)),
        2
    );
    assert_eq!(
        p.run(None, &ins, &outs, arena.pointer().wrapping_add(64)),
        0
    );
    assert_eq!((y[0], y[15], z[0]), (5 + 2, 5 + 12, 5 + 1 + 5));
    assert_eq!(p.check(), 0);
}

#[test]
fn steps_make_single_calls() {
    let (p, _folder) = loaded(Options {
        debug_steps: true,
        ..Options::default()
    });
    let (x, mut y, mut z, mut arena) = ([5_u8; 16], [9_u8; 16], [9_u8; 16], Arena::new(128));
    let (ins, outs) = ([x.as_ptr()], [y.as_mut_ptr(), z.as_mut_ptr()]);
    assert_eq!(p.run(Some(1), &ins, &outs, arena.pointer()), 0);
    assert_eq!((y[0], z[0]), (1, 9), "the arena is still zero");
    assert_eq!(p.run(Some(0), &ins, &outs, arena.pointer()), 0);
    assert_eq!(p.run(Some(2), &ins, &outs, arena.pointer()), 0);
    assert_eq!((y[0], z[0]), (1, 11));
    assert_eq!(p.run(Some(3), &ins, &outs, arena.pointer()), 3);
    assert_eq!(p.run(Some(-1), &ins, &outs, arena.pointer()), 3);
}

#[test]
fn texts_come_where_they_are_asked_for() {
    let plain = emitted(Options::default());
    let full = emitted(Options {
        ir: true,
        asm: true,
        debug_steps: false,
        parallel: false,
    });
    assert_eq!((plain.ir.is_none(), plain.asm.is_none()), (true, true));
    assert_eq!(plain.object, full.object);
    assert!(
        full.ir
            .unwrap()
            .contains("define internal void @kernel.plus")
    );
    assert!(full.asm.unwrap().contains("p_run:"));
}

#[test]
fn a_malformed_program_is_refused() {
    let mut program: Program = TEXT.parse().unwrap();
    program.calls[0].args[1] = Place::Const(8);
    let error = emit(&program, &resolve(None, None).unwrap(), &Options::default()).unwrap_err();
    assert!(matches!(error, EmitError::Program(_)), "{error}");
    assert!(error.to_string().contains("first"), "{error}");
}

#[test]
fn kernels_may_be_named_like_exports() {
    let text = TEXT
        .replace("kernel plus", "kernel p_run")
        .replace("call plus", "call p_run");
    let program: Program = text.parse().unwrap();
    let emitted = emit(&program, &resolve(None, None).unwrap(), &Options::default()).unwrap();
    let mut symbols = scan(&emitted.object).unwrap().exported_symbols;
    symbols.sort();
    assert_eq!(symbols, ["p_check_cpu", "p_run"]);
}

#[test]
fn check_cpu_knows_what_the_processor_lacks() {
    let cases = [
        ("x86_64-unknown-linux-gnu", "x86-64-v3", "max", 0),
        ("x86_64-unknown-linux-gnu", "x86-64-v3", "qemu64", 1),
        ("x86_64-unknown-linux-gnu", "x86-64-vnni", "max", 1),
        ("x86_64-unknown-linux-gnu", "x86-64-amx", "max", 1),
        ("x86_64-unknown-linux-gnu", "portable", "qemu64", 0),
        ("aarch64-unknown-linux-gnu", "aarch64-dotprod", "max", 0),
        (
            "aarch64-unknown-linux-gnu",
            "aarch64-dotprod",
            "cortex-a72",
            1,
        ),
        ("aarch64-unknown-linux-gnu", "aarch64-neon", "cortex-a72", 0),
    ];
    for (triple, level, processor, expected) in cases {
        let target = resolve(Some(triple), Some(level)).unwrap();
        let program: Program = TEXT.parse().unwrap();
        match emulated_check(&program, &target, processor) {
            Some(found) => assert_eq!(found, expected, "{level} on {processor}"),
            None => println!("not run: there is no emulator for {triple}"),
        }
    }
}

fn compile(compiler: &str, folder: &Path, source: &str) -> Option<Vec<u8>> {
    std::fs::write(folder.join("f.c"), source).unwrap();
    let args = ["-O1", "-fno-pic", "-c", "-o", "f.o", "f.c"];
    let done = Command::new(compiler)
        .current_dir(folder)
        .args(args)
        .status();
    if !done.is_ok_and(|s| s.success()) {
        println!("not run: there is no {compiler}");
        return None;
    }
    Some(std::fs::read(folder.join("f.o")).unwrap())
}

#[test]
fn a_scan_finds_floats_undefined_symbols_and_written_data() {
    let folder = tempfile::tempdir().unwrap();
    let source = "extern int other(int); int written = 3; float f(float x, int n) { written = other(n); return x * 3.5f + n; }";
    for compiler in ["cc", "aarch64-linux-gnu-gcc"] {
        let Some(object) = compile(compiler, folder.path(), source) else {
            continue;
        };
        let report = scan(&object).unwrap();
        assert!(
            report.float_instructions.len() >= 2,
            "{compiler}: {report:?}"
        );
        assert_eq!(report.undefined_symbols, ["other"]);
        assert_eq!(report.writable_sections, [".data"]);
        assert_eq!(report.exported_symbols.len(), 2);
    }
    for compiler in ["cc", "aarch64-linux-gnu-gcc"] {
        let source = "int g(int x) { return x * 3 + 1; }";
        let Some(object) = compile(compiler, folder.path(), source) else {
            continue;
        };
        assert_eq!(scan(&object).unwrap().float_instructions, []);
    }
    assert!(scan(b"not an object").is_err());
}
