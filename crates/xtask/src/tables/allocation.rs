use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::page::{Page, Section, failure, head};
use super::{Bench, Model, Table, folder};

pub(crate) const TABLE: Table = Table {
    name: "allocation",
    what: "mixed plans beside one width for all: at the same average of bits, bit operations and predicted latency",
    run,
};

const HEAD: &str = "# Does allocation pay?

Each row is a budget: `lowbit compile MODEL --data DESC BUDGET --effort 1`. Beside the mixed plan stands the widest single
width for every layer that keeps the same budget, fitted in the same way; of two such plans, one with and one without 8 bits
in a small first and last layer, the better one (one that is predicted to lose three times as much as the other is not
measured). *Loss* is what the quantised network loses on calibration samples that neither was fitted on: divergence from the
float model in nats, or the noise-to-signal ratio of the output where it gives no classes. The compiler measures both and
takes the mixed plan where it loses less by more than the standard error of the paired difference, so that the loss of what
it returns is never above uniform's. *Won* is on the evaluation split, which nothing read before: percentage points of top-1
that the returned object wins over the uniform one, or decibels of signal to noise of the output where there are no labels,
± twice the standard error of the paired difference. Where a cell misses what is aimed at, the aim stands behind it.
`cargo xtask tables allocation MODEL...` measures rows again and goes on where it stopped.

## Average bits

";

const BOPS_HEAD: &str = "
## Bit operations

As many as those of a network whose layers all have weights of so many bits and inputs of 8. Both plans may have inputs of
4 bits.

";

const LATENCY_HEAD: &str = "
## Latency

In six steps from the predicted latency of all layers at 8 bits to the least that any plan can have, by the cost model of
x86-64-v3 (`--cpu x86-64-v3`), where fewer bits are faster. No other budget is given: a layer has fewer than 8 bits only
where that saves time; residual streams have 8 bits in both plans. Where no plan is faster than 8 bits by a hundredth, there is one
row.

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

/// Models whose loss at 4 bits is to be at most [`HALF`] of uniform's.
const HALVED: &[&str] = &[
    "mobilenetv1_0.25_224",
    "mobilenetv2_1.0_224_qat_deq",
    "mobilenetv1_0.25_vww96",
    "autoencoder_ad01",
];
const HALF: f64 = 0.5;

/// Averages of bits; bit operations are those of a network whose layers all have as many bits.
const BITS: [f64; 6] = [6.0, 5.0, 4.5, 4.0, 3.5, 3.0];
/// Budgets between the latency of 8 bits and the least.
const STEPS: u32 = 6;
/// The level that latencies are of.
const LEVEL: [&str; 2] = ["--cpu", "x86-64-v3"];
/// What a budget of latency leaves residual streams at, and a plan without a budget does not.
const NARROW: &[&str] = &["--residual-bits", "8"];
/// Plans must be faster than 8 bits by more than this share to be told apart.
const FASTER: f64 = 0.01;

const COLUMNS: [&str; 5] = ["loss, mixed", "loss, uniform", "ratio", "returned", "won"];

/// Sections of the page.
const BY_BITS: usize = 0;
const BY_BOPS: usize = 1;
const BY_LATENCY: usize = 2;

fn run(bench: &Bench) -> Result<String> {
    let section = |above, budget: &[&'static str]| Section {
        above,
        head: head(budget.iter().copied().chain(COLUMNS)),
        keys: 2,
    };
    let sections = vec![
        section(HEAD, &["model", "bits"]),
        section(BOPS_HEAD, &["model", "bits"]),
        section(LATENCY_HEAD, &["model", "step", "ms"]),
    ];
    let mut page = bench.page(&TABLE, sections);
    for model in bench.models()? {
        if MODELS.contains(&model.name.as_str()) {
            Judge::new(bench, &model)?.rows(&mut page)?;
        }
    }
    Ok(page.text())
}

/// What the rows of a model share.
struct Judge<'a> {
    bench: &'a Bench,
    model: &'a Model,
    folder: PathBuf,
}

impl<'a> Judge<'a> {
    fn new(bench: &'a Bench, model: &'a Model) -> Result<Self> {
        Ok(Self {
            bench,
            model,
            folder: folder(&TABLE, model)?,
        })
    }

