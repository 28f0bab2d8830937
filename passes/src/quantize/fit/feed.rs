use std::collections::{HashMap, HashSet};

use lowbit_ir::eval::EvalError;
use lowbit_ir::{Graph, Node, NodeId, Tensor, ValueId};
use rayon::prelude::*;

use super::super::fuse::{Fusion, Role};
use super::FitError;

type Live = HashMap<ValueId, Tensor>;

/// Samples on their way through the integer graph while it is built.
pub(crate) struct Feed {
    live: Vec<Live>,
    done: usize,
    last: HashMap<ValueId, usize>,
}

impl Feed {
    /// Samples before the first node; `codes` holds the graph's inputs for each.
    pub(crate) fn new(float: &Graph, fusion: &Fusion, codes: Vec<Live>) -> Self {
        Self {
            live: codes,
            done: 0,
            last: last_visits(float, fusion),
        }
    }

    /// The codes of a value for each sample.
    pub(crate) fn codes(&self, v: ValueId) -> Vec<&Tensor> {
        self.live.iter().map(|l| &l[&v]).collect()
    }

    /// Runs the nodes that were appended since the last call.
    pub(crate) fn advance(&mut self, graph: &Graph) -> Result<(), FitError> {
        let fresh: Vec<&Node> = graph.nodes().skip(self.done).map(|(_, n)| n).collect();
        self.done += fresh.len();
        self.live
            .par_iter_mut()
            .enumerate()
            .try_for_each(|(sample, live)| {
                fresh
                    .iter()
                    .try_for_each(|node| step(graph, node, live))
                    .map_err(|error| FitError::Eval { sample, error })
            })
    }

    /// Forgets what no visit after the `at`-th reads; `coded` gives the codes of each value of the float graph.
    pub(crate) fn forget(&mut self, at: usize, coded: impl Iterator<Item = (ValueId, ValueId)>) {
        let alive = |v: &ValueId| self.last.get(v).is_some_and(|&last| last > at);
        let needed: HashSet<ValueId> = coded
            .filter(|(float, _)| alive(float))
            .map(|(_, int)| int)
            .collect();
        for live in &mut self.live {
            live.retain(|v, _| needed.contains(v));
        }
    }
}

fn step(graph: &Graph, node: &Node, live: &mut Live) -> Result<(), EvalError> {
    let operand = |&v: &ValueId| graph.as_const(v).map_or_else(|| &live[&v], |c| c.as_ref());
    let operands: Vec<&Tensor> = node.inputs.iter().map(operand).collect();
    let result = node.op.eval(&operands).map_err(|error| EvalError::Node {
        name: graph.value(node.output).name.clone(),
        op: node.op.name(),
        error,
    })?;
    live.insert(node.output, result);
    Ok(())
}

/// The last visit that reads each value: nodes that belong to another are visited with it.
fn last_visits(float: &Graph, fusion: &Fusion) -> HashMap<ValueId, usize> {
    let mut last: HashMap<ValueId, usize> = HashMap::new();
    let nodes: Vec<(NodeId, &Node)> = float.nodes().collect();
    for (at, (id, node)) in nodes.into_iter().enumerate().rev() {
        let own = match fusion.role(id) {
            Role::Absorbed => last.get(&node.output).copied().unwrap_or(at).max(at),
            _ => at,
        };
        for &v in &node.inputs {
            let known = last.entry(v).or_insert(own);
            *known = own.max(*known);
        }
    }
    last
}
