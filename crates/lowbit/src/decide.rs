//! Which formats each layer gets: by a plan, by one width for all, or by measured sensitivities within the budgets.

mod compare;

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;

use lowbit_num::Format;
use lowbit_passes::allocate::{
    Allocation, Budget as Bound, Limits, Pin, Refusal, allocate, totals,
};
use lowbit_passes::quantize::{Formats, LayerFormats};
use lowbit_passes::sensitivity::{Layer, layers};
use lowbit_report::{
    Budget, Choice, Evidence, Plan, PlannedLayer, Point, Report, SensitiveChoice, Sensitivity,
    Tried,
};

use crate::compile::Options;
use crate::costs::Costs;
use crate::drop::Measured;
use crate::fit::Quantizer;
use crate::model::Model;
use crate::plan::{plan, short};
use crate::sensitivity::{SensitivityOptions, sensitivity_of, unmeasured};
use crate::{Error, Progress, floats};
pub(crate) use compare::{MIXED, SEARCH, tried_plan};

/// A layer of at most this share of the weights is kept at 8 bits where it comes first or last.
const PINNED_SHARE: f64 = 0.05;
const EIGHT: &str = "int8";
const FOUR: &str = "int4";
const WHY: &str =
    "8 bits meet the budget, and fewer would cost accuracy for nothing that was asked for";

/// Formats of all layers with their reasons.
pub(crate) struct Decision {
    /// Formats by layer.
    pub(crate) plan: Plan,
    /// What was chosen from, where something was measured.
    measured: Option<Chosen>,
    /// Plans that were compared.
    pub(crate) tried: Vec<Tried>,
}

/// A choice for each layer of a table.
#[derive(Clone)]
struct Chosen {
    table: Sensitivity,
    choice: Vec<usize>,
    /// Pins that were asked for, and those that nobody asked for.
    pins: [Vec<Pin>; 2],
}

/// What was measured of plans.
pub(crate) type Remembered<T> = RefCell<Vec<(Formats, T)>>;

/// What was measured of a plan, measured now where it was not.
pub(crate) fn remembered<T: Clone>(
    memory: &Remembered<T>,
    formats: &Formats,
    measure: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    if let Some((_, known)) = memory.borrow().iter().find(|m| &m.0 == formats) {
        return Ok(known.clone());
    }
    let found = measure()?;
    memory.borrow_mut().push((formats.clone(), found.clone()));
    Ok(found)
}

/// What the integer program was, and its solution.
pub(crate) struct Program {
    pub(crate) table: Sensitivity,
    pub(crate) found: Allocation,
    pub(crate) pins: Vec<Pin>,
    /// Those of them that nobody asked for.
    defaults: Vec<Pin>,
}

impl Program {
    fn plan(&self) -> Plan {
        reasoned(&self.table, &self.found, &self.pins, &self.defaults)
    }
}

/// What a decision is made of.
pub(crate) struct Ask<'a> {
    pub(crate) options: &'a Options,
    pub(crate) model: &'a Model,
    pub(crate) quantizer: &'a Quantizer<'a>,
    /// What formats cost on the target, where a budget asks.
    pub(crate) costs: Option<Costs>,
    /// Sensitivities, once they are measured, with the costs of formats.
    pub(crate) evidence: OnceCell<Evidence>,
    /// What plans were measured to lose.
    pub(crate) drops: Remembered<Measured>,
    /// Losses of plans without training, by sample.
    pub(crate) losses: Remembered<Vec<f64>>,
    pub(crate) data: &'a lowbit_data::Dataset,
    pub(crate) progress: &'a dyn Progress,
}

/// The limits that a budget names, in the table's costs.
pub(crate) fn limits(budget: &Budget) -> Limits {
    Limits {
        bits: budget.bits,
        size: budget.size.map(|x| x as f64),
        bops: budget.bops,
        latency: budget.latency,
        object_size: budget.object_size.map(|x| x as f64),
        ram: budget.ram.map(|x| x as f64),
    }
}

