//! Small models, right and wrong, written with the messages of onnx.proto.

use bytes::Bytes;
use lowbit_onnx::proto::{
    Attribute, Dimension, Extent, Graph, Model, Node, OperatorSet, Shape, Tensor, TensorType,
    TypeProto, ValueInfo,
};

const FLOAT: i32 = 1;
const INTS: i32 = 7;

/// An input or output of floats.
pub(crate) fn port(name: &str, dims: &[i64]) -> ValueInfo {
    let dim = |&d: &i64| Dimension {
        value: Some(Extent::Value(d)),
    };
    let shape = Some(Shape {
        dim: dims.iter().map(dim).collect(),
    });
    let tensor_type = Some(TensorType {
        elem_type: FLOAT,
        shape,
    });
    ValueInfo {
        name: name.into(),
        r#type: Some(TypeProto { tensor_type }),
    }
}

/// Weights of floats.
pub(crate) fn weights(name: &str, dims: &[i64], values: &[f32]) -> Tensor {
    let raw: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    Tensor {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: FLOAT,
        raw_data: Some(Bytes::from(raw)),
        ..Tensor::default()
    }
}

/// A node with a name.
pub(crate) fn node(name: &str, op: &str, inputs: &[&str], output: &str) -> Node {
    Node {
        name: name.into(),
        op_type: op.into(),
        input: inputs.iter().map(ToString::to_string).collect(),
        output: vec![output.into()],
        ..Node::default()
    }
}

/// A list attribute.
pub(crate) fn ints(name: &str, values: &[i64]) -> Attribute {
    Attribute {
        name: name.into(),
        ints: values.to_vec(),
        r#type: INTS,
        ..Attribute::default()
    }
}

/// image [1, 1, 4, 4] → conv `first` (3×3, two channels) → relu `second` → scores.
pub(crate) fn sound() -> Model {
    let mut conv = node("first", "Conv", &["image", "kernel"], "sums");
    conv.attribute = vec![ints("pads", &[1, 1, 1, 1])];
    let values: Vec<f32> = (0..18).map(|i| i as f32 / 9.0 - 1.0).collect();
    let graph = Graph {
        name: "net".into(),
        node: vec![conv, node("second", "Relu", &["sums"], "scores")],
        initializer: vec![weights("kernel", &[2, 1, 3, 3], &values)],
        input: vec![port("image", &[1, 1, 4, 4])],
        output: vec![port("scores", &[1, 2, 4, 4])],
        ..Graph::default()
    };
    Model {
        ir_version: 8,
        producer_name: "test".into(),
        graph: Some(graph),
        opset_import: vec![OperatorSet {
            domain: String::new(),
            version: 17,
        }],
    }
}

/// The sound model, changed.
pub(crate) fn changed(change: impl FnOnce(&mut Model, &mut Graph)) -> Model {
    let mut model = sound();
    let mut graph = model.graph.take().unwrap();
    change(&mut model, &mut graph);
    model.graph = Some(graph);
    model
}
