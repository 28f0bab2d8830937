use std::ffi::{OsStr, OsString};
use std::time::Instant;

use anyhow::Result;
use serde_json::Value;

use super::{Bench, Model, Table, markdown};

pub(crate) const TABLE: Table = Table {
    name: "accuracy",
    what: "every model at 8, 6, 4.5, 4/4 and 3 bits; what each method wins at 4 bits",
    run,
};

const HEAD: &str = "# Accuracy per bit

A cell is **drop / disagreement / divergence**: percentage points of top-1 that the object loses to the float model,
samples in a hundred to which both give different classes, and the mean Kullback-Leibler divergence of their class
distributions in nats. All of it is measured on the whole evaluation split with the emitted object, compiled with the
defaults (`lowbit compile MODEL --data DESC` and the flags of the column); no decision of the compiler reads that split.
Models without labels show signal to noise in decibels. One sample is 0.02 points of a set of 5000, 0.25 of one of 400 and
0.64 of one of 156. A budget counts the bits of weights; the first and the last layer keep 8 bits unless they hold more
than 5 % of all weights. onnxruntime is its static int8 in the figures that come with the models.

";

const METHODS: &str = "
## What each method wins

All layers at 4 bits but the first and the last, 8-bit activations: drop / disagreement / divergence, and seconds of the
compiler. `--effort 0` rounds each weight to its nearest code and corrects biases, 1 rounds with error feedback in the
same pass, 2 chooses ranges by measured loss and trains for a short time, 3 for a long one.

";

/// A column: its heading and flags.
const COLUMNS: [(&str, &[&str]); 5] = [
    ("W8A8", &["--bits", "8"]),
    ("6 bits", &["--bits", "6"]),
    ("4.5 bits", &["--bits", "4.5"]),
    ("W4A4", &["--bits", "4", "--uniform", "--act-bits", "4"]),
    ("3 bits, effort 3", &["--bits", "3", "--effort", "3"]),
];

fn run(bench: &Bench) -> Result<String> {
    let peers = peers(bench)?;
    let mut head = vec!["model".to_owned(), "onnxruntime int8".to_owned()];
    head.extend(COLUMNS.iter().map(|c| c.0.to_owned()));
    let (mut rows, mut methods) = (vec![head], vec![method_head()]);
    for model in bench.models()? {
        eprintln!("tables: {}", model.name);
        let peer = peers
            .iter()
            .find(|p| p.0 == model.name)
            .map_or("–", |p| &p.1);
        let mut row = vec![model.name.clone(), peer.to_owned()];
        row.extend(
            COLUMNS
                .iter()
                .map(|(_, flags)| cell(bench, &model, flags).0),
        );
        rows.push(row);
        methods.push(method_row(bench, &model));
    }
    Ok(HEAD.to_owned() + &markdown(&rows) + METHODS + &markdown(&methods))
}

fn method_head() -> Vec<String> {
    ["model", "effort 0", "effort 1", "effort 2", "effort 3"]
        .map(String::from)
        .to_vec()
}

fn method_row(bench: &Bench, model: &Model) -> Vec<String> {
    let one = |effort: &str| {
        let flags = ["--bits", "4", "--uniform", "--effort", effort];
        let (text, seconds) = cell(bench, model, &flags);
        format!("{text} ({seconds:.0} s)")
    };
    let efforts = ["0", "1", "2", "3"].map(one);
    std::iter::once(model.name.clone()).chain(efforts).collect()
}

/// What a compilation reached, or why it failed, and the seconds that it took.
fn cell(bench: &Bench, model: &Model, flags: &[&str]) -> (String, f64) {
    let out = crate::shell::root().join("target/tables").join(&model.name);
    let mut args: Vec<OsString> = vec!["compile".into(), model.onnx.clone().into()];
    args.extend([
        "--data".into(),
        model.data.clone().into(),
        "-o".into(),
        out.into(),
    ]);
    args.extend(flags.iter().map(OsString::from));
    let args: Vec<&OsStr> = args.iter().map(OsString::as_os_str).collect();
    let start = Instant::now();
    let report = bench.lowbit(&args);
    let text = report.map_or_else(|e| format!("{e:#}"), |r| reached(&r["accuracy"]));
    (
        text.replace(['|', '\n'], " "),
        start.elapsed().as_secs_f64(),
    )
}

fn reached(accuracy: &Value) -> String {
    let number = |key: &str| accuracy[key].as_f64();
    match (number("float_top1"), number("top1"), number("agreement")) {
        (Some(float), Some(top1), Some(agreement)) => {
            let divergence = number("divergence").map_or("–".into(), |d| format!("{d:.4}"));
            format!(
                "{:.2} / {:.2} / {divergence}",
                100.0 * (float - top1),
                100.0 * (1.0 - agreement)
            )
        }
        _ => number("sqnr_db").map_or("–".into(), |d| format!("{d:.1} dB")),
    }
}

/// Drop and disagreement of onnxruntime's int8 by model, from the table in the README beside the models: the columns of
/// float top-1, int8 top-1 and agreement are the sixth, the seventh and the last.
fn peers(bench: &Bench) -> Result<Vec<(String, String)>> {
    let text = std::fs::read_to_string(bench.zoo().join("README.md")).unwrap_or_default();
    Ok(text.lines().filter_map(peer).collect())
}

fn peer(line: &str) -> Option<(String, String)> {
    let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
    let &[name, .., float, int8, agreement] = &cells[..] else {
        return None;
    };
    let first = |text: &str| text.split('/').next()?.trim().parse::<f64>().ok();
    let (float, int8, agreement) = (first(float)?, first(int8)?, first(agreement)?);
    let name = name.split_whitespace().next()?;
    let text = format!(
        "{:.2} / {:.2}",
        100.0 * (float - int8),
        100.0 * (1.0 - agreement)
    );
    Some((name.to_owned(), text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_a_row_of_figures() {
        let row =
            "| net (small) | cnn | 78 k | 12.5 M | data | .7486 | .7546 / .7554 | .9644 / .9646 |";
        assert_eq!(peer(row), Some(("net".into(), "-0.60 / 3.56".into())));
        assert_eq!(
            peer("| model | kind | float top-1 | int8 | agreement |"),
            None
        );
        assert_eq!(peer("| a | mlp | AUC .8931 | .8869 | – |"), None);
    }
}