impl Ask<'_> {
    /// Decides within limits.
    ///
    /// # Errors
    /// The plan does not fit the model; no plan keeps the limits.
    pub(crate) fn decide(&self, limits: &Limits) -> Result<Decision, Error> {
        let layers = layers(&self.model.graph);
        if let Some(plan) = &self.options.plan {
            return followed(plan, &layers);
        }
        let defaults = default_pins(&layers, &self.options.pins);
        if self.options.uniform {
            return self.uniform(&layers, limits, &defaults);
        }
        if let Some(points) = self.options.budget.max_drop {
            return self.smallest(limits, points);
        }
        let only_bits = |(b, limit): (Bound, f64)| b == Bound::Bits && limit >= 8.0;
        let kept = self.costs.as_ref().map(|c| c.eight_keeps(limits));
        let free = kept.unwrap_or_else(|| limits.given().all(only_bits));
        if free && self.options.pins.is_empty() && self.options.act_bits != Some(4) {
            if self.options.search.is_some() {
                self.progress
                    .note("--search: 8 bits everywhere meet the budget, nothing is searched for");
            }
            let why = |l: &Layer| self.slower(&l.name, limits).unwrap_or_else(|| WHY.into());
            return Ok(decided(&layers, &|l| (EIGHT.into(), why(l))));
        }
        self.allocated(&layers, limits, &defaults)
    }

    fn uniform(
        &self,
        layers: &[Layer],
        limits: &Limits,
        defaults: &[Pin],
    ) -> Result<Decision, Error> {
        let bits = limits.bits.unwrap_or(8.0);
        let name = format!("int{bits}");
        if Format::from_name(&name).is_none() {
            return Err(Error::Usage(format!(
                "--uniform needs a width that there is: 8, 6, 5, 4, 3 or 2 bits, not {bits}"
            )));
        }
        let pins: Vec<&Pin> = self.options.pins.iter().chain(defaults).collect();
        let of = |l: &Layer| match pins.iter().find(|p| p.layer == l.name) {
            Some(Pin {
                weight: Some(w), ..
            }) => (w.clone(), format!("it is pinned to {w}")),
            _ => (
                name.clone(),
                format!("{bits} bits were asked for in every layer"),
            ),
        };
        let mut found = decided(layers, &of);
        if self.options.act_bits == Some(4) {
            for l in &mut found.plan.layers {
                let pinned = defaults.iter().any(|p| p.layer == l.name);
                l.activation = if pinned { EIGHT } else { "int4" }.into();
            }
        }
        check(&found.plan, layers)?;
        Ok(found)
    }

    /// Why a layer keeps 8 bits where time is bounded and size is not, and fewer bits would not be faster.
    fn slower(&self, layer: &str, limits: &Limits) -> Option<String> {
        let size = |(b, limit): (Bound, f64)| match b {
            Bound::Bits => limit < 8.0,
            Bound::Size | Bound::ObjectSize | Bound::Bops => true,
            Bound::Latency | Bound::Ram => false,
        };
        limits.latency?;
        if limits.given().any(size) {
            return None;
        }
        let (now, next, then) = self.costs.as_ref()?.narrower_us(layer)?;
        (then >= now).then(|| {
            format!(
                "{EIGHT}: {next} would not be faster ({} µs against {}), and size is not the budget",
                short(then),
                short(now)
            )
        })
    }

    /// The sensitivities with the costs of formats, measured once.
    fn sensitivities(&self) -> Result<&Sensitivity, Error> {
        if let Some(known) = self.evidence.get() {
            return Ok(&known.table);
        }
        let how = SensitivityOptions {
            metric: self.options.metric,
            seed: self.options.seed,
            cache: self.options.cache.clone(),
            ..SensitivityOptions::default()
        };
        let mut found = sensitivity_of(self.model, self.data, &how, self.progress)?;
        if let Some(costs) = &self.costs {
            costs.fill(&mut found.table);
        }
        Ok(&self.evidence.get_or_init(|| found).table)
    }

    /// The table with the costs of formats before anything is measured.
    fn unmeasured(&self) -> Sensitivity {
        let mut table = unmeasured(self.model);
        if let Some(costs) = &self.costs {
            costs.fill(&mut table);
        }
        table
    }

    /// A plan within limits without comparing it with others, or measuring what was not: what can be had at all.
    ///
    /// # Errors
    /// No plan keeps the limits.
    pub(crate) fn quick(&self, limits: &Limits) -> Result<Plan, Error> {
        let known = self.evidence.get().map(|e| e.table.clone());
        let table = known.unwrap_or_else(|| self.unmeasured());
        Ok(self.solved(table, limits)?.plan())
    }

    /// Solves the integer program. That no plan keeps the limits is told before anything is measured.
    ///
    /// # Errors
    /// No plan keeps the limits.
    pub(crate) fn program(&self, limits: &Limits) -> Result<Program, Error> {
        if self.evidence.get().is_none() {
            self.solved(self.unmeasured(), limits)?;
        }
        self.solved(self.sensitivities()?.clone(), limits)
    }

    fn solved(&self, table: Sensitivity, limits: &Limits) -> Result<Program, Error> {
        let defaults = default_pins(&layers(&self.model.graph), &self.options.pins);
        let table = self.table_within(table, limits, &defaults)?;
        let (found, pins) = best(&table, limits, &self.options.pins, &defaults)?;
        Ok(Program {
            table,
            found,
            pins,
            defaults,
        })
    }

    /// The plan of the integer program.
    ///
    /// # Errors
    /// No plan keeps the limits.
    pub(crate) fn mixed(&self, limits: &Limits) -> Result<Decision, Error> {
        let program = self.program(limits)?;
        let mut mixed = program.plan();
        let eight = |l: &&mut PlannedLayer| l.weight == EIGHT;
        for l in mixed.layers.iter_mut().filter(eight) {
            let pinned = program.pins.iter().any(|p| p.layer == l.name);
            if let Some(why) = self.slower(&l.name, limits).filter(|_| !pinned) {
                l.why = why;
            }
        }
        Ok(Decision {
            plan: mixed,
            measured: Some(Chosen {
                table: program.table,
                choice: program.found.choice,
                pins: [self.options.pins.clone(), program.defaults],
            }),
            tried: Vec::new(),
        })
    }

    /// The table with inputs of the width that was asked for.
    fn table_of(&self, table: Sensitivity, limits: &Limits, defaults: &[Pin]) -> Sensitivity {
        let both = self.options.act_bits.is_none() && limits.bops.is_some();
        narrowed(table, self.options.act_bits, both, defaults)
    }

    fn tied(&self, mut table: Sensitivity) -> Result<Sensitivity, Error> {
        if let Some(tie) = self.options.tie {
            tie.bind(&mut table, &self.model.graph)?;
        }
        Ok(table)
    }

    /// The table without formats that nothing speaks for.
    fn table_within(
        &self,
        table: Sensitivity,
        limits: &Limits,
        defaults: &[Pin],
    ) -> Result<Sensitivity, Error> {
        let mut table = self.table_of(table, limits, defaults);
        // where memory is short, 8 bits may need more of it than fewer
        let slow = |name: &str| limits.ram.is_none() && self.slower(name, limits).is_some();
        let own = |name: &str| self.options.pins.iter().any(|p| p.layer == name);
        let layers = table.layers.iter_mut();
        for l in layers.filter(|l| slow(&l.name) && !own(&l.name)) {
            let eight = l.choices.iter().find(|c| c.weight == EIGHT);
            let bar = eight.and_then(|c| c.latency_us).unwrap_or(f64::INFINITY);
            let faster = |c: &SensitiveChoice| c.latency_us.is_none_or(|us| us < bar);
            l.choices.retain(|c| c.weight == EIGHT || faster(c));
        }
        self.tied(table)
    }
}

