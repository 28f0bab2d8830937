//! `lowbit eval`: accuracy of a float model, or of an object.

use std::path::Path;

use lowbit_data::Dataset;
use lowbit_ir::eval::{Plan, run_observed};
use lowbit_passes::finetune::compared;
use lowbit_report::{Accuracy, Report};
use rayon::prelude::*;

use crate::artefact::{Artefact, is_artefact};
use crate::model::{Model, Shapes};
use crate::object::{Runner, decode, encode, top1};
use crate::{Error, Progress};

/// Samples that are in memory at once.
const CHUNK: usize = 64;

/// What an evaluation found.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// Over all samples.
    pub accuracy: Accuracy,
    /// Sample by sample.
    pub predictions: Vec<Prediction>,
}

/// The classes that a sample was given.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Prediction {
    /// Index in the data.
    pub sample: usize,
    /// Its own class, where the data tells it.
    pub label: Option<i64>,
    /// By the float model, where there is one.
    pub float: Option<i64>,
    /// By the object, where there is one.
    pub object: Option<i64>,
    /// Signal to noise of the object's output against the float model's, in decibels; nothing where one of them is missing
    /// or both are equal.
    pub sqnr_db: Option<f64>,
}

/// Accuracy of a model or of a compiled folder on the evaluation split of its data; on all of it where there is no split.
///
/// # Errors
/// Model, folder or data cannot be read or do not fit.
pub fn eval(
    path: &Path,
    data: &Path,
    shapes: &Shapes,
    limit: Option<usize>,
    progress: &dyn Progress,
) -> Result<Evaluation, Error> {
    if !is_artefact(path) {
        let model = Model::open(path, shapes)?;
        let data = model.data(data)?;
        return float(&model, &data, &indices(&data, limit), progress);
    }
    let artefact = Artefact::open(path)?;
    let report = &artefact.report;
    let runner = Runner::new(&artefact.object, report)?;
    let model = Model::open(Path::new(&report.model.path), &report.reproduce.shapes)
        .ok()
        .filter(|m| m.sha256 == report.model.sha256);
    match model {
        Some(model) => {
            let data = model.data(data)?;
            let indices = indices(&data, limit);
            let tallies = tallies(&model, &data, &[(&runner, report)], &indices, progress)?;
            Ok(tallies[0].evaluation(data.labels().is_some(), true, true))
        }
        None => {
            progress.note("the float model is gone or changed: no agreement can be measured");
            let data = Dataset::open(data, &inputs(report))?;
            alone(&data, &runner, report, &indices(&data, limit), progress)
        }
    }
}

fn indices(data: &Dataset, limit: Option<usize>) -> Vec<usize> {
    let range = data.split().evaluate.clone().unwrap_or(0..data.len());
    range.take(limit.unwrap_or(usize::MAX)).collect()
}

fn inputs(report: &Report) -> Vec<lowbit_data::InputSpec> {
    report
        .model
        .inputs
        .iter()
        .map(|p| lowbit_data::InputSpec {
            name: p.name.clone(),
            shape: p.shape.clone(),
            dtype: lowbit_data::Dtype::F32,
        })
        .collect()
}

/// The float model's first output for each sample.
fn float_outputs(model: &Model, data: &Dataset, indices: &[usize]) -> Result<Vec<Vec<f64>>, Error> {
    let plan = Plan::only(&model.graph, |_| false);
    indices
        .par_iter()
        .map(|&i| {
            let inputs = model.sample(data, i)?;
            let outputs = run_observed(&model.graph, &plan, &inputs, |_, _, _| {})
                .map_err(|error| Error::Eval { sample: i, error })?;
            Ok(outputs[0].to_f64())
        })
        .collect()
}

/// The object's first output for each sample.
fn object_outputs(
    data: &Dataset,
    runner: &Runner,
    report: &Report,
    indices: &[usize],
) -> Result<Vec<Vec<f64>>, Error> {
    let samples: Result<Vec<Vec<Vec<u8>>>, Error> = indices
        .par_iter()
        .map(|&i| {
            let arrays = data.sample(i)?;
            let ports = report.model.inputs.iter().zip(arrays);
            Ok(ports
                .map(|(port, a)| {
                    encode(
                        port,
                        &a.data.iter().map(|&x| x.into()).collect::<Vec<f64>>(),
                    )
                })
                .collect())
        })
        .collect();
    let outputs = runner.run(&samples?)?;
    Ok(outputs
        .iter()
        .map(|o| decode(&report.model.outputs[0], &o[0]))
        .collect())
}

#[derive(Default)]
struct Tally {
    float_right: usize,
    right: usize,
    agree: usize,
    signal: f64,
    noise: f64,
    divergence: f64,
    /// Whether outputs are distributions over classes already.
    softmax: bool,
    samples: usize,
    predictions: Vec<Prediction>,
}

impl Tally {
    fn evaluation(&self, labels: bool, float: bool, object: bool) -> Evaluation {
        Evaluation {
            accuracy: self.accuracy(labels, float, object),
            predictions: self.predictions.clone(),
        }
    }

