//! `lowbit inspect`: layers, shapes, parameters and multiply-accumulates of a model.

use std::path::Path;

use lowbit_ir::{Graph, Op, ValueId};
use serde::Serialize;

use crate::Error;
use crate::model::{Model, Shapes};

/// A node of the simplified model.
#[derive(Clone, Debug, Serialize)]
pub struct Node {
    /// Name in the model.
    pub name: String,
    /// The operation.
    pub op: String,
    /// Shape of the result, channels last.
    pub shape: Vec<usize>,
    /// Number of weights, bias not counted.
    pub params: u64,
    /// Multiply-accumulates.
    pub macs: u64,
}

/// A simplified model.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// Version of ONNX's operator set.
    pub opset: i64,
    /// Names and shapes of inputs.
    pub inputs: Vec<(String, Vec<usize>)>,
    /// Names and shapes of outputs.
    pub outputs: Vec<(String, Vec<usize>)>,
    /// Nodes in execution order.
    pub layers: Vec<Node>,
    /// Number of weights.
    pub params: u64,
    /// Multiply-accumulates of one inference.
    pub macs: u64,
}

/// Describes a model.
///
/// # Errors
/// The model cannot be imported.
pub fn inspect(path: &Path, shapes: &Shapes) -> Result<Inspection, Error> {
    let model = Model::open(path, shapes)?;
    let graph = &model.graph;
    let port = |name: &str, v: ValueId| (name.to_string(), graph.shape(v).to_vec());
    let layers: Vec<Node> = graph.nodes().map(|(_, n)| node(graph, n)).collect();
    Ok(Inspection {
        opset: model.opset,
        inputs: graph
            .inputs()
            .iter()
            .map(|&v| port(&graph.value(v).name, v))
            .collect(),
        outputs: graph
            .outputs()
            .iter()
            .map(|o| port(&o.name, o.value))
            .collect(),
        params: layers.iter().map(|l| l.params).sum(),
        macs: layers.iter().map(|l| l.macs).sum(),
        layers,
    })
}

fn node(graph: &Graph, node: &lowbit_ir::Node) -> Node {
    let out = graph.ty(node.output);
    let elements = |i: usize| graph.ty(node.inputs[i]).elements();
    let (params, macs) = match &node.op {
        Op::Conv(_) => {
            let kernel: usize = graph.shape(node.inputs[1])[1..].iter().product();
            (elements(1), out.elements() * kernel)
        }
        Op::MatMul(_) => (
            0,
            out.elements() * graph.shape(node.inputs[0]).last().copied().unwrap_or(1),
        ),
        _ => (0, 0),
    };
    Node {
        name: graph.value(node.output).name.clone(),
        op: node.op.name().into(),
        shape: out.shape.clone(),
        params: params as u64,
        macs: macs as u64,
    }
}
