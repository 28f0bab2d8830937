//! The temperature at which the classes of a model are compared.

use std::collections::HashMap;

use lowbit_data::{Dataset, spread};
use lowbit_ir::eval::{Plan, run_observed};
use lowbit_ir::{Tensor, ValueId};
use lowbit_passes::loss::Objective;
use rayon::prelude::*;

use crate::model::Model;
use crate::network::key;
use crate::{Cache, Error, Progress};

/// Calibration samples that it is taken from.
const SAMPLES: usize = 64;

/// What a model loses against its float outputs, at the temperature that its calibration samples ask for: see
/// [`Objective::temperature_for`].
///
/// # Errors
/// A sample cannot be read or run.
pub(crate) fn objective(
    model: &Model,
    data: &Dataset,
    cache: &Cache,
    progress: &dyn Progress,
) -> Result<Objective, Error> {
    let objective = Objective::new(&model.graph, data.labels().is_some());
    if !objective.is_divergence() {
        return Ok(objective);
    }
    let split: Vec<usize> = data.split().calibrate.clone().collect();
    let indices = spread(&split, SAMPLES);
    let measure = || {
        let (graph, values): (_, Vec<_>) = (&model.graph, objective.values().collect());
        let plan = Plan::only(graph, |v| values.contains(&v));
        let one = |&i: &usize| {
            let inputs = model.sample(data, i)?;
            let given = graph.inputs().iter().copied().zip(inputs.iter().cloned());
            let mut seen: HashMap<ValueId, Tensor> = given.collect();
            run_observed(graph, &plan, &inputs, |_, v, t| {
                if values.contains(&v) {
                    seen.insert(v, t.clone());
                }
            })
            .map_err(|error| Error::Eval { sample: i, error })?;
            let constant = |v| graph.as_const(v).map(|t| (**t).clone());
            let value = |&v: &ValueId| seen.get(&v).cloned().or_else(|| constant(v));
            let found: Option<Vec<Tensor>> = values.iter().map(value).collect();
            Ok(found.expect("the plan computes them"))
        };
        let samples: Result<Vec<Vec<Tensor>>, Error> = indices.par_iter().map(one).collect();
        let temperature = objective.temperature_for(&samples?);
        Ok(temperature.to_le_bytes().to_vec())
    };
    let bytes = match key("temperature", model, data, &indices)? {
        None => measure()?,
        Some(key) => cache.get_or(&key, progress, measure)?,
    };
    let bytes = bytes.try_into().map_err(|_| Cache::damaged())?;
    Ok(objective.at(f64::from_le_bytes(bytes)))
}
