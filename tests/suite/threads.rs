//! Objects that cut their layers for threads of the caller.

use std::path::Path;
use std::process::Command;

use lowbit_onnx::proto::{Attribute, Graph, Model};
use prost::Message;

use crate::models::{changed, ints, node, port, weights};
use crate::tool::{has, root, succeed, works, write};

fn int(name: &str, value: i64) -> Attribute {
    Attribute {
        name: name.into(),
        i: value,
        r#type: 2,
        ..Attribute::default()
    }
}

/// image [1, 16, 40, 40] → conv `wide` → depthwise conv `deep` → sum with `wide` → pool → conv `late` of many weights.
fn large() -> Model {
    changed(|_, graph: &mut Graph| {
        let conv = |name: &str, x: &str, pads: i64, more: &[Attribute]| {
            let mut conv = node(name, "Conv", &[x, &format!("{name}.w")], name);
            conv.attribute = vec![ints("pads", &[pads; 4])];
            conv.attribute.extend_from_slice(more);
            conv
        };
        let kernel = |name: &str, dims: &[i64]| {
            let n: i64 = dims.iter().product();
            let at = |i: i64| ((i * 7919 % 1013) as f32 / 506.0 - 1.0) * 0.2;
            weights(
                &format!("{name}.w"),
                dims,
                &(0..n).map(at).collect::<Vec<_>>(),
            )
        };
        let mut pool = node("pool", "MaxPool", &["sum"], "pool");
        pool.attribute = vec![ints("kernel_shape", &[8, 8]), ints("strides", &[8, 8])];
        graph.node = vec![
            conv("wide", "image", 1, &[]),
            conv("deep", "wide", 1, &[int("group", 72)]),
            node("sum", "Add", &["deep", "wide"], "sum"),
            pool,
            conv("late", "pool", 1, &[]),
        ];
        graph.initializer = vec![
            kernel("wide", &[72, 16, 3, 3]),
            kernel("deep", &[72, 1, 3, 3]),
            kernel("late", &[200, 72, 3, 3]),
        ];
        graph.input = vec![port("image", &[1, 16, 40, 40])];
        graph.output = vec![port("late", &[1, 200, 5, 5])];
    })
}

fn compiled(folder: &Path, cpu: &str, extra: &[&str]) -> std::path::PathBuf {
    let model = write(folder, "large.onnx", large().encode_to_vec());
    let out = folder.join(cpu);
    let fixed = [
        "--threads",
        "3",
        "--name",
        "net",
        "--cpu",
        cpu,
        "--effort",
        "0",
        "-o",
    ];
    let model = model.display().to_string();
    let out_text = out.display().to_string();
    let args = ["compile", &model].into_iter().chain(fixed);
    works(args.chain([out_text.as_str()]).chain(extra.iter().copied()));
    out
}

#[test]
fn layers_are_cut_and_give_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    for (cpu, extra) in [
        ("native", &[][..]),
        ("x86-64-v3", &["--bits", "4", "--uniform"][..]),
        ("portable", &[][..]),
    ] {
        if cpu == "x86-64-v3" && !cfg!(target_arch = "x86_64") {
            continue;
        }
        let out = compiled(folder.path(), cpu, extra);
        let verified = works(["verify".as_ref(), out.as_os_str(), "--json".as_ref()]).json();
        assert_eq!(verified["bit_exact"], true, "{cpu}");
        let bench = [
            "bench".as_ref(),
            out.as_os_str(),
            "--layers".as_ref(),
            "--json".as_ref(),
        ];
        let bench = works(bench).json();
        let calls = |layer: &str| {
            let layers = bench["layers"].as_array().unwrap().iter();
            layers
                .filter(|l| l["name"] == layer && l["macs"].as_u64() > Some(0))
                .count()
        };
        assert_eq!((calls("wide"), calls("late")), (3, 3), "{cpu}: {bench}");
        let threads = works([
            "bench".as_ref(),
            out.as_os_str(),
            "--threads".as_ref(),
            "3".as_ref(),
        ]);
        assert!(threads.stdout.contains("median"), "{}", threads.stdout);
    }
}

#[test]
fn parts_run_in_any_order_on_an_emulated_processor() {
    if !has("qemu-aarch64") || !has("aarch64-linux-gnu-gcc") {
        println!("qemu-aarch64 or its compiler is not here: skipped");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let arm = ["--target", "aarch64-unknown-linux-gnu"];
    let out = compiled(folder.path(), "generic", &arm);
    let verified = works(["verify".as_ref(), out.as_os_str(), "--json".as_ref()]).json();
    assert_eq!(verified["bit_exact"], true);
}

#[test]
fn the_pool_of_the_example_runs_them() {
    let folder = tempfile::tempdir().unwrap();
    let out = compiled(folder.path(), "native", &[]);
    for name in ["threads.c", "pool.c", "pool.h", "Makefile"] {
        let from = root().join("examples/c").join(name);
        std::fs::copy(&from, folder.path().join(name)).unwrap();
    }
    let model = format!("MODEL={}", out.display());
    succeed(
        Command::new("make")
            .current_dir(folder.path())
            .args([&model, "threads"]),
    );
    for threads in ["1", "2", "5"] {
        let ran = succeed(Command::new(folder.path().join("threads")).arg(threads));
        let text = String::from_utf8(ran.stdout).unwrap();
        assert!(text.contains("0 of 200 results differ"), "{text}");
    }
}

#[test]
fn an_object_for_one_thread_says_so() {
    let ran = crate::tool::lowbit([
        "bench".as_ref(),
        crate::tool::digits().as_os_str(),
        "--threads".as_ref(),
        "2".as_ref(),
    ]);
    assert_eq!(ran.code, Some(2));
    assert!(
        ran.stderr.contains("compile it with --threads 2"),
        "{}",
        ran.stderr
    );
}
