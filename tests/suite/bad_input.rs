//! Bad input gives one clear message and the documented exit code, and leaves nothing behind.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use lowbit_onnx::proto::{Entry, Graph, Model, OperatorSet, ValueInfo};
use prost::Message;

use crate::models::{changed, port, sound, weights};
use crate::tool::{
    Ran, command, contents, data, digits, entries, lowbit, model, root, run, works, write,
};

/// One message that holds the words, the exit code, and nothing on standard output.
fn refused(what: &str, ran: &Ran, code: i32, words: &[&str]) {
    let messages: Vec<&str> = ran
        .stderr
        .lines()
        .filter(|l| l.starts_with("lowbit: ") || l.starts_with("error: "))
        .collect();
    let last = messages.last().copied().unwrap_or_default();
    assert_eq!(ran.code, Some(code), "{what}: {ran:?}");
    assert!(!ran.stderr.contains("panicked"), "{what}: {ran:?}");
    assert_eq!(ran.stdout, "", "{what}");
    let text = &ran.stderr[ran.stderr.find(last).unwrap_or(0)..];
    for word in words {
        assert!(text.contains(word), "{what}: no '{word}' in: {text}");
    }
}

/// Compiles into a new folder, which must not be there afterwards.
fn compile_refused(what: &str, model: &Path, extra: &[&str], words: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let ran = run(command()
        .args(["compile".as_ref(), model, "-o".as_ref(), &out])
        .args(extra));
    refused(what, &ran, 1, words);
    assert_eq!(entries(folder.path()), Vec::<String>::new(), "{what}");
}

#[test]
fn files_that_are_no_models() {
    let folder = tempfile::tempdir().unwrap();
    let whole = sound().encode_to_vec();
    let cases: &[(&str, &[u8], &str)] = &[
        ("empty.onnx", b"", "the file is empty"),
        ("text.onnx", b"conv relu conv relu", "no ONNX model"),
        ("zeros.onnx", &[0; 4096], "no ONNX model"),
        ("archive.onnx", b"PK\x03\x04\x14\0\0\0\0\0", "no ONNX model"),
        ("half.onnx", &whole[..whole.len() / 2], "no ONNX model"),
        ("end.onnx", &whole[..whole.len() - 1], "no ONNX model"),
    ];
    for (name, bytes, word) in cases {
        let path = write(folder.path(), name, bytes);
        compile_refused(name, &path, &[], &[name, word]);
        for other in ["check", "inspect"] {
            refused(
                name,
                &lowbit([other.as_ref(), path.as_os_str()]),
                1,
                &[name, word],
            );
        }
    }
    let absent = folder.path().join("absent.onnx");
    compile_refused("absent", &absent, &[], &["cannot read", "absent.onnx"]);
    compile_refused("folder", folder.path(), &[], &["cannot read"]);
}

type Change = fn(&mut Model, &mut Graph);

