use std::path::PathBuf;

use lowbit::Error;

use crate::numbers;
use crate::output::{json, line};

/// Run a model or a compiled object on given inputs.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  lowbit run out/ --input x.npy --output results/\n  lowbit run net.onnx --input image=x.pb --output results/"
)]
pub(crate) struct Args {
    /// An ONNX file (the float interpreter runs it), or a folder that `compile` wrote.
    path: PathBuf,
    /// A .npy or .pb file; a longer first axis is that many runs.
    #[arg(long, value_parser = named, value_name = "[NAME=]FILE", required = true)]
    input: Vec<(String, PathBuf)>,
    /// Folder to write `<output name>.npy` into.
    #[arg(long)]
    output: PathBuf,
    /// Integer codes go in and come out.
    #[arg(long)]
    codes: bool,
    /// Shape of an input whose axes are unknown.
    #[arg(long, value_parser = numbers::shape, value_name = "[NAME=]1x3x224x224")]
    shape: Vec<(String, Vec<usize>)>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn named(text: &str) -> Result<(String, PathBuf), String> {
    let (name, file) = text.split_once('=').unwrap_or(("", text));
    if file.is_empty() {
        Err("the file is missing".into())
    } else {
        Ok((name.into(), file.into()))
    }
}

pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let files = lowbit::run(
        &args.path,
        &args.input,
        &args.shape,
        &args.output,
        args.codes,
    )?;
    if args.json {
        json(&serde_json::json!({ "files": files }));
    } else {
        files
            .iter()
            .for_each(|f| line(&format!("wrote {}", f.display())));
    }
    Ok(())
}
