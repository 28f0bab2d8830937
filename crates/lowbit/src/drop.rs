//! `--max-drop`: the smallest plan that keeps the accuracy, by bisection of the budget of bits.

use lowbit_data::Dataset;
use lowbit_ir::eval::{self, Plan as Order};
use lowbit_passes::allocate::{Budget as Bound, Limits};
use lowbit_passes::quantize::{Formats, Quantized};
use lowbit_report::{Plan, Tried};
use rayon::prelude::*;

use crate::compile::Options;
use crate::decide::{Ask, Decision, MIXED, SEARCH, formats, remembered, tried_plan};
use crate::fit::Quantizer;
use crate::model::Model;
use crate::object::{encode_sample, top1};
use crate::plan::short;
use crate::{Error, Progress};

/// Bits that no format goes below.
const LEAST: f64 = 1.0;
/// Budgets closer than this are not told apart.
const STEP: f64 = 1.0 / 16.0;
/// Shares of whole samples are compared with the bound to this precision, in points.
const ROUNDING: f64 = 1e-9;

/// Most samples that accuracy is measured on.
const MOST: usize = 1024;

/// Samples that no plan is fitted on, with what the float network makes of them.
pub(crate) struct Held {
    indices: Vec<usize>,
    /// Classes by the float network.
    float: Vec<usize>,
}

/// What a network of some plan loses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    /// As plans are compared by.
    pub(crate) loss: f64,
    /// Percentage points of top-1 below the float network, or of samples whose class differs where there are no labels.
    pub(crate) drop: f64,
    /// Samples that the drop was measured on.
    pub(crate) samples: usize,
}

impl Held {
    /// Runs the float network.
    ///
    /// # Errors
    /// A sample cannot be read or run.
    fn new(model: &Model, data: &Dataset, indices: Vec<usize>) -> Result<Self, Error> {
        let order = Order::new(&model.graph);
        let class = |&i: &usize| {
            let inputs = model.sample(data, i)?;
            let outputs = eval::run_observed(&model.graph, &order, &inputs, |_, _, _| {})
                .map_err(|error| Error::Eval { sample: i, error })?;
            Ok(top1(&outputs[0].to_f64()))
        };
        let float: Result<_, Error> = indices.par_iter().map(class).collect();
        Ok(Self {
            float: float?,
            indices,
        })
    }

    /// Percentage points that an integer network loses.
    ///
    /// # Errors
    /// A sample cannot be read or run.
    fn drop(&self, model: &Model, data: &Dataset, quantized: &Quantized) -> Result<f64, Error> {
        let graph = &quantized.graph;
        let order = Order::new(graph);
        let one = |(&i, &float): (&usize, &usize)| {
            let codes = encode_sample(graph, &model.sample(data, i)?);
            let outputs = eval::run_observed(graph, &order, &codes, |_, _, _| {})
                .map_err(|error| Error::Eval { sample: i, error })?;
            // codes of one scale are in the order of what they stand for
            let own = top1(&outputs[0].to_f64());
            let right = |class: usize| match data.labels() {
                Some(labels) => labels.get(i) == Some(&(class as i64)),
                None => class == float,
            };
            Ok(i64::from(right(float)) - i64::from(right(own)))
        };
        let pairs = self.indices.par_iter().zip(&self.float);
        let lost: Result<Vec<i64>, Error> = pairs.map(one).collect();
        let lost: i64 = lost?.iter().sum();
        Ok(100.0 * lost as f64 / self.indices.len().max(1) as f64)
    }
}

impl Quantizer<'_> {
    /// What the network loses at formats, fitted and trained as their effort asks, on samples apart from all that.
    ///
    /// # Errors
    /// The network cannot be quantised or run; there are no such samples.
    fn measured(&self, formats: &Formats, progress: &dyn Progress) -> Result<Measured, Error> {
        let tune = self.data.split().tune.clone().filter(|r| !r.is_empty());
        if self.held.get().is_none() {
            let indices: Vec<usize> = match &tune {
                Some(range) => range.clone().take(MOST).collect(),
                None => every_other(&self.indices).take(MOST).collect(),
            };
            if indices.is_empty() {
                return Err(Error::Other(
                    "--max-drop needs samples to measure on: give more calibration samples, or a tune split"
                        .into(),
                ));
            }
            progress.step("run the float model", 0, 0);
            let held = Held::new(self.model, self.data, indices)?;
            self.held.get_or_init(|| held);
        }
        let held = self.held.get().expect("it was made");
        let judges = match tune {
            Some(_) => self.judges(),
            None => held.indices.clone(),
        };
        let (quantized, loss) = self.apart(formats, judges, progress)?;
        progress.step("measure accuracy", 0, 0);
        Ok(Measured {
            loss,
            drop: held.drop(self.model, self.data, &quantized)?,
            samples: held.indices.len(),
        })
    }
}

fn every_other(indices: &[usize]) -> impl Iterator<Item = usize> {
    indices.iter().skip(1).step_by(2).copied()
}

/// Refuses a bound of the drop where none can be measured.
///
/// # Errors
/// There is no data, or the output is no choice of a class.
pub(crate) fn refuse(options: &Options, model: &Model) -> Result<(), Error> {
    if options.budget.max_drop.is_none() {
        return Ok(());
    }
    if options.data.is_none() {
        return Err(Error::Usage(
            "--max-drop needs --data: accuracy is not measured on random samples".into(),
        ));
    }
    let output = &model.graph.outputs()[0];
    let shape = model.graph.shape(output.value);
    let classes = shape.last().copied().unwrap_or(1);
    if classes < 2 || shape.iter().product::<usize>() != classes {
        return Err(Error::Usage(format!(
            "--max-drop needs a model whose output is a choice of a class, and '{}' of shape {shape:?} is none; name the \
             size that you want by --bits or --size",
            output.name
        )));
    }
    Ok(())
}

