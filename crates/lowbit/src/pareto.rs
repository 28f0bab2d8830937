//! `lowbit pareto`: the best plans from the smallest budget to the largest, from one measurement of sensitivity.

use std::path::{Path, PathBuf};

use lowbit_passes::allocate::{Budget, Limits, Pin, Refusal, allocate, weight_bits};
use lowbit_passes::sensitivity::{Metric, layers};
use lowbit_report::{Plan, Point, SensitiveChoice, Sensitivity, quoted};
use serde::Serialize;

use crate::artefact::object_name;
use crate::decide::{best, default_pins, formats, narrowed, reasoned};
use crate::fit::Quantizer;
use crate::fit::judged::mean;
use crate::model::{Model, Shapes};
use crate::sensitivity::{SensitivityOptions, sensitivity_of};
use crate::tie::Tying;
use crate::tuning::Tuning;
use crate::whole::write_all;
use crate::{Cache, Error, Progress, floats};

/// What a frontier is drawn over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// Average bits of a weight.
    Bits,
    /// Bytes of weights.
    Size,
    /// Bit operations.
    Bops,
}

impl Over {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Bits, Self::Size, Self::Bops];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        &self.budget().flag()[2..]
    }

    fn budget(self) -> Budget {
        match self {
            Self::Bits => Budget::Bits,
            Self::Size => Budget::Size,
            Self::Bops => Budget::Bops,
        }
    }
}

/// How a frontier is found.
#[derive(Clone, Debug)]
pub struct ParetoOptions {
    /// Shapes of inputs by name.
    pub shapes: Shapes,
    /// The budget that moves.
    pub over: Over,
    /// Budgets between the least and the most that a plan takes, both included.
    pub points: usize,
    /// Formats that layers must have.
    pub pins: Vec<Pin>,
    /// How losses are predicted; where it is not given, by what orders random mixed plans best on this model.
    pub metric: Option<Metric>,
    /// Layers that share their formats.
    pub tie: Option<Tying>,
    /// Whether each plan is also quantised and measured on samples held out.
    pub measure: bool,
    /// Seed of everything that is drawn.
    pub seed: u64,
    /// Where results are kept.
    pub cache: Cache,
}

/// The best plans of a model from the smallest budget to the largest.
#[derive(Clone, Debug, Serialize)]
pub struct Frontier {
    /// Name of the model.
    pub model: String,
    /// The budget that moved: `bits`, `size` or `bops`.
    pub over: &'static str,
    /// How losses were predicted.
    pub metric: Option<String>,
    /// Compiles the model, once a budget and a folder are added.
    pub command: String,
    /// Names of layers.
    pub layers: Vec<String>,
    /// From the smallest to the largest.
    pub points: Vec<Point>,
    #[serde(skip)]
    plans: Vec<Plan>,
}

/// Finds the frontier of a model.
///
/// # Errors
/// Model or data cannot be read or do not fit, or a pin names what the model does not have.
pub fn pareto(
    path: &Path,
    data_path: &Path,
    options: &ParetoOptions,
    progress: &dyn Progress,
) -> Result<Frontier, Error> {
    floats::refuse(&options.pins)?;
    progress.step("import", 0, 0);
    let model = Model::open(path, &options.shapes)?;
    let data = model.data(data_path)?;
    let how = SensitivityOptions {
        metric: options.metric,
        seed: options.seed,
        cache: options.cache.clone(),
        ..SensitivityOptions::default()
    };
    let table = sensitivity_of(&model, &data, &how, progress)?.table;
    let defaults = default_pins(&layers(&model.graph), &options.pins);
    let mut table = narrowed(table, None, options.over == Over::Bops, &defaults);
    if let Some(tie) = options.tie {
        tie.bind(&mut table, &model.graph)?;
    }
    let (mut points, plans) = sweep(&table, options, &defaults, progress)?;
    if options.measure {
        let tuning = Tuning {
            seed: options.seed,
            ..Tuning::default()
        };
        let quantizer = Quantizer::new(&model, &data, tuning, &options.cache, progress)?;
        let count = points.len();
        for (i, (point, plan)) in points.iter_mut().zip(&plans).enumerate() {
            progress.step("measure plans", i, count);
            point.measured_loss = Some(mean(&quantizer.judged(&formats(plan), progress)?));
        }
    }
    Ok(Frontier {
        model: object_name(path),
        over: options.over.name(),
        metric: table.metric.clone(),
        command: command(path, data_path, options),
        layers: table.layers.into_iter().map(|l| l.name).collect(),
        points,
        plans,
    })
}

