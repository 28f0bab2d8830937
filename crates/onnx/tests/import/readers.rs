//! Our messages beside those of the onnx-protobuf crate: the same fields with the same contents.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use lowbit_onnx::proto;
use onnx_protobuf::{AttributeProto, Message as _, ModelProto, TensorProto, ValueInfoProto};
use prost::Message;

use crate::model::small;
use crate::zoo::zoo;

/// Leaves only what the importer reads.
fn strip(model: &mut ModelProto) {
    model.producer_version.clear();
    model.domain.clear();
    model.doc_string.clear();
    model.model_version = 0;
    model.metadata_props.clear();
    model.training_info.clear();
    model.functions.clear();
    let graph = model.graph.as_mut().unwrap();
    graph.doc_string.clear();
    graph.value_info.iter_mut().for_each(strip_value);
    graph.quantization_annotation.clear();
    graph.metadata_props.clear();
    for node in &mut graph.node {
        node.doc_string.clear();
        node.overload.clear();
        node.metadata_props.clear();
        node.attribute.iter_mut().for_each(strip_attribute);
    }
    graph.initializer.iter_mut().for_each(strip_tensor);
    graph.input.iter_mut().for_each(strip_value);
    graph.output.iter_mut().for_each(strip_value);
}

fn strip_attribute(a: &mut AttributeProto) {
    a.doc_string.clear();
    assert!(a.g.is_none() && a.graphs.is_empty(), "no subgraphs here");
    if let Some(t) = a.t.as_mut() {
        strip_tensor(t);
    }
}

fn strip_tensor(t: &mut TensorProto) {
    t.doc_string.clear();
    t.metadata_props.clear();
}

fn strip_value(v: &mut ValueInfoProto) {
    v.doc_string.clear();
    v.metadata_props.clear();
}

fn compare(name: &str, bytes: Vec<u8>) {
    let mut theirs = ModelProto::parse_from_bytes(&bytes).unwrap();
    strip(&mut theirs);
    let ours = proto::Model::decode(Bytes::from(bytes)).unwrap();
    let again = ModelProto::parse_from_bytes(&ours.encode_to_vec()).unwrap();
    assert!(theirs == again, "{name} is read differently");
}

#[test]
fn both_readers_see_the_same() {
    let digits = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/models/digits.onnx");
    let mut paths: Vec<PathBuf> = vec![digits];
    if let Some(zoo) = zoo() {
        paths.extend(std::fs::read_dir(zoo).unwrap().map(|e| e.unwrap().path()));
    }
    for path in paths {
        compare(&path.display().to_string(), std::fs::read(&path).unwrap());
    }
    compare("small", small().encode_to_vec());
}

/// Every typed field and every kind of attribute, as the other crate writes them.
#[test]
fn every_field_is_read() {
    let mut model = ModelProto::parse_from_bytes(&small().encode_to_vec()).unwrap();
    let graph = model.graph.as_mut().unwrap();
    let tensor = TensorProto {
        name: "t".into(),
        data_type: 1,
        dims: vec![2],
        float_data: vec![1.5, -2.5],
        int32_data: vec![-3, 4],
        int64_data: vec![i64::MIN, 5],
        double_data: vec![6.5],
        uint64_data: vec![u64::MAX],
        ..TensorProto::default()
    };
    let mut attribute = AttributeProto {
        name: "a".into(),
        ref_attr_name: "r".into(),
        f: 0.5,
        i: -1,
        s: b"text".to_vec(),
        floats: vec![1.0, 2.0],
        ints: vec![-1, 1 << 40],
        strings: vec![b"x".to_vec(), Vec::new()],
        ..AttributeProto::default()
    };
    attribute.t = Some(tensor.clone()).into();
    graph.initializer.push(tensor);
    graph.node[0].attribute.push(attribute);
    compare("fields", model.write_to_bytes().unwrap());
}
