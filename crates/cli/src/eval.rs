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
    /// Write the class of each sample here, as comma-separated values: sample, label, float, object; and sqnr_db, the
    /// signal to noise of the object's output against the float model's.
    #[arg(long, value_name = "FILE")]
    predictions: Option<PathBuf>,
    /// Shape of an input whose axes are unknown.
    #[arg(long, value_parser = numbers::shape, value_name = "[NAME=]1x3x224x224")]
    shape: Vec<(String, Vec<usize>)>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let progress = Stderr::new();
    let found = lowbit::eval(&args.path, &args.data, &args.shape, args.limit, &progress)?;
    progress.done();
    if let Some(path) = &args.predictions {
        lowbit::write_file(path, table(&found.predictions).as_bytes())?;
    }
    let accuracy = found.accuracy;
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

fn table(predictions: &[lowbit::Prediction]) -> String {
    let cell = |class: Option<i64>| class.map_or(String::new(), |c| c.to_string());
    let row = |p: &lowbit::Prediction| {
        let [label, float, object] = [p.label, p.float, p.object].map(cell);
        let sqnr = p.sqnr_db.map_or(String::new(), |d| d.to_string());
        format!("{},{label},{float},{object},{sqnr}\n", p.sample)
    };
    let head = String::from("sample,label,float,object,sqnr_db\n");
    predictions
        .iter()
        .map(row)
        .fold(head, |all, row| all + &row)
}
