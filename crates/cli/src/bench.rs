use std::path::{Path, PathBuf};

use lowbit::Error;

use crate::numbers;
use crate::output::{count, json, line, table};
use crate::progress::Stderr;

/// Time a compiled object on this machine: random codes, warm caches, one core where no other number is given.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  lowbit bench out/ --layers\n  lowbit bench out/ --threads 2")]
pub(crate) struct Args {
    /// A folder that `compile` wrote.
    folder: PathBuf,
    /// Time every layer too.
    #[arg(long)]
    layers: bool,
    /// Time every layer by itself in every weight format, and write the table of latencies here.
    #[arg(long, value_name = "FILE")]
    tune: Option<PathBuf>,
    /// Threads that share the layers of an object that was compiled with --threads.
    #[arg(long, default_value = "1", value_parser = numbers::threads)]
    threads: usize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let progress = Stderr::new();
    if let Some(path) = &args.tune {
        let table = lowbit::tune_folder(&args.folder, &progress)?;
        progress.done();
        return write(path, &table);
    }
    let bench = lowbit::bench(&args.folder, args.threads, args.layers, &progress)?;
    progress.done();
    if args.json {
        json(&bench);
        return Ok(());
    }
    if args.layers {
        let mut rows = vec![
            [
                "layer",
                "kernel",
                "µs",
                "least",
                "predicted",
                "MACs",
                "GMAC/s",
                "share",
                "of",
            ]
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
                format!("{:.2}", l.min_us),
                format!("{:.2}", l.predicted_us),
                count(l.macs),
                rate,
                format!("{:.0} %", 100.0 * l.share),
                l.bound.into(),
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

/// Writes a table of latencies, whole or not at all.
fn write(path: &Path, table: &lowbit::LatencyTable) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(table).expect("tables are plain");
    lowbit::write_file(path, (text + "\n").as_bytes())?;
    line(&format!(
        "{} layers of {} measured in each format: {}",
        table.layers.len(),
        table.level,
        path.display()
    ));
    Ok(())
}
