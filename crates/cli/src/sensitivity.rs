use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use lowbit::report::{
    Evidence, HessianTraces, MetricGroup, RankCorrelation, SensitiveLayer, temperature_sentence,
};
use lowbit::{Cache, Error, Grouping, Metric, SensitivityOptions, Tying};

use crate::numbers;
use crate::output::{json, line, table};
use crate::progress::Stderr;

/// The word that groups layers by kind.
const KIND: &str = "kind";

/// Find what each layer would lose and cost with each of its formats.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  lowbit sensitivity net.onnx --data calib.toml -o sensitivity.json\n  lowbit sensitivity net.onnx --data calib.toml --metric hessian --trace-error 0.02\n  lowbit sensitivity net.onnx --data calib.toml --group kind\n  lowbit allocate sensitivity.json --bits 4.5"
)]
pub(crate) struct Args {
    /// An ONNX file.
    model: PathBuf,
    /// A descriptor (.toml), .npz, .npy, or a folder of input_N.pb.
    #[arg(long)]
    data: PathBuf,
    /// How loss is predicted. hessian: trace of the Hessian × squared error; fisher: squared gradients × squared errors;
    /// lrp: relevance × relative error; sqnr, kl: the layer really rounded alone, noise or divergence at the outputs;
    /// joint: kl with each layer weighted so that sums are what random mixed plans lose as a whole; auto: the one that orders random mixed plans best on this model.
    #[arg(long, default_value = "auto", value_parser = PossibleValuesParser::new(metrics()))]
    metric: String,
    /// Give each group of layers the metric that orders random plans of the group best, on one scale. `kind` groups
    /// convolutions, depthwise convolutions, linear layers and attention; NAME=PATTERN, which may be repeated, takes the
    /// layers whose names are the pattern, * standing for any characters.
    #[arg(long, value_name = "kind|NAME=PATTERN", value_parser = group)]
    group: Vec<(String, String)>,
    /// Layers that share the formats of weights and inputs. residual: those whose outputs one addition sums, such as a
    /// projection shortcut and the end of the branch beside it.
    #[arg(long, value_name = "LAYERS", value_parser = PossibleValuesParser::new(Tying::ALL.map(Tying::name)))]
    tie: Option<String>,
    /// Samples of the calibration split that everything is measured on; 256, or fewer where that would take long.
    #[arg(long)]
    samples: Option<usize>,
    /// Judge all metrics on so many random plans of each kind, beside those that choose between them.
    #[arg(long, value_name = "PLANS", default_value_t = 0)]
    judge: usize,
    /// Take gradients until the trace of the Hessian of every layer has at most this standard error, relative to the trace.
    #[arg(long, value_name = "FRACTION", default_value_t = 0.05, value_parser = fraction)]
    trace_error: f64,
    /// Most gradients for the traces, and for the check by Hutchinson's probes an eighth as many Hessian-vector products.
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = clap::value_parser!(u64).range(2..))]
    probes: u64,
    /// Seed of everything that is drawn.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where to write the table; standard output has a summary then.
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Make everything anew: neither read nor write the cache.
    #[arg(long)]
    no_cache: bool,
    /// Shape of an input whose axes are unknown.
    #[arg(long, value_parser = numbers::shape, value_name = "[NAME=]1x3x224x224")]
    shape: Vec<(String, Vec<usize>)>,
    /// Print JSON: the table.
    #[arg(long)]
    json: bool,
}

/// `kind` has no pattern.
fn group(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        None if text == KIND => Ok((text.into(), String::new())),
        Some((name, pattern)) if !name.is_empty() && !pattern.is_empty() => {
            Ok((name.into(), pattern.into()))
        }
        _ => Err("expected kind or NAME=PATTERN, such as attention=*attn*".into()),
    }
}

fn grouping(args: &Args) -> Result<Option<Grouping>, Error> {
    let usage = |what: &str| Err(Error::Usage(what.into()));
    let by_kind = |g: &(String, String)| g.1.is_empty();
    match &args.group[..] {
        [] => Ok(None),
        _ if args.metric != "auto" => usage("--group chooses metrics: leave --metric out"),
        [only] if by_kind(only) => Ok(Some(Grouping::Kind)),
        all if all.iter().any(by_kind) => usage("--group kind stands alone"),
        all => Ok(Some(Grouping::Named(all.to_vec()))),
    }
}

/// A positive number.
fn fraction(text: &str) -> Result<f64, String> {
    let x: f64 = text.parse().map_err(|e| format!("{e}"))?;
    match x > 0.0 && x.is_finite() {
        true => Ok(x),
        false => Err("expected a positive number, such as 0.05".into()),
    }
}

/// Names of metrics as flags take them.
pub(crate) fn metrics() -> impl Iterator<Item = &'static str> {
    Metric::ALL.iter().map(|m| m.name()).chain(["auto"])
}

pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let progress = Stderr::new();
    let options = SensitivityOptions {
        metric: Metric::from_name(&args.metric),
        groups: grouping(args)?,
        samples: args.samples,
        judge: args.judge,
        trace_error: args.trace_error,
        probes: args.probes as usize,
        seed: args.seed,
        tie: args.tie.as_deref().and_then(Tying::from_name),
        cache: match args.no_cache {
            true => Cache::none(),
            false => Cache::default(),
        },
    };
    let found = lowbit::sensitivity(&args.model, &args.data, &args.shape, &options, &progress)?;
    progress.done();
    if let Some(path) = &args.output {
        lowbit::write_file(path, lowbit::report::to_json(&found).as_bytes())?;
    }
    if args.json {
        json(&found);
        return Ok(());
    }
    print(&found);
    Ok(())
}

fn print(found: &Evidence) {
    let eight = |l: &'_ SensitiveLayer| {
        l.choices
            .iter()
            .filter(|c| c.activation == "int8")
            .cloned()
            .collect::<Vec<_>>()
    };
    let formats = found.table.layers.first().map(eight).unwrap_or_default();
    let mut rows = vec![vec!["layer".to_owned(), "weights".into()]];
    rows[0].extend(formats.into_iter().map(|c| c.weight));
    for layer in &found.table.layers {
        let mut row = vec![layer.name.clone(), layer.params.unwrap_or(0.0).to_string()];
        row.extend(eight(layer).iter().map(|c| format!("{:.2e}", c.loss)));
        rows.push(row);
    }
    table(&rows);
    let metric = found.table.metric.as_deref().unwrap_or("unknown");
    line(&format!("predicted loss by {metric}, inputs of 8 bits"));
    let softened = found.temperature.map(temperature_sentence);
    softened.iter().for_each(|s| line(s));
    print_ranks(&found.ranks);
    print_groups(&found.groups);
    found.traces.iter().for_each(print_traces);
}

/// How well each metric orders plans, where that was measured.
pub(crate) fn print_ranks(ranks: &[RankCorrelation]) {
    let ranks = ranks.iter().map(|r| {
        let interval = format!("{:.3} ({:.3}–{:.3})", r.value, r.low, r.high);
        vec![r.metric.clone(), r.plans.clone(), interval]
    });
    let ranks: Vec<Vec<String>> = ranks.collect();
    if !ranks.is_empty() {
        line("\nrank correlation of predicted with measured loss over random mixed plans");
        table(&ranks);
    }
}

fn print_groups(groups: &[MetricGroup]) {
    if groups.is_empty() {
        return;
    }
    line("\nmetric of each group, and rank correlation over random plans of its layers");
    let head = ["group", "layers", "metric", "scale", "correlation"].map(String::from);
    let rows = groups.iter().map(|g| {
        let own = g.ranks.iter().find(|r| r.metric == g.metric);
        vec![
            g.name.clone(),
            g.layers.len().to_string(),
            g.metric.clone(),
            format!("{:.3}", g.scale),
            own.map_or(String::new(), |r| {
                format!("{:.3} ({:.3}–{:.3})", r.value, r.low, r.high)
            }),
        ]
    });
    table(&[head.to_vec()].into_iter().chain(rows).collect::<Vec<_>>());
}

/// Traces of the Hessian by both estimates, where there are both.
pub(crate) fn print_traces(found: &HessianTraces) {
    let pair = |(x, e): (f64, f64)| format!("{x:.3e} ± {e:.1e}");
    let mut head = vec!["layer".to_owned(), "gradients".into()];
    head.extend(found.probes.map(|_| "probes".into()));
    let rows = found.layers.iter().map(|t| {
        let mut row = vec![t.name.clone(), pair((t.gradients, t.gradients_error))];
        row.extend(t.probes.zip(t.probes_error).map(pair));
        row
    });
    line(
        "\ntrace of the Hessian ± its standard error, by squared gradients and by Hutchinson's probes where they were taken",
    );
    table(&[head].into_iter().chain(rows).collect::<Vec<_>>());
    let percent = |x: f64| format!("{:.1} %", 100.0 * x);
    let probes = found.probes.zip(found.probes_error);
    let probes = probes.map(|(n, e)| format!(", {} by {n} probes", percent(e)));
    line(&format!(
        "at most {} by {} gradients{}",
        percent(found.error),
        found.gradients,
        probes.unwrap_or_default()
    ));
    if found.error > found.asked_error {
        line(&format!(
            "{} was asked for; --probes {} would come near",
            percent(found.asked_error),
            needed(found)
        ));
    }
}

/// Gradients that would be exact enough: the error falls with their root.
fn needed(found: &HessianTraces) -> usize {
    let more = (found.error / found.asked_error).powi(2);
    (found.gradients as f64 * more * 1.2).ceil() as usize
}
