//! `lowbit check`: every node that cannot be compiled, in one pass.

use std::path::Path;

use lowbit_ir::ValueId;
use lowbit_onnx::Options;
use lowbit_passes::quantize::{Formats, Ranges, quantize};
use serde::Serialize;

use crate::Error;
use crate::model::{Model, Shapes};

/// What stands in the way of a model.
#[derive(Clone, Debug, Serialize)]
pub struct Problem {
    /// The node.
    pub name: String,
    /// Its operator.
    pub op: String,
    /// Version of the operator set, where the importer refuses it.
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
    let refused = lowbit_onnx::check(path, &options)?;
    let mut problems: Vec<Problem> = refused
        .into_iter()
        .map(|p| Problem {
            name: p.name,
            op: p.op,
            opset: Some(p.opset),
            message: p.message,
        })
        .collect();
    if problems.is_empty() {
        let model = Model::open(path, shapes)?;
        if let Err(found) = quantize(&model.graph, &Anything, &Formats::default()) {
            let problem = |p: lowbit_passes::quantize::Problem| Problem {
                name: p.name,
                op: p.op.into(),
                opset: None,
                message: p.message,
            };
            problems.extend(found.into_iter().map(problem));
        }
    }
    Ok(Check {
        compiles: problems.is_empty(),
        problems,
    })
}
