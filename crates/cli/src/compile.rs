use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use lowbit::report::{Budget, Report, read_plan, text};
use lowbit::{
    Cache, Error, Estimator, Latencies, Metric, Options, RoundingMethod, Tuning, Tying,
    ranges_from_name,
};

use crate::budget::Budgets;
use crate::output::{bytes, count, json, line, percent};
use crate::progress::Stderr;
use crate::sensitivity::metrics;
use crate::{numbers, output};

/// Compile a model to an object, a header and a report.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  lowbit compile net.onnx --data calib.toml --bits 8 -o out/\n  lowbit compile net.onnx --data calib.toml --size 60K --ram 40K --latency 0.5 --tune -o out/\n  lowbit compile net.onnx --data calib.toml --max-drop 0.5 -o out/\n  lowbit compile net.onnx --data calib.toml --bits 4 --pin conv1=8 --tie residual -o out/\n  cc app.c out/net.o -o app"
)]
pub(crate) struct Args {
    /// The ONNX file.
    model: PathBuf,
    /// A descriptor (.toml), .npz, .npy, or a folder of input_N.pb; random samples where it is not given.
    #[arg(long)]
    data: Option<PathBuf>,
    #[command(flatten)]
    budgets: Budgets,
    /// The smallest model that loses at most so many percentage points of top-1 against the float model; where there are no
    /// labels, at most so many percent of samples change their class. Measured on the data's tune split, or on calibration
    /// samples that are not fitted on; never on the evaluation split. Other budgets bound the model too.
    #[arg(long, value_parser = points, value_name = "POINTS", conflicts_with_all = ["uniform", "plan"])]
    max_drop: Option<f64>,
    /// Quantise and measure so many plans around the one of least predicted loss, half by swaps of formats between layers
    /// and half by a policy gradient, and compile the best: losses of layers do not quite add up.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000), value_name = "N",
        conflicts_with_all = ["uniform", "plan"])]
    search: Option<u32>,
    /// How loss is predicted, as `lowbit sensitivity` does it; auto: by what orders random mixed plans best on this model.
    #[arg(long, default_value = "auto", value_parser = PossibleValuesParser::new(metrics()),
        conflicts_with_all = ["uniform", "plan"])]
    metric: String,
    /// Layers that share the formats of weights and inputs. residual: those whose outputs one addition sums, such as a
    /// projection shortcut and the end of the branch beside it.
    #[arg(long, value_name = "LAYERS", value_parser = PossibleValuesParser::new(Tying::ALL.map(Tying::name)),
        conflicts_with_all = ["uniform", "plan"])]
    tie: Option<String>,
    /// Every layer that is not pinned at the whole width of --bits: nothing is allocated.
    #[arg(long)]
    uniform: bool,
    /// Bits of what layers read; 8, or what --bops asks for, where it is not given.
    #[arg(long, value_parser = act_bits)]
    act_bits: Option<u32>,
    /// Latencies of layers and formats as `lowbit bench DIR --tune FILE` measured them, in place of the target's cost model.
    #[arg(long, value_name = "FILE", conflicts_with = "tune")]
    latency_table: Option<PathBuf>,
    /// Measure each layer's kernels in every format on this machine, and write them to DIR/latency.json; kept in the cache
    /// by the layer's shape and the processor.
    #[arg(long)]
    tune: bool,
    /// A plan.json to follow.
    #[arg(long)]
    plan: Option<PathBuf>,
    /// LLVM triple; the host's where it is not given.
    #[arg(long)]
    target: Option<String>,
    /// `native`, an LLVM processor name, or a level of `lowbit targets`.
    #[arg(long)]
    cpu: Option<String>,
    /// Name of the object and its functions; the file's stem where it is not given.
    #[arg(long)]
    name: Option<String>,
    /// Cut layers that take long into as many parts, which NAME_run_parallel hands to the caller's threads; NAME_run stays.
    #[arg(long, default_value = "1", value_parser = numbers::threads, value_name = "N")]
    threads: usize,
    /// Shape of an input whose axes are unknown.
    #[arg(long, value_parser = numbers::shape, value_name = "[NAME=]1x3x224x224")]
    shape: Vec<(String, Vec<usize>)>,
    /// How activation ranges are chosen: minmax, percentile:99.99, mse or kl. auto: for classes the one that loses least
    /// on samples held out, mse where trying all takes long; minmax for other outputs.
    #[arg(long, default_value = "auto")]
    ranges: String,
    /// 0: nearest codes, in seconds. 1: weights of at most 6 bits with error feedback. 2: also ranges by measured loss
    /// and short training, of the whole network and block by block; what loses least on samples held out is kept. 3:
    /// long training. The default is 2 where weights average fewer than 5.5 bits or layers read 4, else 1.
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=3))]
    effort: Option<u8>,
    /// Steps of training against the float network, on calibration samples and without labels.
    #[arg(long, value_name = "STEPS")]
    finetune: Option<usize>,
    /// How weights of at most 6 bits are rounded before any training: nearest, corrected (nearest, with biases that make
    /// up for it), feedback, adaround, or blocks (feedback, then training of a few layers at a time); auto goes by the
    /// effort.
    #[arg(long, default_value = "auto", value_parser = rounding)]
    rounding: Rounding,
    /// Bits of residual streams, the tensors that are added to what layers make of them: 8 or 16. Where it is not given, 16 if
    /// the squared error of the scores is a third smaller by it on samples held out, and no budget bounds time or memory; it
    /// costs both.
    #[arg(long, value_parser = residual_bits, value_name = "BITS")]
    residual_bits: Option<u32>,
    /// What stands for the derivative of rounding in training: ste, reste or biper.
    #[arg(long, default_value = "ste", value_parser = estimator)]
    estimator: Estimator,
    /// Seed of random samples.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Samples of the evaluation split to evaluate: a number, or `none`; all of them where it is not given.
    #[arg(long, value_parser = eval_limit)]
    eval: Option<usize>,
    /// Threads that the compiler uses; all cores where it is not given.
    #[arg(long, value_parser = numbers::threads)]
    jobs: Option<usize>,
    /// Make everything anew: neither read nor write the cache.
    #[arg(long)]
    no_cache: bool,
    /// Folder to write.
    #[arg(short, long)]
    output: PathBuf,
    /// Print the report as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

