//! From the carried model to linked programs, and back to what defines them.

use std::path::{Path, PathBuf};
use std::process::Command;

use lowbit::{Options, Silent};
use lowbit_ir::{Tensor, eval};
use object::{Object, ObjectSection, ObjectSymbol, RelocationFlags, elf};
use serde_json::Value;

use crate::tool::{compile, contents, data, digits, has, lowbit, model, root, succeed, works};

/// Codes that a program is given: 40 samples of noise.
fn noise() -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as u8
    };
    (0..64 * 40).map(|_| byte()).collect()
}

/// What the program `driver.c`, linked with an object, makes of the noise.
fn driven(folder: &Path, compiler: &str, flags: &[&str], wrapper: &[&str]) -> Vec<u8> {
    let place = tempfile::tempdir().unwrap();
    let program = place.path().join("driver");
    let noise_file = place.path().join("noise");
    std::fs::write(&noise_file, noise()).unwrap();
    succeed(
        Command::new(compiler)
            .args(["-O1", "-Wall", "-Wextra", "-Werror", "-std=gnu99"])
            .args(flags)
            .arg("-I")
            .arg(folder)
            .arg(root().join("tests/suite/driver.c"))
            .arg(folder.join("digits.o"))
            .arg("-o")
            .arg(&program),
    );
    let mut line: Vec<&std::ffi::OsStr> = wrapper.iter().map(std::ffi::OsStr::new).collect();
    line.push(program.as_os_str());
    let stdin = std::fs::File::open(&noise_file).unwrap();
    succeed(Command::new(line[0]).args(&line[1..]).stdin(stdin)).stdout
}

/// What the interpreter of the integer graph makes of the noise, and the object of the same compilation.
fn defined() -> (Vec<u8>, Vec<u8>) {
    let options = Options {
        data: Some(data()),
        eval: Some(0),
        budget: lowbit::report::Budget {
            bits: Some(8.0),
            ..Default::default()
        },
        ..Options::new(model())
    };
    let compiled = lowbit::compile(&options, &Silent).unwrap();
    let graph = &compiled.quantized.graph;
    let bytes = noise()
        .chunks(64)
        .flat_map(|codes| {
            let shape = graph.shape(graph.inputs()[0]);
            let outputs = eval::run(graph, &[Tensor::new(shape, codes.to_vec())]).unwrap();
            let width = outputs[0].dtype().bytes();
            let wide = outputs[0].to_i64().unwrap();
            let le = move |x: i64| x.to_le_bytes().into_iter().take(width);
            wide.into_iter().flat_map(le).collect::<Vec<u8>>()
        })
        .collect();
    (bytes, compiled.artefact.object)
}

#[test]
fn a_linked_program_computes_what_the_interpreter_defines() {
    let (expected, object) = defined();
    assert_eq!(expected.len(), 40 * 20);
    assert_eq!(std::fs::read(digits().join("digits.o")).unwrap(), object);
    let links: &[&[&str]] = &[
        &["-fPIE", "-pie", "-Wl,-z,text", "-Wl,--fatal-warnings"],
        &["-static"],
    ];
    for flags in links {
        assert_eq!(driven(digits(), "cc", flags, &[]), expected, "{flags:?}");
    }
    let portable = tempfile::tempdir().unwrap();
    compile(portable.path(), &["--cpu", "portable", "--eval", "none"]);
    assert_eq!(driven(portable.path(), "cc", &[], &[]), expected);
}

#[test]
fn an_aarch64_object_gives_the_same_bytes() {
    if !has("aarch64-linux-gnu-gcc") || !has("qemu-aarch64") {
        println!("the AArch64 compiler or emulator is not here: skipped");
        return;
    }
    let (expected, _) = defined();
    for level in ["aarch64-neon", "aarch64-dotprod", "aarch64-i8mm"] {
        let folder = tempfile::tempdir().unwrap();
        let target = ["--target", "aarch64-unknown-linux-gnu", "--cpu", level];
        compile(folder.path(), &[&target[..], &["--eval", "none"]].concat());
        let emulator = ["qemu-aarch64", "-cpu", "max"];
        let found = driven(
            folder.path(),
            "aarch64-linux-gnu-gcc",
            &["-static"],
            &emulator,
        );
        assert_eq!(found, expected, "{level}");
    }
}

