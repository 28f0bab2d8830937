//! Traces of the Hessian by Hutchinson's probes with exact Hessian-vector products.

use lowbit_ir::derive::hessian_vector;
use lowbit_ir::eval::{Plan, run, run_observed};
use lowbit_ir::{Graph, Tensor, ValueId};

use super::draws::{Curvature, Effort};
use super::random::Random;
use super::{SensitivityError, Study, WEIGHTS};
use crate::simplify::fold_constants;

/// An estimate with the standard error of its mean.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Trace {
    /// The mean.
    pub mean: f64,
    /// Its standard error.
    pub standard_error: f64,
}

impl Trace {
    /// The standard error over the mean's magnitude.
    pub fn relative_error(&self) -> f64 {
        self.standard_error / self.mean.abs().max(f64::MIN_POSITIVE)
    }
}

/// Mean and spread of numbers as they come (Welford).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Running {
    n: f64,
    mean: f64,
    squares: f64,
}

impl Running {
    pub(super) fn add(&mut self, x: f64) {
        self.n += 1.0;
        let from = x - self.mean;
        self.mean += from / self.n;
        self.squares += from * (x - self.mean);
    }

    pub(super) fn trace(&self) -> Trace {
        let variance = self.squares / (self.n - 1.0).max(1.0);
        Trace {
            mean: self.mean,
            standard_error: libm::sqrt(variance / self.n.max(1.0)),
        }
    }
}

/// Traces of all layers and what it took.
#[derive(Clone, Debug, PartialEq)]
pub struct Traces {
    /// By layer, for one sample's loss.
    pub layers: Vec<Trace>,
    /// Hessian-vector products taken.
    pub probes: usize,
}

/// The largest relative standard error of some traces.
pub fn worst_error(traces: &[Trace]) -> f64 {
    traces.iter().map(Trace::relative_error).fold(0.0, f64::max)
}

/// The losses `½ · trace / n · ‖Δ‖²`, by layer and column: n elements with errors Δ, weights or what the layer reads.
/// `inputs` holds the trace by the input and the mean square of its error at 4 bits. A negative trace counts as 0.
pub fn hessian_losses(
    study: &Study<'_>,
    weights: &[Trace],
    inputs: &[(Trace, f64)],
) -> Vec<Vec<f64>> {
    let layers = study.layers.iter().enumerate();
    layers
        .map(|(l, layer)| {
            let each = weights[l].mean.max(0.0) / layer.params as f64;
            let squares = |f| study.error(l, f).iter().map(|e| e * e).sum::<f64>();
            let mut losses: Vec<f64> = (0..WEIGHTS.len())
                .map(|f| 0.5 * each * squares(f))
                .collect();
            let (trace, square) = inputs[l];
            losses.push(0.5 * trace.mean.max(0.0) * square);
            losses
        })
        .collect()
}

struct Derived {
    scores: Graph,
    products: Graph,
    plan: Plan,
}

impl Derived {
    fn new(study: &Study<'_>) -> Result<Self, lowbit_ir::derive::DeriveError> {
        let mut scores = study.graph.clone();
        scores.clear_outputs();
        study
            .objective
            .values()
            .for_each(|v| scores.output("score", v));
        let mut graph = study.graph.clone();
        graph.clear_outputs();
        let loss = study
            .objective
            .emit(&mut graph)
            .expect("a network has an output");
        let by: Vec<ValueId> = study.layers.iter().map(|l| l.weight).collect();
        let directions: Vec<ValueId> = by
            .iter()
            .map(|&w| graph.input("probe", graph.ty(w).clone()))
            .collect();
        let products = hessian_vector(&mut graph, loss, &by, &directions)?;
        products.iter().for_each(|&v| graph.output("product", v));
        let products = (fold_constants::PASS.run)(&graph.without_dead());
        Ok(Self {
            scores: scores.without_dead(),
            plan: Plan::only(&products, |_| false),
            products,
        })
    }
}

/// Probes the Hessian with random signs, all layers at once, until every trace is as exact as asked or probes run out. A
/// layer's signs are made smaller by the root of the trace that `expected` gives it: no other layer drowns it then,
/// whatever the expectation is worth.
///
/// # Errors
/// A sample that cannot be read or run; a product that is not finite; a network without derivative.
pub fn hutchinson<E: std::error::Error + Send + 'static>(
    study: &Study<'_>,
    (curvature, expected): (&Curvature, &[Trace]),
    effort: Effort,
    sample: impl Fn(usize) -> Result<Vec<Tensor>, E> + Sync,
    progress: impl FnMut(usize, usize),
) -> Result<Traces, SensitivityError<E>> {
    let derived = Derived::new(study)?;
    let size = |t: &Trace| match t.mean > 0.0 {
        true => 1.0 / libm::sqrt(t.mean),
        false => 1.0,
    };
    let sizes: Vec<f64> = expected.iter().map(size).collect();
    let one = |i: usize, inputs: &[Tensor], random: Random| {
        one(study, (&derived, &sizes), i, inputs, random)
    };
    let found = curvature.estimate((effort, study.layers.len()), sample, progress, one)?;
    let (layers, probes) = found;
    Ok(Traces { layers, probes })
}

fn one<E: std::error::Error>(
    study: &Study<'_>,
    (derived, sizes): (&Derived, &[f64]),
    sample: usize,
    inputs: &[Tensor],
    mut random: Random,
) -> Result<Vec<f64>, SensitivityError<E>> {
    let failed = |error| SensitivityError::Eval { sample, error };
    let scores = run(&derived.scores, inputs).map_err(failed)?;
    let layers = study.layers.iter().zip(sizes);
    let probes: Vec<Tensor> = layers
        .map(|(l, size)| {
            let ty = study.graph.ty(l.weight);
            let signs = (0..l.params).map(|_| size * random.sign()).collect();
            Tensor::from_f64(ty.dtype, ty.shape.clone(), signs)
        })
        .collect();
    let operands: Vec<Tensor> = [inputs, &scores, &probes].concat();
    let products = run_observed(&derived.products, &derived.plan, &operands, |_, _, _| {});
    let products = products.map_err(failed)?;
    let inner = |(v, hv): (&Tensor, &Tensor)| -> f64 {
        v.to_f64().iter().zip(hv.to_f64()).map(|(v, h)| v * h).sum()
    };
    let all = probes.iter().zip(&products).map(inner).zip(sizes);
    let traces: Vec<f64> = all.map(|(x, size)| x / (size * size)).collect();
    match traces.iter().position(|t: &f64| !t.is_finite()) {
        None => Ok(traces),
        Some(l) => Err(SensitivityError::NotFinite {
            layer: study.layers[l].name.clone(),
            sample,
            what: "Hessian-vector product",
            found: traces[l],
        }),
    }
}
