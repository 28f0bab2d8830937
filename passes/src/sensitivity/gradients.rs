//! First derivatives by the weights and inputs of layers: Fisher information, and traces of the Gauss-Newton matrix.
//!
//! For a direction u of the outputs whose outer product is the loss's second derivative there, the gradient g of ⟨u, y⟩
//! has the Gauss-Newton matrix as the expectation of g gᵀ. It is the Hessian where the loss is the divergence from the
//! network's own outputs. The trace is the expectation of ‖g‖², which needs no second derivative and is far less noisy
//! than probes of the Hessian.

use lowbit_ir::derive::{Emit, gradient};
use lowbit_ir::eval::{Plan, run_observed};
use lowbit_ir::{Graph, Tensor, ValueId};

use super::hessian::{Running, Trace};
use super::random::Random;
use super::{COLUMNS, SensitivityError, Study, WEIGHTS, stream};
use crate::simplify::fold_constants;

/// What gradients say about every layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Gradients {
    /// Trace of the Gauss-Newton matrix by the weights.
    pub weights: Vec<Trace>,
    /// Trace by the layer's input.
    pub inputs: Vec<Trace>,
    /// Mean squared error of an element of the layer's input at 4 bits.
    pub input_errors: Vec<f64>,
    /// `½ Σ F Δ²` with the diagonal F of the empirical Fisher matrix, by layer and column.
    pub fisher: Vec<Vec<f64>>,
}

/// A graph that gives the scores, and one that gives the gradients for a direction.
struct Derived {
    scores: Graph,
    gradients: Graph,
    plans: [Plan; 2],
}

impl Derived {
    fn new(study: &Study<'_>) -> Result<Self, lowbit_ir::derive::DeriveError> {
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
        let plans = [Plan::new(&scores), Plan::new(&gradients)];
        Ok(Self {
            scores,
            gradients,
            plans,
        })
    }
}

fn without_outputs(graph: &Graph) -> Graph {
    let mut graph = graph.clone();
    graph.clear_outputs();
    graph
}

/// How gradients are sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draws {
    /// Directions a sample.
    pub count: usize,
    /// Seed of the directions.
    pub seed: u64,
}

/// Squared norms and Fisher terms of one sample.
struct Row {
    weights: Vec<f64>,
    inputs: Vec<f64>,
    input_errors: Vec<f64>,
    fisher: Vec<Vec<f64>>,
}

impl Gradients {
    /// Takes gradients over `n` samples; `label` names the class of a sample where it is known.
    ///
    /// # Errors
    /// A sample that cannot be read or run; a gradient that is not finite; a network without derivative.
    pub fn new<E: std::error::Error + Send + 'static>(
        study: &Study<'_>,
        n: usize,
        sample: impl Fn(usize) -> Result<Vec<Tensor>, E> + Sync,
        label: impl Fn(usize) -> Option<usize> + Sync,
        draws: Draws,
        progress: impl FnMut(usize, usize),
    ) -> Result<Self, SensitivityError<E>> {
        let derived = Derived::new(study)?;
        let errors = study.errors();
        let layers = study.layers.len();
        let mut sums = (
            vec![Running::default(); layers],
            vec![Running::default(); layers],
        );
        let mut input_errors = vec![0.0; layers];
        let mut fisher = vec![vec![0.0; COLUMNS]; layers];
        let row =
            |i: usize, inputs: &[Tensor]| one(study, &derived, &errors, i, inputs, label(i), draws);
        stream::rows(n, sample, progress, row, |row: Row| {
            row.weights
                .iter()
                .zip(&mut sums.0)
                .for_each(|(&x, s)| s.add(x));
            row.inputs
                .iter()
                .zip(&mut sums.1)
                .for_each(|(&x, s)| s.add(x));
            let errors = input_errors.iter_mut().zip(&row.input_errors);
            errors.for_each(|(a, x)| *a += x / n as f64);
            for (all, own) in fisher.iter_mut().zip(&row.fisher) {
                all.iter_mut()
                    .zip(own)
                    .for_each(|(a, x)| *a += x / n as f64);
            }
        })?;
        Ok(Self {
            weights: sums.0.iter().map(Running::trace).collect(),
            inputs: sums.1.iter().map(Running::trace).collect(),
            input_errors,
            fisher,
        })
    }
}