#[test]
fn headers_compile_clean() {
    let folder = tempfile::tempdir().unwrap();
    let odd = crate::models::changed(|_, g| {
        let name = "a\"b\\c\nd??/ */ é";
        g.input[0].name = name.into();
        g.node[0].input[0] = name.into();
    });
    let path = folder.path().join("odd.onnx");
    std::fs::write(&path, prost::Message::encode_to_vec(&odd)).unwrap();
    works([
        "compile".as_ref(),
        path.as_os_str(),
        "-o".as_ref(),
        folder.path().as_os_str(),
    ]);
    let languages = [
        ("cc", "c", "c99"),
        ("cc", "c", "c17"),
        ("c++", "c++", "c++11"),
        ("c++", "c++", "c++20"),
    ];
    for (place, name) in [(digits(), "digits"), (folder.path(), "odd")] {
        let source = folder.path().join("use.c");
        let text = format!(
            "#include \"{name}.h\"\n#include \"{name}.h\"\nconst char *name(void) {{ return {}_INPUT0_NAME; }}\n\
             int main(void) {{ return sizeof name() == 0; }}\n",
            name.to_uppercase()
        );
        std::fs::write(
            &source,
            text.replacen("const", "const char *name(void);\nconst", 1),
        )
        .unwrap();
        for (compiler, language, standard) in languages {
            for define in ["-DPLAIN", &format!("-D{}_NO_HELPERS", name.to_uppercase())] {
                succeed(
                    Command::new(compiler)
                        .args(["-x", language, &format!("-std={standard}"), define])
                        .args([
                            "-Wall",
                            "-Wextra",
                            "-Wpedantic",
                            "-Wconversion",
                            "-Wshadow",
                            "-Werror",
                        ])
                        .args(["-fsyntax-only", "-I"])
                        .args([place, &source]),
                );
            }
        }
    }
}

/// Objects of the carried model that this test can look into: of every target family.
fn objects() -> Vec<(String, Vec<u8>)> {
    let families: [&[&str]; 4] = [
        &[
            "--target",
            "x86_64-unknown-linux-gnu",
            "--cpu",
            "x86-64-amx",
        ],
        &[
            "--target",
            "x86_64-unknown-linux-gnu",
            "--cpu",
            "x86-64-vnni",
        ],
        &["--target", "x86_64-unknown-linux-gnu", "--cpu", "x86-64"],
        &[
            "--target",
            "aarch64-unknown-linux-gnu",
            "--cpu",
            "aarch64-i8mm",
        ],
    ];
    let object = |extra: &&[&str]| {
        let folder = tempfile::tempdir().unwrap();
        compile(folder.path(), &[extra, &["--eval", "none"][..]].concat());
        let bytes = std::fs::read(folder.path().join("digits.o")).unwrap();
        (extra.join(" "), bytes)
    };
    families.iter().map(object).collect()
}

/// Whether a relocation holds wherever the object is mapped.
fn is_relative(machine: object::Architecture, flags: RelocationFlags) -> bool {
    let RelocationFlags::Elf { r_type } = flags else {
        return false;
    };
    match machine {
        object::Architecture::X86_64 => [elf::R_X86_64_PC32, elf::R_X86_64_PLT32].contains(&r_type),
        _ => [
            elf::R_AARCH64_CALL26,
            elf::R_AARCH64_JUMP26,
            elf::R_AARCH64_ADR_PREL_PG_HI21,
            elf::R_AARCH64_ADD_ABS_LO12_NC,
            elf::R_AARCH64_LDST8_ABS_LO12_NC,
            elf::R_AARCH64_LDST16_ABS_LO12_NC,
            elf::R_AARCH64_LDST32_ABS_LO12_NC,
            elf::R_AARCH64_LDST64_ABS_LO12_NC,
            elf::R_AARCH64_LDST128_ABS_LO12_NC,
        ]
        .contains(&r_type),
    }
}