/// What makes the sound model hostile, and what the message must name.
const HOSTILE: &[(&str, Change, &[&str])] = &[
    (
        "cycle",
        |_, g| g.node[0].input[0] = "scores".into(),
        &["first"],
    ),
    (
        "missing tensor",
        |_, g| g.node[1].input[0] = "nowhere".into(),
        &["second", "nowhere"],
    ),
    (
        "missing output",
        |_, g| g.output[0].name = "nowhere".into(),
        &["nowhere"],
    ),
    ("no outputs", |_, g| g.output.clear(), &["output"]),
    (
        "negative extent",
        |_, g| g.input[0] = port("image", &[1, 1, -4, 4]),
        &["image", "-4"],
    ),
    (
        "huge extent",
        |_, g| g.input[0] = port("image", &[1, 1, 1 << 31, 1 << 31]),
        &["image"],
    ),
    (
        "overflowing extents",
        |_, g| g.input[0] = port("image", &[1, 1 << 40, 1 << 40, 4]),
        &["image"],
    ),
    (
        "no extents",
        |_, g| {
            g.input[0] = ValueInfo {
                name: "image".into(),
                r#type: None,
            }
        },
        &["image"],
    ),
    (
        "negative weight extent",
        |_, g| g.initializer[0].dims = vec![2, 1, -3, -3],
        &["kernel"],
    ),
    (
        "huge weight extent",
        |_, g| g.initializer[0].dims = vec![1 << 62],
        &["kernel"],
    ),
    (
        "wrong raw length",
        |_, g| g.initializer[0].raw_data = Some(Bytes::from_static(&[0; 70])),
        &["kernel", "70"],
    ),
    (
        "no weights",
        |_, g| g.initializer[0].raw_data = None,
        &["kernel"],
    ),
    (
        "infinite weight",
        |_, g| g.initializer[0] = weights("kernel", &[2, 1, 3, 3], &[f32::INFINITY; 18]),
        &["kernel"],
    ),
    (
        "NaN weight",
        |_, g| g.initializer[0] = weights("kernel", &[2, 1, 3, 3], &[f32::NAN; 18]),
        &["kernel", "NaN"],
    ),
    (
        "text as weights",
        |_, g| g.initializer[0].data_type = 8,
        &["kernel"],
    ),
    (
        "unknown element type",
        |_, g| g.initializer[0].data_type = 99,
        &["kernel", "99"],
    ),
    (
        "integer weights",
        |_, g| {
            g.initializer[0].data_type = 7;
            g.initializer[0].raw_data = Some(Bytes::from(vec![1; 144]));
        },
        &["first"],
    ),
    (
        "duplicate values",
        |_, g| g.node[1].output[0] = "sums".into(),
        &["sums"],
    ),
    (
        "duplicate weights",
        |_, g| {
            let w = g.initializer[0].clone();
            g.initializer.push(w)
        },
        &["kernel"],
    ),
    (
        "unknown operator",
        |_, g| g.node[1].op_type = "Reluu".into(),
        &["second", "Reluu"],
    ),
    (
        "unknown domain",
        |_, g| g.node[1].domain = "com.example".into(),
        &["second", "com.example"],
    ),
    (
        "unknown opset",
        |m, _| m.opset_import[0].version = 9999,
        &["9999"],
    ),
    ("no opset", |m, _| m.opset_import.clear(), &["operator set"]),
    (
        "foreign opset",
        |m, _| {
            m.opset_import = vec![OperatorSet {
                domain: "x".into(),
                version: 1,
            }]
        },
        &["operator set"],
    ),
    (
        "kernel that does not fit",
        |_, g| g.initializer[0] = weights("kernel", &[2, 3, 3, 1], &[0.5; 18]),
        &["first"],
    ),
    (
        "operand missing",
        |_, g| g.node[0].input.truncate(1),
        &["first"],
    ),
    (
        "strides of zero",
        |_, g| {
            g.node[0]
                .attribute
                .push(crate::models::ints("strides", &[0, 0]))
        },
        &["first", "strides"],
    ),
    (
        "huge padding",
        |_, g| g.node[0].attribute = vec![crate::models::ints("pads", &[1 << 62; 4])],
        &["first"],
    ),
    (
        "external data above the folder",
        |_, g| external(g, "../secret.bin"),
        &["kernel", "secret.bin"],
    ),
    (
        "external data anywhere",
        |_, g| external(g, "/etc/hostname"),
        &["kernel", "hostname"],
    ),
    (
        "external data that is not there",
        |_, g| external(g, "absent.bin"),
        &["kernel", "absent.bin"],
    ),
];

fn external(graph: &mut Graph, location: &str) {
    let tensor = &mut graph.initializer[0];
    tensor.raw_data = None;
    tensor.data_location = 1;
    tensor.external_data = vec![Entry {
        key: "location".into(),
        value: location.into(),
    }];
}

