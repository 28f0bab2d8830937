use std::ffi::OsStr;
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{Bench, Model, Table, markdown};

pub(crate) const TABLE: Table = Table {
    name: "sensitivity",
    what: "rank correlation of predicted with measured loss over random mixed plans, by metric",
    run,
};

/// Models that are judged: residual networks, inverted residuals, a transformer, a keyword spotter.
const MODELS: &[&str] = &[
    "resnet20_cifar10",
    "resnet56_cifar10",
    "mobilenetv2_1.0_224_qat_deq",
    "vit_cifar10",
    "dscnn_kws",
];

/// Random plans of each kind.
const PLANS: &str = "100";

const HEAD: &str = "# Does a metric predict?

Each metric of `lowbit sensitivity` predicts the loss of a plan as the sum over its layers. Here every metric predicts 100
random mixed plans of each of three kinds: every layer 2 to 8 bits, every layer 3 to 8 bits, and 4.5 ± 0.15 bits on average
over the weights. What the plans lose is measured: weights of all layers rounded to nearest at once, everything else
float, the mean divergence in nats between the outputs and the float model's on up to 256 samples of the calibration
split. Each cell is Spearman's rank correlation between the two with the 90 % interval over 1000 resamplings of the
plans. `auto` is the metric that `lowbit sensitivity` chooses by itself, on 12 other plans of each kind. `grouped` is
`--group kind`: convolutions, depthwise convolutions, linear layers and attention each get the metric that orders 36 other
plans of their layers best; the last column names them.

Each model is `lowbit sensitivity MODEL --data DESC --group kind --judge 100`; the page is `cargo xtask tables sensitivity`.

";

fn run(bench: &Bench) -> Result<String> {
    let metrics = ["hessian", "fisher", "lrp", "sqnr", "kl", "grouped"];
    let mut rows = vec![
        ["model", "plans"]
            .into_iter()
            .chain(metrics)
            .chain(["auto", "seconds", "groups"])
            .map(String::from)
            .collect::<Vec<String>>(),
    ];
    for model in bench
        .models()?
        .iter()
        .filter(|m| MODELS.contains(&m.name.as_str()))
    {
        eprintln!("tables: {}", model.name);
        match judged(bench, model, &metrics) {
            Ok(found) => rows.extend(found),
            Err(e) => rows.push(vec![format!("{}: {e}", model.name)]),
        }
    }
    Ok(HEAD.to_owned() + &markdown(&rows))
}

fn judged(bench: &Bench, model: &Model, metrics: &[&str]) -> Result<Vec<Vec<String>>> {
    let start = Instant::now();
    let sensitivity = |extra: &[&str]| {
        let fixed = [
            "sensitivity".as_ref(),
            model.onnx.as_os_str(),
            "--data".as_ref(),
            model.data.as_os_str(),
        ];
        let extra = extra.iter().map(|e| OsStr::new(*e));
        bench.lowbit(&fixed.into_iter().chain(extra).collect::<Vec<_>>())
    };
    let found = sensitivity(&["--group", "kind", "--judge", PLANS])?;
    let auto = sensitivity(&[])?;
    let seconds = format!("{:.0}", start.elapsed().as_secs_f64());
    let ranks = found["ranks"].as_array().context("no ranks")?;
    let mut kinds: Vec<&str> = ranks.iter().filter_map(|r| r["plans"].as_str()).collect();
    kinds.dedup();
    let groups = groups(&found).join(", ");
    let row = |kind: &&str| {
        let cell = |metric: &&str| {
            let own = |r: &&Value| r["plans"] == **kind && r["metric"] == **metric;
            ranks.iter().find(own).map_or("–".into(), interval)
        };
        let mut row = vec![model.name.clone(), (*kind).to_owned()];
        row.extend(metrics.iter().map(cell));
        row.extend([
            auto["metric"].as_str().unwrap_or("–").to_owned(),
            seconds.clone(),
            groups.clone(),
        ]);
        row
    };
    Ok(kinds.iter().map(row).collect())
}

/// The metric of each group.
fn groups(found: &Value) -> Vec<String> {
    let groups = found["groups"].as_array().into_iter().flatten();
    let text = |v: &Value| v.as_str().unwrap_or("–").to_owned();
    groups
        .map(|g| format!("{} {}", text(&g["name"]), text(&g["metric"])))
        .collect()
}

fn interval(r: &Value) -> String {
    let number = |key: &str| r[key].as_f64().unwrap_or(f64::NAN);
    format!(
        "{:.3} ({:.2}–{:.2})",
        number("value"),
        number("low"),
        number("high")
    )
}