#[test]
fn objects_hold_code_and_constants_only() {
    for (what, bytes) in objects() {
        let file = object::File::parse(&bytes[..]).unwrap();
        for section in file.sections() {
            let kind = section.kind();
            let written = matches!(
                kind,
                object::SectionKind::Data
                    | object::SectionKind::UninitializedData
                    | object::SectionKind::Tls
            );
            assert!(
                !written || section.size() == 0,
                "{what}: {:?}",
                section.name()
            );
            for (_, relocation) in section.relocations() {
                let fine = is_relative(file.architecture(), relocation.flags());
                assert!(fine, "{what}: {:?} {relocation:?}", section.name());
            }
        }
        let named = |s: &object::Symbol<'_, '_>| s.name().unwrap().to_owned();
        let undefined: Vec<String> = file
            .symbols()
            .filter(|s| s.is_undefined())
            .map(|s| named(&s))
            .filter(|n| !n.is_empty())
            .collect();
        assert_eq!(undefined, Vec::<String>::new(), "{what}");
        let mut global: Vec<String> = file
            .symbols()
            .filter(|s| s.is_global())
            .map(|s| named(&s))
            .collect();
        global.sort();
        assert_eq!(global, ["digits_check_cpu", "digits_run"], "{what}");
    }
}

fn report(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("report.json")).unwrap()).unwrap()
}

#[test]
fn the_report_tells_what_lies_on_the_disk() {
    let report = report(digits());
    let totals = &report["totals"];
    let bytes = std::fs::read(digits().join("digits.o")).unwrap();
    assert_eq!(totals["object_bytes"], bytes.len());
    let file = object::File::parse(&bytes[..]).unwrap();
    let text = file.section_by_name(".text").unwrap().size();
    let rodata = file.section_by_name(".rodata").unwrap().size();
    assert_eq!(totals["code_bytes"], text);
    // behind the constants lie what vector loads may read beyond the last of them, and the code's own vectors of 64 bytes
    let weights = totals["weight_bytes"].as_u64().unwrap();
    assert!(
        (weights..=weights + 4096).contains(&rodata),
        "{weights} {rodata}"
    );
    let (arena, least) = (&totals["arena_bytes"], &totals["arena_lower_bound_bytes"]);
    assert!(arena.as_f64().unwrap() <= 1.1 * least.as_f64().unwrap());
    let header = std::fs::read_to_string(digits().join("digits.h")).unwrap();
    for (name, value) in [
        ("ARENA_BYTES", arena),
        ("STACK_BYTES", &totals["stack_bytes"]),
    ] {
        assert!(
            header.contains(&format!("#define DIGITS_{name} {value}\n")),
            "{name}"
        );
    }
    let accuracy = &report["accuracy"];
    assert_eq!(accuracy["samples"], 797);
    let (float, own) = (&accuracy["float_top1"], &accuracy["top1"]);
    assert!(
        own.as_f64().unwrap() >= float.as_f64().unwrap() - 0.005,
        "{accuracy}"
    );
    assert_eq!(report["proofs"]["float_instructions"], 0);
}

#[test]
fn the_bytes_do_not_depend_on_threads_or_runs() {
    let expected = contents(digits());
    for jobs in ["1", "2"] {
        let folder = tempfile::tempdir().unwrap();
        compile(folder.path(), &["--jobs", jobs, "--no-cache"]);
        for ((name, bytes), (_, other)) in contents(folder.path()).iter().zip(&expected) {
            // the report tells measured times
            let timed = name.starts_with("report.");
            assert!(timed || bytes == other, "{name} differs with {jobs} jobs");
        }
    }
}

