//! The interpreter: runs a graph node by node and frees each tensor after its last use.

use std::collections::HashMap;
use std::sync::Arc;

use crate::chain::{Link, apply, tails};
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

/// When each value is read for the last time, and which elementwise nodes run in place on the result before them.
pub struct Plan {
    frees: Vec<Vec<ValueId>>,
    tails: Vec<Vec<Link>>,
    linked: Vec<bool>,
}

impl Plan {
    /// Works out which tensors die at which node. Every node has a result of its own.
    pub fn new(graph: &Graph) -> Self {
        let nodes = graph.nodes().len();
        Self {
            frees: frees(graph),
            tails: vec![Vec::new(); nodes],
            linked: vec![false; nodes],
        }
    }

    /// A faster plan under which only outputs and values that are `wanted` are sure to be there to be observed.
    pub fn only(graph: &Graph, wanted: impl Fn(ValueId) -> bool) -> Self {
        let (tails, linked) = tails(graph, wanted);
        Self {
            frees: frees(graph),
            tails,
            linked,
        }
    }

    /// The values that no node after the `at`-th reads.
    pub fn dead_after(&self, at: usize) -> &[ValueId] {
        &self.frees[at]
    }
}

fn frees(graph: &Graph) -> Vec<Vec<ValueId>> {
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
    frees
}

/// Runs a graph on tensors, one an input, and returns its outputs.
///
/// # Errors
/// Tensors that do not fit the inputs; a node that fails on these values.
pub fn run(graph: &Graph, inputs: &[Tensor]) -> Result<Vec<Tensor>, EvalError> {
    run_observed(graph, &Plan::only(graph, |_| false), inputs, |_, _, _| {})
}

/// Runs a graph by a plan and shows each result that the plan keeps to `observe` as soon as it is there.
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
    for (at, (mut id, node)) in graph.nodes().enumerate() {
        for v in plan.frees.get(at.wrapping_sub(1)).into_iter().flatten() {
            live.remove(v);
        }
        if plan.linked[at] {
            continue;
        }
        let operands: Vec<&Tensor> = node
            .inputs
            .iter()
            .map(|&v| lookup(graph, &live, v))
            .collect();
        let mut result = node.op.eval(&operands).map_err(|error| EvalError::Node {
            name: graph.value(node.output).name.clone(),
            op: node.op.name(),
            error,
        })?;
        let tail = &plan.tails[at];
        if let Some(link) = tail.last() {
            id = link.node;
            apply(graph, tail, &mut result, |v| lookup(graph, &live, v));
        }
        let value = graph.node(id).output;
        observe(id, value, &result);
        live.insert(value, result);
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