fn eval_limit(text: &str) -> Result<usize, String> {
    match text {
        "none" => Ok(0),
        _ => text
            .parse()
            .map_err(|_| format!("'{text}' is neither a number nor 'none'")),
    }
}

fn points(text: &str) -> Result<f64, String> {
    let found = text.parse().ok().filter(|x| (0.0..=100.0).contains(x));
    found.ok_or_else(|| format!("'{text}' is no number of percentage points from 0 to 100"))
}

fn act_bits(text: &str) -> Result<u32, String> {
    match text {
        "4" => Ok(4),
        "8" => Ok(8),
        _ => Err(format!("'{text}' is neither 4 nor 8")),
    }
}

fn residual_bits(text: &str) -> Result<u32, String> {
    match text {
        "8" => Ok(8),
        "16" => Ok(16),
        _ => Err(format!("'{text}' is neither 8 nor 16")),
    }
}

/// A way to round, or that of the effort.
#[derive(Clone, Copy, Debug)]
struct Rounding(Option<RoundingMethod>);

fn rounding(text: &str) -> Result<Rounding, String> {
    let found = RoundingMethod::from_name(text);
    match text {
        "auto" => Ok(Rounding(None)),
        _ if found.is_some() => Ok(Rounding(found)),
        _ => Err(format!(
            "'{text}' is none of auto, nearest, corrected, feedback, adaround, blocks"
        )),
    }
}

fn estimator(text: &str) -> Result<Estimator, String> {
    Estimator::from_name(text).ok_or_else(|| format!("'{text}' is none of ste, reste, biper"))
}

fn valid_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

impl Args {
    fn options(&self) -> Result<Options, Error> {
        let plan = match &self.plan {
            None => None,
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|e| Error::Other(format!("cannot read {}: {e}", path.display())))?;
                let plan = read_plan(&text);
                Some(plan.map_err(|e| Error::Other(format!("{} is no plan: {e}", path.display())))?)
            }
        };
        if let Some(name) = self.name.as_deref().filter(|n| !valid_name(n)) {
            return Err(Error::Usage(format!("--name '{name}' is no C identifier")));
        }
        let ranges = match self.ranges.as_str() {
            "auto" => None,
            name => Some(ranges_from_name(name).ok_or_else(|| {
                Error::Usage(format!(
                    "--ranges '{name}' is none of auto, minmax, percentile:P, mse, kl"
                ))
            })?),
        };
        let budget = Budget {
            bits: Some(self.budgets.bits.unwrap_or(8.0)),
            size: self.budgets.size.map(|x| x as u64),
            bops: self.budgets.bops,
            ram: self.budgets.ram.map(|x| x as u64),
            object_size: self.budgets.object_size.map(|x| x as u64),
            latency: self.budgets.latency,
            max_drop: self.max_drop,
        };
        let latencies = match (&self.latency_table, self.tune) {
            (Some(path), _) => Latencies::Table(path.clone()),
            (None, true) => Latencies::Tune,
            (None, false) => Latencies::Model,
        };
        Ok(Options {
            data: self.data.clone(),
            shapes: self.shape.clone(),
            target: self.target.clone(),
            cpu: self.cpu.clone(),
            name: self.name.clone(),
            budget,
            plan,
            uniform: self.uniform,
            act_bits: self.act_bits,
            pins: self.budgets.pin.clone(),
            metric: Metric::from_name(&self.metric),
            tie: self.tie.as_deref().and_then(Tying::from_name),
            search: self.search.map(|n| n as usize),
            threads: self.threads,
            tuning: Tuning {
                effort: self.effort,
                ranges,
                finetune: self.finetune,
                rounding: self.rounding.0,
                residual_bits: self.residual_bits,
                estimator: self.estimator,
                seed: self.seed,
            },
            seed: self.seed,
            eval: self.eval,
            latencies,
            cache: if self.no_cache {
                Cache::none()
            } else {
                Cache::platform()
            },
            ..Options::new(&self.model)
        })
    }
}

