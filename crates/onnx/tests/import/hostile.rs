//! Models that are at fault: each gives one message that says where, and none is imported.

use std::path::Path;

use bytes::Bytes;
use lowbit_onnx::proto::{Entry, Graph, Model, OperatorSet, Tensor};
use lowbit_onnx::{Options, check, import, import_bytes};
use prost::Message;

use crate::model::{FLOAT, INT64, floats, int, integers, ints, node, small, value};

fn message(model: &Model) -> String {
    let bytes = Bytes::from(model.encode_to_vec());
    match import_bytes(bytes, Path::new("m.onnx"), &Options::default()) {
        Ok(_) => "imported".into(),
        Err(e) => e.to_string(),
    }
}

fn spoilt(spoil: impl FnOnce(&mut Graph)) -> String {
    let mut model = small();
    spoil(model.graph.as_mut().unwrap());
    message(&model)
}

/// The only node is `op`, on x of the dimensions given.
fn single(op: &str, dims: &[i64], with: impl FnOnce(&mut lowbit_onnx::proto::Node)) -> String {
    spoilt(|g| {
        let mut n = node(op, &["x"], "y");
        with(&mut n);
        g.node = vec![n];
        g.input = vec![value("x", FLOAT, dims)];
        g.output = vec![value("y", FLOAT, &[])];
    })
}

fn expect(found: &str, words: &[&str]) {
    for word in words {
        assert!(found.contains(word), "'{word}' is not in: {found}");
    }
}

#[test]
fn the_small_model_itself_is_sound() {
    assert_eq!(message(&small()), "imported");
}

#[test]
fn structure_is_checked() {
    let cycle = spoilt(|g| g.node[0].input[0] = "y".into());
    expect(&cycle, &["Conv_c", "'y'", "cycle"]);
    let missing = spoilt(|g| g.node[0].input[1] = "nowhere".into());
    expect(&missing, &["Conv_c", "'nowhere'", "nothing defines"]);
    let twice = spoilt(|g| g.node[1].output[0] = "c".into());
    expect(&twice, &["'c'", "defined twice"]);
    let weights = spoilt(|g| g.initializer[1].name = "w".into());
    expect(&weights, &["two initialisers", "'w'"]);
    let inputs = spoilt(|g| g.input.push(g.input[0].clone()));
    expect(&inputs, &["two inputs", "'x'"]);
    let outputs = spoilt(|g| g.output.push(g.output[0].clone()));
    expect(&outputs, &["two outputs", "'y'"]);
    expect(&spoilt(|g| g.output.clear()), &["no output"]);
    let output = spoilt(|g| g.output[0].name = "z".into());
    expect(&output, &["output 'z'", "nowhere"]);
}

#[test]
fn dimensions_are_checked() {
    for (dims, word) in [
        (vec![1, -2, 4, 4], "negative"),
        (vec![1, 1 << 62, 4, 4], "too large"),
        (vec![1, 1 << 31, 1 << 31, 1 << 31], "too large"),
        (vec![1, i64::MAX, i64::MAX, i64::MAX], "too large"),
        (vec![1, i64::MIN, 4, 4], "'x'"),
        (vec![1, 0, 4, 4], "'x'"),
    ] {
        let found = spoilt(|g| g.input[0] = value("x", FLOAT, &dims));
        expect(&found, &["'x'", word]);
    }
    for dims in [
        vec![-3, 2, 3, 3],
        vec![1 << 62],
        vec![1 << 32, 1 << 32],
        vec![i64::MIN],
    ] {
        let found = spoilt(|g| g.initializer[0].dims = dims);
        expect(&found, &["initialiser 'w'", "dimensions"]);
    }
}

#[test]
fn data_is_checked() {
    let short = spoilt(|g| g.initializer[1].raw_data = Some(Bytes::from_static(&[0; 11])));
    expect(&short, &["initialiser 'b'", "11 bytes", "12"]);
    let none = spoilt(|g| g.initializer[1].raw_data = None);
    expect(&none, &["initialiser 'b'", "0 elements"]);
    let nan = spoilt(|g| g.initializer[1] = floats("b", &[3], &[0.0, f32::NAN, 0.0]));
    expect(&nan, &["initialiser 'b'", "element 1", "NaN"]);
    let infinite = spoilt(|g| g.initializer[1] = floats("b", &[3], &[0.0, 0.0, f32::INFINITY]));
    expect(&infinite, &["initialiser 'b'", "element 2", "infinite"]);
    for (kind, word) in [
        (8, "text"),
        (14, "complex"),
        (99, "element type 99"),
        (0, "0"),
    ] {
        let found = spoilt(|g| g.initializer[1].data_type = kind);
        expect(&found, &["initialiser 'b'", word]);
    }
}

#[test]
fn types_are_checked() {
    let mixed = spoilt(|g| {
        g.initializer[1] = Tensor {
            name: "b".into(),
            ..integers("b", &[1, 2, 3])
        }
    });
    expect(&mixed, &["Conv_c", "Conv", "i64"]);
    let declared = spoilt(|g| g.output[0] = value("y", INT64, &[1, 2]));
    expect(&declared, &["output 'y'", "i64", "f32"]);
    let attribute = spoilt(|g| g.node[0].attribute[1] = int("strides", 2));
    expect(&attribute, &["Conv_c", "'strides'", "an integer"]);
    let strides = spoilt(|g| g.node[0].attribute[1] = ints("strides", &[0, 2]));
    expect(&strides, &["Conv_c", "'strides'", "[0, 2]"]);
    let product = spoilt(|g| g.initializer[2].dims = vec![2, 12]);
    expect(&product, &["MatMul_y", "do not fit"]);
}

