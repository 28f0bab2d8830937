//! Several budgets at once, each of which binds.

use std::path::Path;

use serde_json::Value;

use crate::tool::{command, compile, data, lowbit, model, run, works};

/// The report of a folder.
fn report(folder: &Path) -> Value {
    let text = std::fs::read_to_string(folder.join("report.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn total(report: &Value, name: &str) -> f64 {
    report["totals"][name].as_f64().unwrap()
}

/// Compiles the carried model within budgets and reports.
fn compiled(folder: &Path, budgets: &[&str]) -> Value {
    let fixed = ["--cpu", "x86-64-v3", "--eval", "none"];
    compile(folder, &[&fixed[..], budgets].concat());
    report(folder)
}

/// Whether a report keeps budgets, in the numbers of the object itself.
fn keeps(folder: &Path, report: &Value, [size, ram, ms]: [f64; 3]) -> [bool; 3] {
    let object = std::fs::read(folder.join("digits.o")).unwrap();
    assert_eq!(object.len() as f64, total(report, "object_bytes"));
    let header = std::fs::read_to_string(folder.join("digits.h")).unwrap();
    let arena = total(report, "arena_bytes");
    assert!(header.contains(&format!("DIGITS_ARENA_BYTES {arena}")));
    [
        total(report, "weight_bytes") <= size,
        arena <= ram,
        total(report, "predicted_latency_us") <= 1000.0 * ms * (1.0 + 1e-9),
    ]
}

/// Where packed weights need room to be unpacked in and take longer than 8 bits do.
const VNNI: [&str; 4] = [
    "--target",
    "x86_64-unknown-linux-gnu",
    "--cpu",
    "x86-64-vnni",
];

#[test]
fn three_budgets_bind_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let memory = ["--size", "6500", "--ram", "5000"];
    let built = |name: &str, budgets: &[&str]| {
        let out = folder.path().join(name);
        compile(&out, &[&VNNI[..], &["--eval", "none"], budgets].concat());
        (report(&out), out)
    };
    // between the least that the other two leave and what they take by themselves
    let slow = total(&built("memory", &memory).0, "predicted_latency_us") / 1000.0;
    let told = infeasible_for(&VNNI, &[&memory[..], &["--latency", "0.0000001"]].concat());
    let least = told["least"].as_array().unwrap().iter();
    let least = least
        .filter(|l| l["budget"] == "latency")
        .map(|l| &l["with_others"]);
    let least = least
        .filter_map(Value::as_f64)
        .next()
        .expect("a least latency");
    assert!(least < slow, "{least} {slow}");
    let limit = least + 0.5 * (slow - least);
    let text = limit.to_string();
    let budgets = [&memory[..], &["--latency", &text]].concat();
    let made = |name: &str, budgets: &[&str]| {
        let (report, out) = built(name, budgets);
        (keeps(&out, &report, [6500.0, 5000.0, limit]), report)
    };
    let (kept, report) = made("all", &budgets);
    assert_eq!(kept, [true; 3], "{}", report["totals"]);
    let command = reproduced(&report);
    assert!(command.contains(&budgets[..2].join(" ")), "{command}");
    assert!(
        command.contains(&format!("--latency {text} --ram 5000")),
        "{command}"
    );
    // without any of them the plan breaks it
    for k in 0..3 {
        let left = [&budgets[..2 * k], &budgets[2 * k + 2..]].concat();
        let (kept, report) = made(&format!("without{k}"), &left);
        assert!(!kept[k], "{left:?}: {}", report["totals"]);
    }
}

#[test]
fn layers_keep_eight_bits_where_fewer_would_not_be_faster() {
    let folder = tempfile::tempdir().unwrap();
    let time = ["--latency", "1", "--eval", "none"];
    compile(folder.path(), &[&VNNI[..], &time].concat());
    let report = report(folder.path());
    for layer in report["layers"].as_array().unwrap() {
        assert_eq!(layer["weight_format"], "int8");
        let why = layer["why"].as_str().unwrap();
        assert!(
            why.contains("int6 would not be faster") && why.contains("size is not the budget"),
            "{why}"
        );
    }
}

/// What the command prints of budgets that cannot be met.
fn infeasible(budgets: &[&str]) -> Value {
    infeasible_for(&["--cpu", "x86-64-v3"], budgets)
}

fn infeasible_for(target: &[&str], budgets: &[&str]) -> Value {
    let (model, data) = (model(), data());
    let fixed = [
        "compile",
        model.to_str().unwrap(),
        "--data",
        data.to_str().unwrap(),
    ];
    let rest = ["-o", "never", "--eval", "none", "--json"];
    let ran = lowbit([&fixed[..], &rest, target, budgets].concat());
    assert_eq!(ran.code, Some(3), "{ran:?}");
    ran.json()
}

/// The command of a report's page.
fn reproduced(report: &Value) -> String {
    lowbit::report::command(&serde_json::from_value(report.clone()).unwrap(), true)
}

#[test]
fn the_least_of_each_budget_can_be_had() {
    let folder = tempfile::tempdir().unwrap();
    for (flag, name, total_name, unit) in [
        ("--ram", "ram", "arena_bytes", 1.0),
        ("--latency", "latency", "predicted_latency_us", 1000.0),
        ("--size", "size", "weight_bytes", 1.0),
        ("--object-size", "object_size", "object_bytes", 1.0),
    ] {
        let told = infeasible(&[flag, "0.0000001"]);
        let least = told["least"].as_array().unwrap();
        assert_eq!(least.len(), 1, "only what was asked for: {told}");
        assert_eq!(least[0]["budget"], name);
        assert_eq!(least[0]["layers"].as_array().unwrap().len(), 3);
        let value = least[0]["alone"].as_f64().unwrap();
        if flag == "--size" {
            // constants of the network beside its layers are not told beforehand
            continue;
        }
        let out = folder.path().join(name);
        let report = compiled(&out, &[flag, &format!("{value}")]);
        let found = total(&report, total_name) / unit;
        assert!(found <= value * (1.0 + 1e-9), "{flag}: {found} of {value}");
    }
}

#[test]
fn what_cannot_be_had_is_told_before_anything_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    let [model, data] = [model(), data()].map(|p| p.display().to_string());
    let [cache, out] = ["cache", "out"].map(|name| folder.path().join(name));
    let tried = |bits: &str| {
        let mut command = command();
        command.args(["compile", &model, "--data", &data, "--bits", bits]);
        command.args(["--effort", "0", "--eval", "none", "-o"]);
        let ran = run(command.arg(&out).env("LOWBIT_CACHE", &cache));
        (ran.code, ran.stderr.contains("random plans"))
    };
    assert_eq!(tried("1"), (Some(3), false));
    assert_eq!(tried("4"), (Some(0), true));
}

