use std::ffi::OsStr;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::page::{Section, failure, head};
use super::{Bench, Model, Table, folder};

pub(crate) const TABLE: Table = Table {
    name: "sensitivity",
    what: "rank correlation of predicted with measured loss over random mixed plans, by metric",
    run,
};

/// Models that are judged: residual networks, inverted residuals, a transformer, a keyword spotter.
const MODELS: &[&str] = &[
    "resnet20_cifar10",
    "resnet56_cifar10",
    LARGE,
    "vit_cifar10",
    "dscnn_kws",
];
/// The model that would take hours on as many samples as the others.
const LARGE: &str = "mobilenetv2_1.0_224_qat_deq";

/// Random plans of each kind.
const PLANS: &str = "100";
/// Samples that everything is measured on.
const SAMPLES: &str = "256";

const HEAD: &str = "# Does a metric predict?

Each metric of `lowbit sensitivity` predicts the loss of a plan as the sum over its layers. Here every metric predicts 100
random mixed plans of each of three kinds: every layer 2 to 8 bits, every layer 3 to 8 bits, and 4.5 ± 0.15 bits on average
over the weights. What the plans lose is measured: weights of all layers rounded at once, with error feedback as layers are
fitted, biases corrected for what that adds to the mean of each channel, everything else float; the mean divergence in nats
between the outputs and the float model's on 256 samples of the calibration split (mobilenetv2: as many as the command takes
by itself). `hessian` and `fisher` are those of the papers, for the nearest codes without corrected biases. Each cell is
Spearman's rank correlation between the two with the 90 % interval over 1000 resamplings of the plans. `joint` weights what
layers lose alone so that sums are what up to 96 other plans of each kind lose, and `auto` is the metric that
`lowbit sensitivity` chooses by itself on those. `grouped` is `--group kind`: convolutions, depthwise convolutions, linear
layers and attention each get the metric that orders 36 other plans of their layers best; the last column names them.

Each model is `lowbit sensitivity MODEL --data DESC --samples 256 --group kind --judge 100` (mobilenetv2: without
`--samples`). `cargo xtask tables sensitivity MODEL...` measures rows again and goes on where it stopped.

";

/// What predicts, a column each.
const METRICS: [&str; 7] = ["hessian", "fisher", "lrp", "sqnr", "kl", "joint", "grouped"];

fn run(bench: &Bench) -> Result<String> {
    let names = ["model", "plans"].into_iter().chain(METRICS);
    let section = Section {
        above: HEAD,
        head: head(names.chain(["auto", "seconds", "groups"])),
        keys: 2,
    };
    let mut page = bench.page(&TABLE, vec![section]);
    let models = bench.models()?;
    let mut failed = Vec::new();
    for model in models.iter().filter(|m| MODELS.contains(&m.name.as_str())) {
        let file = folder(&TABLE, model)?.join("judged.json");
        let kept = bench.kept(&file, PLANS, || {
            eprintln!("tables: {}", model.name);
            judged(bench, model)
        });
        match kept.and_then(|found| rows(model, &found)) {
            Ok(rows) => rows.into_iter().try_for_each(|row| page.put(0, row))?,
            Err(e) => failed.push(format!("{}: {}", model.name, failure(&e))),
        }
    }
    if !failed.is_empty() {
        bail!("the other rows are written: {}", failed.join("; "));
    }
    Ok(page.text())
}

/// What the command found with all metrics judged, what it chooses by itself, and the seconds of both.
fn judged(bench: &Bench, model: &Model) -> Result<Value> {
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
    let samples: &[&str] = match model.name == LARGE {
        true => &[],
        false => &["--samples", SAMPLES],
    };
    let found = sensitivity(&[samples, &["--group", "kind", "--judge", PLANS]].concat())?;
    let auto = sensitivity(samples)?;
    let seconds = start.elapsed().as_secs_f64();
    Ok(json!({
        "ranks": found["ranks"],
        "groups": found["groups"],
        "auto": auto["metric"],
        "seconds": seconds,
    }))
}

/// A row for each kind of plans.
fn rows(model: &Model, found: &Value) -> Result<Vec<Vec<String>>> {
    let ranks = found["ranks"].as_array().context("no ranks")?;
    let mut kinds: Vec<&str> = ranks.iter().filter_map(|r| r["plans"].as_str()).collect();
    kinds.dedup();
    let seconds = found["seconds"].as_f64().unwrap_or(f64::NAN);
    let row = |kind: &&str| {
        let cell = |metric: &&str| {
            let own = |r: &&Value| r["plans"] == **kind && r["metric"] == **metric;
            ranks.iter().find(own).map_or("–".into(), interval)
        };
        let mut row = vec![model.name.clone(), (*kind).to_owned()];
        row.extend(METRICS.iter().map(cell));
        row.extend([
            found["auto"].as_str().unwrap_or("–").to_owned(),
            format!("{seconds:.0}"),
            groups(found).join(", "),
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