/// The inputs of the first and of the last layer keep 8 bits, and so do their weights where they are few; layers that a
/// person pins are left alone.
pub(crate) fn default_pins(layers: &[Layer], own: &[Pin]) -> Vec<Pin> {
    let all: usize = layers.iter().map(|l| l.params).sum();
    let ends = [layers.first(), layers.last()].into_iter().flatten();
    let small = |l: &&Layer| l.params as f64 <= PINNED_SHARE * all as f64;
    let named = |l: &&Layer| own.iter().any(|p| p.layer == l.name);
    let pin = |l: &Layer| Pin {
        layer: l.name.clone(),
        weight: small(&l).then(|| EIGHT.into()),
        activation: Some(EIGHT.into()),
    };
    let mut pins: Vec<Pin> = ends.filter(|l| !named(l)).map(pin).collect();
    pins.dedup();
    pins
}

/// The table with inputs of the width that was asked for: 8 bits, or 4 where a layer may have them; `both` leaves both.
pub(crate) fn narrowed(
    mut table: Sensitivity,
    act_bits: Option<u32>,
    both: bool,
    defaults: &[Pin],
) -> Sensitivity {
    let pinned = |name: &str| defaults.iter().any(|p| p.layer == name);
    let wide: Vec<Option<String>> = table
        .layers
        .iter()
        .filter(|l| pinned(&l.name))
        .map(|l| l.reads.clone())
        .collect();
    for l in &mut table.layers {
        let shared = l.reads.is_some() && wide.contains(&l.reads);
        let four = act_bits == Some(4) && !pinned(&l.name) && !shared;
        let offered = l.choices.iter().any(|c| c.activation == "int4");
        let want = if four && offered { "int4" } else { EIGHT };
        l.choices.retain(|c| both || c.activation == want);
    }
    table
}