#[test]
fn no_width_undercuts_the_smallest_object_by_much() {
    let folder = tempfile::tempdir().unwrap();
    let least = &infeasible(&["--object-size", "1"])["least"][0];
    let least = least["alone"].as_f64().unwrap();
    for bits in ["8", "6", "5", "4", "3", "2"] {
        let out = folder.path().join(bits);
        let plain = ["--uniform", "--effort", "0", "--bits", bits];
        let bytes = total(&compiled(&out, &plain), "object_bytes");
        // the program counts a kernel for each layer, though layers of one format may share it
        assert!(bytes >= 0.98 * least, "{bits} bits: {bytes} under {least}");
    }
}

#[test]
fn measured_kernels_predict_the_object() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    compile(&out, &["--bits", "5", "--tune", "--eval", "none"]);
    let table = out.join("latency.json");
    let table = table.to_str().unwrap();
    let made = report(&out);
    let us = total(&made, "predicted_latency_us");
    assert_eq!(
        made["totals"]["prediction_source"],
        "kernels measured on this machine"
    );
    assert!(reproduced(&made).contains(&format!("--latency-table {table}")));
    // the table gives the same prediction, and the same bytes
    let again = folder.path().join("again");
    compile(
        &again,
        &["--bits", "5", "--latency-table", table, "--eval", "8"],
    );
    let found = report(&again);
    assert!((total(&found, "predicted_latency_us") / us - 1.0).abs() < 1e-9);
    assert_eq!(found["totals"]["latency_source"], "measured");
    assert_eq!(
        std::fs::read(out.join("digits.o")).unwrap(),
        std::fs::read(again.join("digits.o")).unwrap()
    );
    let bench = works(["bench".as_ref(), again.as_os_str(), "--json".as_ref()]).json();
    let measured = bench["median_us"].as_f64().unwrap();
    println!(
        "predicted {us:.2} µs, measured {measured:.2} µs: {:+.1} %",
        100.0 * (us / measured - 1.0)
    );
    let other = ["--cpu", "portable", "--latency-table", table];
    let (model, data) = (model(), data());
    let fixed = [
        "compile",
        model.to_str().unwrap(),
        "--data",
        data.to_str().unwrap(),
    ];
    let refused = lowbit([&fixed[..], &["-o", "never"], &other].concat());
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("portable"), "{refused:?}");
}

/// Formats of a layer.
fn formats(report: &Value, layer: &str) -> [String; 2] {
    let layers = report["layers"].as_array().unwrap();
    let found = layers.iter().find(|l| l["name"] == layer).unwrap();
    ["weight_format", "activation_format"].map(|key| found[key].as_str().unwrap().to_owned())
}