    fn rows(&self, page: &mut Page) -> Result<()> {
        let facts = [OsStr::new("inspect"), self.model.onnx.as_os_str()];
        let macs = self.bench.lowbit(&facts)?["macs"].as_f64();
        let macs = macs.context("no count of MACs")?;
        for bits in BITS {
            let halved = bits == 4.0 && HALVED.contains(&self.model.name.as_str());
            let ratio = halved.then_some(HALF);
            let cells = self.cells(&["--bits", &bits.to_string()], ratio);
            self.put(page, BY_BITS, &[bits.to_string()], cells)?;
        }
        for bits in BITS {
            let cells = self.cells(&["--bops", &(macs * bits * 8.0).to_string()], None);
            self.put(page, BY_BOPS, &[bits.to_string()], cells)?;
        }
        self.by_latency(page)
    }

    fn by_latency(&self, page: &mut Page) -> Result<()> {
        let put = |page: &mut Page, step: &str, ms: &str, cells| {
            self.put(page, BY_LATENCY, &[step, ms].map(String::from), cells)
        };
        let (most, least) = match self.latencies() {
            Ok(found) => found,
            Err(e) => return put(page, "–", "–", Err(e)),
        };
        if least > (1.0 - FASTER) * most {
            let none = ["–", "–", "–", "8 bits", "–"].map(String::from);
            return put(page, "–", &most.to_string(), Ok(none.to_vec()));
        }
        for step in 1..=STEPS {
            // the least is what the last step asks for, though a digit is dropped
            let share = f64::from(step) / f64::from(STEPS);
            let ms = (1e6 * (most + share * (least - most))).ceil() / 1e6;
            let ms = ms.to_string();
            let cells = self.cells(&[&["--latency", &ms], &LEVEL[..]].concat(), None);
            put(page, &step.to_string(), &ms, cells)?;
        }
        Ok(())
    }

    fn put(
        &self,
        page: &mut Page,
        section: usize,
        budget: &[String],
        cells: Result<Vec<String>>,
    ) -> Result<()> {
        let mut cells = cells.unwrap_or_else(|e| vec![failure(&e)]);
        cells.resize(COLUMNS.len(), String::new());
        let model = std::iter::once(self.model.name.clone());
        page.put(
            section,
            model.chain(budget.iter().cloned()).chain(cells).collect(),
        )
    }

    /// Milliseconds of all layers at 8 bits, and the fewest of any plan.
    fn latencies(&self) -> Result<(f64, f64)> {
        let file = self.folder.join("latencies.json");
        let found = self.bench.kept(&file, "latencies", || {
            let eight = self.compile("eight", &[&["--bits", "8"], &LEVEL[..]].concat())?;
            let us = eight["totals"]["predicted_latency_us"].as_f64();
            let most = us.context("no latency was predicted")? / 1000.0;
            let args = self.arguments("none", &[&["--latency", "0.000001"], &LEVEL[..]].concat());
            let args: Vec<&OsStr> = args.iter().map(OsString::as_os_str).collect();
            let told = self.bench.refused(&args)?;
            let least = told["least"].as_array().into_iter().flatten();
            let mut least = least.filter(|l| l["budget"] == "latency");
            let least = least.find_map(|l| l["alone"].as_f64());
            Ok(json!([most, least.context("no least latency was told")?]))
        })?;
        let number = |i: usize| found[i].as_f64().context("a latency is no number");
        Ok((number(0)?, number(1)?))
    }

    /// What a budget leads to, see [`COLUMNS`]; `ratio` is the most that is aimed at.
    fn cells(&self, budget: &[&str], ratio: Option<f64>) -> Result<Vec<String>> {
        let name = budget.join("_").replace('-', "");
        let file = self.folder.join(format!("{name}.json"));
        let mixed = self.bench.kept(&file, &budget.join(" "), || {
            eprintln!("tables: {}: {}", self.model.name, budget.join(" "));
            let report = self.compile("mixed", budget)?;
            Ok(json!({
                "tried": report["tried"],
                "names": pluck(&report["layers"], "name"),
                "formats": pluck(&report["layers"], "weight_format"),
                "scores": self.scores("mixed")?,
            }))
        })?;
        let tried = Tried::of(&mixed);
        let Some(uniform) = tried.uniform else {
            return Ok(alone(&mixed, tried.mixed));
        };
        let won = if tried.returned == Some(uniform) {
            Won::nothing()
        } else {
            let streams = if budget.contains(&"--latency") {
                NARROW
            } else {
                &[]
            };
            let other = self.uniform(&mixed["names"], uniform, streams)?;
            Won::over(&mixed["scores"], &other)
        };
        Ok(told(&tried, uniform, ratio, won))
    }

