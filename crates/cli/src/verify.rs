use std::path::PathBuf;

use lowbit::Error;

use crate::output::{json, line};
use crate::progress::Stderr;

/// Hold a compiled object against its definition: bit-exactness, no floats, no overflow, no open symbols.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  lowbit verify out/ --json")]
pub(crate) struct Args {
    /// A folder that `compile` wrote; its model and data must still be where they were.
    folder: PathBuf,
    /// Compare on these samples instead of those that the object was compiled with.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let progress = Stderr::new();
    let v = lowbit::verify(&args.folder, args.data.as_deref(), &progress)?;
    progress.done();
    if args.json {
        json(&v);
    } else {
        line(&format!(
            "bit-exact      {} ({} samples)",
            yes(v.bit_exact),
            v.samples
        ));
        line(&format!("reproduced     {}", yes(v.reproduced)));
        line(&format!(
            "float          {} instructions",
            v.float_instructions
        ));
        line(&format!(
            "symbols        {} undefined",
            v.undefined_symbols.len()
        ));
        line(&format!(
            "accumulators   {} bits at most",
            v.max_accumulator_bits
        ));
    }
    if v.passed() {
        return Ok(());
    }
    let place = v.first_difference.map_or(String::new(), |p| {
        format!(": the first difference is in {p}")
    });
    Err(Error::Mismatch(format!(
        "{} does not hold what it promises{place}",
        args.folder.display()
    )))
}

fn yes(x: bool) -> &'static str {
    if x { "yes" } else { "NO" }
}
