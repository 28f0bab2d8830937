mod aims;
mod auc;
mod cell;

use std::path::PathBuf;

use anyhow::Result;
use serde_json::Value;

use super::page::{Section, head};
use super::{Bench, Model, Table, folder};
use auc::Anomalies;
use cell::Cell;

pub(crate) const TABLE: Table = Table {
    name: "accuracy",
    what: "every model at 8, 6, 4.5, 4/4 and 3 bits; what each method wins at 4 bits",
    run,
};

/// A column: its heading and flags.
type Column = (&'static str, &'static [&'static str]);

/// Columns of other tools.
const PEERS: [&str; 2] = ["onnxruntime int8", "NNCF int8"];

const BUDGETS: [Column; 5] = [
    ("W8A8", &["--bits", "8"]),
    ("6 bits", &["--bits", "6"]),
    ("4.5 bits", &["--bits", "4.5"]),
    ("W4A4", &["--bits", "4", "--uniform", "--act-bits", "4"]),
    ("3 bits, effort 3", &["--bits", "3", "--effort", "3"]),
];

/// Flags of a method alone, beside those of 4 bits.
const METHODS: [Column; 8] = [
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
    ("and blocks", &["--effort", "1", "--rounding", "blocks"]),
    (
        "and short training",
        &["--effort", "2", "--rounding", "feedback"],
    ),
    ("effort 2", &["--effort", "2"]),
    ("effort 3", &["--effort", "3"]),
];

/// Flags of all methods.
const METHOD_FLAGS: [&str; 3] = ["--bits", "4", "--uniform"];

const HEAD: &str = "# Accuracy per bit

A cell is **drop / disagreement / divergence**: percentage points of top-1 that the object loses to the float model,
samples in a hundred to which both give different classes, and the mean Kullback-Leibler divergence of their class
distributions in nats. All of it is measured on the whole evaluation split with the emitted object, compiled with the
defaults (`lowbit compile MODEL --data DESC` and the flags of the column); no decision of the compiler reads that split.
A network that finds anomalies loses points of the area under the curve (AUC), averaged over machines; models without
labels show signal to noise in decibels. One sample is 0.02 points of a set of 5000, 0.25 of one of 400 and 0.64 of one
of 156. A budget counts the bits of weights; the first and the last layer keep 8 bits unless they hold more than 5 % of
all weights. onnxruntime is its static int8 in the figures that come with the models. NNCF is what `benches/nncf_int8.py`
measured: its defaults, run by OpenVINO, on the same samples. Where a cell misses what is aimed at, the aim stands behind
it. `cargo xtask tables accuracy MODEL...` measures rows again and goes on where it stopped.

";

const METHODS_HEAD: &str = "
## What each method wins

All layers at 4 bits but the first and the last, 8-bit activations: drop / disagreement / divergence, and seconds of the
compiler, evaluation and the plainer plans it is held against included. The first five are `--effort 1` with
`--rounding`; training, of one block after another (BRECQ with QDrop) or of the whole network, starts from error feedback
and is kept where it lowers the loss on samples held out. Effort 2, the default below 5.5 bits, tries both and keeps the
better; effort 3 does so with four times as many steps.

";

/// The tables of the page.
fn sections() -> Vec<Section> {
    let section = |above, first: &[&'static str], columns: &[Column]| Section {
        above,
        head: head(first.iter().copied().chain(columns.iter().map(|c| c.0))),
        keys: 1,
    };
    vec![
        section(HEAD, &["model", PEERS[0], PEERS[1]], &BUDGETS),
        section(METHODS_HEAD, &["model"], &METHODS),
    ]
}

fn run(bench: &Bench) -> Result<String> {
    let mut page = bench.page(&TABLE, sections());
    for model in bench.models()? {
        let row = Measured::new(bench, &model)?;
        for (at, peer) in (1..).zip(row.peers(bench)) {
            if let Some(peer) = peer {
                page.set(0, &model.name, at, peer)?;
            }
        }
        for (at, (name, flags)) in BUDGETS.iter().enumerate() {
            let cell = row.cell(name, flags).budget(aims::of(&model.name, at));
            page.set(0, &model.name, 1 + PEERS.len() + at, cell)?;
        }
    }
    for model in bench.models()? {
        let row = Measured::new(bench, &model)?;
        for (at, (name, flags)) in (1..).zip(METHODS) {
            let flags = [&METHOD_FLAGS[..], flags].concat();
            let cell = row.cell(&format!("4 bits, {name}"), &flags).method();
            page.set(1, &model.name, at, cell)?;
        }
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
        Ok(Self {
            anomalies: Anomalies::of(&model.data)?,
            bench,
            model,
            folder: folder(&TABLE, model)?,
        })
    }

    /// Measures a cell, or takes what the same command was measured to give before.
    fn cell(&self, name: &str, flags: &[&str]) -> Cell {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        let file = self.folder.join(format!(
            "{}.json",
            name.chars().map(plain).collect::<String>()
        ));
        let kept = self.bench.kept(&file, &flags.join(" "), || {
            eprintln!("tables: {}: {name}", self.model.name);
            let anomalies = self.anomalies.as_ref();
            let found = Cell::measure(self.bench, self.model, flags, &self.folder, anomalies)?;
            eprintln!("tables: {}: {name}: {}", self.model.name, found.method());
            Ok(found.to_json())
        });
        match kept {
            Ok(found) => Cell::of_json(&found),
            Err(e) => {
                eprintln!("tables: {}: {name}: {e:#}", self.model.name);
                Cell::failed(&e)
            }
        }
    }

    /// Figures of other tools' 8 bits: onnxruntime's from the table in the README beside the models, NNCF's from the file
    /// that `benches/nncf_int8.py` writes.
    fn peers(&self, bench: &Bench) -> [Option<String>; 2] {
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
        [onnxruntime, nncf]
    }
}