#[test]
fn check_cpu_knows_what_a_processor_lacks() {
    let folder = tempfile::tempdir().unwrap();
    let extra = [
        "--target",
        "x86_64-unknown-linux-gnu",
        "--cpu",
        "x86-64-vnni",
    ];
    compile(folder.path(), &extra);
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    if cfg!(not(target_arch = "x86_64")) || flags.contains("avx512_vnni") {
        println!("this processor has all that the object uses, or is of another kind: skipped");
        return;
    }
    assert_eq!(report(folder.path())["accuracy"], Value::Null);
    let source = folder.path().join("check.c");
    std::fs::write(
        &source,
        "#include \"digits.h\"\nint main(void) { return digits_check_cpu() != 0 ? 7 : 0; }\n",
    )
    .unwrap();
    let program = folder.path().join("check");
    let object = folder.path().join("digits.o");
    succeed(Command::new("cc").arg("-I").args([
        folder.path(),
        &source,
        &object,
        Path::new("-o"),
        &program,
    ]));
    assert_eq!(Command::new(&program).status().unwrap().code(), Some(7));
    for command in ["bench", "verify"] {
        let ran = lowbit([command.as_ref(), folder.path().as_os_str()]);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(
            ran.stderr
                .contains("this processor lacks what the object uses"),
            "{ran:?}"
        );
    }
}

/// A copy of the compiled folder to spoil.
fn copied() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in contents(digits()) {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    let object = folder.path().join("digits.o");
    (folder, object)
}

/// Adds one to a weight in the middle of the constants.
fn spoil(path: &Path) -> Vec<u8> {
    let mut bytes = std::fs::read(path).unwrap();
    let file = object::File::parse(&bytes[..]).unwrap();
    let (start, size) = file
        .section_by_name(".rodata")
        .unwrap()
        .file_range()
        .unwrap();
    let at = (start + size / 3) as usize;
    bytes[at] = bytes[at].wrapping_add(1);
    std::fs::write(path, &bytes).unwrap();
    bytes
}

#[test]
fn verify_passes_what_compile_wrote_and_nothing_else() {
    let verify = |folder: &Path| lowbit(["verify".as_ref(), folder.as_os_str(), "--json".as_ref()]);
    let good = verify(digits());
    let found = good.json();
    assert_eq!(
        (good.code, &found["bit_exact"]),
        (Some(0), &true.into()),
        "{good:?}"
    );
    assert!(found["samples"].as_u64().unwrap() >= 200);
    assert_eq!(
        (&found["float_instructions"], &found["undefined_symbols"]),
        (&0.into(), &Value::Array(vec![]))
    );

    let (folder, object) = copied();
    let bytes = spoil(&object);
    let spoilt = verify(folder.path());
    assert_eq!(
        (spoilt.code, &spoilt.json()["bit_exact"]),
        (Some(4), &false.into()),
        "{spoilt:?}"
    );

    // a report that was changed to fit
    let report = folder.path().join("report.json");
    let text = std::fs::read_to_string(&report).unwrap();
    let (old, new) = (
        sha256(&contents(digits())[..]),
        sha256(&[("digits.o".into(), bytes)]),
    );
    assert!(text.contains(&old));
    std::fs::write(&report, text.replace(&old, &new)).unwrap();
    let forged = verify(folder.path());
    let found = forged.json();
    assert_eq!(
        (forged.code, &found["reproduced"]),
        (Some(4), &false.into()),
        "{forged:?}"
    );
    assert!(
        found["bit_exact"] == false && found["first_difference"].is_string(),
        "{found}"
    );
}

/// SHA-256 of the object among files.
fn sha256(files: &[(String, Vec<u8>)]) -> String {
    use sha2::Digest;
    let object = &files.iter().find(|(n, _)| n == "digits.o").unwrap().1;
    sha2::Sha256::digest(object)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}
