//! Measured tables of the documentation: what takes too long for a test. One file a table.

mod accuracy;
mod allocation;
mod eight_bits;
mod sensitivity;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::shell::{self, cargo, output, root};

/// A page of `docs/` that a run of this machine fills.
pub(crate) struct Table {
    /// Name of the task's argument and of the page.
    pub(crate) name: &'static str,
    /// What it shows, in a line.
    pub(crate) what: &'static str,
    /// Measures, and gives the page's text in Markdown.
    pub(crate) run: fn(&Bench) -> Result<String>,
}

const ALL: &[Table] = &[
    eight_bits::TABLE,
    accuracy::TABLE,
    allocation::TABLE,
    sensitivity::TABLE,
];

/// The release build of the command, and the models to run it on.
pub(crate) struct Bench {
    lowbit: PathBuf,
    zoo: PathBuf,
}

/// A trained model with its data.
pub(crate) struct Model {
    pub(crate) name: String,
    /// The ONNX file.
    pub(crate) onnx: PathBuf,
    /// Its descriptor.
    pub(crate) data: PathBuf,
}

impl Bench {
    fn new() -> Result<Self> {
        let shared = std::env::var_os("LOWBIT_SHARED").map(PathBuf::from);
        let zoo = shared
            .unwrap_or_else(|| root().join("../shared"))
            .join("zoo");
        if !zoo.join("models").is_dir() {
            bail!(
                "{} holds no models/; LOWBIT_SHARED=FOLDER names a folder with zoo/NAME.toml and zoo/models/NAME.onnx",
                zoo.display()
            );
        }
        shell::run(cargo().args(["build", "--release", "--quiet", "--bin", "lowbit"]))?;
        let lowbit = root().join("target/release/lowbit");
        Ok(Self { lowbit, zoo })
    }

    /// Folder of the models.
    pub(crate) fn zoo(&self) -> &Path {
        &self.zoo
    }

    /// Models that have data, by name.
    pub(crate) fn models(&self) -> Result<Vec<Model>> {
        let mut models: Vec<Model> = std::fs::read_dir(&self.zoo)?
            .filter_map(|e| model(&self.zoo, &e.ok()?.path()))
            .collect();
        models.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(models)
    }

    /// Runs the command with `--json`; gives what it printed.
    pub(crate) fn lowbit(&self, args: &[&std::ffi::OsStr]) -> Result<Value> {
        let text = output(Command::new(&self.lowbit).args(args).arg("--json"))?;
        serde_json::from_str(&text).with_context(|| format!("lowbit {args:?} printed no JSON"))
    }
}

fn model(zoo: &Path, descriptor: &Path) -> Option<Model> {
    let name = descriptor.file_stem()?.to_str()?.to_owned();
    let onnx = zoo.join("models").join(format!("{name}.onnx"));
    let is_model = descriptor.extension()? == "toml" && onnx.is_file();
    is_model.then(|| Model {
        name,
        onnx,
        data: descriptor.into(),
    })
}

/// Rows in Markdown, the first of them the heading; all columns but the first are aligned to the right.
pub(crate) fn markdown(rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let Some((head, body)) = rows.split_first() else {
        return String::new();
    };
    let rule: Vec<String> = (0..head.len())
        .map(|c| if c == 0 { "---" } else { "---:" }.into())
        .collect();
    let body: String = body.iter().map(|r| line(r)).collect();
    line(head) + &line(&rule) + &body
}

/// Fills the named tables, or all of them.
pub(crate) fn run(names: &[String]) -> Result<()> {
    let unknown = names.iter().find(|n| ALL.iter().all(|t| t.name != **n));
    if let Some(name) = unknown {
        let known: Vec<String> = ALL
            .iter()
            .map(|t| format!("  {:14} {}", t.name, t.what))
            .collect();
        bail!(
            "there is no table '{name}'; there are\n{}",
            known.join("\n")
        );
    }
    let bench = Bench::new()?;
    for table in ALL {
        if names.is_empty() || names.iter().any(|n| n == table.name) {
            eprintln!("tables: {}: {}", table.name, table.what);
            let path = root().join("docs").join(format!("{}.md", table.name));
            let text = (table.run)(&bench)?;
            std::fs::write(&path, text)
                .with_context(|| format!("cannot write {}", path.display()))?;
            eprintln!("tables: wrote docs/{}.md", table.name);
        }
    }
    Ok(())
}
