use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Bench, Model, Table, markdown};

pub(crate) const TABLE: Table = Table {
    name: "allocation",
    what: "mixed plans beside one width for all, at the same average of bits and at the same bit operations",
    run,
};

const HEAD: &str = "# Does allocation pay?

Each row is a budget: `lowbit compile MODEL --data DESC BUDGET --effort 1`. Beside it stands one width for every layer
that keeps the same budget, fitted in the same way. *Loss* is what the quantised network loses on calibration samples that
neither was fitted on: divergence from the float model in nats, or the noise-to-signal ratio of the output where it gives no
classes. The compiler measures both and takes the better one, so that the loss of what it returns is never above uniform's.
*Top-1* is on the evaluation split, which nothing read before: what the returned object wins over the uniform one, in
percentage points, ± twice the standard error of the paired difference.

";

const MODELS: &[&str] = &[
    "resnet20_cifar10",
    "resnet56_cifar10",
    "mobilenetv2_1.0_224_qat_deq",
    "vit_cifar10",
    "dscnn_kws",
    "mobilenetv1_0.25_224",
    "mobilenetv1_0.25_vww96",
    "autoencoder_ad01",
];

/// Averages of bits; bit operations are those of a network whose layers all have as many bits.
const BITS: [f64; 6] = [6.0, 5.0, 4.5, 4.0, 3.5, 3.0];

fn run(bench: &Bench) -> Result<String> {
    let mut text = HEAD.to_owned();
    for (title, flag) in [("Average bits", "--bits"), ("Bit operations", "--bops")] {
        let mut rows = vec![
            [
                "model",
                "bits",
                "loss, mixed",
                "loss, uniform",
                "ratio",
                "returned",
                "top-1",
            ]
            .map(String::from)
            .to_vec(),
        ];
        for model in bench.models()? {
            if MODELS.contains(&model.name.as_str()) {
                eprintln!("tables: {} by {flag}", model.name);
                let mut cells = Cells::new(bench, &model)?;
                rows.extend(BITS.iter().map(|&bits| cells.row(flag, bits)));
            }
        }
        text += &format!("## {title}\n\n{}\n", markdown(&rows));
    }
    Ok(text)
}

/// What the rows of a model share.
struct Cells<'a> {
    bench: &'a Bench,
    model: &'a Model,
    folder: PathBuf,
    macs: f64,
    /// Classes by one width for all, by the width.
    uniform: BTreeMap<u32, Vec<[i64; 2]>>,
}

impl<'a> Cells<'a> {
    fn new(bench: &'a Bench, model: &'a Model) -> Result<Self> {
        let facts = bench.lowbit(&["inspect".as_ref(), model.onnx.as_os_str()])?;
        let folder = crate::shell::root().join("target/tables/allocation");
        Ok(Self {
            bench,
            model,
            folder: folder.join(&model.name),
            macs: facts["macs"].as_f64().context("no count of MACs")?,
            uniform: BTreeMap::new(),
        })
    }

    fn row(&mut self, flag: &str, bits: f64) -> Vec<String> {
        let found = self.cells(flag, bits);
        let cells = found.unwrap_or_else(|e| vec![format!("{e:#}").replace(['|', '\n'], " ")]);
        [vec![self.model.name.clone(), bits.to_string()], cells].concat()
    }

    fn cells(&mut self, flag: &str, bits: f64) -> Result<Vec<String>> {
        let value = match flag {
            "--bops" => (self.macs * bits * 8.0).to_string(),
            _ => bits.to_string(),
        };
        let report = self.compile("mixed", &[flag.as_ref(), value.as_ref()])?;
        let tried = report["tried"].as_array().cloned().unwrap_or_default();
        let loss = |mixed: bool| {
            let own = tried.iter().filter(|t| (t["plan"] == "mixed") == mixed);
            own.filter_map(|t| t["loss"].as_f64()).reduce(f64::min)
        };
        let returned = tried.iter().find(|t| t["returned"] == true);
        let returned = returned.and_then(|t| t["plan"].as_str()).unwrap_or("mixed");
        let number = |x: Option<f64>| x.map_or("–".into(), |x| format!("{x:.4}"));
        let ratio = loss(true).zip(loss(false)).map(|(m, u)| m / u);
        let own = self.classes("mixed")?;
        let width = bits.floor() as u32;
        if !self.uniform.contains_key(&width) {
            let found = self.at_one_width(&report, width)?;
            self.uniform.insert(width, found);
        }
        Ok(vec![
            number(loss(true)),
            number(loss(false)),
            ratio.map_or("–".into(), |r| format!("{r:.2}")),
            returned.to_owned(),
            won(&own, &self.uniform[&width]),
        ])
    }

