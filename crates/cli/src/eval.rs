use std::path::PathBuf;

use lowbit::Error;

use crate::numbers;
use crate::output::{json, line, percent};
use crate::progress::Stderr;

/// Measure the accuracy of a float model, or of a compiled object itself.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  lowbit eval net.onnx --data calib.toml\n  lowbit eval out/ --data calib.toml --json"
)]
pub(crate) struct Args {
    /// An ONNX file, or a folder that `compile` wrote.
    path: PathBuf,
    /// A descriptor (.toml), .npz, .npy, or a folder of input_N.pb.
    #[arg(long)]
    data: PathBuf,
    /// Most samples to evaluate.
    #[arg(long)]
    limit: Option<usize>,
    /// Shape of an input whose axes are unknown.
    #[arg(long, value_parser = numbers::shape, value_name = "[NAME=]1x3x224x224")]
    shape: Vec<(String, Vec<usize>)>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let progress = Stderr::new();
    let accuracy = lowbit::eval(&args.path, &args.data, &args.shape, args.limit, &progress)?;
    progress.done();
    if args.json {
        json(&accuracy);
        return Ok(());
    }
    for (name, x) in [
        ("object top-1", accuracy.top1),
        ("float top-1", accuracy.float_top1),
        ("agreement", accuracy.agreement),
    ] {
        if x.is_some() {
            line(&format!("{name:13} {}", percent(x)));
        }
    }
    line(&format!("samples       {}", accuracy.samples));
    Ok(())
}