/// The command that compiles with the same data, shapes, pins and seed.
fn command(path: &Path, data: &Path, options: &ParetoOptions) -> String {
    let word = |p: &Path| quoted(&p.display().to_string());
    let mut text = format!("lowbit compile {} --data {}", word(path), word(data));
    for (name, dims) in &options.shapes {
        let dims: Vec<String> = dims.iter().map(ToString::to_string).collect();
        let equals = if name.is_empty() { "" } else { "=" };
        let shape = format!("{name}{equals}{}", dims.join("x"));
        text += &format!(" --shape {}", quoted(&shape));
    }
    for pin in &options.pins {
        let activation = pin.activation.iter().map(|a| format!("x{a}"));
        let formats: String = pin.weight.iter().cloned().chain(activation).collect();
        text += &format!(" --pin {}", quoted(&format!("{}={formats}", pin.layer)));
    }
    if let Some(metric) = options.metric {
        text += &format!(" --metric {}", metric.name());
    }
    if let Some(tie) = options.tie {
        text += &format!(" --tie {}", tie.name());
    }
    if options.seed != 1 {
        text += &format!(" --seed {}", options.seed);
    }
    text
}

/// The best plan at each of evenly spaced budgets, those that repeat the one before left out.
fn sweep(
    table: &Sensitivity,
    options: &ParetoOptions,
    defaults: &[Pin],
    progress: &dyn Progress,
) -> Result<(Vec<Point>, Vec<Plan>), Error> {
    let (budget, own) = (options.over.budget(), &options.pins);
    let at = |limit| Limits::default().with(budget, Some(limit));
    let (least, most) = (least(table, budget, own)?, most(table, budget, own)?);
    let (mut points, mut plans): (Vec<Point>, Vec<Plan>) = (Vec::new(), Vec::new());
    for i in 0..options.points {
        progress.step("allocate", i, options.points);
        let share = i as f64 / (options.points - 1).max(1) as f64;
        let limit = (least + share * (most - least)).max(least * (1.0 + 1e-9));
        let (found, pins) = best(table, &at(limit), own, defaults)?;
        let choices = || table.layers.iter().zip(&found.choice);
        let picks = || choices().map(|(l, &c)| &l.choices[c]);
        let total = |name: &str| found.totals.get(name).copied();
        let point = Point {
            bits: total(Budget::Bits.total()).unwrap_or(0.0),
            weight_bytes: total(Budget::Size.total()).unwrap_or(0.0) as u64,
            predicted_loss: found.objective,
            formats: picks().map(|c| c.weight.clone()).collect(),
            activations: picks().map(|c| c.activation.clone()).collect(),
            bops: total(Budget::Bops.total()),
            measured_loss: None,
        };
        let same = |p: &Point| p.formats == point.formats && p.activations == point.activations;
        if points.last().is_none_or(|p| !same(p)) {
            plans.push(reasoned(table, &found, &pins, defaults));
            points.push(point);
        }
    }
    Ok((points, plans))
}

/// The least that any plan takes of a budget.
fn least(table: &Sensitivity, budget: Budget, pins: &[Pin]) -> Result<f64, Error> {
    match allocate(table, &Limits::default().with(budget, Some(0.0)), pins) {
        Ok(_) => Ok(0.0),
        Err(Refusal::Infeasible(found)) => Ok(found.least[0].alone),
        Err(other) => Err(other.into()),
    }
}

/// What the plan of 8 bits, pins aside, takes of a budget.
fn most(table: &Sensitivity, budget: Budget, pins: &[Pin]) -> Result<f64, Error> {
    let widest = |c: &SensitiveChoice| weight_bits(&c.weight).unwrap_or(0);
    let mut wide = table.clone();
    for l in &mut wide.layers {
        for c in &mut l.choices {
            let inputs = weight_bits(&c.activation).unwrap_or(0);
            c.loss = -f64::from(widest(c) + inputs);
        }
    }
    let found = allocate(&wide, &Limits::default(), pins)?;
    let total = found.totals.get(budget.total()).copied();
    total.ok_or_else(|| Error::Other(format!("the layers' {} is not known", budget.total())))
}

impl Frontier {
    /// The page that shows it.
    pub fn page(&self) -> String {
        let by_bops = self.over == Over::Bops.name();
        lowbit_report::frontier_page(
            &self.model,
            &self.command,
            &self.layers,
            &self.points,
            by_bops,
        )
    }

    /// Writes `pareto.html`, `pareto.json` and the plan of each point, `plan-01.json` the smallest. Returns the paths.
    ///
    /// # Errors
    /// The folder cannot be made or written.
    pub fn write(&self, folder: &Path) -> Result<Vec<PathBuf>, Error> {
        let mut files = vec![
            ("pareto.html".into(), self.page().into_bytes()),
            (
                "pareto.json".into(),
                lowbit_report::to_json(self).into_bytes(),
            ),
        ];
        for (i, plan) in self.plans.iter().enumerate() {
            let text = lowbit_report::to_json(plan);
            files.push((format!("plan-{:02}.json", i + 1), text.into_bytes()));
        }
        write_all(folder, files)
    }
}