#[test]
fn hostile_models() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "secret.bin", [0; 72]);
    std::fs::create_dir(folder.path().join("models")).unwrap();
    let wrong = HOSTILE.iter().filter_map(|(what, change, words)| {
        let bytes = changed(change).encode_to_vec();
        let path = write(&folder.path().join("models"), "net.onnx", bytes);
        let tried = std::panic::catch_unwind(|| compile_refused(what, &path, &[], words));
        tried.is_err().then_some(*what)
    });
    let wrong: Vec<&str> = wrong.collect();
    assert!(wrong.is_empty(), "{wrong:?}, as told above");
}

#[test]
fn the_model_that_hostile_ones_are_made_of_is_sound() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "net.onnx", sound().encode_to_vec());
    works([
        "compile".as_ref(),
        path.as_os_str(),
        "-o".as_ref(),
        folder.path().as_os_str(),
    ]);
    assert_eq!(
        entries(folder.path())
            .iter()
            .filter(|n| n.starts_with("net."))
            .count(),
        3
    );
}

/// A .npy file of f32 zeros, or of another value.
fn npy(shape: &[usize], value: f32) -> Vec<u8> {
    let axes: String = shape.iter().map(|n| format!("{n}, ")).collect();
    let mut head = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({axes}), }}");
    head += &" ".repeat(127 - 10 - head.len());
    head.push('\n');
    let mut bytes = b"\x93NUMPY\x01\0".to_vec();
    bytes.extend((head.len() as u16).to_le_bytes());
    bytes.extend(head.as_bytes());
    let count = shape.iter().product();
    bytes.extend(std::iter::repeat_n(value.to_le_bytes(), count).flatten());
    bytes
}

/// A case: what is wrong, the file's name and bytes, and what the message must name.
type Case = (&'static str, &'static str, Vec<u8>, &'static [&'static str]);

/// Files of samples that do not fit the carried model.
fn files() -> Vec<Case> {
    vec![
        (
            "size",
            "size.npy",
            npy(&[4, 1, 28, 28], 0.5),
            &["image", "28", "8"],
        ),
        (
            "channels",
            "channels.npy",
            npy(&[4, 3, 8, 8], 0.5),
            &["image", "3"],
        ),
        ("rank", "rank.npy", npy(&[256], 0.5), &["image", "[]"]),
        (
            "no samples",
            "none.npy",
            npy(&[0, 1, 8, 8], 0.5),
            &["none.npy"],
        ),
        (
            "NaN",
            "nan.npy",
            npy(&[4, 1, 8, 8], f32::NAN),
            &["image", "NaN"],
        ),
        (
            "half a file",
            "half.npy",
            npy(&[4, 1, 8, 8], 0.5)[..300].to_vec(),
            &["half.npy"],
        ),
        ("no array", "text.npy", b"text".to_vec(), &["text.npy"]),
        ("no archive", "text.npz", b"text".to_vec(), &["text.npz"]),
        (
            "unknown kind",
            "data.bin",
            b"text".to_vec(),
            &["data.bin", ".toml"],
        ),
    ]
}

fn table(input: &str, rest: &str) -> String {
    format!("[input.x]\n{input}\n{rest}")
}

