use std::path::PathBuf;

use lowbit::Error;

use crate::output::{count, json, line, table};
use crate::progress::Stderr;

/// Time a compiled object on this machine: random codes, warm caches, one core.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  lowbit bench out/ --layers")]
pub(crate) struct Args {
    /// A folder that `compile` wrote.
    folder: PathBuf,
    /// Time every layer too.
    #[arg(long)]
    layers: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let progress = Stderr::new();
    let bench = lowbit::bench(&args.folder, args.layers, &progress)?;
    progress.done();
    if args.json {
        json(&bench);
        return Ok(());
    }
    if args.layers {
        let mut rows = vec![
            ["layer", "kernel", "µs", "MACs", "GMAC/s"]
                .map(String::from)
                .to_vec(),
        ];
        for l in &bench.layers {
            let rate = if l.macs > 0 {
                format!("{:.1}", l.gmac_per_s)
            } else {
                String::new()
            };
            rows.push(vec![
                l.name.clone(),
                l.kernel.clone(),
                format!("{:.2}", l.median_us),
                count(l.macs),
                rate,
            ]);
        }
        table(&rows);
    }
    line(&format!(
        "median {:.2} µs, least {:.2} µs over {} runs; {:.1} GMAC/s",
        bench.median_us, bench.min_us, bench.runs, bench.gmac_per_s
    ));
    Ok(())
}
