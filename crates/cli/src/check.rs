use std::path::PathBuf;

use lowbit::Error;

use crate::numbers;
use crate::output::{json, line};

/// List every node that cannot be compiled, in one pass.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  lowbit check net.onnx --shape input=1x3x224x224")]
pub(crate) struct Args {
    /// The ONNX file.
    model: PathBuf,
    /// Shape of an input whose axes are unknown.
    #[arg(long, value_parser = numbers::shape, value_name = "[NAME=]1x3x224x224")]
    shape: Vec<(String, Vec<usize>)>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let check = lowbit::check(&args.model, &args.shape)?;
    if args.json {
        json(&check);
    } else if check.compiles {
        line("every node can be compiled");
    } else {
        for p in &check.problems {
            let opset = p.opset.map_or(String::new(), |o| format!(", opset {o}"));
            line(&format!("{} ({}{opset}): {}", p.name, p.op, p.message));
        }
    }
    match check.problems.len() {
        0 => Ok(()),
        n => Err(Error::Other(format!(
            "{n} nodes of {} cannot be compiled",
            args.model.display()
        ))),
    }
}
