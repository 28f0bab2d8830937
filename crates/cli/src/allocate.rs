use std::path::PathBuf;

use lowbit::{Allocated, Error};

use crate::budget::Budgets;
use crate::output::{json, line, table};

/// Choose formats by layer from a sensitivity file.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  lowbit sensitivity net.onnx --data calib.toml --metric kl -o s.json\n  lowbit allocate s.json --bits 4.5 -o plan.json\n  lowbit compile net.onnx --data calib.toml --plan plan.json -o out/"
)]
pub(crate) struct Args {
    /// A file that `sensitivity` wrote, or one of your own.
    file: PathBuf,
    #[command(flatten)]
    budgets: Budgets,
    /// File to write the plan to.
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Print the result as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let found = lowbit::allocate(&args.file, &args.budgets.limits(), &args.budgets.pin)?;
    if let Some(path) = &args.output {
        lowbit::write_file(path, lowbit::report::to_json(&found.plan).as_bytes())?;
    }
    if args.json {
        print_json(&found);
    } else {
        print(&found);
    }
    Ok(())
}

fn print_json(found: &Allocated) {
    let a = &found.allocation;
    json(&serde_json::json!({
        "status": "optimal",
        "objective": a.objective,
        "bound": a.bound,
        "gap": a.objective - a.bound,
        "choice": a.choice,
        "totals": a.totals,
        "certificate": a.certificate,
    }));
}

fn print(found: &Allocated) {
    let a = &found.allocation;
    let mut rows = vec![
        ["layer", "weights", "input", "loss"]
            .map(String::from)
            .to_vec(),
    ];
    for (layer, &choice) in found.table.layers.iter().zip(&a.choice) {
        let c = &layer.choices[choice];
        rows.push(vec![
            layer.name.clone(),
            c.weight.clone(),
            c.activation.clone(),
            format!("{:.3e}", c.loss),
        ]);
    }
    table(&rows);
    for (name, total) in &a.totals {
        line(&format!("{name} {total}"));
    }
    line(&format!(
        "predicted loss {:.6e}, proved to be the least; prices alone prove {:.6e}",
        a.objective, a.certificate.bound
    ));
}