/// The smallest of what a probe accepts. `largest` is accepted; a probe gives the plan within a budget of bits, and the bits
/// that it takes, where it is accepted too.
fn bisect<T, E>(
    largest: (f64, T),
    mut probe: impl FnMut(f64) -> Result<Option<(f64, T)>, E>,
) -> Result<T, E> {
    let (mut high, mut best) = largest;
    let mut low = LEAST;
    while high - low > STEP {
        let middle = 0.5 * (low + high);
        match probe(middle)? {
            Some((bits, plan)) => (high, best) = (bits.min(middle), plan),
            None => low = middle,
        }
    }
    Ok(best)
}

impl Ask<'_> {
    /// The smallest plan within limits that drops no more than some percentage points.
    ///
    /// # Errors
    /// No plan keeps the limits, or even the largest drops more.
    pub(crate) fn smallest(&self, limits: &Limits, points: f64) -> Result<Decision, Error> {
        let what = match self.data.labels() {
            Some(_) => "top-1",
            None => "agreement with the float model",
        };
        let mut tried: Vec<(Plan, Tried)> = Vec::new();
        let mut measure = |found: &Decision, name: &str| {
            let bits = found.bits();
            let m = self.measured(&found.plan)?;
            let new = tried.iter().all(|t| t.0 != found.plan);
            if new {
                self.progress.note(&format!(
                    "{} bits a weight: {} points of {what} below the float model, on {} samples kept apart",
                    short(bits),
                    short(m.drop),
                    m.samples
                ));
            }
            // what the search comes to is told, though it be where it started
            if new || name == SEARCH {
                let row = Tried {
                    bits: Some(bits),
                    drop: Some(m.drop),
                    samples: Some(m.samples),
                    ..tried_plan(name, m.loss, &found.plan)
                };
                tried.push((found.plan.clone(), row));
            }
            Ok::<_, Error>(m)
        };
        let largest = self.mixed(limits)?;
        let reached = measure(&largest, MIXED)?;
        self.progress.note(&format!(
            "one of {} samples is {} points: on other samples the accuracy may differ by some of them",
            reached.samples,
            short(100.0 / reached.samples as f64)
        ));
        if reached.drop > points + ROUNDING {
            return Err(Error::Infeasible(
                format!(
                    "--max-drop {points} cannot be met: the largest plan within the budgets, {} bits a weight, is {} points \
                     of {what} below the float model, on {} samples kept apart; allow a larger drop, or give more --effort",
                    short(largest.bits()),
                    short(reached.drop),
                    reached.samples
                )
                .into(),
            ));
        }
        let mut found = bisect((largest.bits(), largest), |bits| {
            let found = match self.mixed(&limits.with(Bound::Bits, Some(bits))) {
                Err(Error::Infeasible(_)) => return Ok(None),
                found => found?,
            };
            let keeps = measure(&found, MIXED)?.drop <= points + ROUNDING;
            Ok::<_, Error>(keeps.then(|| (found.bits(), found)))
        })?;
        if let Some(plans) = self.options.search {
            let within = limits.with(Bound::Bits, Some(found.bits()));
            let searched = self.polished(&found, &within, plans)?;
            if measure(&searched, SEARCH)?.drop <= points + ROUNDING {
                found = searched;
            }
        }
        let returned = tried.iter().position(|t| t.0 == found.plan);
        found.tried = tried.into_iter().map(|t| t.1).collect();
        if let Some(i) = returned {
            found.tried[i].returned = true;
        }
        Ok(found)
    }

    /// What a plan loses, measured once.
    fn measured(&self, plan: &Plan) -> Result<Measured, Error> {
        let formats = formats(plan);
        remembered(&self.drops, &formats, || {
            self.quantizer.measured(&formats, self.progress)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bisects plans of some sizes, of which those of at least `enough` bits are accepted.
    fn smallest(sizes: &[f64], enough: f64) -> (f64, usize) {
        let mut probes = 0;
        let largest = *sizes.last().unwrap();
        let found = bisect((largest, largest), |budget| {
            probes += 1;
            let mut within = sizes.iter().copied().filter(|s| *s <= budget);
            let found = within.next_back().filter(|s| *s >= enough);
            Ok::<_, ()>(found.map(|s| (s, s)))
        });
        (found.unwrap(), probes)
    }

    #[test]
    fn the_smallest_plan_that_is_accepted_is_found_in_a_handful_of_probes() {
        let sizes = [1.5, 2.0, 3.25, 4.0, 4.5, 6.0, 8.0];
        for &enough in &sizes {
            let (found, probes) = smallest(&sizes, enough);
            assert_eq!(found, enough);
            assert!(probes <= 8, "{probes} probes for {enough}");
        }
        assert_eq!(smallest(&sizes, 3.5).0, 4.0);
        let fine: Vec<f64> = (10..=80).map(|tenth| f64::from(tenth) / 10.0).collect();
        for enough in [1.0, 2.34, 5.55, 7.99] {
            let (found, _) = smallest(&fine, enough);
            assert!(found >= enough && found < enough + 0.1 + STEP);
        }
    }

    #[test]
    fn a_failing_measure_ends_the_search() {
        let found = bisect((8.0, ()), |_| Err::<Option<(f64, ())>, _>("no data"));
        assert_eq!(found, Err("no data"));
    }
}
