//! What one compilation reached.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use serde_json::{Value, json};

use super::aims::Aim;
use super::auc::Anomalies;
use crate::tables::page::failure;
use crate::tables::{Bench, Model};

/// Figures of an object; what its model does not have is missing.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Cell {
    /// Percentage points of top-1, or of the area under the curve, lost to the float model.
    drop: Option<f64>,
    /// Samples in a hundred that both give different classes to.
    disagreement: Option<f64>,
    divergence: Option<f64>,
    sqnr_db: Option<f64>,
    /// Whether the drop is one of the area under the curve.
    is_auc: bool,
    seconds: f64,
    /// Why there are no figures.
    failure: Option<String>,
}

impl Cell {
    /// Compiles and evaluates on the whole evaluation split.
    pub(super) fn measure(
        bench: &Bench,
        model: &Model,
        flags: &[&str],
        folder: &Path,
        anomalies: Option<&Anomalies>,
    ) -> Result<Self> {
        let out = folder.join("out");
        let mut args: Vec<OsString> = ["compile".into(), model.onnx.clone().into()].into();
        args.extend(["--data".into(), model.data.clone().into()]);
        args.extend(["-o".into(), out.clone().into()]);
        args.extend(flags.iter().map(OsString::from));
        let args: Vec<&OsStr> = args.iter().map(OsString::as_os_str).collect();
        let start = Instant::now();
        let report = bench.lowbit(&args)?;
        let seconds = start.elapsed().as_secs_f64();
        let cell = Self {
            seconds,
            ..Self::reached(&report["accuracy"])
        };
        match anomalies {
            None => Ok(cell),
            Some(a) => Ok(Self {
                drop: Some(100.0 * a.lost(bench, model, &out, folder)?),
                is_auc: true,
                ..cell
            }),
        }
    }

    /// A cell that tells why there are no figures.
    pub(super) fn failed(error: &anyhow::Error) -> Self {
        Self {
            failure: Some(failure(error)),
            ..Self::default()
        }
    }

    fn reached(accuracy: &Value) -> Self {
        let number = |key: &str| accuracy[key].as_f64();
        let lost = |(float, own): (f64, f64)| 100.0 * (float - own);
        Self {
            drop: number("float_top1").zip(number("top1")).map(lost),
            disagreement: number("agreement")
                .filter(|_| number("top1").is_some())
                .map(|a| 100.0 * (1.0 - a)),
            divergence: number("divergence"),
            sqnr_db: number("sqnr_db"),
            ..Self::default()
        }
    }

    /// The figures, and the aim where they miss it.
    pub(super) fn budget(&self, aim: Option<Aim>) -> String {
        let over = |found: Option<f64>, most: Option<f64>| {
            found.zip(most).is_some_and(|(f, m)| f > m + 5e-3)
        };
        let text = self.text();
        let Some((drop, disagreement)) = aim else {
            return text;
        };
        if self.failure.is_none()
            && !over(self.drop, Some(drop))
            && !over(self.disagreement, disagreement)
        {
            return text;
        }
        let aim = disagreement.map_or(format!("{drop}"), |d| format!("{drop} / {d}"));
        format!("{text} (aim {aim})")
    }

    /// The figures and the seconds that they took.
    pub(super) fn method(&self) -> String {
        format!("{} ({:.0} s)", self.text(), self.seconds)
    }

    fn text(&self) -> String {
        if let Some(failure) = &self.failure {
            return failure.clone();
        }
        let number =
            |x: Option<f64>, digits: usize| x.map_or("–".into(), |x| format!("{x:.digits$}"));
        match (self.is_auc, self.drop) {
            (true, drop) => format!(
                "{} of AUC / {} dB",
                number(drop, 2),
                number(self.sqnr_db, 1)
            ),
            (false, None) => format!("{} dB", number(self.sqnr_db, 1)),
            (false, drop) => [(drop, 2), (self.disagreement, 2), (self.divergence, 4)]
                .map(|(x, digits)| number(x, digits))
                .join(" / "),
        }
    }

    /// The figures as [`Self::of_json`] takes them.
    pub(super) fn to_json(&self) -> Value {
        json!({
            "drop": self.drop,
            "disagreement": self.disagreement,
            "divergence": self.divergence,
            "sqnr_db": self.sqnr_db,
            "is_auc": self.is_auc,
            "seconds": self.seconds,
        })
    }

    /// Figures that were kept.
    pub(super) fn of_json(kept: &Value) -> Self {
        Self {
            drop: kept["drop"].as_f64(),
            disagreement: kept["disagreement"].as_f64(),
            divergence: kept["divergence"].as_f64(),
            sqnr_db: kept["sqnr_db"].as_f64(),
            is_auc: kept["is_auc"] == true,
            seconds: kept["seconds"].as_f64().unwrap_or_default(),
            failure: None,
        }
    }
}

/// Drop and disagreement of onnxruntime's int8, from a row of the README beside the models: the columns of float top-1,
/// int8 top-1 and agreement are the last three.
pub(super) fn peer(line: &str) -> Option<(String, String)> {
    let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
    let &[name, .., float, int8, agreement] = &cells[..] else {
        return None;
    };
    let first = |text: &str| text.split('/').next()?.trim().parse::<f64>().ok();
    let name = name.split_whitespace().next()?.to_owned();
    if let Some(float) = float.strip_prefix("AUC") {
        let lost = 100.0 * (first(float)? - first(int8)?);
        return Some((name, format!("{lost:.2} of AUC")));
    }
    let lost = 100.0 * (first(float)? - first(int8)?);
    let apart = 100.0 * (1.0 - first(agreement)?);
    Some((name, format!("{lost:.2} / {apart:.2}")))
}

/// Figures of a model in what `benches/nncf_int8.py` writes.
pub(super) fn nncf(found: &Value) -> Option<String> {
    let drop = found["drop"].as_f64()?;
    let apart = found["disagreement"]
        .as_f64()
        .zip(found["divergence"].as_f64());
    Some(match apart {
        Some((apart, divergence)) => format!("{drop:.2} / {apart:.2} / {divergence:.4}"),
        None => format!("{drop:.2} of AUC"),
    })
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
        let row = "| a (mlp) | mlp | AUC .8931 | .8869 / .8869 | – |";
        assert_eq!(peer(row), Some(("a".into(), "0.62 of AUC".into())));
    }

    #[test]
    fn another_tools_figures_are_read() {
        let found = json!({"drop": -0.111, "disagreement": 1.667, "divergence": 0.01332});
        assert_eq!(nncf(&found), Some("-0.11 / 1.67 / 0.0133".into()));
        assert_eq!(nncf(&json!({"drop": 14.611})), Some("14.61 of AUC".into()));
        assert_eq!(nncf(&json!({})), None);
    }

    #[test]
    fn a_missed_aim_is_told() {
        let accuracy =
            json!({"float_top1": 0.91, "top1": 0.9, "agreement": 0.98, "divergence": 0.01});
        let cell = Cell::reached(&accuracy);
        assert_eq!(cell.budget(Some((1.0, Some(2.0)))), "1.00 / 2.00 / 0.0100");
        assert_eq!(
            cell.budget(Some((0.9, Some(3.0)))),
            "1.00 / 2.00 / 0.0100 (aim 0.9 / 3)"
        );
    }

    #[test]
    fn figures_are_kept() {
        let cell = Cell {
            drop: Some(0.25),
            is_auc: true,
            seconds: 3.0,
            ..Cell::default()
        };
        assert_eq!(Cell::of_json(&cell.to_json()), cell);
    }
}