/// Descriptors that are wrong; `good.npy` and `labels.csv` lie beside them.
fn descriptors() -> Vec<Case> {
    let digits = data().display().to_string().replace(".toml", ".npz");
    let good = "file = \"good.npy\"";
    vec![
        (
            "bad TOML",
            "bad.toml",
            b"[input.x\nfile = ".to_vec(),
            &["bad.toml", "line 1"],
        ),
        (
            "no text",
            "binary.toml",
            vec![0xff, 0xfe, 0],
            &["binary.toml"],
        ),
        ("empty", "empty.toml", Vec::new(), &["empty.toml", "input"]),
        (
            "unknown key",
            "key.toml",
            table(good, "[colour]\n").into(),
            &["key.toml", "colour"],
        ),
        (
            "unknown input",
            "input.toml",
            "[input.y]\nfile = \"good.npy\"".into(),
            &["y", "image"],
        ),
        (
            "absent file",
            "absent.toml",
            table("file = \"no.npy\"", "").into(),
            &["no.npy"],
        ),
        (
            "absent array",
            "array.toml",
            table(&format!("file = {digits:?}\narray = \"z\""), "").into(),
            &["z", "x"],
        ),
        (
            "wrong type",
            "type.toml",
            table("file = 3", "").into(),
            &["type.toml"],
        ),
        (
            "span",
            "span.toml",
            table(good, "[split]\ncalibrate = \"9..12\"").into(),
            &["calibrate", "9..12"],
        ),
        (
            "empty span",
            "span2.toml",
            table(good, "[split]\ncalibrate = \"2..2\"").into(),
            &["calibrate", "2..2"],
        ),
        (
            "labels",
            "labels.toml",
            table(good, "[labels]\ncsv = \"labels.csv\"\ncolumn = \"label\"").into(),
            &["labels", "1", "4"],
        ),
    ]
}

#[test]
fn data_that_does_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    let save = |name: &str, bytes: &[u8]| write(folder.path(), name, bytes);
    save("good.npy", &npy(&[4, 1, 8, 8], 0.5));
    save("labels.csv", b"file,label\na,1\n");
    let wrong: Vec<&str> = files()
        .iter()
        .chain(&descriptors())
        .filter_map(|(what, name, bytes, words)| {
            let path = save(name, bytes).display().to_string();
            let extra = ["--data", path.as_str()];
            let tried = std::panic::catch_unwind(|| compile_refused(what, &model(), &extra, words));
            tried.is_err().then_some(*what)
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}, as told above");
    let absent = ["--data", "absent.toml"];
    compile_refused("absent", &model(), &absent, &["cannot read", "absent.toml"]);
}

#[test]
fn targets_that_do_not_exist() {
    let cases: &[(&[&str], &[&str])] = &[
        (
            &["--target", "nonsense"],
            &["nonsense", "x86_64-unknown-linux-gnu"],
        ),
        (&["--target", "sparc64-unknown-linux-gnu"], &["sparc64"]),
        (&["--target", "x86_64-pc-windows-msvc"], &["windows", "ELF"]),
        (&["--target", "x86_64-apple-darwin"], &["darwin", "ELF"]),
        (
            &["--target", "x86_64-unknown-linux-gnu", "--cpu", "z80"],
            &["z80", "x86-64-v3"],
        ),
        (
            &[
                "--target",
                "aarch64-unknown-linux-gnu",
                "--cpu",
                "x86-64-v3",
            ],
            &["x86-64-v3", "aarch64"],
        ),
    ];
    for (extra, words) in cases {
        compile_refused(&format!("{extra:?}"), &model(), extra, words);
    }
}

#[test]
fn plans_that_do_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    let layer = |name: &str, format: &str| {
        format!(
            "{{\"layers\": [{{\"name\": \"{name}\", \"weight\": \"{format}\", \"activation\": \"int8\"}}]}}"
        )
    };
    let cases: &[(&str, String, &[&str])] = &[
        ("text", "plan".into(), &["plan.json"]),
        ("no layers", "{}".into(), &["plan.json", "layers"]),
        ("unknown layer", layer("nobody", "int8"), &["nobody"]),
        (
            "unknown format",
            layer("stem_out", "int99"),
            &["stem_out", "int99"],
        ),
    ];
    for (what, text, words) in cases {
        let path = write(folder.path(), "plan.json", text)
            .display()
            .to_string();
        compile_refused(what, &model(), &["--plan", &path], words);
    }
}

