//! Calibration: ranges and means of all tensors of a float graph over samples.
//!
//! Samples are streamed: memory is proportional to the number of tensors times the bins of a histogram, whatever the
//! number of samples. Samples run in parallel and are merged in their order, so that results do not depend on threads.

mod histogram;
mod kl;
mod mse;
mod percentile;
mod words;

use std::collections::HashMap;

use lowbit_ir::eval::{EvalError, Plan, run_observed};
use lowbit_ir::{Data, Graph, Tensor, ValueId};
use rayon::prelude::*;

pub use histogram::{BINS, Histogram};

use crate::quantize::Ranges;

/// How the range of a tensor is chosen from what was seen.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Method {
    /// Everything that was seen.
    MinMax,
    /// All but a share of the elements: 99.99 leaves one in ten thousand out.
    Percentile(f64),
    /// The range with the least quantisation error in the norm of power 2.4 (BRECQ's search).
    Mse,
    /// The range whose quantised histogram diverges least from what was seen (TensorRT's search).
    Kl,
}

/// What was seen of one tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// Elements seen.
    pub histogram: Histogram,
    /// Sums by the last axis.
    sums: Vec<f64>,
    /// Largest magnitudes by the last axis.
    peaks: Vec<f64>,
    /// Elements summed for each index of the last axis.
    count: f64,
}

impl Observed {
    fn new(tensor: &Tensor) -> Self {
        let channels = tensor.shape().last().copied().unwrap_or(1);
        match tensor.data() {
            Data::F32(x) => Self::of(x, channels.max(1)),
            _ => Self::of(&tensor.to_f64(), channels.max(1)),
        }
    }

    fn of<T: Copy + Into<f64>>(x: &[T], channels: usize) -> Self {
        let (mut sums, mut peaks) = (vec![0.0; channels], vec![0.0f64; channels]);
        for row in x.chunks_exact(channels) {
            for ((s, p), &x) in sums.iter_mut().zip(&mut peaks).zip(row) {
                let x: f64 = x.into();
                *s += x;
                *p = p.max(x.abs());
            }
        }
        Self {
            histogram: Histogram::new(x),
            count: (x.len() / channels) as f64,
            sums,
            peaks,
        }
    }

    fn merge(&mut self, other: &Self) {
        self.histogram.merge(&other.histogram);
        self.sums
            .iter_mut()
            .zip(&other.sums)
            .for_each(|(a, b)| *a += b);
        let pairs = self.peaks.iter_mut().zip(&other.peaks);
        pairs.for_each(|(a, b)| *a = a.max(*b));
        self.count += other.count;
    }

    /// Mean for each index of the last axis.
    pub fn mean(&self) -> Vec<f64> {
        self.sums.iter().map(|s| s / self.count.max(1.0)).collect()
    }

    /// The range by a method for codes of `bits` bits; contains 0.
    pub fn range(&self, method: Method, bits: u32) -> (f64, f64) {
        let h = &self.histogram;
        match method {
            Method::MinMax => (h.min(), h.max()),
            Method::Percentile(p) => percentile::range(h, p),
            Method::Mse => mse::range(h, bits),
            Method::Kl => kl::range(h, bits),
        }
    }
}

/// What was seen of every tensor.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    observed: HashMap<ValueId, Observed>,
}

/// Why calibration failed.
#[derive(Debug, thiserror::Error)]
pub enum CalibrateError<E: std::error::Error + 'static> {
    /// A sample cannot be read.
    #[error(transparent)]
    Sample(E),
    /// The graph fails on a sample.
    #[error("sample {sample}: {error}")]
    Eval {
        /// The sample.
        sample: usize,
        /// What failed.
        error: EvalError,
    },
    /// A tensor holds infinite numbers or none at all.
    #[error(
        "sample {sample}: '{name}' holds NaN or infinity; check the model, or the scaling of the data"
    )]
    NotFinite {
        /// The sample.
        sample: usize,
        /// Name of the tensor.
        name: String,
    },
}

/// Samples that are in memory at once.
const CHUNK: usize = 16;

/// Runs `n` samples through a float graph and observes its inputs and all results for which `wanted` holds.
///
/// # Errors
/// The first sample that cannot be read or run, or that gives numbers that are not finite.
pub fn calibrate<E: std::error::Error + Send + 'static>(
    graph: &Graph,
    n: usize,
    sample: impl Fn(usize) -> Result<Vec<Tensor>, E> + Sync,
    wanted: impl Fn(ValueId) -> bool + Sync,
    mut progress: impl FnMut(usize, usize),
) -> Result<Stats, CalibrateError<E>> {
    let plan = Plan::only(graph, &wanted);
    let mut stats = Stats::default();
    for first in (0..n).step_by(CHUNK) {
        progress(first, n);
        let chunk: Result<Vec<Vec<(ValueId, Observed)>>, CalibrateError<E>> = (first
            ..n.min(first + CHUNK))
            .into_par_iter()
            .map(|i| {
                observe(
                    graph,
                    &plan,
                    i,
                    sample(i).map_err(CalibrateError::Sample)?,
                    &wanted,
                )
            })
            .collect();
        for (value, observed) in chunk?.into_iter().flatten() {
            match stats.observed.get_mut(&value) {
                Some(known) => known.merge(&observed),
                None => {
                    stats.observed.insert(value, observed);
                }
            }
        }
    }
    progress(n, n);
    Ok(stats)
}

