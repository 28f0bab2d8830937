//! The layer really rounded alone, everything else float, the loss taken at the network's outputs and summed in doubles.

use std::collections::HashMap;

use lowbit_ir::eval::EvalError;
use lowbit_ir::{Def, Graph, Node, NodeId, OpError, SecondaryMap, Tensor, ValueId};

use super::{COLUMNS, SensitivityError, Study, stream};

/// Mean losses over samples, by layer and column; see [`COLUMNS`].
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// Loss of the objective.
    pub loss: Vec<Vec<f64>>,
    /// Noise-to-signal ratio of the outputs.
    pub noise: Vec<Vec<f64>>,
}

/// All values of one sample.
pub(super) struct Values(SecondaryMap<ValueId, Option<Tensor>>);

impl Values {
    pub(super) fn new(graph: &Graph, inputs: &[Tensor]) -> Result<Self, EvalError> {
        let mut all = Self(SecondaryMap::new());
        for (v, value) in graph.values() {
            if let Def::Const(t) = &value.def {
                all.0[v] = Some(t.as_ref().clone());
            }
        }
        for (&v, t) in graph.inputs().iter().zip(inputs) {
            all.0[v] = Some(t.clone());
        }
        for (_, node) in graph.nodes() {
            let result = evaluate(graph, node, |v| all.get(v))?;
            all.0[node.output] = Some(result);
        }
        Ok(all)
    }

    pub(super) fn get(&self, v: ValueId) -> &Tensor {
        self.0[v].as_ref().expect("every value was computed")
    }

    /// What the objective compares.
    pub(super) fn compared(&self, study: &Study<'_>) -> Vec<Tensor> {
        study
            .objective
            .values()
            .map(|v| self.get(v).clone())
            .collect()
    }
}

fn evaluate<'a>(
    graph: &Graph,
    node: &Node,
    value: impl Fn(ValueId) -> &'a Tensor,
) -> Result<Tensor, EvalError> {
    let operands: Vec<&Tensor> = node.inputs.iter().map(|&v| value(v)).collect();
    apply(graph, node, &operands)
}

fn apply(graph: &Graph, node: &Node, operands: &[&Tensor]) -> Result<Tensor, EvalError> {
    node.op
        .eval(operands)
        .map_err(|error: OpError| EvalError::Node {
            name: graph.value(node.output).name.clone(),
            op: node.op.name(),
            error,
        })
}

/// The results of a layer at every column.
pub(super) fn layer_results(
    study: &Study<'_>,
    values: &Values,
    layer: usize,
) -> Result<Vec<Tensor>, EvalError> {
    let (own, node) = (&study.layers[layer], study.node(layer));
    let (x, w) = (values.get(own.input), values.get(own.weight));
    let rounded = study.rounded[layer].iter().zip(&study.biases[layer]);
    let weights = rounded.map(|(w, b)| apply(study.graph, node, &[x, w, b]));
    let mut operands: Vec<&Tensor> = node.inputs.iter().map(|&v| values.get(v)).collect();
    let coarse = study.coarse(layer, x);
    (operands[0], operands[1]) = (&coarse, w);
    weights
        .chain([apply(study.graph, node, &operands)])
        .collect()
}

/// What has to be computed again when some values change.
pub(super) struct Rerun<'a> {
    graph: &'a Graph,
    nodes: Vec<NodeId>,
}

impl<'a> Rerun<'a> {
    pub(super) fn new(study: &Study<'a>, changed: &[ValueId]) -> Self {
        let needed = study.needed();
        let mut dirty: SecondaryMap<ValueId, bool> = SecondaryMap::new();
        changed.iter().for_each(|&v| dirty[v] = true);
        let mut nodes = Vec::new();
        for (id, node) in study.graph.nodes() {
            if needed[node.output] && node.inputs.iter().any(|&v| dirty[v]) {
                dirty[node.output] = true;
                nodes.push(id);
            }
        }
        Self {
            graph: study.graph,
            nodes,
        }
    }

    /// The values asked for, with some replaced, and layers with other weights and biases.
    pub(super) fn run(
        &self,
        values: &Values,
        replaced: &[(ValueId, &Tensor)],
        layers: &HashMap<NodeId, [&Tensor; 2]>,
        wanted: impl Iterator<Item = ValueId>,
    ) -> Result<Vec<Tensor>, EvalError> {
        let mut new: HashMap<ValueId, Tensor> = HashMap::new();
        for &(v, t) in replaced {
            new.insert(v, t.clone());
        }
        for &id in &self.nodes {
            let node = self.graph.node(id);
            let look = |v| new.get(&v).unwrap_or_else(|| values.get(v));
            let result = match layers.get(&id) {
                Some([w, b]) => apply(self.graph, node, &[look(node.inputs[0]), w, b])?,
                None => evaluate(self.graph, node, look)?,
            };
            new.insert(node.output, result);
        }
        let look = |v| new.get(&v).unwrap_or_else(|| values.get(v)).clone();
        Ok(wanted.map(look).collect())
    }
}

/// Loss and noise of one sample, by layer and column.
type Row = Vec<Vec<(f64, f64)>>;

/// Measures every layer alone at every column over `n` samples.
///
/// # Errors
/// A sample that cannot be read or run; a loss that is not finite.
pub fn measure<E: std::error::Error + Send + 'static>(
    study: &Study<'_>,
    n: usize,
    sample: impl Fn(usize) -> Result<Vec<Tensor>, E> + Sync,
    progress: impl FnMut(usize, usize),
) -> Result<Measured, SensitivityError<E>> {
    let reruns = study.layers.iter().map(|l| Rerun::new(study, &[l.output]));
    let reruns: Vec<Rerun<'_>> = reruns.collect();
    let zeros = vec![vec![0.0; COLUMNS]; study.layers.len()];
    let mut sum = Measured {
        loss: zeros.clone(),
        noise: zeros,
    };
    let row = |i: usize, inputs: &[Tensor]| one(study, &reruns, i, inputs);
    stream::rows(n, sample, progress, row, |row: Row| sum.add(&row, n))?;
    Ok(sum)
}

impl Measured {
    fn add(&mut self, row: &Row, n: usize) {
        for (l, columns) in row.iter().enumerate() {
            for (c, (loss, noise)) in columns.iter().enumerate() {
                self.loss[l][c] += loss / n as f64;
                self.noise[l][c] += noise / n as f64;
            }
        }
    }
}

fn one<E: std::error::Error>(
    study: &Study<'_>,
    reruns: &[Rerun<'_>],
    sample: usize,
    inputs: &[Tensor],
) -> Result<Row, SensitivityError<E>> {
    let failed = |error| SensitivityError::Eval { sample, error };
    let values = Values::new(study.graph, inputs).map_err(failed)?;
    let float = values.compared(study);
    let mut row = Vec::with_capacity(study.layers.len());
    for (l, layer) in study.layers.iter().enumerate() {
        let mut columns = Vec::with_capacity(COLUMNS);
        for result in layer_results(study, &values, l).map_err(failed)? {
            let replaced = [(layer.output, &result)];
            let none = HashMap::new();
            let other = reruns[l].run(&values, &replaced, &none, study.objective.values());
            let other = other.map_err(failed)?;
            let loss = study.objective.loss(&float, &other);
            if !loss.is_finite() {
                return Err(SensitivityError::NotFinite {
                    layer: layer.name.clone(),
                    sample,
                    what: "loss",
                    found: loss,
                });
            }
            columns.push((loss, study.objective.noise(&float, &other)));
        }
        row.push(columns);
    }
    Ok(row)
}