#[test]
fn folders_that_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "file", "kept");
    let into = |out: &Path| {
        lowbit([
            "compile".as_ref(),
            model().as_os_str(),
            "-o".as_ref(),
            out.as_os_str(),
        ])
    };
    let words = ["cannot write into", "is a file, not a folder"];
    refused("a file", &into(&file), 1, &words);
    refused("in a file", &into(&file.join("out")), 1, &words);
    let locked = folder.path().join("locked");
    std::fs::create_dir(&locked).unwrap();
    let mut mode = std::fs::metadata(&locked).unwrap().permissions();
    mode.set_readonly(true);
    std::fs::set_permissions(&locked, mode).unwrap();
    if tempfile::tempfile_in(&locked).is_err() {
        refused(
            "read-only",
            &into(&locked.join("out")),
            1,
            &["cannot write into"],
        );
    } else {
        println!("this user may write anywhere: read-only folders are skipped");
    }
    refused(
        "no real file system",
        &into(Path::new("/proc/out")),
        1,
        &["cannot write into"],
    );
    assert_eq!(entries(folder.path()), ["file", "locked"]);
    assert_eq!(std::fs::read(&file).unwrap(), b"kept");
}

/// Runs the command where no file may grow beyond a number of blocks: a full disk for want of a real one.
fn with_little_space(blocks: u32, args: &[OsString]) -> Ran {
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
    run(Command::new("sh")
        .args(["-c", &script, env!("CARGO_BIN_EXE_lowbit")])
        .args(args))
}

#[test]
fn a_full_disk() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let args = |extra: &[&str]| -> Vec<OsString> {
        let fixed = [
            "compile".into(),
            model().into(),
            "-o".into(),
            out.clone().into(),
        ];
        fixed
            .into_iter()
            .chain(extra.iter().map(OsString::from))
            .collect()
    };
    refused(
        "new",
        &with_little_space(2, &args(&[])),
        1,
        &["cannot write", "digits.o"],
    );
    assert_eq!(entries(folder.path()), Vec::<String>::new());
    works(args(&[]));
    let before = contents(&out);
    refused(
        "again",
        &with_little_space(2, &args(&["--cpu", "portable"])),
        1,
        &["cannot write"],
    );
    assert_eq!(contents(&out), before);
}

#[test]
fn interrupts_leave_nothing_halfway() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let mut whole = None;
    for delay in [0, 20, 60, 120, 200, 300, 400] {
        let mut child = command()
            .args([
                "compile".as_ref(),
                model().as_os_str(),
                "-o".as_ref(),
                out.as_os_str(),
            ])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(delay));
        run(Command::new("kill").args(["-INT", &child.id().to_string()]));
        child.wait().unwrap();
        if !out.exists() {
            assert_eq!(entries(folder.path()), Vec::<String>::new());
            continue;
        }
        let names = entries(&out);
        assert_eq!(
            &names,
            whole.get_or_insert_with(|| entries(digits())),
            "after {delay} ms"
        );
    }
}

#[test]
fn wrong_usage() {
    let model = model().display().to_string();
    let compile = |extra: &[&str]| {
        let fixed = ["compile", model.as_str(), "-o", "never"];
        lowbit(fixed.iter().chain(extra))
    };
    let cases: &[(Ran, &[&str])] = &[
        (compile(&["--bits", "many"]), &["many"]),
        (compile(&["--bits", "-1"]), &["-1"]),
        (compile(&["--size", "1Q"]), &["1Q"]),
        (compile(&["--jobs", "0"]), &["0"]),
        (compile(&["--name", "9 lives"]), &["9 lives"]),
        (compile(&["--ranges", "guess"]), &["guess", "minmax"]),
        (compile(&["--shape", "1x0x3"]), &["1x0x3"]),
        (compile(&["--eval", "few"]), &["few"]),
        (compile(&["--frobnicate"]), &["--frobnicate"]),
        (lowbit(["compile", model.as_str()]), &["--output"]),
        (lowbit(["frobnicate"]), &["frobnicate"]),
        (
            lowbit(["run", model.as_str(), "--output", "never"]),
            &["--input"],
        ),
    ];
    for (ran, words) in cases {
        refused(&format!("{words:?}"), ran, 2, words);
    }
    assert!(!root().join("never").exists());
}

