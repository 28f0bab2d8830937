//! First derivatives by the weights and inputs of layers: traces of the Gauss-Newton matrix.
//!
//! For a direction u of the outputs whose outer product is the loss's second derivative there, the gradient g of ⟨u, y⟩
//! has the Gauss-Newton matrix as the expectation of g gᵀ. It is the Hessian where the loss is the divergence from the
//! network's own outputs. The trace is the expectation of ‖g‖², which needs no second derivative and is far less noisy
//! than probes of the Hessian.

use lowbit_ir::derive::{Emit, gradient};
use lowbit_ir::eval::{Plan, run_observed};
use lowbit_ir::{Graph, Tensor, ValueId};

use super::draws::{Curvature, Effort};
use super::hessian::Trace;
use super::random::Random;
use super::{SensitivityError, Study};
use crate::simplify::fold_constants;

/// A graph that gives the scores, and one that gives the gradients for a direction.
pub(super) struct Derived {
    scores: Graph,
    gradients: Graph,
    plans: [Plan; 2],
}

impl Derived {
    pub(super) fn new(study: &Study<'_>) -> Result<Self, lowbit_ir::derive::DeriveError> {
        let mut scores = without_outputs(study.graph);
        study
            .objective
            .values()
            .for_each(|v| scores.output("score", v));
        let mut graph = without_outputs(study.graph);
        let mut loss = None;
        for v in study.objective.values() {
            let u = graph.input("direction", graph.ty(v).clone());
            let mut e = Emit::new(&mut graph, "direction");
            let emitted = e.mul(u, v).and_then(|p| e.total(p));
            let term = emitted.expect("both have one type");
            loss = Some(match loss {
                None => term,
                Some(l) => e.add(l, term).expect("both are numbers"),
            });
        }
        let by: Vec<ValueId> = study
            .layers
            .iter()
            .map(|l| l.weight)
            .chain(study.layers.iter().map(|l| l.input))
            .collect();
        let loss = loss.expect("a network has an output");
        let d = gradient(&mut graph, loss, &by)?;
        d.iter().for_each(|&v| graph.output("gradient", v));
        study
            .layers
            .iter()
            .for_each(|l| graph.output("input", l.input));
        let gradients = (fold_constants::PASS.run)(&graph.without_dead());
        let scores = scores.without_dead();
        let plans = [&scores, &gradients].map(|g| Plan::only(g, |_| false));
        Ok(Self {
            scores,
            gradients,
            plans,
        })
    }

    /// What the network gives for a sample.
    pub(super) fn scores<E: std::error::Error>(
        &self,
        sample: usize,
        inputs: &[Tensor],
    ) -> Result<Vec<Tensor>, SensitivityError<E>> {
        run_observed(&self.scores, &self.plans[0], inputs, |_, _, _| {})
            .map_err(|error| SensitivityError::Eval { sample, error })
    }

    /// Gradients for one direction `u` of the outputs.
    pub(super) fn gradients<E: std::error::Error>(
        &self,
        study: &Study<'_>,
        sample: usize,
        inputs: &[Tensor],
        u: Vec<Tensor>,
    ) -> Result<Found, SensitivityError<E>> {
        let operands: Vec<Tensor> = inputs.iter().cloned().chain(u).collect();
        let found = run_observed(&self.gradients, &self.plans[1], &operands, |_, _, _| {});
        let mut by_weights = found.map_err(|error| SensitivityError::Eval { sample, error })?;
        let mut by_inputs = by_weights.split_off(study.layers.len());
        let read = by_inputs.split_off(study.layers.len());
        Ok(Found {
            by_weights,
            by_inputs,
            read,
        })
    }
}

/// Gradients of one sample, by layer.
pub(super) struct Found {
    pub(super) by_weights: Vec<Tensor>,
    pub(super) by_inputs: Vec<Tensor>,
    /// What each layer reads.
    pub(super) read: Vec<Tensor>,
}

fn without_outputs(graph: &Graph) -> Graph {
    let mut graph = graph.clone();
    graph.clear_outputs();
    graph
}

/// Traces of the Gauss-Newton matrix, for the mean loss of a sample.
#[derive(Clone, Debug, PartialEq)]
pub struct GaussNewton {
    /// By the weights of each layer.
    pub weights: Vec<Trace>,
    /// By each layer's input.
    pub inputs: Vec<Trace>,
    /// Gradients taken.
    pub draws: usize,
}

/// Takes gradients until every trace by weights is as exact as asked, or draws run out.
///
/// # Errors
/// A sample that cannot be read or run; a gradient that is not finite; a network without derivative.
pub fn gauss_newton<E: std::error::Error + Send + 'static>(
    study: &Study<'_>,
    curvature: &Curvature,
    effort: Effort,
    sample: impl Fn(usize) -> Result<Vec<Tensor>, E> + Sync,
    progress: impl FnMut(usize, usize),
) -> Result<GaussNewton, SensitivityError<E>> {
    let derived = Derived::new(study)?;
    let layers = study.layers.len();
    let one = |i: usize, inputs: &[Tensor], mut random: Random| {
        let scores = derived.scores(i, inputs)?;
        let u = study
            .objective
            .direction(&scores, None, &mut || random.uniform());
        let found = derived.gradients(study, i, inputs, u)?;
        let squares: Vec<f64> = found
            .by_weights
            .iter()
            .chain(&found.by_inputs)
            .map(square)
            .collect();
        check(study, i, &squares)?;
        Ok(squares)
    };
    let (mut weights, draws) = curvature.estimate((effort, layers), sample, progress, one)?;
    let inputs = weights.split_off(layers);
    Ok(GaussNewton {
        weights,
        inputs,
        draws,
    })
}

fn square(x: &Tensor) -> f64 {
    x.to_f64().iter().map(|x| x * x).sum()
}

/// Whether numbers, in the order of layers, are finite.
pub(super) fn check<E: std::error::Error>(
    study: &Study<'_>,
    sample: usize,
    squares: &[f64],
) -> Result<(), SensitivityError<E>> {
    match squares.iter().position(|s| !s.is_finite()) {
        None => Ok(()),
        Some(at) => Err(SensitivityError::NotFinite {
            layer: study.layers[at % study.layers.len()].name.clone(),
            sample,
            what: "squared gradient",
            found: squares[at],
        }),
    }
}
