use std::path::PathBuf;

use lowbit::report::insight::format_bits;
use lowbit::report::{
    Layer, Report, command, loss_sentences, memory_sentence, temperature_sentence, text,
};
use lowbit::{Artefact, Error, is_artefact};

use crate::numbers;
use crate::output::{count, json, line, percent, table, table_with_notes};
use crate::sensitivity::{print_ranks, print_traces};

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
            text::name(&l.name),
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
    line(&format!(
        "{} for {}, level {}",
        report.model.name, report.target.triple, report.target.level
    ));
    strip(&report.layers);
    layers(&report.layers);
    totals(&report);
    plans(&report);
    frontier(&report);
    tried(&report);
    for sentence in loss_sentences(&report.layers) {
        line(&sentence);
    }
    if let Some(p) = &report.predictor {
        line(&format!("losses are predicted by {}", p.metric));
        let softened = p.temperature.map(temperature_sentence);
        softened.iter().for_each(|s| line(s));
        print_ranks(&p.ranks);
        p.traces.iter().for_each(print_traces);
    }
    memory_sentence(&report.memory).iter().for_each(|s| line(s));
    line(&format!("again: {} -o DIR", command(&report, true)));
    Ok(())
}

/// Bits of all layers as a row of blocks.
fn strip(layers: &[Layer]) {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let block = |l: &Layer| {
        let bits = format_bits(&l.weight_format).unwrap_or(8.0);
        BLOCKS[(bits as usize).clamp(1, 8) - 1]
    };
    let row: String = layers.iter().map(block).collect();
    line(&format!("bits  {row}"));
}

type Column = (&'static str, fn(&Layer) -> Option<String>);

const COLUMNS: &[Column] = &[
    ("layer", |l| Some(text::name(&l.name))),
    ("operation", |l| Some(l.op.clone())),
    ("weights", |l| Some(l.weight_format.clone())),
    ("activations", |l| Some(l.activation_format.clone())),
    ("size", |l| Some(text::bytes(l.weight_bytes as f64))),
    ("MACs", |l| Some(text::count(l.macs as f64))),
    ("time", |l| l.latency_us.map(text::micros)),
    ("loss at 4 bits", |l| l.sensitivity.map(text::significant)),
    ("loss", |l| l.predicted_loss.map(text::significant)),
    ("SQNR", |l| l.sqnr_db.map(|x| format!("{x:.1} dB"))),
    ("cosine", |l| l.cosine.map(|x| format!("{x:.4}"))),
];

/// A table of what is known, and why each layer has its formats: once where all have the same reason.
fn layers(layers: &[Layer]) {
    let same = layers.iter().all(|l| l.why == layers[0].why);
    let known: Vec<&Column> = COLUMNS
        .iter()
        .filter(|c| layers.iter().any(|l| c.1(l).is_some()))
        .collect();
    let mut rows = vec![known.iter().map(|c| c.0.to_string()).collect::<Vec<_>>()];
    for l in layers {
        let cells = known.iter().map(|c| c.1(l).unwrap_or("–".into()));
        rows.push(cells.collect());
    }
    let reasons: Vec<&str> = layers.iter().map(|l| l.why.as_str()).collect();
    let reasons: &[&str] = if same { &[] } else { &reasons };
    table_with_notes(&rows, reasons);
    if let Some(first) = layers.first().filter(|_| same) {
        line(&format!("all layers: {}", first.why));
    }
}

fn totals(r: &Report) {
    let t = &r.totals;
    let time = t.latency_us.map_or(String::new(), |us| {
        let source = t.latency_source.as_deref().unwrap_or("measured");
        format!(", {} an inference ({source})", text::micros(us))
    });
    let streams = match t.residual_bits {
        Some(16) => ", residual streams of 16 bits",
        _ => "",
    };
    line(&format!(
        "{} bits a weight on average, weights {}, object {}, arena {}{streams}{time}",
        text::significant(t.avg_weight_bits),
        text::bytes(t.weight_bytes as f64),
        text::bytes(t.object_bytes as f64),
        text::bytes(t.arena_bytes as f64),
    ));
}

/// Accuracy of the object beside float and plainer plans.
fn plans(r: &Report) {
    let Some(a) = &r.accuracy else { return };
    let row = |name: &str, top1, agreement, bits: String, size: String| {
        vec![name.into(), percent(top1), percent(agreement), bits, size]
    };
    let sized = |bits: f64, bytes: u64| (text::significant(bits), text::bytes(bytes as f64));
    let (bits, size) = sized(r.totals.avg_weight_bits, r.totals.weight_bytes);
    let mut rows = vec![
        ["plan", "right", "agreement", "bits", "weights"]
            .map(String::from)
            .to_vec(),
        row("float", a.float_top1, None, "32".into(), String::new()),
        row("this object", a.top1, a.agreement, bits, size),
    ];
    for (name, b) in r.baselines.iter().rev() {
        let (bits, size) = sized(b.avg_weight_bits, b.weight_bytes);
        rows.push(row(name, b.top1, b.agreement, bits, size));
    }
    table(&rows);
    line(&format!("on {} evaluation samples", a.samples));
}

/// Points of the frontier that are shown at most.
const POINTS: usize = 12;

fn frontier(r: &Report) {
    if r.frontier.is_empty() {
        return;
    }
    let chosen = r.chosen();
    let step = r.frontier.len().div_ceil(POINTS);
    let mut rows = vec![
        ["frontier: bits", "weights", "predicted loss", ""]
            .map(String::from)
            .to_vec(),
    ];
    for (i, p) in r.frontier.iter().enumerate() {
        if i % step != 0 && Some(i) != chosen {
            continue;
        }
        rows.push(vec![
            text::significant(p.bits),
            text::bytes(p.weight_bytes as f64),
            text::significant(p.predicted_loss),
            if Some(i) == chosen {
                "← this object"
            } else {
                ""
            }
            .into(),
        ]);
    }
    table(&rows);
}

/// Plans that were measured before one was compiled.
fn tried(r: &Report) {
    if r.tried.is_empty() {
        return;
    }
    let header = ["measured plan", "bits", "points below float", "loss", ""];
    let mut rows = vec![header.map(String::from).to_vec()];
    let number = |x: Option<f64>| x.map_or("–".into(), text::significant);
    for t in &r.tried {
        let mark = if t.returned { "← this object" } else { "" };
        rows.push(vec![
            t.plan.clone(),
            number(t.bits),
            number(t.drop),
            text::significant(t.loss),
            mark.into(),
        ]);
    }
    table(&rows);
    if let Some(samples) = r.tried_on() {
        line(&format!(
            "points are measured on {samples} samples kept apart"
        ));
    }
}
