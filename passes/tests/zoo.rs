//! Real models keep their function when they are simplified, and end in the form that quantisation expects.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use lowbit_ir::eval::run;
use lowbit_ir::ops::{BinaryFn, UnaryFn};
use lowbit_ir::{DType, Graph, Node, Op, Tensor, ValueId};
use lowbit_passes::{Control, run_passes, simplify};

/// Name and graph of each model, as imported and simplified.
fn models() -> Vec<(String, Graph, Graph)> {
    let shared = std::env::var_os("LOWBIT_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
        Into::into,
    );
    let Ok(folder) = std::fs::read_dir(shared.join("zoo/models")) else {
        println!("the zoo is not here: skipped");
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = folder.map(|e| e.unwrap().path()).collect();
    paths.sort();
    let model = |path: PathBuf| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let imported = lowbit_onnx::import(&path, &lowbit_onnx::Options::default());
        let graph = imported.unwrap_or_else(|e| panic!("{name}: {e}")).graph;
        let new = run_passes(graph.clone(), simplify::PIPELINE, Control::default());
        (name, graph, new)
    };
    paths.into_iter().map(model).collect()
}

fn ops(graph: &Graph) -> String {
    let mut counts = BTreeMap::new();
    for (_, node) in graph.nodes() {
        *counts.entry(node.op.name()).or_insert(0) += 1;
    }
    let list: Vec<String> = counts.iter().map(|(op, n)| format!("{op} {n}")).collect();
    list.join(", ")
}

#[test]
fn operations_are_those_last_accepted() {
    let models = models();
    if models.is_empty() {
        return;
    }
    let mut found = String::new();
    for (name, old, new) in &models {
        writeln!(found, "{name}\n    {}\n    {}", ops(old), ops(new)).unwrap();
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/zoo.txt");
    if std::env::var_os("LOWBIT_BLESS").is_some() {
        std::fs::write(&file, &found).unwrap();
    }
    let accepted = std::fs::read_to_string(&file).unwrap();
    assert!(
        accepted == found,
        "not what {} holds; LOWBIT_BLESS=1 accepts:\n{found}",
        file.display()
    );
}

#[test]
fn outputs_stay() {
    for (name, old, new) in models() {
        let inputs: Vec<Tensor> = old
            .inputs()
            .iter()
            .map(|&v| {
                assert_eq!(old.ty(v).dtype, DType::F32, "{name}");
                let wave = |i: usize| ((i * 7919 + i / 13) % 509) as f32 / 254.0 - 1.0;
                Tensor::new(old.shape(v), (0..old.ty(v).elements()).map(wave).collect())
            })
            .collect();
        let (before, after) = (run(&old, &inputs).unwrap(), run(&new, &inputs).unwrap());
        for (a, b) in before.iter().zip(&after) {
            assert_eq!(a.shape(), b.shape(), "{name}");
            let largest = a.to_f64().iter().fold(1e-6, |m: f64, x| m.max(x.abs()));
            for (x, y) in a.to_f64().into_iter().zip(b.to_f64()) {
                let close = (x - y).abs() <= 2e-5 * largest;
                assert!(close, "{name}: {x} became {y}");
            }
        }
    }
}

/// Whether a value is an input, or a view of one.
fn at_input(graph: &Graph, v: ValueId) -> bool {
    match graph.producer(v) {
        Some(node) => matches!(node.op, Op::Reshape(_)) && at_input(graph, node.inputs[0]),
        None => true,
    }
}

fn is_clamp(node: &Node) -> bool {
    match &node.op {
        Op::Unary(op) => op.0 == UnaryFn::Relu,
        Op::Binary(op) => matches!(op.0, BinaryFn::Max | BinaryFn::Min),
        _ => false,
    }
}

#[test]
fn networks_of_convolutions_are_left_with_nothing_else() {
    // attention multiplies activations; few-bit training leaves rounding and its scales in the graph
    let others = ["vit", "tfc", "kwsmlp"];
    for (name, _, graph) in models() {
        if others.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        for (_, node) in graph.nodes() {
            let at = format!("{name}: '{}'", graph.value(node.output).name);
            let constants = node.inputs.iter().filter(|&&v| graph.as_const(v).is_some());
            match &node.op {
                Op::Conv(_) => assert_eq!(constants.count(), 2, "{at} has no bias"),
                Op::Transpose(_) => assert!(
                    at_input(&graph, node.inputs[0]) || graph.is_output(node.output),
                    "{at} is transposed"
                ),
                Op::Binary(_) if constants.count() > 0 => {
                    assert!(is_clamp(node), "{at} is not folded");
                }
                Op::MatMul(_) | Op::Reduce(_) => panic!("{at} is a {}", node.op.name()),
                _ => {}
            }
            if is_clamp(node) {
                let source = node.inputs.iter().find_map(|&v| graph.producer(v)).unwrap();
                let fused = matches!(source.op, Op::Conv(_) | Op::Binary(_));
                assert!(fused, "{at} is not right behind what it clamps");
            }
        }
    }
}