    /// Scores of an object with the formats of a plan that was tried.
    fn uniform(&self, names: &Value, tried: &Value, flags: &[&str]) -> Result<Value> {
        let each = |key: &str| tried[key].as_array().cloned().unwrap_or_default();
        let names = names.as_array().cloned().unwrap_or_default();
        let formats = each("formats").into_iter().zip(each("activations"));
        let layer =
            |(n, (w, a)): (Value, (Value, Value))| json!({"name": n, "weight": w, "activation": a});
        let layers: Vec<Value> = names.into_iter().zip(formats).map(layer).collect();
        let plan = json!({"layers": layers}).to_string();
        let mut hasher = DefaultHasher::new();
        plan.hash(&mut hasher);
        flags.iter().for_each(|f| f.hash(&mut hasher));
        let width = tried["plan"].as_str().unwrap_or("uniform");
        let name = format!("{width}_{:016x}", hasher.finish());
        let path = self.folder.join(format!("{name}.plan.json"));
        std::fs::write(&path, &plan)?;
        self.bench
            .kept(&self.folder.join(format!("{name}.json")), &plan, || {
                eprintln!("tables: {}: {width} everywhere", self.model.name);
                let path = path.display().to_string();
                self.compile("uniform", &[&["--plan", &path], flags].concat())?;
                self.scores("uniform")
            })
    }

    fn arguments(&self, name: &str, flags: &[&str]) -> Vec<OsString> {
        let mut args: Vec<OsString> = vec!["compile".into(), self.model.onnx.clone().into()];
        args.extend(["--data".into(), self.model.data.clone().into()]);
        args.extend(flags.iter().map(OsString::from));
        args.extend(["--effort", "1", "--eval", "none", "-o"].map(OsString::from));
        args.push(self.folder.join(name).into());
        args
    }

    fn compile(&self, name: &str, flags: &[&str]) -> Result<Value> {
        let args = self.arguments(name, flags);
        let args: Vec<&OsStr> = args.iter().map(OsString::as_os_str).collect();
        self.bench.lowbit(&args)
    }

    /// How well an object does on each sample of the evaluation split.
    fn scores(&self, name: &str) -> Result<Value> {
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

/// Columns of the predictions.
const LABEL: usize = 1;
const OBJECT: usize = 3;
const SQNR: usize = 4;

/// Whether samples have labels, and the score of each: 1 or 0 for right or wrong, or decibels where there are no labels.
fn read(file: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(file)?;
    let rows: Vec<Vec<&str>> = text
        .lines()
        .skip(1)
        .map(|l| l.split(',').collect())
        .collect();
    let labels = rows.iter().all(|r| !r[LABEL].is_empty());
    let score = |r: &Vec<&str>| match labels {
        true => Ok(f64::from(u8::from(r[LABEL] == r[OBJECT]))),
        false => r[SQNR].parse::<f64>(),
    };
    let each: Result<Vec<f64>, _> = rows.iter().map(score).collect();
    Ok(json!({"labels": labels, "each": each?}))
}

/// A field of all members of an array.
fn pluck(array: &Value, key: &str) -> Vec<Value> {
    let members = array.as_array().into_iter().flatten();
    members.map(|m| m[key].clone()).collect()
}

/// Plans that the compiler compared.
struct Tried<'a> {
    mixed: Option<&'a Value>,
    /// The best one with a single width.
    uniform: Option<&'a Value>,
    returned: Option<&'a Value>,
}

impl<'a> Tried<'a> {
    fn of(found: &'a Value) -> Self {
        let all = || found["tried"].as_array().into_iter().flatten();
        let others = all().filter(|t| t["plan"] != "mixed");
        Self {
            mixed: all().find(|t| t["plan"] == "mixed"),
            uniform: others.min_by(|a, b| loss(a).total_cmp(&loss(b))),
            returned: all().find(|t| t["returned"] == true),
        }
    }
}

fn loss(tried: &Value) -> f64 {
    tried["loss"].as_f64().unwrap_or(f64::NAN)
}

/// The cells where the compiler compared nothing: the mixed plan has one width itself, or no single width keeps the budget.
fn alone(found: &Value, mixed: Option<&Value>) -> Vec<String> {
    let formats = pluck_strings(&found["formats"]);
    let inner = formats.get(1..formats.len().saturating_sub(1));
    let widths: HashSet<&String> = inner.into_iter().flatten().collect();
    let uniform = match widths.len() {
        1 => "the same plan",
        _ => "no width keeps the budget",
    };
    let number = mixed.map_or("–".into(), |t| format!("{:.4}", loss(t)));
    [&number, uniform, "–", "mixed", "–"]
        .map(String::from)
        .to_vec()
}

fn pluck_strings(array: &Value) -> Vec<String> {
    let members = array.as_array().into_iter().flatten();
    members
        .filter_map(|m| Some(m.as_str()?.to_owned()))
        .collect()
}

/// The cells of a row, with aims where they are missed.
fn told(tried: &Tried, uniform: &Value, aim: Option<f64>, won: Won) -> Vec<String> {
    let mixed = tried.mixed.map_or(f64::NAN, loss);
    let ratio = mixed / loss(uniform);
    let missed = aim.filter(|aim| ratio > *aim);
    let name = |t: &Value| t["plan"].as_str().unwrap_or("mixed").to_owned();
    vec![
        format!("{mixed:.4}"),
        format!("{:.4} ({})", loss(uniform), name(uniform)),
        format!("{ratio:.2}") + &missed.map_or(String::new(), |aim| format!(" (aim {aim})")),
        tried.returned.map_or("mixed".into(), name),
        won.text(),
    ]
}

/// What one object wins over another on the same samples.
struct Won {
    mean: f64,
    /// Twice the standard error of the paired difference.
    margin: f64,
    unit: &'static str,
}

impl Won {
    fn nothing() -> Self {
        Self {
            mean: 0.0,
            margin: 0.0,
            unit: "",
        }
    }