    fn accuracy(&self, labels: bool, float: bool, object: bool) -> Accuracy {
        let share = |n: usize| Some(n as f64 / self.samples.max(1) as f64);
        Accuracy {
            float_top1: share(self.float_right).filter(|_| labels && float),
            top1: share(self.right).filter(|_| labels && object),
            agreement: share(self.agree).filter(|_| float && object),
            divergence: Some(self.divergence / self.samples.max(1) as f64)
                .filter(|_| labels && float && object),
            sqnr_db: decibels(self.signal, self.noise).filter(|_| float && object),
            samples: self.samples,
        }
    }

    fn add(
        &mut self,
        data: &Dataset,
        sample: usize,
        float: Option<&[f64]>,
        object: Option<&[f64]>,
    ) {
        self.samples += 1;
        let label = label(data, sample);
        let best = |x: Option<&[f64]>| x.map(|x| top1(x) as i64);
        let (f, o) = (best(float), best(object));
        self.float_right += usize::from(label.is_some() && f == label);
        self.right += usize::from(label.is_some() && o == label);
        self.agree += usize::from(f.is_some() && f == o);
        let [mut signal, mut noise] = [0.0; 2];
        if let (Some(f), Some(o)) = (float, object) {
            signal = f.iter().map(|a| a * a).sum();
            noise = f.iter().zip(o).map(|(a, b)| (a - b) * (a - b)).sum();
            self.divergence += divergence(f, o, self.softmax);
        }
        self.signal += signal;
        self.noise += noise;
        self.predictions.push(Prediction {
            sample,
            label,
            float: f,
            object: o,
            sqnr_db: decibels(signal, noise),
        });
    }
}

/// Signal to noise, where there is any noise.
fn decibels(signal: f64, noise: f64) -> Option<f64> {
    let ratio = 10.0 * (signal / noise).log10();
    Some(ratio).filter(|r| r.is_finite())
}

/// `Σ p (ln p − ln q)` of two distributions, or of the softmax of two outputs.
fn divergence(p: &[f64], q: &[f64], softmax: bool) -> f64 {
    let logarithms = |x: &[f64]| -> Vec<f64> {
        if softmax {
            return x.iter().map(|x| x.max(SMALLEST).ln()).collect();
        }
        let largest = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = x.iter().map(|x| (x - largest).exp()).sum();
        x.iter().map(|x| x - largest - sum.ln()).collect()
    };
    let pairs = logarithms(p).into_iter().zip(logarithms(q));
    pairs.map(|(p, q)| p.exp() * (p - q)).sum()
}

/// Half a step of a 16-bit probability: what a code of zero may stand for.
const SMALLEST: f64 = 1.0 / 131_072.0;

fn label(data: &Dataset, i: usize) -> Option<i64> {
    data.labels().and_then(|l| l.get(i).copied())
}

/// Accuracy of the float model.
///
/// # Errors
/// A sample cannot be read or run.
fn float(
    model: &Model,
    data: &Dataset,
    indices: &[usize],
    progress: &dyn Progress,
) -> Result<Evaluation, Error> {
    let mut tally = Tally::default();
    for chunk in indices.chunks(CHUNK) {
        progress.step("evaluate", tally.samples, indices.len());
        let outputs = float_outputs(model, data, chunk)?;
        chunk
            .iter()
            .zip(&outputs)
            .for_each(|(&i, x)| tally.add(data, i, Some(x), None));
    }
    Ok(tally.evaluation(data.labels().is_some(), true, false))
}

/// Accuracy of several objects beside their float model, which is run once for all.
///
/// # Errors
/// A sample cannot be read or run.
pub(crate) fn objects(
    model: &Model,
    data: &Dataset,
    objects: &[(&Runner, &Report)],
    indices: &[usize],
    progress: &dyn Progress,
) -> Result<Vec<Accuracy>, Error> {
    let tallies = tallies(model, data, objects, indices, progress)?;
    let labels = data.labels().is_some();
    let found = tallies.iter().map(|t| t.accuracy(labels, true, true));
    Ok(found.collect())
}

fn tallies(
    model: &Model,
    data: &Dataset,
    objects: &[(&Runner, &Report)],
    indices: &[usize],
    progress: &dyn Progress,
) -> Result<Vec<Tally>, Error> {
    let start = || Tally {
        softmax: compared(&model.graph) != model.graph.outputs()[0].value,
        ..Tally::default()
    };
    let mut tallies: Vec<Tally> = objects.iter().map(|_| start()).collect();
    for (done, chunk) in indices.chunks(CHUNK).enumerate() {
        progress.step("evaluate", done * CHUNK, indices.len());
        let float = float_outputs(model, data, chunk)?;
        for (tally, (runner, report)) in tallies.iter_mut().zip(objects) {
            let own = object_outputs(data, runner, report, chunk)?;
            for ((&i, f), o) in chunk.iter().zip(&float).zip(&own) {
                tally.add(data, i, Some(f), Some(o));
            }
        }
    }
    Ok(tallies)
}

fn alone(
    data: &Dataset,
    runner: &Runner,
    report: &Report,
    indices: &[usize],
    progress: &dyn Progress,
) -> Result<Evaluation, Error> {
    let mut tally = Tally::default();
    for chunk in indices.chunks(CHUNK) {
        progress.step("evaluate", tally.samples, indices.len());
        let own = object_outputs(data, runner, report, chunk)?;
        chunk
            .iter()
            .zip(&own)
            .for_each(|(&i, o)| tally.add(data, i, None, Some(o)));
    }
    Ok(tally.evaluation(data.labels().is_some(), false, true))
}
