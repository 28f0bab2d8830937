//! Which samples an estimate of second derivatives draws, and how long it goes on.

use lowbit_ir::Tensor;
use lowbit_ir::eval::{Plan, run_observed};

use super::hessian::{Running, Trace};
use super::random::Random;
use super::{SensitivityError, Study, stream};

/// How exact an estimate has to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effort {
    /// Standard error of every layer's trace over the trace.
    pub error: f64,
    /// Most draws, a sample and a direction each.
    pub most: usize,
    /// Seed of samples and directions.
    pub seed: u64,
}

/// Where the loss bends: what one pass over the samples tells.
#[derive(Clone, Debug, PartialEq)]
pub struct Curvature {
    /// Running sums of the samples' shares in the draws; the last is 1.
    shares: Vec<f64>,
    /// Mean squared error of an element of each layer's input at 4 bits.
    pub input_errors: Vec<f64>,
}

/// Share of the draws that all samples get alike, so that no weight is above its inverse.
const EVEN: f64 = 0.1;
/// Draws between two looks at the errors: what is drawn does not depend on the number of threads.
const BATCH: usize = 64;

impl Curvature {
    /// Runs `n` samples.
    ///
    /// # Errors
    /// A sample that cannot be read or run.
    pub fn new<E: std::error::Error + Send + 'static>(
        study: &Study<'_>,
        n: usize,
        sample: impl Fn(usize) -> Result<Vec<Tensor>, E> + Sync,
        progress: impl FnMut(usize, usize),
    ) -> Result<Self, SensitivityError<E>> {
        let mut graph = study.graph.clone();
        graph.clear_outputs();
        let values = study.objective.values();
        values.for_each(|v| graph.output("score", v));
        let inputs = study.layers.iter().map(|l| l.input);
        inputs.for_each(|v| graph.output("input", v));
        let graph = graph.without_dead();
        let plan = Plan::only(&graph, |_| false);
        let compared = study.objective.values().len();
        let row = |sample: usize, x: &[Tensor]| {
            let found = run_observed(&graph, &plan, x, |_, _, _| {});
            let found = found.map_err(|error| SensitivityError::Eval { sample, error })?;
            let (scores, inputs) = found.split_at(compared);
            let error = |(l, x)| {
                study.input_error(l, x).iter().map(|e| e * e).sum::<f64>() / x.len().max(1) as f64
            };
            let errors: Vec<f64> = inputs.iter().enumerate().map(error).collect();
            Ok((study.objective.curvature(scores), errors))
        };
        let mut sizes = Vec::with_capacity(n);
        let mut input_errors = vec![0.0; study.layers.len()];
        stream::rows(
            n,
            sample,
            progress,
            row,
            |(size, errors): (f64, Vec<f64>)| {
                sizes.push(size);
                let sums = input_errors.iter_mut().zip(errors);
                sums.for_each(|(s, e)| *s += e / n as f64);
            },
        )?;
        Ok(Self {
            shares: shares(&sizes),
            input_errors,
        })
    }

    /// The sample of a draw, and the weight with which it stands for the mean over all samples.
    fn draw(&self, random: &mut Random) -> (usize, f64) {
        let u = random.uniform();
        let i = self.shares.partition_point(|&s| s <= u);
        let i = i.min(self.shares.len() - 1);
        let before = i.checked_sub(1).map_or(0.0, |b| self.shares[b]);
        let share = self.shares[i] - before;
        (i, 1.0 / (share * self.shares.len() as f64))
    }

    /// Draws samples in proportion to the curvature of their outputs, until the standard error of each of the first
    /// `judged` numbers that `one` gives is small enough, or draws run out. Returns the means over all samples and the
    /// number of draws.
    ///
    /// # Errors
    /// A sample that cannot be read; what `one` refuses.
    pub(super) fn estimate<E: std::error::Error + Send + 'static>(
        &self,
        (effort, judged): (Effort, usize),
        sample: impl Fn(usize) -> Result<Vec<Tensor>, E> + Sync,
        mut progress: impl FnMut(usize, usize),
        one: impl Fn(usize, &[Tensor], Random) -> Result<Vec<f64>, SensitivityError<E>> + Sync,
    ) -> Result<(Vec<Trace>, usize), SensitivityError<E>> {
        let mut running: Vec<Running> = Vec::new();
        let mut done = 0;
        while done < effort.most && !self.shares.is_empty() {
            let count = BATCH.min(effort.most - done);
            let draws: Vec<(usize, f64, Random)> = (done..done + count)
                .map(|k| {
                    let mut random = Random::new(effort.seed, k as u64);
                    let (i, weight) = self.draw(&mut random);
                    (i, weight, random)
                })
                .collect();
            let read = |k: usize| sample(draws[k].0);
            let row = |k: usize, x: &[Tensor]| {
                let (i, weight, random) = &draws[k];
                let found = one(*i, x, random.clone())?;
                Ok(found.into_iter().map(|x| weight * x).collect())
            };
            let step = |k, _| progress(done + k, effort.most);
            stream::rows(count, read, step, row, |row: Vec<f64>| {
                running.resize(row.len(), Running::default());
                row.iter().zip(&mut running).for_each(|(&x, r)| r.add(x));
            })?;
            done += count;
            let judged = running.iter().take(judged);
            if judged
                .map(|r| r.trace().relative_error())
                .fold(0.0, f64::max)
                <= effort.error
            {
                break;
            }
        }
        progress(effort.most, effort.most);
        Ok((running.iter().map(Running::trace).collect(), done))
    }
}

fn shares(sizes: &[f64]) -> Vec<f64> {
    let total: f64 = sizes.iter().sum();
    let even = 1.0 / sizes.len() as f64;
    let share = |size: f64| match total > 0.0 && total.is_finite() {
        true => EVEN * even + (1.0 - EVEN) * size / total,
        false => even,
    };
    let mut sum = 0.0;
    let running = sizes.iter().map(|&size| {
        sum += share(size);
        sum
    });
    running.collect()
}
