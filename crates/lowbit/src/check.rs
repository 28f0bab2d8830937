//! `lowbit check`: every node that cannot be compiled, in one pass.

use std::path::Path;

use lowbit_ir::ValueId;
use lowbit_onnx::{Checked, Options};
use lowbit_passes::quantize::{Formats, Ranges, quantize};
use lowbit_passes::{Control, run_passes, simplify};
use serde::Serialize;

use crate::Error;
use crate::model::Shapes;

/// What stands in the way of a model.
#[derive(Clone, Debug, Serialize)]
pub struct Problem {
    /// The node.
    pub name: String,
    /// Its operator.
    pub op: String,
    /// Version of the operator set that the model asks for; nothing where the fault is an input's or output's.
    pub opset: Option<i64>,
    /// What is at fault and what to do.
    pub message: String,
}

/// What `check` finds.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// Whether the model can be compiled.
    pub compiles: bool,
    /// Every node that cannot.
    pub problems: Vec<Problem>,
}

/// Any range does: whether a node can be quantised does not depend on it.
struct Anything;

impl Ranges for Anything {
    fn range(&self, _: ValueId, _: u32) -> (f64, f64) {
        (-1.0, 1.0)
    }
    fn extremes(&self, _: ValueId) -> (f64, f64) {
        (-1.0, 1.0)
    }
}

/// Finds every node that cannot be compiled.
///
/// # Errors
/// The model cannot be read at all.
pub fn check(path: &Path, shapes: &Shapes) -> Result<Check, Error> {
    let options = Options {
        shapes: shapes.clone(),
        ..Options::default()
    };
    let found = lowbit_onnx::check(path, &options)?;
    let refused = found.problems.iter();
    let mut problems: Vec<Problem> = refused
        .map(|p| Problem {
            name: p.name.clone(),
            op: p.op.clone(),
            opset: Some(p.opset),
            message: p.message.clone(),
        })
        .collect();
    problems.extend(not_quantizable(found));
    Ok(Check {
        compiles: problems.is_empty(),
        problems,
    })
}

/// The nodes that can be imported and not quantised.
fn not_quantizable(found: Checked) -> Vec<Problem> {
    let Checked {
        problems,
        graph,
        origins,
        opset,
    } = found;
    let outputs: Vec<String> = graph.outputs().iter().map(|o| o.name.clone()).collect();
    let graph = run_passes(graph, simplify::PIPELINE, Control::default());
    let Err(stops) = quantize(&graph, &Anything, &Formats::default()) else {
        return Vec::new();
    };
    let problem = |p: lowbit_passes::quantize::Problem| match origins.get(&p.name) {
        Some(origin) => Problem {
            name: origin.node.clone(),
            op: origin.op.clone(),
            opset: Some(opset),
            message: p.message,
        },
        None => Problem {
            name: p.name,
            op: p.op.into(),
            opset: None,
            message: p.message,
        },
    };
    let known = |p: &Problem| problems.iter().any(|r| r.name == p.name);
    let cut = |p: &lowbit_passes::quantize::Problem| {
        !problems.is_empty() && p.op == "output" && outputs.contains(&p.name)
    };
    stops
        .into_iter()
        .filter(|p| !cut(p))
        .map(problem)
        .filter(|p| !known(p))
        .collect()
}
