use anyhow::Result;
use serde_json::Value;

use super::{Bench, Model, Table, markdown};

pub(crate) const TABLE: Table = Table {
    name: "eight_bits",
    what: "every model at 8 bits: accuracy, sizes, latency, proofs",
    run,
};

const HEAD: &str = "# Every model at 8 bits

Each row is `lowbit compile MODEL --data DESC --bits 8` and `lowbit bench`. Accuracy is that of the emitted object on
the whole evaluation split, beside the float model on the same samples; agreement is the share of samples to which both
give the same class. Models without labels have neither, their signal to noise is in decibels. The latency is one
inference on one core of the machine that made the table, `cargo xtask tables eight_bits`.

";

fn run(bench: &Bench) -> Result<String> {
    let mut rows = vec![
        [
            "model",
            "float top-1",
            "object top-1",
            "agreement",
            "SQNR dB",
            "samples",
            "MMAC",
            "object bytes",
            "arena bytes",
            "of least",
            "float instructions",
            "µs",
        ]
        .map(String::from)
        .to_vec(),
    ];
    for model in bench.models()? {
        eprintln!("tables: {}", model.name);
        rows.push(row(bench, &model).unwrap_or_else(|e| vec![format!("{}: {e}", model.name)]));
    }
    Ok(HEAD.to_owned() + &markdown(&rows))
}

fn row(bench: &Bench, model: &Model) -> Result<Vec<String>> {
    let out = crate::shell::root().join("target/tables").join(&model.name);
    let report = bench.lowbit(&[
        "compile".as_ref(),
        model.onnx.as_os_str(),
        "--data".as_ref(),
        model.data.as_os_str(),
        "--bits".as_ref(),
        "8".as_ref(),
        "-o".as_ref(),
        out.as_os_str(),
    ])?;
    let time = bench.lowbit(&["bench".as_ref(), out.as_os_str()])?;
    let (accuracy, totals) = (&report["accuracy"], &report["totals"]);
    let arena = totals["arena_bytes"].as_f64().unwrap_or(0.0);
    let least = totals["arena_lower_bound_bytes"].as_f64().unwrap_or(1.0);
    Ok(vec![
        model.name.clone(),
        share(&accuracy["float_top1"]),
        share(&accuracy["top1"]),
        share(&accuracy["agreement"]),
        number(&accuracy["sqnr_db"], 1.0, 1),
        accuracy["samples"].to_string(),
        number(&totals["macs"], 1e-6, 2),
        totals["object_bytes"].to_string(),
        totals["arena_bytes"].to_string(),
        format!("{:.3}", arena / least),
        report["proofs"]["float_instructions"].to_string(),
        number(&time["median_us"], 1.0, 1),
    ])
}

fn share(x: &Value) -> String {
    number(x, 1.0, 4)
}

fn number(x: &Value, factor: f64, digits: usize) -> String {
    x.as_f64()
        .map_or("–".into(), |x| format!("{:.digits$}", x * factor))
}