    fn over(own: &Value, other: &Value) -> Self {
        let each = |x: &Value| -> Vec<f64> {
            let scores = x["each"].as_array().into_iter().flatten();
            scores.filter_map(Value::as_f64).collect()
        };
        let (a, b) = (each(own), each(other));
        let (scale, unit) = match own["labels"] == true {
            true => (100.0, ""),
            false => (1.0, " dB"),
        };
        let differences: Vec<f64> = a.iter().zip(&b).map(|(a, b)| scale * (a - b)).collect();
        let n = differences.len() as f64;
        let mean = differences.iter().sum::<f64>() / n;
        let variance = differences.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / n;
        Self {
            mean,
            margin: 2.0 * (variance / n).sqrt(),
            unit,
        }
    }

    /// In words, with the aim where more is lost than chance explains.
    fn text(&self) -> String {
        let Self { mean, margin, unit } = self;
        let aim = match mean + margin < 0.0 {
            true => format!(" (aim −{margin:.2})"),
            false => String::new(),
        };
        format!("{mean:+.2} ± {margin:.2}{unit}{aim}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(labels: bool, each: &[f64]) -> Value {
        json!({"labels": labels, "each": each})
    }

    #[test]
    fn what_is_won_is_paired() {
        let (a, b) = ([1.0, 1.0, 1.0, 0.0], [1.0, 0.0, 1.0, 0.0]);
        let won = |a, b| Won::over(&scores(true, a), &scores(true, b)).text();
        assert_eq!(won(&a, &b), "+25.00 ± 43.30");
        assert_eq!(won(&a, &a), "+0.00 ± 0.00");
        let lost = Won::over(&scores(false, &[9.0, 8.0]), &scores(false, &[10.0, 9.5]));
        assert_eq!(lost.text(), "-1.25 ± 0.35 dB (aim −0.35)");
    }

    #[test]
    fn the_better_uniform_plan_is_compared() {
        let plan = |name: &str, loss: f64| json!({"plan": name, "loss": loss, "returned": name == "mixed"});
        let all = [plan("mixed", 0.03), plan("int4", 0.08), plan("int3", 0.05)];
        let found = json!({"tried": all});
        let tried = Tried::of(&found);
        let cells = told(&tried, tried.uniform.unwrap(), Some(HALF), Won::nothing());
        let expected = [
            "0.0300",
            "0.0500 (int3)",
            "0.60 (aim 0.5)",
            "mixed",
            "+0.00 ± 0.00",
        ];
        assert_eq!(cells, expected);
    }

    #[test]
    fn a_lack_of_uniform_plans_has_a_reason() {
        let cells = |formats: [&str; 4]| alone(&json!({"formats": formats}), None)[1].clone();
        assert_eq!(cells(["int8", "int4", "int4", "int8"]), "the same plan");
        let mixed = cells(["int8", "int4", "int3", "int8"]);
        assert_eq!(mixed, "no width keeps the budget");
    }
}
