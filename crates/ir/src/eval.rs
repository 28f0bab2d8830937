//! The interpreter: runs a graph node by node and frees each tensor after its last use.

use std::collections::HashMap;
use std::sync::Arc;

use crate::{Def, Graph, NodeId, OpError, Tensor, ValueId};

/// Why a graph could not be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// The number of tensors given is not the number of inputs.
    #[error("the graph has {expected} inputs, {found} tensors were given")]
    Inputs {
        /// Inputs of the graph.
        expected: usize,
        /// Tensors given.
        found: usize,
    },
    /// A tensor does not fit the input.
    #[error("input '{name}' is {expected}, the tensor given is {found}")]
    Input {
        /// The input.
        name: String,
        /// Its type.
        expected: String,
        /// What was given.
        found: String,
    },
    /// A node failed.
    #[error("node '{name}' ({op}): {error}")]
    Node {
        /// Name of the node's result.
        name: String,
        /// The operation.
        op: &'static str,
        /// What it says.
        error: OpError,
    },
}

/// When each value is read for the last time.
pub struct Plan {
    frees: Vec<Vec<ValueId>>,
}

impl Plan {
    /// Works out which tensors die at which node.
    pub fn new(graph: &Graph) -> Self {
        let mut last: HashMap<ValueId, usize> = HashMap::new();
        for (at, (_, node)) in graph.nodes().enumerate() {
            last.insert(node.output, at);
            for &v in &node.inputs {
                if graph.as_const(v).is_none() {
                    last.insert(v, at);
                }
            }
        }
        let mut frees = vec![Vec::new(); graph.nodes().len()];
        for (v, at) in last {
            if !graph.is_output(v) {
                frees[at].push(v);
            }
        }
        Self { frees }
    }

    /// The values that no node after the `at`-th reads.
    pub fn dead_after(&self, at: usize) -> &[ValueId] {
        &self.frees[at]
    }
}

/// Runs a graph on tensors, one an input, and returns its outputs.
///
/// # Errors
/// Tensors that do not fit the inputs; a node that fails on these values.
pub fn run(graph: &Graph, inputs: &[Tensor]) -> Result<Vec<Tensor>, EvalError> {
    run_observed(graph, &Plan::new(graph), inputs, |_, _, _| {})
}

/// Runs a graph as [`run`] does and shows each node's result to `observe` as soon as it is there.
///
/// # Errors
/// As [`run`].
pub fn run_observed(
    graph: &Graph,
    plan: &Plan,
    inputs: &[Tensor],
    mut observe: impl FnMut(NodeId, ValueId, &Tensor),
) -> Result<Vec<Tensor>, EvalError> {
    check_inputs(graph, inputs)?;
    let mut live: HashMap<ValueId, Tensor> = HashMap::new();
    for (&v, tensor) in graph.inputs().iter().zip(inputs) {
        live.insert(v, tensor.clone());
    }
    for (at, (id, node)) in graph.nodes().enumerate() {
        let operands: Vec<&Tensor> = node
            .inputs
            .iter()
            .map(|&v| lookup(graph, &live, v))
            .collect();
        let result = node.op.eval(&operands).map_err(|error| EvalError::Node {
            name: graph.value(node.output).name.clone(),
            op: node.op.name(),
            error,
        })?;
        observe(id, node.output, &result);
        live.insert(node.output, result);
        for v in &plan.frees[at] {
            live.remove(v);
        }
    }
    Ok(graph
        .outputs()
        .iter()
        .map(|o| lookup(graph, &live, o.value).clone())
        .collect())
}

fn lookup<'a>(graph: &'a Graph, live: &'a HashMap<ValueId, Tensor>, v: ValueId) -> &'a Tensor {
    match &graph.value(v).def {
        Def::Const(tensor) => Arc::as_ref(tensor),
        _ => live.get(&v).unwrap_or_else(|| panic!("{v} is not live")),
    }
}

fn check_inputs(graph: &Graph, inputs: &[Tensor]) -> Result<(), EvalError> {
    if inputs.len() != graph.inputs().len() {
        return Err(EvalError::Inputs {
            expected: graph.inputs().len(),
            found: inputs.len(),
        });
    }
    for (&v, tensor) in graph.inputs().iter().zip(inputs) {
        let ty = graph.ty(v);
        if (ty.dtype, ty.shape.as_slice()) != (tensor.dtype(), tensor.shape()) {
            return Err(EvalError::Input {
                name: graph.value(v).name.clone(),
                expected: ty.to_string(),
                found: tensor.ty().to_string(),
            });
        }
    }
    Ok(())
}