#[test]
fn budgets_that_cannot_be_met() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    for flag in ["--size", "--ram", "--bits", "--bops"] {
        let args = [
            OsString::from("compile"),
            model().into_os_string(),
            "-o".into(),
            out.clone().into(),
            flag.into(),
            "0.5".into(),
        ];
        let plain = lowbit(&args);
        refused(flag, &plain, 3, &["the budget cannot be met", flag]);
        let json = lowbit(args.iter().cloned().chain(["--json".into()]));
        assert_eq!(
            (json.code, &json.json()["status"]),
            (Some(3), &"infeasible".into())
        );
    }
    assert_eq!(entries(folder.path()), Vec::<String>::new());
}

#[test]
fn folders_that_compile_did_not_write() {
    let folder = tempfile::tempdir().unwrap();
    let data = data();
    let empty = folder.path().as_os_str();
    let result = folder.path().join("results");
    let input = write(folder.path(), "x.npy", npy(&[1, 1, 8, 8], 0.5));
    let input = input.as_os_str();
    let on = |folder: &std::ffi::OsStr| -> Vec<Ran> {
        vec![
            lowbit(["inspect".as_ref(), folder]),
            lowbit(["bench".as_ref(), folder]),
            lowbit(["verify".as_ref(), folder]),
            lowbit(["eval".as_ref(), folder, "--data".as_ref(), data.as_os_str()]),
            lowbit([
                "run".as_ref(),
                folder,
                "--input".as_ref(),
                input,
                "--output".as_ref(),
                result.as_os_str(),
            ]),
        ]
    };
    for ran in on(empty) {
        refused("no report", &ran, 1, &["lowbit compile", "report.json"]);
    }
    write(folder.path(), "report.json", "{\"model\": 3}");
    for ran in on(empty) {
        refused(
            "no report of ours",
            &ran,
            1,
            &["report.json", "compile the model again"],
        );
    }
    assert!(!result.exists());
}

#[test]
fn inputs_that_do_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    let result = folder.path().join("results");
    let path = |name: &str, shape: &[usize]| {
        write(folder.path(), name, npy(shape, 0.5))
            .display()
            .to_string()
    };
    let good = path("good.npy", &[1, 1, 8, 8]);
    let cases: &[(&str, i32, &[&str])] = &[
        (&path("big.npy", &[1, 1, 9, 9]), 1, &["image", "9"]),
        (&path("part.npy", &[65]), 1, &["image", "65"]),
        ("absent.npy", 1, &["absent.npy"]),
        (&format!("nobody={good}"), 2, &["nobody", "image"]),
    ];
    for model in [model().as_path(), digits()] {
        for (input, code, words) in cases {
            let ran = lowbit([
                "run".as_ref(),
                model.as_os_str(),
                "--input".as_ref(),
                input.as_ref(),
                "--output".as_ref(),
                result.as_os_str(),
            ]);
            refused(input, &ran, *code, words);
        }
    }
    assert!(!result.exists());
}

#[test]
fn pins_to_float_formats_name_the_format_to_use() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    for (pin, words) in [
        (
            "conv1=e4m3",
            ["'conv1'", "e4m3 is a floating-point format", "use int8"],
        ),
        (
            "conv1=e3m1xint8",
            ["'conv1'", "integer-only code", "use e2m2"],
        ),
        (
            "conv1=int8xe2m1",
            ["'conv1'", "e2m1", "codes of 8 or 4 bits"],
        ),
        ("conv1=int8xbf16", ["'conv1'", "bf16", "use int8"]),
    ] {
        let ran = run(command()
            .args([
                "compile".as_ref(),
                model().as_os_str(),
                "-o".as_ref(),
                out.as_ref(),
            ])
            .args(["--pin", pin]));
        refused(pin, &ran, 2, &words);
    }
    assert_eq!(entries(folder.path()), Vec::<String>::new());
}
