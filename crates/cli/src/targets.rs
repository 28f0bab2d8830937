use lowbit::Error;

use crate::output::{json, table};

/// List the feature levels that objects can be written for.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  lowbit targets\n  lowbit compile net.onnx --cpu x86-64-v3 -o out/"
)]
pub(crate) struct Args {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let levels = lowbit::targets();
    if args.json {
        json(&levels);
        return Ok(());
    }
    let mut rows = vec![
        ["level", "processors", "vector", ""]
            .map(String::from)
            .to_vec(),
    ];
    for l in levels {
        let mark = if l.native { "← native here" } else { "" };
        rows.push(vec![
            l.name,
            l.archs.join(" "),
            format!("{} bytes", l.vector_bytes),
            mark.into(),
        ]);
    }
    table(&rows);
    Ok(())
}
