//! Several budgets at once, each of which binds.

use std::path::Path;

use serde_json::Value;

use crate::tool::{compile, data, lowbit, model, works};

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

fn formats(report: &Value) -> Vec<String> {
    let layers = report["layers"].as_array().unwrap();
    let name = |l: &Value| l["weight_format"].as_str().unwrap().to_string();
    layers.iter().map(name).collect()
}

/// Half of the way from one number to another.
fn between(a: f64, b: f64) -> f64 {
    f64::midpoint(a, b)
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

#[test]
fn three_budgets_bind_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let out = |name: &str| folder.path().join(name);
    let eight = compiled(&out("eight"), &["--bits", "8"]);
    // 8 bits need more memory than fewer here, since their weights are widened
    let least = infeasible(&["--ram", "1"])["least"][0]["alone"].as_f64();
    let ram = between(total(&eight, "arena_bytes"), least.unwrap()).floor();
    let ram_text = format!("{ram}");
    let first = compiled(&out("ram"), &["--ram", &ram_text]);
    assert!(total(&first, "arena_bytes") <= ram && total(&eight, "arena_bytes") > ram);
    let size = total(&first, "weight_bytes") - 500.0;
    let size_text = format!("{size}");
    let second = compiled(&out("size"), &["--ram", &ram_text, "--size", &size_text]);
    let fastest = fastest_us(&["--ram", &ram_text, "--size", &size_text]);
    let slowest = total(&second, "predicted_latency_us");
    assert!(fastest < slowest, "{fastest} µs, {slowest} µs");
    let ms = between(fastest, slowest) / 1000.0;
    let ms_text = format!("{ms}");
    let all = [
        "--ram",
        &ram_text,
        "--size",
        &size_text,
        "--latency",
        &ms_text,
    ];
    let report = compiled(&out("all"), &all);
    assert_eq!(keeps(&out("all"), &report, [size, ram, ms]), [true; 3]);
    assert_ne!(formats(&report), formats(&second), "the time binds");
    // each of them alone leaves a plan that breaks another
    let without = |k: usize| {
        let left: Vec<&str> = [&all[..2 * k], &all[2 * k + 2..]].concat();
        let name = format!("without{k}");
        let report = compiled(&out(&name), &left);
        keeps(&out(&name), &report, [size, ram, ms])
    };
    assert!(!without(0)[1] || !without(0)[2], "memory binds");
    assert!(!without(1)[0], "size binds");
    assert!(!without(2)[2], "time binds");
    let command = reproduced(&report);
    for word in ["--ram", "--size", "--latency"] {
        assert!(command.contains(word), "{command}");
    }
}

/// The least latency that the command says can be had within other budgets.
fn fastest_us(others: &[&str]) -> f64 {
    let refused = infeasible(&[others, &["--latency", "0.000001"]].concat());
    let least = refused["least"].as_array().unwrap();
    let own = least.iter().find(|l| l["budget"] == "latency").unwrap();
    1000.0 * own["with_others"].as_f64().unwrap()
}

/// What the command prints of budgets that cannot be met.
fn infeasible(budgets: &[&str]) -> Value {
    let (model, data) = (model(), data());
    let fixed = [
        "compile",
        model.to_str().unwrap(),
        "--data",
        data.to_str().unwrap(),
    ];
    let rest = [
        "-o",
        "never",
        "--cpu",
        "x86-64-v3",
        "--eval",
        "none",
        "--json",
    ];
    let ran = lowbit([&fixed[..], &rest, budgets].concat());
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
