//! The layer really rounded alone, everything else float, the loss taken at the network's outputs and summed in doubles.

use std::collections::HashMap;

use lowbit_ir::eval::{self, EvalError, Plan};
use lowbit_ir::{Def, Graph, Node, NodeId, OpError, SecondaryMap, Tensor, Type, ValueId};

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

/// What a graph that runs again is given.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Given {
    /// A value of the network, its own where it is not replaced.
    Value(ValueId),
    /// The weights of a layer.
    Weights(usize),
    /// The bias of a layer.
    Bias(usize),
}

/// The part of the network that has to be computed again when some values or all weights change.
pub(super) struct Rerun {
    graph: Graph,
    plan: Plan,
    given: Vec<Given>,
    /// What the objective compares: the values, and whether they are computed again.
    compared: Vec<(ValueId, bool)>,
}

impl Rerun {
    /// What follows from a value.
    pub(super) fn after(study: &Study<'_>, changed: ValueId) -> Self {
        Self::new(study, |v| v == changed, &HashMap::new())
    }

    /// What follows from the weights and biases of all layers.
    pub(super) fn layers(study: &Study<'_>) -> Self {
        let layers = study.layers.iter().enumerate();
        Self::new(
            study,
            |_| false,
            &layers.map(|(i, l)| (l.node, i)).collect(),
        )
    }

    fn new(
        study: &Study<'_>,
        changed: impl Fn(ValueId) -> bool,
        layers: &HashMap<NodeId, usize>,
    ) -> Self {
        let (needed, own) = (study.needed(), study.graph);
        let mut new = Self {
            graph: Graph::new("rerun"),
            plan: Plan::new(&Graph::new("rerun")),
            given: Vec::new(),
            compared: Vec::new(),
        };
        let mut made: HashMap<ValueId, ValueId> = HashMap::new();
        for (id, node) in own.nodes() {
            let dirty = |v: &ValueId| changed(*v) || made.contains_key(v);
            let layer = layers.get(&id);
            if !needed[node.output] || !(layer.is_some() || node.inputs.iter().any(dirty)) {
                continue;
            }
            let mut operands: Vec<ValueId> = node.inputs.clone();
            operands.truncate(if layer.is_some() { 1 } else { operands.len() });
            let mut operands: Vec<ValueId> = operands
                .into_iter()
                .map(|v| match (made.get(&v), own.as_const(v)) {
                    (Some(&there), _) => there,
                    (None, Some(t)) => new.graph.constant("", t.clone()),
                    (None, None) => new.given(Given::Value(v), own.ty(v).clone()),
                })
                .collect();
            if let Some(&i) = layer {
                let ty = |t: &Tensor| t.ty();
                operands.push(new.given(Given::Weights(i), ty(&study.rounded[i][0])));
                operands.push(new.given(Given::Bias(i), ty(&study.biases[i][0])));
            }
            let name = own.value(node.output).name.clone();
            let pushed = new.graph.push(name, node.op.clone(), &operands);
            made.insert(
                node.output,
                pushed.expect("the operands have the types of before"),
            );
        }
        for v in study.objective.values() {
            if let Some(&there) = made.get(&v) {
                new.graph.output("", there);
            }
            new.compared.push((v, made.contains_key(&v)));
        }
        new.plan = Plan::only(&new.graph, |_| false);
        new
    }

    fn given(&mut self, given: Given, ty: Type) -> ValueId {
        match self.given.iter().position(|&g| g == given) {
            Some(at) => self.graph.inputs()[at],
            None => {
                self.given.push(given);
                self.graph.input("", ty)
            }
        }
    }

    /// What the objective compares, with what is replaced; weights and biases are all replaced.
    pub(super) fn run<'a>(
        &self,
        values: &'a Values,
        replaced: impl Fn(Given) -> Option<&'a Tensor>,
    ) -> Result<Vec<Tensor>, EvalError> {
        let look = |&given: &Given| match (replaced(given), given) {
            (Some(t), _) => t.clone(),
            (None, Given::Value(v)) => values.get(v).clone(),
            (None, _) => panic!("weights and biases are replaced"),
        };
        let inputs: Vec<Tensor> = self.given.iter().map(look).collect();
        let found = eval::run_observed(&self.graph, &self.plan, &inputs, |_, _, _| {})?;
        let mut found = found.into_iter();
        let mut compared = |&(v, again): &(ValueId, bool)| match again {
            true => found.next().expect("an output for each"),
            false => replaced(Given::Value(v))
                .unwrap_or_else(|| values.get(v))
                .clone(),
        };
        Ok(self.compared.iter().map(&mut compared).collect())
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
    let reruns = study.layers.iter().map(|l| Rerun::after(study, l.output));
    let reruns: Vec<Rerun> = reruns.collect();
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
    reruns: &[Rerun],
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
            let other = reruns[l].run(&values, |g| {
                (g == Given::Value(layer.output)).then_some(&result)
            });
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
