//! Where the integer graph departs from the float model: signal to noise and cosine of every layer's result.

use std::collections::HashMap;

use lowbit_ir::eval::{Plan, run_observed};
use lowbit_ir::{Tensor, ValueId};
use lowbit_num::real;
use rayon::prelude::*;

use crate::compile::Compiled;
use crate::object::encode_sample;
use crate::{Error, Progress};

/// Samples that are compared at most.
const SAMPLES: u64 = 32;
/// Multiply-accumulates of the interpreter that comparing may cost: large models are compared on fewer samples.
const WORK: u64 = 3_000_000_000;
/// Samples that are compared at least.
const FEWEST: u64 = 2;

/// Sums over the elements of one layer's result.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sums {
    /// Of squares of the float model's values.
    float: f64,
    /// Of squares of the codes' real values.
    codes: f64,
    /// Of products of both.
    product: f64,
    /// Of squares of differences.
    noise: f64,
}

impl Sums {
    fn of(float: &[f64], codes: &[f64]) -> Self {
        let mut sums = Self::default();
        for (f, c) in float.iter().zip(codes) {
            sums.float += f * f;
            sums.codes += c * c;
            sums.product += f * c;
            sums.noise += (f - c) * (f - c);
        }
        sums
    }

    fn add(&mut self, other: &Self) {
        self.float += other.float;
        self.codes += other.codes;
        self.product += other.product;
        self.noise += other.noise;
    }

    fn sqnr_db(&self) -> Option<f64> {
        let db = 10.0 * libm::log10(self.float / self.noise);
        Some(db).filter(|db| db.is_finite())
    }

    fn cosine(&self) -> Option<f64> {
        let cosine = self.product / libm::sqrt(self.float * self.codes);
        Some(cosine).filter(|c| c.is_finite())
    }
}

/// A layer's result in both graphs.
struct Pair {
    float: ValueId,
    int: ValueId,
}

/// Fills in what each layer's result is worth, measured on samples that decisions may read.
///
/// # Errors
/// A sample cannot be read or run.
pub(crate) fn diagnose(compiled: &mut Compiled, progress: &dyn Progress) -> Result<(), Error> {
    let pairs = pairs(compiled);
    let indices = indices(compiled);
    let mut sums = vec![Sums::default(); pairs.len()];
    let chunk = rayon::current_num_threads().max(1);
    for (done, part) in indices.chunks(chunk).enumerate() {
        progress.step("diagnose", done * chunk, indices.len());
        let found: Result<Vec<Vec<Sums>>, Error> = part
            .par_iter()
            .map(|&i| sample(compiled, &pairs, i))
            .collect();
        for of_sample in found? {
            sums.iter_mut().zip(&of_sample).for_each(|(s, o)| s.add(o));
        }
    }
    for (layer, s) in compiled.artefact.report.layers.iter_mut().zip(&sums) {
        layer.sqnr_db = s.sqnr_db();
        layer.cosine = s.cosine();
    }
    Ok(())
}

fn indices(compiled: &Compiled) -> Vec<usize> {
    let split = compiled.data.split();
    let range = split.tune.clone().unwrap_or(split.calibrate.clone());
    let macs = compiled.artefact.report.totals.macs.max(1);
    let most = (WORK / macs).clamp(FEWEST, SAMPLES);
    range.take(most as usize).collect()
}

fn pairs(compiled: &Compiled) -> Vec<Pair> {
    let stands: HashMap<ValueId, ValueId> = (compiled.quantized.values.iter())
        .map(|(&float, &int)| (int, float))
        .collect();
    let layers = compiled.quantized.layers.iter();
    layers
        .map(|l| Pair {
            float: stands.get(&l.int).copied().unwrap_or(l.float),
            int: l.int,
        })
        .collect()
}

fn sample(compiled: &Compiled, pairs: &[Pair], i: usize) -> Result<Vec<Sums>, Error> {
    let equalized = compiled.quantized.equalized.as_ref();
    let (float, int) = (
        equalized.unwrap_or(&compiled.model.graph),
        &compiled.quantized.graph,
    );
    let failed = |error| Error::Eval { sample: i, error };
    let inputs = compiled.model.sample(&compiled.data, i)?;
    let mut kept: HashMap<ValueId, Tensor> = HashMap::new();
    let wanted: Vec<ValueId> = pairs.iter().map(|p| p.float).collect();
    run_observed(float, &Plan::new(float), &inputs, |_, v, t| {
        if wanted.contains(&v) {
            kept.insert(v, t.clone());
        }
    })
    .map_err(failed)?;
    let at: HashMap<ValueId, usize> = pairs.iter().enumerate().map(|(k, p)| (p.int, k)).collect();
    let mut sums = vec![Sums::default(); pairs.len()];
    let codes = encode_sample(int, &inputs);
    run_observed(int, &Plan::new(int), &codes, |_, v, t| {
        let Some(&k) = at.get(&v) else { return };
        let (Some(quant), Some(float)) = (int.quant_of(v), kept.remove(&pairs[k].float)) else {
            return;
        };
        let scale = real::value(quant.scale());
        let value = |q: f64| scale * (q - f64::from(quant.zero_point));
        let values: Vec<f64> = t.to_f64().into_iter().map(value).collect();
        sums[k] = Sums::of(&float.to_f64(), &values);
    })
    .map_err(failed)?;
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_give_decibels_and_cosine() {
        let mut sums = Sums::of(&[3.0, 4.0], &[3.0, 4.5]);
        sums.add(&Sums::of(&[5.0], &[5.0]));
        assert!((sums.sqnr_db().expect("there is noise") - 23.010_299_956).abs() < 1e-6);
        let cosine = 52.0 / (50.0f64 * 54.25).sqrt();
        assert!((sums.cosine().expect("there is signal") - cosine).abs() < 1e-12);
        assert_eq!(Sums::of(&[1.0], &[1.0]).sqnr_db(), None);
    }
}
