use std::path::PathBuf;

use lowbit::{Artefact, Error, is_artefact};

use crate::numbers;
use crate::output::{bytes, count, json, line, percent, table};

/// Show the layers of a model, or the precision report of a compiled folder.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  lowbit inspect net.onnx\n  lowbit inspect out/")]
pub(crate) struct Args {
    /// An ONNX file, or a folder that `compile` wrote.
    path: PathBuf,
    /// Shape of an input whose axes are unknown.
    #[arg(long, value_parser = numbers::shape, value_name = "[NAME=]1x3x224x224")]
    shape: Vec<(String, Vec<usize>)>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Error> {
    if is_artefact(&args.path) {
        folder(args)
    } else {
        model(args)
    }
}

fn model(args: &Args) -> Result<(), Error> {
    let found = lowbit::inspect(&args.path, &args.shape)?;
    if args.json {
        json(&found);
        return Ok(());
    }
    for (kind, ports) in [("input", &found.inputs), ("output", &found.outputs)] {
        for (name, shape) in ports {
            line(&format!("{kind} {name} {shape:?}"));
        }
    }
    let mut rows = vec![
        ["layer", "operation", "result", "weights", "MACs"]
            .map(String::from)
            .to_vec(),
    ];
    for l in &found.layers {
        rows.push(vec![
            l.name.clone(),
            l.op.clone(),
            format!("{:?}", l.shape),
            count(l.params),
            count(l.macs),
        ]);
    }
    table(&rows);
    line(&format!(
        "{} weights, {} multiply-accumulates, opset {}",
        count(found.params),
        count(found.macs),
        found.opset
    ));
    Ok(())
}

fn folder(args: &Args) -> Result<(), Error> {
    let report = Artefact::open(&args.path)?.report;
    if args.json {
        json(&report);
        return Ok(());
    }
    let mut rows = vec![
        [
            "layer",
            "operation",
            "weights",
            "activations",
            "bytes",
            "MACs",
        ]
        .map(String::from)
        .to_vec(),
    ];
    for l in &report.layers {
        rows.push(vec![
            l.name.clone(),
            l.op.clone(),
            l.weight_format.clone(),
            l.activation_format.clone(),
            bytes(l.weight_bytes),
            count(l.macs),
        ]);
    }
    table(&rows);
    let t = &report.totals;
    line(&format!(
        "{} bits a weight on average, object {}, arena {}, {}",
        t.avg_weight_bits,
        bytes(t.object_bytes),
        bytes(t.arena_bytes),
        report.target.level
    ));
    if let Some(a) = &report.accuracy {
        line(&format!(
            "accuracy {} (float {}), agreement {}",
            percent(a.top1),
            percent(a.float_top1),
            percent(a.agreement)
        ));
    }
    Ok(())
}
