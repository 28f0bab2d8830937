use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use lowbit::{Cache, Error, Metric, SensitivityOptions};

use crate::numbers;
use crate::output::{json, line, table};
use crate::progress::Stderr;

/// Find what each layer would lose and cost with each of its formats.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  lowbit sensitivity net.onnx --data calib.toml -o sensitivity.json\n  lowbit allocate sensitivity.json --bits 4.5"
)]
pub(crate) struct Args {
    /// An ONNX file.
    model: PathBuf,
    /// A descriptor (.toml), .npz, .npy, or a folder of input_N.pb.
    #[arg(long)]
    data: PathBuf,
    /// How loss is predicted. hessian: trace of the Hessian × squared error; fisher: squared gradients × squared errors;
    /// sqnr, kl: the layer really rounded alone, noise or divergence at the outputs.
    #[arg(long, default_value = "kl", value_parser = PossibleValuesParser::new(Metric::ALL.iter().map(|m| m.name())))]
    metric: String,
    /// Most samples of the calibration split.
    #[arg(long, default_value_t = 128)]
    samples: usize,
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

pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let progress = Stderr::new();
    let options = SensitivityOptions {
        metric: Metric::from_name(&args.metric).expect("clap admits known names alone"),
        samples: args.samples,
        seed: args.seed,
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
    let mut rows = vec![vec!["layer".to_owned(), "weights".into()]];
    let formats = found
        .layers
        .iter()
        .flat_map(|l| &l.choices)
        .filter(|c| c.activation == "int8");
    let mut names: Vec<String> = Vec::new();
    for c in formats {
        if !names.contains(&c.weight) {
            names.push(c.weight.clone());
        }
    }
    rows[0].extend(names);
    for layer in &found.layers {
        let mut row = vec![layer.name.clone(), layer.params.unwrap_or(0.0).to_string()];
        let losses = layer.choices.iter().filter(|c| c.activation == "int8");
        row.extend(losses.map(|c| format!("{:.2e}", c.loss)));
        rows.push(row);
    }
    table(&rows);
    line(&format!("loss by metric {}", args.metric));
    Ok(())
}
