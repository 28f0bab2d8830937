//! Relevance of a layer times the relative error of its result.
//!
//! Relevance starts at the class that the network picks and is shared among what it was computed from, layer by layer,
//! by the rules that stand with the operations. A layer's share is the sum of the magnitudes that arrive at its result,
//! over the sum of all layers, sample by sample; the error is that of its result with the layer alone rounded.

use lowbit_ir::derive::relevance;
use lowbit_ir::eval::{Plan, run_observed};
use lowbit_ir::{Graph, Tensor, ValueId};

use super::measured::{Values, layer_results};
use super::{COLUMNS, SensitivityError, Study, stream};
use crate::simplify::fold_constants;

/// Shares of relevance and relative errors of one sample.
struct Row {
    shares: Vec<f64>,
    errors: Vec<Vec<f64>>,
}

/// Losses by layer and column over `n` samples.
///
/// # Errors
/// A sample that cannot be read or run; relevance that is not finite.
pub fn lrp<E: std::error::Error + Send + 'static>(
    study: &Study<'_>,
    n: usize,
    sample: impl Fn(usize) -> Result<Vec<Tensor>, E> + Sync,
    progress: impl FnMut(usize, usize),
) -> Result<Vec<Vec<f64>>, SensitivityError<E>> {
    let graph = shares(study)?;
    let plan = Plan::new(&graph);
    let layers = study.layers.len();
    let (mut share, mut error) = (vec![0.0; layers], vec![vec![0.0; COLUMNS]; layers]);
    let row = |i: usize, inputs: &[Tensor]| one(study, (&graph, &plan), i, inputs);
    stream::rows(n, sample, progress, row, |row: Row| {
        share
            .iter_mut()
            .zip(row.shares)
            .for_each(|(s, x)| *s += x / n as f64);
        for (sum, own) in error.iter_mut().zip(&row.errors) {
            sum.iter_mut()
                .zip(own)
                .for_each(|(s, x)| *s += x / n as f64);
        }
    })?;
    let rows = share.iter().zip(error);
    Ok(rows
        .map(|(s, e)| e.into_iter().map(|e| s * e).collect())
        .collect())
}

/// The network with the relevance of its results as further inputs, giving out that of every layer.
fn shares(study: &Study<'_>) -> Result<Graph, lowbit_ir::derive::DeriveError> {
    let mut graph = study.graph.clone();
    graph.clear_outputs();
    let results: Vec<(ValueId, ValueId)> = study
        .objective
        .values()
        .map(|v| (v, graph.input("relevance", graph.ty(v).clone())))
        .collect();
    let by: Vec<ValueId> = study.layers.iter().map(|l| l.output).collect();
    let found = relevance(&mut graph, &results, &by)?;
    found.iter().for_each(|&v| graph.output("relevance", v));
    Ok((fold_constants::PASS.run)(&graph.without_dead()))
}

fn one<E: std::error::Error>(
    study: &Study<'_>,
    (graph, plan): (&Graph, &Plan),
    sample: usize,
    inputs: &[Tensor],
) -> Result<Row, SensitivityError<E>> {
    let failed = |error| SensitivityError::Eval { sample, error };
    let values = Values::new(study.graph, inputs).map_err(failed)?;
    let start = study.objective.picked(&values.compared(study));
    let operands: Vec<Tensor> = inputs.iter().cloned().chain(start).collect();
    let found = run_observed(graph, plan, &operands, |_, _, _| {}).map_err(failed)?;
    let size = |t: &Tensor| t.to_f64().iter().map(|r| r.abs()).sum::<f64>();
    let sizes: Vec<f64> = found.iter().map(size).collect();
    if let Some(l) = sizes.iter().position(|s| !s.is_finite()) {
        return Err(SensitivityError::NotFinite {
            layer: study.layers[l].name.clone(),
            sample,
            what: "relevance",
            found: sizes[l],
        });
    }
    let total = sizes.iter().sum::<f64>().max(f64::MIN_POSITIVE);
    let mut errors = Vec::with_capacity(study.layers.len());
    for (l, layer) in study.layers.iter().enumerate() {
        let own = values.get(layer.output).to_f64();
        let results = layer_results(study, &values, l).map_err(failed)?;
        errors.push(
            results
                .iter()
                .map(|r| relative_error(&own, &r.to_f64()))
                .collect(),
        );
    }
    Ok(Row {
        shares: sizes.iter().map(|s| s / total).collect(),
        errors,
    })
}

fn relative_error(own: &[f64], other: &[f64]) -> f64 {
    let noise: f64 = own.iter().zip(other).map(|(a, b)| (a - b) * (a - b)).sum();
    let signal: f64 = own.iter().map(|a| a * a).sum();
    noise / signal.max(f64::MIN_POSITIVE)
}
