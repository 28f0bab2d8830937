//! The diagonal of the empirical Fisher matrix: squared gradients times squared errors, element by element.

use lowbit_ir::Tensor;

use super::gradients::{Derived, check};
use super::random::Random;
use super::{COLUMNS, SensitivityError, Study, WEIGHTS, stream};

/// How gradients are sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draws {
    /// Directions a sample whose class is not known.
    pub count: usize,
    /// Seed of the directions.
    pub seed: u64,
}

/// `½ Σ F Δ²` by layer and column over `n` samples; `label` names the class of a sample where it is known, and the
/// network's own distribution stands in where it is not.
///
/// # Errors
/// A sample that cannot be read or run; a gradient that is not finite; a network without derivative.
pub fn fisher<E: std::error::Error + Send + 'static>(
    study: &Study<'_>,
    n: usize,
    sample: impl Fn(usize) -> Result<Vec<Tensor>, E> + Sync,
    label: impl Fn(usize) -> Option<usize> + Sync,
    draws: Draws,
    progress: impl FnMut(usize, usize),
) -> Result<Vec<Vec<f64>>, SensitivityError<E>> {
    let derived = Derived::new(study)?;
    let errors = study.errors();
    let mut sums = vec![vec![0.0; COLUMNS]; study.layers.len()];
    let row = |i: usize, inputs: &[Tensor]| {
        let label = label(i).filter(|_| study.objective.is_divergence());
        let count = if label.is_some() { 1 } else { draws.count };
        let random = Random::new(draws.seed, i as u64);
        one(
            study,
            (&derived, &errors),
            (i, inputs),
            label,
            (count, random),
        )
    };
    stream::rows(n, sample, progress, row, |row: Vec<Vec<f64>>| {
        for (sum, own) in sums.iter_mut().zip(&row) {
            let pairs = sum.iter_mut().zip(own);
            pairs.for_each(|(s, x)| *s += x / n as f64);
        }
    })?;
    Ok(sums)
}

fn one<E: std::error::Error>(
    study: &Study<'_>,
    (derived, errors): (&Derived, &[Vec<Vec<f64>>]),
    (sample, inputs): (usize, &[Tensor]),
    label: Option<usize>,
    (count, mut random): (usize, Random),
) -> Result<Vec<Vec<f64>>, SensitivityError<E>> {
    let scores = derived.scores(sample, inputs)?;
    let mut row = vec![vec![0.0; COLUMNS]; study.layers.len()];
    for _ in 0..count {
        let u = study
            .objective
            .direction(&scores, label, &mut || random.uniform());
        let found = derived.gradients(study, sample, inputs, u)?;
        for (l, sums) in row.iter_mut().enumerate() {
            let error = study.input_error(l, &found.read[l]);
            let (weights, input) = sums.split_at_mut(WEIGHTS.len());
            weigh(weights, &found.by_weights[l], &errors[l], count);
            weigh(input, &found.by_inputs[l], &[error], count);
        }
    }
    let totals: Vec<f64> = row.iter().map(|r| r.iter().sum()).collect();
    check(study, sample, &totals)?;
    Ok(row)
}

fn weigh(sums: &mut [f64], gradient: &Tensor, errors: &[Vec<f64>], count: usize) {
    let g = gradient.to_f64();
    for (sum, e) in sums.iter_mut().zip(errors) {
        let weighted = g.iter().zip(e).map(|(g, e)| g * g * e * e);
        *sum += 0.5 * weighted.sum::<f64>() / count as f64;
    }
}