fn observe<E: std::error::Error + 'static>(
    graph: &Graph,
    plan: &Plan,
    sample: usize,
    inputs: Vec<Tensor>,
    wanted: &(impl Fn(ValueId) -> bool + Sync),
) -> Result<Vec<(ValueId, Observed)>, CalibrateError<E>> {
    let mut seen = Vec::new();
    let mut odd = None;
    let mut see = |v: ValueId, t: &Tensor| {
        if !t.dtype().is_float() || t.is_empty() || !wanted(v) {
            return;
        }
        let observed = Observed::new(t);
        if !observed.histogram.is_finite() && odd.is_none() {
            odd = Some(v);
        }
        seen.push((v, observed));
    };
    graph
        .inputs()
        .iter()
        .zip(&inputs)
        .for_each(|(&v, t)| see(v, t));
    run_observed(graph, plan, &inputs, |_, v, t| see(v, t))
        .map_err(|error| CalibrateError::Eval { sample, error })?;
    match odd {
        Some(v) => Err(CalibrateError::NotFinite {
            sample,
            name: graph.value(v).name.clone(),
        }),
        None => Ok(seen),
    }
}

impl Stats {
    /// What was seen of a tensor, if it was observed.
    pub fn observed(&self, value: ValueId) -> Option<&Observed> {
        self.observed.get(&value)
    }

    /// Mean by the last axis.
    ///
    /// # Panics
    /// When the tensor was not observed.
    pub fn mean(&self, value: ValueId) -> Vec<f64> {
        self.observed[&value].mean()
    }

    /// Largest magnitudes by the last axis, where the tensor was observed.
    pub fn peaks(&self, value: ValueId) -> Option<Vec<f64>> {
        self.observed.get(&value).map(|o| o.peaks.clone())
    }

    /// Ranges by a method, as quantisation takes them; searched for at each call, so ask once.
    pub fn ranges(&self, method: Method) -> ChosenRanges<'_> {
        ChosenRanges {
            stats: self,
            method,
        }
    }
}

/// Ranges of observed tensors by one method.
pub struct ChosenRanges<'a> {
    stats: &'a Stats,
    method: Method,
}

impl Ranges for ChosenRanges<'_> {
    fn range(&self, value: ValueId, bits: u32) -> (f64, f64) {
        self.stats
            .observed
            .get(&value)
            .map_or((0.0, 0.0), |o| o.range(self.method, bits))
    }

    fn extremes(&self, value: ValueId) -> (f64, f64) {
        self.stats
            .observed
            .get(&value)
            .map_or((0.0, 0.0), |o| o.range(Method::MinMax, 8))
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use lowbit_ir::ops::{Unary, UnaryFn};
    use lowbit_ir::{DType, Type};

    use super::*;

    fn graph() -> Graph {
        let mut g = Graph::new("g");
        let x = g.input("x", Type::new(DType::F32, [1, 50, 4]));
        let y = g.push("y", Unary(UnaryFn::Relu), &[x]).unwrap();
        g.output("y", y);
        g
    }

    fn sample(i: usize) -> Result<Vec<Tensor>, Infallible> {
        let x = (0..200)
            .map(|k| ((i * 7919 + k * 104_729) % 1000) as f32 / 500.0 - 1.0)
            .collect();
        Ok(vec![Tensor::new([1, 50, 4], x)])
    }

    #[test]
    fn the_number_of_threads_changes_nothing() {
        let g = graph();
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| calibrate(&g, 50, sample, |_| true, |_, _| {}).unwrap())
        };
        assert_eq!(on(1).observed, on(3).observed);
    }

    #[test]
    fn memory_does_not_grow_with_the_number_of_samples() {
        let g = graph();
        let size = |n| {
            let stats = calibrate(&g, n, sample, |_| true, |_, _| {}).unwrap();
            stats
                .observed
                .values()
                .map(|o| o.histogram.bins().capacity() + o.sums.capacity())
                .sum::<usize>()
        };
        assert_eq!(size(10), size(2000));
    }

    #[test]
    fn what_is_not_finite_is_named() {
        let g = graph();
        let bad = |i: usize| {
            let mut x = vec![0.0f32; 200];
            if i == 3 {
                x[7] = f32::NAN;
            }
            Ok::<_, Infallible>(vec![Tensor::new([1, 50, 4], x)])
        };
        let error = calibrate(&g, 5, bad, |_| true, |_, _| {}).unwrap_err();
        assert!(error.to_string().starts_with("sample 3: 'x'"), "{error}");
    }
}
