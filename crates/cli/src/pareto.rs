use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use lowbit::report::{Point, text};
use lowbit::{Cache, Error, Frontier, Metric, Over, ParetoOptions, Pin, Tying};

use crate::budget::pin;
use crate::numbers;
use crate::output::{bytes, count, json, line, table};
use crate::progress::Stderr;
use crate::sensitivity::metrics;

/// Find the best plan at each budget, from the smallest model to the largest.
///
/// Sensitivity is measured once; each plan is proved to be the one of least predicted loss within its budget.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  lowbit pareto net.onnx --data calib.toml -o frontier/\n  lowbit compile net.onnx --data calib.toml --plan frontier/plan-07.json -o out/"
)]
pub(crate) struct Args {
    /// An ONNX file.
    model: PathBuf,
    /// A descriptor (.toml), .npz, .npy, or a folder of input_N.pb.
    #[arg(long)]
    data: PathBuf,
    /// The budget that moves: average bits of a weight, bytes of weights, or bit operations (which also chooses the bits
    /// of what layers read).
    #[arg(long, default_value = "bits", value_parser = PossibleValuesParser::new(Over::ALL.map(Over::name)))]
    over: String,
    /// Budgets, evenly spaced from the least to the most that a plan can take; plans that repeat are left out.
    #[arg(long, default_value_t = 25, value_parser = points)]
    points: usize,
    /// Also quantise the network by each plan and measure what it loses on calibration samples that it was not fitted on.
    #[arg(long)]
    measure: bool,
    /// Formats that a layer must have: `conv1=int8`, or `conv1=int4xint8` for weights and input.
    #[arg(long, value_parser = pin, value_name = "LAYER=FORMAT")]
    pin: Vec<Pin>,
    /// How loss is predicted, as `lowbit sensitivity` does it; auto: by what orders random mixed plans best on this model.
    #[arg(long, default_value = "auto", value_parser = PossibleValuesParser::new(metrics()))]
    metric: String,
    /// Layers that share the formats of weights and inputs. residual: those whose outputs one addition sums, such as a
    /// projection shortcut and the end of the branch beside it.
    #[arg(long, value_name = "LAYERS", value_parser = PossibleValuesParser::new(Tying::ALL.map(Tying::name)))]
    tie: Option<String>,
    /// Shape of an input whose axes are unknown.
    #[arg(long, value_parser = numbers::shape, value_name = "[NAME=]1x3x224x224")]
    shape: Vec<(String, Vec<usize>)>,
    /// Seed of everything that is drawn.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Make everything anew: neither read nor write the cache.
    #[arg(long)]
    no_cache: bool,
    /// Folder for pareto.html, pareto.json and plan-NN.json, the plan of each point.
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Print the frontier as JSON.
    #[arg(long)]
    json: bool,
}

fn points(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 2..=1000) => Ok(n),
        _ => Err(format!("'{text}' is no number from 2 to 1000")),
    }
}

pub(crate) fn run(args: &Args) -> Result<(), Error> {
    if let Some(folder) = &args.output {
        lowbit::check_folder(folder)?;
    }
    let over = Over::ALL.into_iter().find(|o| o.name() == args.over);
    let options = ParetoOptions {
        shapes: args.shape.clone(),
        over: over.expect("the flag takes these names only"),
        points: args.points,
        pins: args.pin.clone(),
        metric: Metric::from_name(&args.metric),
        tie: args.tie.as_deref().and_then(Tying::from_name),
        measure: args.measure,
        seed: args.seed,
        cache: match args.no_cache {
            true => Cache::none(),
            false => Cache::default(),
        },
    };
    let progress = Stderr::new();
    let found = lowbit::pareto(&args.model, &args.data, &options, &progress)?;
    progress.done();
    let written = args.output.as_ref().map(|folder| found.write(folder));
    let written = written.transpose()?;
    if args.json {
        json(&found);
        return Ok(());
    }
    print(&found);
    if let Some(paths) = written {
        line(&format!(
            "wrote {} and {} plans",
            paths[0].display(),
            found.points.len()
        ));
    }
    Ok(())
}

fn print(found: &Frontier) {
    let by_bops = found.over == Over::Bops.name();
    let measured = found.points.iter().any(|p| p.measured_loss.is_some());
    let mut head = vec!["plan", "bits", "weights"];
    head.extend(by_bops.then_some("bit operations"));
    head.push("predicted loss");
    head.extend(measured.then_some("measured loss"));
    head.push("layers");
    let mut rows = vec![head.into_iter().map(String::from).collect()];
    for (i, p) in found.points.iter().enumerate() {
        let mut row = vec![
            format!("{:02}", i + 1),
            format!("{:.2}", p.bits),
            bytes(p.weight_bytes),
        ];
        row.extend(p.bops.filter(|_| by_bops).map(|b| count(b.round() as u64)));
        row.push(text::significant(p.predicted_loss));
        row.extend(p.measured_loss.map(text::significant));
        row.push(histogram(p, by_bops));
        rows.push(row);
    }
    table(&rows);
    let metric = found.metric.as_deref().unwrap_or("unknown");
    line(&format!(
        "predicted loss by {metric}; within each budget no plan is predicted to lose less"
    ));
}

/// How many layers have each format, most bits first.
fn histogram(point: &Point, inputs: bool) -> String {
    let mut found: BTreeMap<(std::cmp::Reverse<u64>, String), usize> = BTreeMap::new();
    for (weight, activation) in point.formats.iter().zip(&point.activations) {
        let bits = lowbit::report::insight::format_bits(weight).unwrap_or(0.0);
        let name = match inputs {
            true => format!("{weight}×{activation}"),
            false => weight.clone(),
        };
        let key = (std::cmp::Reverse((10.0 * bits) as u64), name);
        *found.entry(key).or_default() += 1;
    }
    let parts = found
        .into_iter()
        .map(|((_, name), n)| format!("{n} {name}"));
    parts.collect::<Vec<_>>().join(", ")
}
