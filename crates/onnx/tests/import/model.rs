//! Small models, written field by field.

use bytes::Bytes;
use lowbit_onnx::proto::{
    Attribute, Dimension, Extent, Graph, Model, Node, OperatorSet, Shape, Tensor, TensorType,
    TypeProto, ValueInfo,
};

pub(crate) const FLOAT: i32 = 1;
pub(crate) const INT64: i32 = 7;

pub(crate) fn value(name: &str, elem_type: i32, dims: &[i64]) -> ValueInfo {
    let dim = |&d: &i64| Dimension {
        value: Some(Extent::Value(d)),
    };
    let shape = Some(Shape {
        dim: dims.iter().map(dim).collect(),
    });
    let tensor_type = Some(TensorType { elem_type, shape });
    ValueInfo {
        name: name.into(),
        r#type: Some(TypeProto { tensor_type }),
    }
}

pub(crate) fn floats(name: &str, dims: &[i64], x: &[f32]) -> Tensor {
    Tensor {
        name: name.into(),
        data_type: FLOAT,
        dims: dims.to_vec(),
        raw_data: Some(Bytes::from(
            x.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>(),
        )),
        ..Tensor::default()
    }
}

pub(crate) fn integers(name: &str, x: &[i64]) -> Tensor {
    Tensor {
        name: name.into(),
        data_type: INT64,
        dims: vec![x.len() as i64],
        int64_data: x.to_vec(),
        ..Tensor::default()
    }
}

pub(crate) fn node(op: &str, inputs: &[&str], output: &str) -> Node {
    Node {
        op_type: op.into(),
        name: format!("{op}_{output}"),
        input: inputs.iter().map(ToString::to_string).collect(),
        output: vec![output.into()],
        ..Node::default()
    }
}

pub(crate) fn ints(name: &str, x: &[i64]) -> Attribute {
    Attribute {
        name: name.into(),
        r#type: 7,
        ints: x.to_vec(),
        ..Attribute::default()
    }
}

pub(crate) fn int(name: &str, i: i64) -> Attribute {
    Attribute {
        name: name.into(),
        r#type: 2,
        i,
        ..Attribute::default()
    }
}

/// x `[1, 2, 4, 4]` through a convolution with bias, a clamp, a reshape by computed extents and a product.
pub(crate) fn small() -> Model {
    let weights: Vec<f32> = (0..54).map(|i| (i as f32 * 0.7).sin()).collect();
    let mut conv = node("Conv", &["x", "w", "b"], "c");
    conv.attribute = vec![ints("pads", &[1, 1, 1, 1]), ints("strides", &[2, 2])];
    let mut concat = node("Concat", &["first", "rest"], "shape");
    concat.attribute = vec![int("axis", 0)];
    let nodes = vec![
        conv,
        node("Relu", &["c"], "r"),
        node("Shape", &["x"], "extents"),
        node("Slice", &["extents", "zero", "one"], "first"),
        concat,
        node("Reshape", &["r", "shape"], "flat"),
        node("MatMul", &["flat", "m"], "y"),
    ];
    let graph = Graph {
        name: "small".into(),
        node: nodes,
        initializer: vec![
            floats("w", &[3, 2, 3, 3], &weights),
            floats("b", &[3], &[0.1, -0.2, 0.3]),
            floats("m", &[12, 2], &weights[..24]),
            integers("zero", &[0]),
            integers("one", &[1]),
            integers("rest", &[-1]),
        ],
        input: vec![value("x", FLOAT, &[1, 2, 4, 4])],
        output: vec![value("y", FLOAT, &[1, 2])],
        value_info: Vec::new(),
        sparse_initializer: Vec::new(),
    };
    Model {
        ir_version: 8,
        producer_name: "tests".into(),
        graph: Some(graph),
        opset_import: vec![OperatorSet {
            domain: String::new(),
            version: 13,
        }],
    }
}
