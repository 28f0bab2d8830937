//! Measured tables of the documentation: what takes too long for a test. One file a table.

mod accuracy;
mod allocation;
mod eight_bits;
mod page;
mod sensitivity;

use std::ffi::OsStr;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::shell::{self, cargo, output, root};
use page::{Page, Section};

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
    /// What tells builds of the command apart.
    digest: String,
    zoo: PathBuf,
    /// Names of the models to measure; all where there is none.
    only: Vec<String>,
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
    fn new(only: Vec<String>) -> Result<Self> {
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
        let bytes =
            std::fs::read(&lowbit).with_context(|| format!("cannot read {}", lowbit.display()))?;
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        let bench = Self {
            lowbit,
            digest: format!("{:016x}", hasher.finish()),
            zoo,
            only,
        };
        let known = bench.all()?;
        let unknown = bench
            .only
            .iter()
            .find(|n| known.iter().all(|m| m.name != **n));
        if let Some(name) = unknown {
            let tables: Vec<&str> = ALL.iter().map(|t| t.name).collect();
            let models: Vec<&str> = known.iter().map(|m| m.name.as_str()).collect();
            bail!(
                "'{name}' is neither a table nor a model\n  tables  {}\n  models  {}",
                tables.join(", "),
                models.join(", ")
            );
        }
        Ok(bench)
    }

    /// The page of a table, with the rows that it has.
    pub(crate) fn page(&self, table: &Table, sections: Vec<Section>) -> Page {
        Page::read(&path(table), sections)
    }

    /// What was found for the same key with the same build of the command, or what `make` finds now, which is kept in the
    /// file: so a run that was broken off goes on from there. Failures are not kept.
    pub(crate) fn kept(
        &self,
        file: &Path,
        key: &str,
        make: impl FnOnce() -> Result<Value>,
    ) -> Result<Value> {
        let key = format!("{} {key}", self.digest);
        let known = std::fs::read_to_string(file).ok();
        let known = known.and_then(|text| serde_json::from_str::<Value>(&text).ok());
        if let Some(mut known) = known.filter(|k| k["key"] == *key) {
            return Ok(known["found"].take());
        }
        let found = make()?;
        let text = json!({"key": key, "found": found}).to_string();
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(found)
    }

    /// Folder of the models.
    pub(crate) fn zoo(&self) -> &Path {
        &self.zoo
    }

    /// The models to measure, by name.
    pub(crate) fn models(&self) -> Result<Vec<Model>> {
        let mut models = self.all()?;
        models.retain(|m| self.only.is_empty() || self.only.contains(&m.name));
        Ok(models)
    }

    /// Models that have data, by name.
    fn all(&self) -> Result<Vec<Model>> {
        let mut models: Vec<Model> = std::fs::read_dir(&self.zoo)?
            .filter_map(|e| model(&self.zoo, &e.ok()?.path()))
            .collect();
        models.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(models)
    }

    /// Runs the command with `--json`; gives what it printed.
    pub(crate) fn lowbit(&self, args: &[&OsStr]) -> Result<Value> {
        let text = output(Command::new(&self.lowbit).args(args).arg("--json"))?;
        serde_json::from_str(&text).with_context(|| format!("lowbit {args:?} printed no JSON"))
    }

    /// Runs the command with `--json` and a budget that nothing can meet; gives what it says could be had.
    pub(crate) fn refused(&self, args: &[&OsStr]) -> Result<Value> {
        let ran = Command::new(&self.lowbit)
            .args(args)
            .arg("--json")
            .output()?;
        if ran.status.code() != Some(3) {
            let told = String::from_utf8_lossy(&ran.stderr);
            bail!("lowbit {args:?} ended with {}, not 3: {told}", ran.status);
        }
        serde_json::from_slice(&ran.stdout)
            .with_context(|| format!("lowbit {args:?} printed no JSON"))
    }
}

/// The folder for what a table keeps of a model.
pub(crate) fn folder(table: &Table, model: &Model) -> Result<PathBuf> {
    let folder = root()
        .join("target/tables")
        .join(table.name)
        .join(&model.name);
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// The page that a table is written to.
fn path(table: &Table) -> PathBuf {
    root().join("docs").join(format!("{}.md", table.name))
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

/// Fills the named tables, or all of them; names of models among the names restrict them to these models.
pub(crate) fn run(names: &[String]) -> Result<()> {
    let is_table = |name: &String| ALL.iter().any(|t| t.name == *name);
    let (tables, models): (Vec<String>, Vec<String>) = names.iter().cloned().partition(is_table);
    let bench = Bench::new(models)?;
    for table in ALL {
        if tables.is_empty() || tables.iter().any(|n| n == table.name) {
            eprintln!("tables: {}: {}", table.name, table.what);
            let path = path(table);
            let text = (table.run)(&bench)?;
            std::fs::write(&path, text)
                .with_context(|| format!("cannot write {}", path.display()))?;
            eprintln!("tables: wrote docs/{}.md", table.name);
        }
    }
    Ok(())
}