/// The best plan with the default pins, without them where no plan keeps the limits with them; and the pins it has.
pub(crate) fn best(
    table: &Sensitivity,
    limits: &Limits,
    own: &[Pin],
    defaults: &[Pin],
) -> Result<(Allocation, Vec<Pin>), Refusal> {
    let pinned: Vec<Pin> = own.iter().chain(defaults).cloned().collect();
    match allocate(table, limits, &pinned) {
        Err(refusal) if refusal.is_infeasible() && !defaults.is_empty() => {
            Ok((allocate(table, limits, own)?, own.to_vec()))
        }
        found => Ok((found?, pinned)),
    }
}

/// An allocation as a plan that says why.
pub(crate) fn reasoned(
    table: &Sensitivity,
    found: &Allocation,
    pins: &[Pin],
    defaults: &[Pin],
) -> Plan {
    plan(table, found, pins, &|name| {
        let ours = defaults
            .iter()
            .any(|p| p.layer == name && p.weight.is_some());
        ours.then(|| "first and last layers keep 8 bits where they hold few of the weights".into())
    })
}

fn decided(layers: &[Layer], weight: &dyn Fn(&Layer) -> (String, String)) -> Decision {
    let layer = |l: &Layer| {
        let (weight, why) = weight(l);
        PlannedLayer {
            name: l.name.clone(),
            weight,
            activation: EIGHT.into(),
            why,
        }
    };
    Decision {
        plan: Plan {
            layers: layers.iter().map(layer).collect(),
        },
        measured: None,
        tried: Vec::new(),
    }
}

/// A person's plan; layers that it does not name have 8 bits.
fn followed(plan: &Plan, layers: &[Layer]) -> Result<Decision, Error> {
    check(plan, layers)?;
    let mut found = decided(layers, &|_| {
        (EIGHT.into(), "the plan does not name it".into())
    });
    for own in &mut found.plan.layers {
        if let Some(planned) = plan.layers.iter().find(|p| p.name == own.name) {
            own.weight.clone_from(&planned.weight);
            own.activation.clone_from(&planned.activation);
            own.why.clone_from(&planned.why);
            if own.why.is_empty() {
                own.why = "the plan asks for it".into();
            }
        }
    }
    Ok(found)
}

/// A plan may only ask for what layers can have.
fn check(plan: &Plan, layers: &[Layer]) -> Result<(), Error> {
    for planned in &plan.layers {
        if !layers.iter().any(|l| l.name == planned.name) {
            return Err(Error::Other(format!(
                "the plan names layer '{}', which the model does not have",
                planned.name
            )));
        }
        let weights: Vec<&str> = Format::ALL.iter().map(|f| f.name()).collect();
        let wrong = [
            (&planned.weight, &weights[..]),
            (&planned.activation, &[EIGHT, "int4"][..]),
        ];
        if let Some((format, known)) = wrong.iter().find(|(f, known)| !known.contains(&f.as_str()))
        {
            let reason = floats::reason(format).map_or_else(String::new, |r| format!(": {r}"));
            return Err(Error::Other(format!(
                "the plan gives layer '{}' the format '{format}'; this version has {}{reason}",
                planned.name,
                known.join(", ")
            )));
        }
    }
    Ok(())
}

