//! `lowbit check`: everything that stands in the way of a model, in one pass.

use prost::Message;

use crate::models::{changed, node, port};
use crate::tool::{lowbit, write};

#[test]
fn check_names_every_node_in_one_pass() {
    let folder = tempfile::tempdir().unwrap();
    let model = changed(|_, g| {
        g.node[1].op_type = "Reluu".into();
        g.node.push(node("third", "Selu_", &["scores"], "last"));
        g.output[0].name = "last".into();
    });
    let path = write(folder.path(), "net.onnx", model.encode_to_vec());
    let plain = lowbit(["check".as_ref(), path.as_os_str()]);
    assert_eq!(plain.code, Some(1), "{plain:?}");
    for word in ["second", "Reluu", "third", "Selu_"] {
        assert!(plain.stdout.contains(word), "{plain:?}");
    }
    let found = lowbit(["check".as_ref(), path.as_os_str(), "--json".as_ref()]).json();
    assert_eq!(found["compiles"], false);
    let names: Vec<&str> = found["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["second", "third"]);
}

/// A power of two tensors can be imported and not compiled; it is found in front of, beside and behind a node that cannot
/// even be imported, where the model declares what that gives.
#[test]
fn check_looks_behind_nodes_that_cannot_be_imported() {
    let folder = tempfile::tempdir().unwrap();
    let model = changed(|_, g| {
        g.node
            .insert(1, node("before", "Pow", &["sums", "sums"], "power"));
        g.node[2] = node("unknown", "Reluu", &["power"], "scores");
        g.node
            .push(node("behind", "Pow", &["scores", "scores"], "last"));
        g.value_info = vec![port("scores", &[1, 2, 4, 4])];
        g.output[0].name = "last".into();
    });
    let path = write(folder.path(), "net.onnx", model.encode_to_vec());
    let ran = lowbit(["check".as_ref(), path.as_os_str(), "--json".as_ref()]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let found = ran.json();
    let problems = found["problems"].as_array().unwrap();
    let mut names: Vec<&str> = problems
        .iter()
        .map(|p| p["name"].as_str().unwrap())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["before", "behind", "unknown"], "{found}");
    for p in problems {
        assert_eq!(p["opset"], 17, "{p}");
        assert_eq!(
            p["op"],
            if p["name"] == "unknown" {
                "Reluu"
            } else {
                "Pow"
            }
        );
    }
}