fn one<E: std::error::Error>(
    study: &Study<'_>,
    derived: &Derived,
    errors: &[Vec<Vec<f64>>],
    sample: usize,
    inputs: &[Tensor],
    label: Option<usize>,
    draws: Draws,
) -> Result<Row, SensitivityError<E>> {
    let failed = |error| SensitivityError::Eval { sample, error };
    let layers = study.layers.len();
    let scores = run_observed(&derived.scores, &derived.plans[0], inputs, |_, _, _| {});
    let scores = scores.map_err(failed)?;
    let mut random = Random::new(draws.seed, sample as u64);
    let mut row = Row {
        weights: vec![0.0; layers],
        inputs: vec![0.0; layers],
        input_errors: vec![0.0; layers],
        fisher: vec![vec![0.0; COLUMNS]; layers],
    };
    // the class that the data names comes first and is no draw from the network's distribution
    let first = usize::from(label.is_some() && study.objective.is_divergence());
    for draw in 0..first + draws.count {
        let named = label.filter(|_| draw < first);
        let u = study
            .objective
            .direction(&scores, named, &mut || random.uniform());
        let operands: Vec<Tensor> = inputs.iter().cloned().chain(u).collect();
        let d = run_observed(
            &derived.gradients,
            &derived.plans[1],
            &operands,
            |_, _, _| {},
        );
        let d = d.map_err(failed)?;
        let (by_weights, rest) = d.split_at(layers);
        let (by_inputs, read) = rest.split_at(layers);
        if draw >= first {
            add_squares(&mut row.weights, by_weights, draws.count);
            add_squares(&mut row.inputs, by_inputs, draws.count);
        }
        if first == 0 || draw < first {
            let share = 1.0 / if first == 0 { draws.count } else { first } as f64;
            for l in 0..layers {
                let error = input_error(study, l, &read[l]);
                row.input_errors[l] = mean_square(&error);
                let (weights, input) = row.fisher[l].split_at_mut(WEIGHTS.len());
                add_fisher(weights, &by_weights[l], &errors[l], share);
                add_fisher(input, &by_inputs[l], &[error], share);
            }
        }
    }
    check(study, sample, &row)?;
    Ok(row)
}

/// Error of what a layer reads at 4 bits.
fn input_error(study: &Study<'_>, layer: usize, x: &Tensor) -> Vec<f64> {
    let coarse = study.coarse(layer, x).to_f64();
    coarse.iter().zip(x.to_f64()).map(|(c, x)| c - x).collect()
}

fn mean_square(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>() / x.len().max(1) as f64
}

fn add_squares(sums: &mut [f64], gradients: &[Tensor], draws: usize) {
    for (sum, g) in sums.iter_mut().zip(gradients) {
        *sum += g.to_f64().iter().map(|g| g * g).sum::<f64>() / draws as f64;
    }
}

fn add_fisher(sums: &mut [f64], gradient: &Tensor, errors: &[Vec<f64>], share: f64) {
    let g = gradient.to_f64();
    for (sum, e) in sums.iter_mut().zip(errors) {
        let weighted = g.iter().zip(e).map(|(g, e)| g * g * e * e);
        *sum += 0.5 * share * weighted.sum::<f64>();
    }
}

fn check<E: std::error::Error>(
    study: &Study<'_>,
    sample: usize,
    row: &Row,
) -> Result<(), SensitivityError<E>> {
    let odd = |i: &usize| !(row.weights[*i].is_finite() && row.inputs[*i].is_finite());
    match (0..study.layers.len()).find(odd) {
        None => Ok(()),
        Some(l) => Err(SensitivityError::NotFinite {
            layer: study.layers[l].name.clone(),
            sample,
            what: "squared gradient",
            found: row.weights[l] + row.inputs[l],
        }),
    }
}