/// The formats of a plan.
pub(crate) fn formats(plan: &Plan) -> Formats {
    // of the grids of 2 and of 3 bits either name stands for the one that errs less
    let format = |name: &str| Format::from_name(name).map_or(Format::Int8, Format::family);
    let layer = |l: &PlannedLayer| {
        let formats = LayerFormats {
            weight: format(&l.weight),
            activation: format(&l.activation),
        };
        (l.name.clone(), formats)
    };
    Formats {
        layers: plan.layers.iter().map(layer).collect(),
        ..Formats::default()
    }
}

/// The plan that a report tells.
pub(crate) fn plan_of(report: &Report) -> Plan {
    let layer = |l: &lowbit_report::Layer| PlannedLayer {
        name: l.name.clone(),
        weight: l.weight_format.clone(),
        activation: l.activation_format.clone(),
        why: l.why.clone(),
    };
    Plan {
        layers: report.layers.iter().map(layer).collect(),
    }
}

/// Average bits that the frontier is drawn at.
const FRONTIER: std::ops::RangeInclusive<u32> = 8..=32;

impl Decision {
    /// What the plan was chosen to cost, where it was chosen by costs.
    pub(crate) fn totals(&self) -> BTreeMap<&'static str, f64> {
        let measured = self.measured.as_ref();
        measured.map_or_else(BTreeMap::new, |m| totals(&m.table, &m.choice))
    }

    /// Average bits of a weight.
    pub(crate) fn bits(&self) -> f64 {
        let total = self.totals().get(Bound::Bits.total()).copied();
        total.unwrap_or(8.0)
    }

    /// Writes reasons, predictions, choices and the frontier into a report.
    pub(crate) fn fill(&self, report: &mut Report) {
        for l in &mut report.layers {
            if let Some(planned) = self.plan.layers.iter().find(|p| p.name == l.name) {
                l.why.clone_from(&planned.why);
            }
        }
        report.tried.clone_from(&self.tried);
        let Some(chosen) = &self.measured else {
            return;
        };
        for (row, &c) in chosen.table.layers.iter().zip(&chosen.choice) {
            let Some(l) = report.layers.iter_mut().find(|l| l.name == row.name) else {
                continue;
            };
            l.predicted_loss = Some(row.choices[c].loss);
            let four = |c: &&SensitiveChoice| (&*c.weight, &*c.activation) == (FOUR, EIGHT);
            l.sensitivity = row.choices.iter().find(four).map(|c| c.loss);
            let could = row.choices.iter().map(|c| Choice {
                weight_format: c.weight.clone(),
                activation_format: c.activation.clone(),
                predicted_loss: c.loss,
                weight_bytes: c.weight_bytes.unwrap_or(0.0) as u64,
            });
            l.choices = could.collect();
        }
        let planned = self.totals().get(Bound::Size.total()).copied();
        let beside = planned.map_or(0.0, |p| report.totals.weight_bytes as f64 - p);
        report.frontier = chosen.frontier(beside);
    }
}

impl Chosen {
    /// Best plans from the smallest average of bits to the largest, chosen as this one: under the same pins and ties. The
    /// object has constants of so many bytes `beside` what the table tells of weights.
    fn frontier(&self, beside: f64) -> Vec<Point> {
        let mut points: Vec<Point> = Vec::new();
        let [own, defaults] = &self.pins;
        for quarter in FRONTIER {
            let limits = Limits {
                bits: Some(f64::from(quarter) / 4.0),
                ..Limits::default()
            };
            let Ok((found, _)) = best(&self.table, &limits, own, defaults) else {
                continue;
            };
            let choices = || self.table.layers.iter().zip(&found.choice);
            let picks = || choices().map(|(l, &c)| &l.choices[c]);
            let total = |name: &str| found.totals.get(name).copied().unwrap_or(0.0);
            let point = Point {
                bits: total("avg_weight_bits"),
                weight_bytes: (total("weight_bytes") + beside).max(0.0) as u64,
                predicted_loss: found.objective,
                formats: picks().map(|c| c.weight.clone()).collect(),
                activations: picks().map(|c| c.activation.clone()).collect(),
                ..Point::default()
            };
            if points.last().is_none_or(|p| p.formats != point.formats) {
                points.push(point);
            }
        }
        points
    }
}