    fn at_one_width(&self, report: &Value, width: u32) -> Result<Vec<[i64; 2]>> {
        let layers = report["layers"].as_array().context("no layers")?;
        let weighted = layers
            .iter()
            .filter(|l| l["params"].as_u64().unwrap_or(0) > 0);
        let layer = |l: &Value| json!({"name": l["name"], "weight": format!("int{width}"), "activation": "int8"});
        let plan = json!({"layers": weighted.map(layer).collect::<Vec<_>>()});
        let path = self.folder.join("uniform.json");
        std::fs::write(&path, plan.to_string())?;
        self.compile("uniform", &["--plan".as_ref(), path.as_os_str()])?;
        self.classes("uniform")
    }

    fn compile(&self, name: &str, flags: &[&OsStr]) -> Result<Value> {
        std::fs::create_dir_all(&self.folder)?;
        let out = self.folder.join(name);
        let mut args: Vec<OsString> = vec!["compile".into(), self.model.onnx.clone().into()];
        args.extend(["--data".into(), self.model.data.clone().into()]);
        args.extend(flags.iter().map(|&f| f.to_owned()));
        args.extend(["--effort", "1", "--eval", "none", "-o"].map(OsString::from));
        args.push(out.into());
        let args: Vec<&OsStr> = args.iter().map(OsString::as_os_str).collect();
        self.bench.lowbit(&args)
    }

    /// Own class and the object's for each sample of the evaluation split; nothing where there are no labels.
    fn classes(&self, name: &str) -> Result<Vec<[i64; 2]>> {
        let file = self.folder.join(format!("{name}.csv"));
        self.bench.lowbit(&[
            "eval".as_ref(),
            self.folder.join(name).as_os_str(),
            "--data".as_ref(),
            self.model.data.as_os_str(),
            "--predictions".as_ref(),
            file.as_os_str(),
        ])?;
        read(&file)
    }
}

fn read(file: &Path) -> Result<Vec<[i64; 2]>> {
    let text = std::fs::read_to_string(file)?;
    let row = |line: &str| {
        let cells: Vec<&str> = line.split(',').collect();
        Some([cells.get(1)?.parse().ok()?, cells.get(3)?.parse().ok()?])
    };
    Ok(text.lines().skip(1).filter_map(row).collect())
}

/// Percentage points that the first wins over the second, ± twice the standard error of the paired difference.
fn won(a: &[[i64; 2]], b: &[[i64; 2]]) -> String {
    if a.is_empty() || a.len() != b.len() {
        return "–".into();
    }
    let right = |x: &[i64; 2]| f64::from(u8::from(x[0] == x[1]));
    let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| right(a) - right(b)).collect();
    let n = differences.len() as f64;
    let mean = differences.iter().sum::<f64>() / n;
    let variance = differences.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / n;
    format!(
        "{:+.2} ± {:.2}",
        100.0 * mean,
        200.0 * (variance / n).sqrt()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_won_is_paired() {
        let a = [[1, 1], [2, 2], [3, 3], [4, 0]];
        let b = [[1, 1], [2, 0], [3, 3], [4, 0]];
        assert_eq!(won(&a, &b), "+25.00 ± 43.30");
        assert_eq!(won(&a, &a), "+0.00 ± 0.00");
        assert_eq!(won(&[], &[]), "–");
    }
}
