mod aims;
mod auc;
mod cell;
mod page;

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{Bench, Model, Table};
use auc::Anomalies;
use cell::Cell;
use page::{Page, Row};

pub(crate) const TABLE: Table = Table {
    name: "accuracy",
    what: "every model at 8, 6, 4.5, 4/4 and 3 bits; what each method wins at 4 bits",
    run,
};

/// A column: its heading and flags.
type Column = (&'static str, &'static [&'static str]);

const BUDGETS: [Column; 5] = [
    ("W8A8", &["--bits", "8"]),
    ("6 bits", &["--bits", "6"]),
    ("4.5 bits", &["--bits", "4.5"]),
    ("W4A4", &["--bits", "4", "--uniform", "--act-bits", "4"]),
    ("3 bits, effort 3", &["--bits", "3", "--effort", "3"]),
];

/// Flags of a method alone, beside those of 4 bits.
const METHODS: [Column; 6] = [
    ("nearest", &["--effort", "1", "--rounding", "nearest"]),
    (
        "biases corrected",
        &["--effort", "1", "--rounding", "corrected"],
    ),
    ("AdaRound", &["--effort", "1", "--rounding", "adaround"]),
    (
        "error feedback",
        &["--effort", "1", "--rounding", "feedback"],
    ),
    ("and short training", &["--effort", "2"]),
    ("and long training", &["--effort", "3"]),
];

/// Flags of all methods.
const METHOD_FLAGS: [&str; 3] = ["--bits", "4", "--uniform"];

fn run(bench: &Bench) -> Result<String> {
    let mut page = Page::read(&bench.page(TABLE.name));
    for model in bench.models()? {
        let row = Measured::new(bench, &model)?;
        let budgets = BUDGETS.iter().enumerate().map(|(at, (name, flags))| {
            let cell = row.cell(name, flags);
            let aim = aims::of(&model.name, at);
            cell.budget(aim)
        });
        let budgets: Vec<String> = budgets.collect();
        page.put(
            Row::Budgets,
            &model.name,
            &[row.peers(bench), budgets].concat(),
        );
        page.write()?;
    }
    for model in bench.models()? {
        let row = Measured::new(bench, &model)?;
        let methods = METHODS.iter().map(|(name, flags)| {
            let flags = [&METHOD_FLAGS[..], flags].concat();
            row.cell(&format!("4 bits, {name}"), &flags).method()
        });
        page.put(Row::Methods, &model.name, &methods.collect::<Vec<String>>());
        page.write()?;
    }
    Ok(page.text())
}

/// A model with what its cells are kept under.
struct Measured<'a> {
    bench: &'a Bench,
    model: &'a Model,
    anomalies: Option<Anomalies>,
    folder: PathBuf,
}

impl<'a> Measured<'a> {
    fn new(bench: &'a Bench, model: &'a Model) -> Result<Self> {
        let folder = crate::shell::root().join("target/tables").join(&model.name);
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self {
            anomalies: Anomalies::of(&model.data)?,
            bench,
            model,
            folder,
        })
    }

    /// Measures a cell, or takes what the same command was measured to give before.
    fn cell(&self, name: &str, flags: &[&str]) -> Cell {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        let file = self.folder.join(format!(
            "{}.json",
            name.chars().map(plain).collect::<String>()
        ));
        let key = format!("{} {}", self.bench.digest(), flags.join(" "));
        if let Some(known) = Cell::read(&file, &key) {
            return known;
        }
        eprintln!("tables: {}: {name}", self.model.name);
        let found = Cell::measure(
            self.bench,
            self.model,
            flags,
            &self.folder,
            self.anomalies.as_ref(),
        );
        eprintln!("tables: {}: {name}: {}", self.model.name, found.method());
        found.write(&file, &key);
        found
    }

    /// Figures of other tools' 8 bits: onnxruntime's from the table in the README beside the models, NNCF's from the file
    /// that `benches/nncf_int8.py` writes.
    fn peers(&self, bench: &Bench) -> Vec<String> {
        let read = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
        let text = read(bench.zoo().join("README.md"));
        let onnxruntime = text
            .lines()
            .filter_map(cell::peer)
            .find(|p| p.0 == self.model.name)
            .map(|p| p.1);
        let tables = crate::shell::root().join("target/tables");
        let nncf: Option<Value> = serde_json::from_str(&read(tables.join("nncf.json"))).ok();
        let nncf = nncf.and_then(|all| cell::nncf(all.get(&self.model.name)?));
        [onnxruntime, nncf].map(|p| p.unwrap_or("–".into())).into()
    }
}
