//! Every model of the zoo imports, and computes what onnxruntime computes.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lowbit_data::{Dataset, Dtype, InputSpec, read_npy, write_npy};
use lowbit_ir::{DType, Graph, Tensor, eval};
use lowbit_onnx::{Options, import};

fn shared() -> PathBuf {
    std::env::var_os("LOWBIT_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
        Into::into,
    )
}

pub(crate) fn zoo() -> Option<PathBuf> {
    let models = shared().join("zoo/models");
    models.is_dir().then_some(models)
}

/// Name, file and graph of each model.
fn models() -> Vec<(String, PathBuf, Graph)> {
    let Some(folder) = zoo() else {
        println!("the zoo is not here: skipped");
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    paths.sort();
    let model = |path: PathBuf| {
        let imported = import(&path, &Options::default());
        let graph = imported
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
            .graph;
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        (name, path, graph)
    };
    paths.into_iter().map(model).collect()
}

#[test]
fn every_model_of_the_zoo_imports() {
    for (name, _, graph) in models() {
        graph.verify(lowbit_ir::Stage::Float).unwrap();
        assert!(!graph.outputs().is_empty(), "{name}");
    }
}

/// Samples of each model that onnxruntime runs, too.
const SAMPLES: usize = 4;

/// Runs each `model\tfolder` on `K.I.npy` to `K.out.J.npy`.
const ORACLE: &str = r#"
import glob, os, sys
import numpy as np, onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads = 1
options.log_severity_level = 3
for line in sys.stdin:
    model, folder = line.rstrip("\n").split("\t")
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    for k in range(len(glob.glob(os.path.join(folder, "*.0.npy")))):
        feeds = {x.name: np.load(f"{folder}/{k}.{i}.npy") for i, x in enumerate(session.get_inputs())}
        for j, y in enumerate(session.run(None, feeds)):
            np.save(f"{folder}/{k}.out.{j}.npy", y.astype(np.float32))
"#;

/// Real samples: the first that evaluate; random ones for a model without data.
fn samples(name: &str, graph: &Graph) -> Vec<Vec<Tensor>> {
    let spec = |&v: &lowbit_ir::ValueId| {
        assert_eq!(graph.ty(v).dtype, DType::F32, "{name}");
        InputSpec {
            name: graph.value(v).name.clone(),
            shape: graph.shape(v).to_vec(),
            dtype: Dtype::F32,
        }
    };
    let specs: Vec<InputSpec> = graph.inputs().iter().map(spec).collect();
    let described = shared().join("zoo").join(format!("{name}.toml"));
    let data = match described.is_file() {
        true => Dataset::open(&described, &specs).unwrap_or_else(|e| panic!("{name}: {e}")),
        false => Dataset::random(&specs, 1, SAMPLES),
    };
    let first = data.split().evaluate.as_ref().map_or(0, |r| r.start);
    let tensors = |i: usize| {
        let arrays = data.sample(first + i).unwrap();
        let tensor = |a: lowbit_data::Array| Tensor::new(a.shape, a.data);
        arrays.into_iter().map(tensor).collect()
    };
    (0..SAMPLES).map(tensors).collect()
}

fn oracle(python: &std::ffi::OsStr, jobs: &str) {
    let mut child = Command::new(python)
        .args(["-c", ORACLE])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(jobs.as_bytes())
        .unwrap();
    assert!(child.wait().unwrap().success(), "onnxruntime failed");
}

/// The largest distance, over the largest magnitude that is wanted.
fn distance(found: &[f32], wanted: &[f32]) -> f64 {
    assert_eq!(found.len(), wanted.len());
    let largest = wanted
        .iter()
        .fold(0.0f64, |m, &x| m.max(f64::from(x.abs())));
    let far = |(a, b): (&f32, &f32)| f64::from((a - b).abs());
    found.iter().zip(wanted).map(far).fold(0.0, f64::max) / largest
}

#[test]
fn the_interpreter_agrees_with_onnxruntime() {
    let Some(python) = std::env::var_os("LOWBIT_PYTHON") else {
        println!("LOWBIT_PYTHON names no Python with onnxruntime: skipped");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, rest: String| folder.path().join(name).join(rest);
    let mut jobs = String::new();
    let cases: Vec<(String, Graph, Vec<Vec<Tensor>>)> = models()
        .into_iter()
        .map(|(name, path, graph)| {
            let inputs = samples(&name, &graph);
            std::fs::create_dir(folder.path().join(&name)).unwrap();
            for (k, sample) in inputs.iter().enumerate() {
                for (i, x) in sample.iter().enumerate() {
                    let to = file(&name, format!("{k}.{i}.npy"));
                    write_npy(&to, x.shape(), x.as_slice::<f32>()).unwrap();
                }
            }
            let own = folder.path().join(&name);
            jobs += &format!("{}\t{}\n", path.display(), own.display());
            (name, graph, inputs)
        })
        .collect();
    oracle(&python, &jobs);
    for (name, graph, inputs) in &cases {
        for (k, sample) in inputs.iter().enumerate() {
            let outputs = eval::run(graph, sample).unwrap();
            for (j, found) in outputs.iter().enumerate() {
                let wanted = read_npy(&file(name, format!("{k}.out.{j}.npy"))).unwrap();
                let distance = distance(found.as_slice(), &wanted.data);
                println!("{name} sample {k} output {j}: {distance:.1e}");
                assert!(
                    distance <= 1e-4,
                    "{name}: sample {k} differs by {distance:.1e}"
                );
            }
        }
    }
}