#[test]
fn layers_that_one_addition_sums_share_formats_when_tied() {
    let folder = tempfile::tempdir().unwrap();
    let out = |name: &str| folder.path().join(name);
    let pin = ["--bits", "4", "--pin", "stem_out=int6", "--effort", "0"];
    let free = compiled(&out("free"), &pin);
    let both = |r: &Value| ["stem_out", "block2_out"].map(|l| formats(r, l)[0].clone());
    assert_eq!(both(&free)[0], "int6");
    assert_ne!(both(&free)[1], "int6");
    let tied = compiled(&out("tied"), &[&pin[..], &["--tie", "residual"]].concat());
    assert_eq!(both(&tied), ["int6", "int6"]);
    assert!(total(&tied, "avg_weight_bits") <= 4.0);
    let command = reproduced(&tied);
    assert!(
        command.contains("--pin stem_out=int6 --tie residual"),
        "{command}"
    );
    // a budget of operations chooses inputs too
    let bops = ["--bops", "8M", "--tie", "residual", "--effort", "0"];
    let report = compiled(&out("bops"), &bops);
    assert_eq!(formats(&report, "stem_out"), formats(&report, "block2_out"));

    let apart = [
        "--pin",
        "stem_out=int6",
        "--pin",
        "block2_out=int4",
        "--tie",
        "residual",
    ];
    let said = infeasible(&apart)["message"].as_str().unwrap().to_owned();
    assert!(said.contains("'stem_out', 'block2_out' are tied"), "{said}");
}

#[test]
fn the_frontier_keeps_pins_ties_and_the_first_and_last_layer() {
    let folder = tempfile::tempdir().unwrap();
    let flags = [
        "--bits",
        "4",
        "--pin",
        "block1_out=int5",
        "--tie",
        "residual",
        "--effort",
        "0",
    ];
    let report = compiled(folder.path(), &flags);
    let layers = report["layers"].as_array().unwrap();
    let at = |name: &str| layers.iter().position(|l| l["name"] == name).unwrap();
    let frontier = report["frontier"].as_array().unwrap();
    assert!(frontier.len() > 3, "{frontier:?}");
    for point in frontier {
        let format = |name: &str| point["formats"][at(name)].as_str().unwrap();
        assert_eq!(format("block1_out"), "int5");
        assert_eq!(format("stem_out"), format("block2_out"));
    }
    // the plan is a point of it, and where there is room the first layer keeps 8 bits as in the plan
    let plan = std::fs::read_to_string(folder.path().join("plan.json")).unwrap();
    let plan: Value = serde_json::from_str(&plan).unwrap();
    let planned = plan["layers"].as_array().unwrap().iter();
    let own: Vec<&Value> = planned.map(|l| &l["weight"]).collect();
    let same = |p: &&Value| {
        p["formats"]
            .as_array()
            .unwrap()
            .iter()
            .eq(own.iter().copied())
    };
    let point = frontier.iter().find(same);
    let point = point.unwrap_or_else(|| panic!("{own:?} {frontier:?}"));
    assert_eq!(
        point["weight_bytes"].as_f64(),
        Some(total(&report, "weight_bytes"))
    );
}

#[test]
fn the_command_in_the_report_gives_the_same_object() {
    let folder = tempfile::tempdir().unwrap();
    let plan = folder.path().join("my plan.json");
    let text = r#"{"layers": [{"name": "block1_out", "weight": "int3", "activation": "int8"}]}"#;
    std::fs::write(&plan, text).unwrap();
    let plan = plan.to_str().unwrap();
    let cases: [&[&str]; 3] = [
        &["--plan", plan, "--name", "other", "--ranges", "minmax"],
        &[
            "--bits",
            "4",
            "--pin",
            "pointwise_out=int6",
            "--tie",
            "residual",
            "--effort",
            "2",
            "--finetune",
            "3",
        ],
        &[
            "--bops",
            "9M",
            "--act-bits",
            "4",
            "--rounding",
            "feedback",
            "--residual-bits",
            "16",
            "--cpu",
            "znver4",
        ],
    ];
    for (i, flags) in cases.iter().enumerate() {
        let [first, again] = ["first", "again"].map(|n| folder.path().join(format!("{n}{i}")));
        compile(&first, &[flags, &["--eval", "none"][..]].concat());
        let made = report(&first);
        let command = reproduced(&made);
        let shell = format!("set -- {command} --eval none; shift; printf '%s\\n' \"$@\"");
        let words = std::process::Command::new("sh")
            .args(["-c", &shell])
            .output()
            .unwrap();
        let words = String::from_utf8(words.stdout).unwrap();
        let out = again.to_str().unwrap();
        works(words.lines().chain(["-o", out]));
        let hash = |r: &Value| r["reproduce"]["object_sha256"].clone();
        assert_eq!(hash(&made), hash(&report(&again)), "{command}");
    }
}

#[test]
fn one_calibration_sample_leaves_nothing_to_compare_plans_on() {
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(data()).unwrap();
    let text = text.replace("0..400", "0..1");
    let one = folder.path().join("one.toml");
    std::fs::write(&one, text).unwrap();
    let samples = data().with_file_name("digits.npz");
    std::fs::copy(samples, folder.path().join("digits.npz")).unwrap();
    let out = folder.path().join("out");
    let [model, one, out] = [&model(), &one, &out].map(|p| p.display().to_string());
    let flags = ["--bits", "4.5", "--effort", "0", "--eval", "none"];
    let args = [&["compile", &model, "--data", &one, "-o", &out], &flags[..]].concat();
    let said = works(args).stderr;
    assert!(said.contains("plans are not compared"), "{said}");
    assert_eq!(report(out.as_ref())["tried"].as_array().unwrap().len(), 0);
}