#[test]
fn operator_sets_are_checked() {
    let with = |domain: &str, version| {
        let mut model = small();
        model.opset_import = vec![OperatorSet {
            domain: domain.into(),
            version,
        }];
        message(&model)
    };
    expect(&with("", 3), &["opset 3", "7", "22"]);
    expect(&with("", 400), &["opset 400"]);
    expect(&with("com.example", 1), &["operator set"]);
    let domain = spoilt(|g| g.node[1].domain = "com.example".into());
    expect(&domain, &["com.example", "Relu_r", "does not import"]);
    let operator = spoilt(|g| g.node[1].op_type = "Frobnicate".into());
    expect(&operator, &["Relu_r", "Frobnicate", "opset 13"]);
}

#[test]
fn nothing_huge_is_made_of_little() {
    let mut huge = integers("shape", &[1 << 20, 1 << 12]);
    huge.name = "zero".into();
    let constant = spoilt(|g| {
        g.node = vec![node("ConstantOfShape", &["zero"], "y")];
        g.initializer = vec![huge];
    });
    expect(&constant, &["ConstantOfShape_y", "too large"]);
    let doubled = spoilt(|g| {
        g.node = (0..40)
            .map(|i| {
                let (from, to) = (format!("m{i}"), format!("m{}", i + 1));
                let mut n = node("Concat", &[&from, &from], &to);
                n.attribute = vec![int("axis", 0)];
                n
            })
            .collect();
        g.initializer[2].name = "m0".into();
        g.output = vec![value("m40", FLOAT, &[])];
    });
    expect(&doubled, &["Concat_m", "too large"]);
    let mask = single("Dropout", &[1, 1 << 30], |n| n.output.push("mask".into()));
    expect(&mask, &["Dropout_y", "too large"]);
}

#[test]
fn files_that_are_no_models_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let whole = small().encode_to_vec();
    let cases: [(&str, &[u8]); 5] = [
        ("empty", b""),
        ("text", b"this is no model at all, only a line of text"),
        ("zeros", &[0; 64]),
        ("cut", &whole[..whole.len() / 2]),
        ("endless", &[0x3a, 0xff, 0xff, 0xff, 0xff, 0x0f]),
    ];
    for (name, bytes) in cases {
        let path = folder.path().join(format!("{name}.onnx"));
        std::fs::write(&path, bytes).unwrap();
        let error = import(&path, &Options::default()).unwrap_err().to_string();
        expect(&error, &[name, "no ONNX model"]);
    }
    let gone = import(&folder.path().join("gone.onnx"), &Options::default());
    expect(
        &gone.unwrap_err().to_string(),
        &["cannot read", "gone.onnx"],
    );
}

/// A model whose bias lies in another file.
fn external(entries: &[(&str, &str)]) -> Model {
    let mut model = small();
    let bias = &mut model.graph.as_mut().unwrap().initializer[1];
    bias.raw_data = None;
    bias.data_location = 1;
    let entry = |(key, value): &(&str, &str)| Entry {
        key: (*key).into(),
        value: (*value).into(),
    };
    bias.external_data = entries.iter().map(entry).collect();
    model
}

#[test]
fn external_data_stays_inside_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("model");
    std::fs::create_dir(&inner).unwrap();
    std::fs::write(folder.path().join("secret.bin"), [0; 64]).unwrap();
    std::fs::write(inner.join("data.bin"), [0; 64]).unwrap();
    std::os::unix::fs::symlink("../secret.bin", inner.join("link.bin")).unwrap();
    let path = inner.join("m.onnx");
    let attempt = |entries: &[(&str, &str)]| {
        std::fs::write(&path, external(entries).encode_to_vec()).unwrap();
        match import(&path, &Options::default()) {
            Ok(_) => "imported".to_owned(),
            Err(e) => e.to_string(),
        }
    };
    let good = [("location", "data.bin"), ("offset", "16"), ("length", "12")];
    assert_eq!(attempt(&good), "imported");
    let absolute = folder.path().join("secret.bin");
    for outside in [
        "../secret.bin",
        "link.bin",
        "./../secret.bin",
        absolute.to_str().unwrap(),
    ] {
        let found = attempt(&[("location", outside), ("length", "12")]);
        expect(
            &found,
            &["initialiser 'b'", outside, "outside the model's folder"],
        );
    }
    let cases: [(&[(&str, &str)], &str); 6] = [
        (&[("length", "12")], "names no file"),
        (&[("location", "data.bin"), ("length", "x")], "'x'"),
        (
            &[("location", "data.bin"), ("offset", "60"), ("length", "12")],
            "64 bytes",
        ),
        (
            &[
                ("location", "data.bin"),
                ("offset", "18446744073709551615"),
                ("length", "2"),
            ],
            "64 bytes",
        ),
        (&[("location", "data.bin")], "64 bytes"),
        (&[("location", "gone.bin")], "gone.bin"),
    ];
    for (entries, word) in cases {
        expect(&attempt(entries), &["initialiser 'b'", word]);
    }
}

#[test]
fn all_nodes_at_fault_are_reported_at_once() {
    let mut model = small();
    let graph = model.graph.as_mut().unwrap();
    graph.node[1].op_type = "Frobnicate".into();
    graph.node[2].domain = "com.example".into();
    graph.node.push(node("Nonsense", &["x"], "z"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    std::fs::write(&path, model.encode_to_vec()).unwrap();
    let found = check(&path, &Options::default()).unwrap();
    let names: Vec<&str> = found.problems.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["Relu_r", "Shape_extents", "Nonsense_z"]);
    assert!(found.problems.iter().all(|p| p.opset == 13));
}
