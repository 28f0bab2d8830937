//! The page: rows that were not measured again stay as they are.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{BUDGETS, METHODS};
use crate::tables::markdown;

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
compiler, evaluation and the plainer plans it is held against included. The first four are `--effort 1` with
`--rounding`; training starts from error feedback and is kept where it lowers the loss on samples held out.

";

/// Which table a row is of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Row {
    Budgets,
    Methods,
}

pub(super) struct Page {
    path: PathBuf,
    tables: [Vec<Vec<String>>; 2],
}

impl Page {
    /// The rows of a page, where there is one with the same columns.
    pub(super) fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        Self {
            path: path.into(),
            tables: [Row::Budgets, Row::Methods].map(|t| rows(&text, &head(t))),
        }
    }

    /// Puts a model's cells in the place of those that it had.
    pub(super) fn put(&mut self, table: Row, model: &str, cells: &[String]) {
        let rows = &mut self.tables[table as usize];
        rows.retain(|r| r[0] != model);
        let row = std::iter::once(model.to_owned()).chain(cells.iter().cloned());
        rows.push(row.collect());
        rows.sort();
    }

    pub(super) fn text(&self) -> String {
        let [budgets, methods] = [Row::Budgets, Row::Methods].map(|t| {
            let rows = self.tables[t as usize].iter().cloned();
            markdown(&std::iter::once(head(t)).chain(rows).collect::<Vec<_>>())
        });
        HEAD.to_owned() + &budgets + METHODS_HEAD + &methods
    }

    pub(super) fn write(&self) -> Result<()> {
        let path = &self.path;
        std::fs::write(path, self.text())
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

fn head(table: Row) -> Vec<String> {
    let (first, columns): (&[&str], &[_]) = match table {
        Row::Budgets => (&["model", "onnxruntime int8", "NNCF int8"], &BUDGETS),
        Row::Methods => (&["model"], &METHODS),
    };
    let names = first.iter().copied().chain(columns.iter().map(|c| c.0));
    names.map(String::from).collect()
}

/// The rows below a heading.
fn rows(text: &str, head: &[String]) -> Vec<Vec<String>> {
    let cells = |line: &str| -> Vec<String> {
        let inner = line.trim().trim_start_matches('|').trim_end_matches('|');
        inner.split('|').map(|c| c.trim().to_owned()).collect()
    };
    let below = text.lines().skip_while(|l| cells(l) != head).skip(2);
    below
        .take_while(|l| l.starts_with('|'))
        .map(cells)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_are_not_measured_again_stay() {
        let path = std::env::temp_dir().join(format!("lowbit-page-{}.md", std::process::id()));
        let cells = |x: &str, table| vec![x.to_owned(); head(table).len() - 1];
        let mut page = Page::read(&path);
        page.put(Row::Budgets, "b", &cells("1", Row::Budgets));
        page.put(Row::Methods, "b", &cells("2", Row::Methods));
        page.write().unwrap();
        let mut page = Page::read(&path);
        page.put(Row::Budgets, "a", &cells("3", Row::Budgets));
        page.put(Row::Budgets, "b", &cells("4", Row::Budgets));
        std::fs::remove_file(&path).unwrap();
        let first = |t: usize| {
            page.tables[t]
                .iter()
                .map(|r| r[..2].join(" "))
                .collect::<Vec<_>>()
        };
        assert_eq!(first(0), ["a 3", "b 4"]);
        assert_eq!(first(1), ["b 2"]);
    }
}