/// The table that `--tune` writes beside the object.
const LATENCIES: &str = "latency.json";

pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let options = args.options()?;
    lowbit::check_folder(&args.output)?;
    let progress = Stderr::new();
    let work = || lowbit::compile(&options, &progress);
    let mut compiled = match args.jobs {
        Some(jobs) => lowbit::with_threads(jobs, work)?,
        None => work(),
    }?;
    progress.done();
    let reproduce = &mut compiled.artefact.report.reproduce;
    reproduce.plan = args.plan.as_ref().map(|p| p.display().to_string());
    let mut more = Vec::new();
    if args.tune {
        let path = args.output.join(LATENCIES).display().to_string();
        reproduce.latency_table = Some(path);
        let table = serde_json::to_string_pretty(&compiled.latencies).expect("tables are plain");
        more.push((LATENCIES.to_string(), table.into_bytes()));
    }
    compiled
        .artefact
        .write_with(&args.output, &compiled.plan, more)?;
    if args.json {
        json(&compiled.artefact.report);
    } else {
        summary(&compiled.artefact.report, &args.output);
    }
    Ok(())
}

fn summary(r: &Report, folder: &std::path::Path) {
    let t = &r.totals;
    line(&format!(
        "{} for {} ({})",
        r.model.name, r.target.triple, r.target.level
    ));
    let mut rows = vec![
        vec![
            "weights".into(),
            format!(
                "{} at {} bits on average",
                bytes(t.weight_bytes),
                text::significant(t.avg_weight_bits)
            ),
        ],
        vec![
            "object".into(),
            format!(
                "{}, {} of it code",
                bytes(t.object_bytes),
                bytes(t.code_bytes)
            ),
        ],
        vec![
            "arena".into(),
            format!(
                "{} (no less than {} is possible)",
                bytes(t.arena_bytes),
                bytes(t.arena_lower_bound_bytes)
            ),
        ],
        vec![
            "work".into(),
            format!("{} multiply-accumulates", count(t.macs)),
        ],
        vec![
            "proofs".into(),
            format!(
                "{} float instructions, {} undefined symbols, accumulators of at most {} bits, bit-exact on {} samples",
                r.proofs.float_instructions,
                r.proofs.undefined_symbols.len(),
                r.proofs.max_accumulator_bits,
                r.proofs.bit_exact_samples
            ),
        ],
    ];
    if let Some(us) = t.predicted_latency_us {
        let source = t.prediction_source.as_deref().unwrap_or("");
        let measured = t
            .latency_us
            .filter(|_| t.latency_source.as_deref() == Some("measured"));
        let measured = measured.map_or(String::new(), |us| {
            format!(", {} measured", text::micros(us))
        });
        let shared = t.parallel_latency_us.zip(r.reproduce.threads);
        let shared = shared.map_or(String::new(), |(us, threads)| {
            format!(", {} on {threads} threads", text::micros(us))
        });
        let text = format!(
            "{} predicted by {source}{measured}{shared}",
            text::micros(us)
        );
        rows.push(vec!["latency".into(), text]);
    }
    if let Some(a) = &r.accuracy {
        let text = if a.top1.is_some() {
            format!(
                "{} (float {}), agreement {}, {} samples",
                percent(a.top1),
                percent(a.float_top1),
                percent(a.agreement),
                a.samples
            )
        } else {
            format!(
                "agreement {}, {:.1} dB, {} samples",
                percent(a.agreement),
                a.sqnr_db.unwrap_or(0.0),
                a.samples
            )
        };
        rows.insert(0, vec!["accuracy".into(), text]);
    }
    rows.extend(drop_row(r));
    for row in rows {
        output::line(&format!("  {:9} {}", row[0], row[1]));
    }
    line(&format!(
        "wrote {}",
        folder
            .join(format!(
                "{}.o, {}.h, plan.json, report.json, report.html",
                r.model.name, r.model.name
            ))
            .display()
    ));
}

/// What `--max-drop` led to.
fn drop_row(r: &Report) -> Option<Vec<String>> {
    let allowed = r.budget.max_drop?;
    let tried = r.tried.iter().find(|t| t.returned)?;
    let text = format!(
        "{} points below the float model on {} samples kept apart, {} allowed; {} plans were measured",
        text::significant(tried.drop?),
        tried.samples?,
        text::significant(allowed),
        r.tried.len()
    );
    Some(vec!["drop".into(), text])
}
