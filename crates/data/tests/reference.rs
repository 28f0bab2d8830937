//! Samples of the model zoo against the reference scorer's, where both are there.

use std::path::{Path, PathBuf};
use std::process::Command;

use lowbit_data::{Dataset, Dtype, InputSpec, read_npy};

/// Prints the model's input and writes the samples that the reference makes of a descriptor.
const SCRIPT: &str = "
import os, sys
sys.path.insert(0, os.path.dirname(sys.argv[1]))
import numpy as np, score
zoo, name, out, indices = os.path.dirname(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:]
data = score.Data(f'{zoo}/{name}.toml', f'{zoo}/models/{name}.onnx')
np.save(out, np.stack([data.sample(int(i)) for i in indices]))
print(data.name, data.count, 0 if data.labels is None else int(data.labels.sum()), len(data.calibrate), len(data.evaluate), *data.shape)
";

fn zoo() -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let shared = std::env::var_os("LOWBIT_SHARED").map_or(default, PathBuf::from);
    let zoo = shared.join("zoo");
    if !zoo.join("score.py").is_file() {
        println!("skipped: there is no model zoo at {}", zoo.display());
        return None;
    }
    Some(zoo)
}

fn descriptors(zoo: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(zoo)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = entries
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        .collect();
    paths.sort();
    assert!(!paths.is_empty());
    paths
}

#[test]
fn samples_equal_the_reference() {
    let Some(zoo) = zoo() else { return };
    let Some(python) = std::env::var_os("LOWBIT_PYTHON") else {
        println!(
            "skipped: LOWBIT_PYTHON names no interpreter with onnx, onnxruntime, numpy and pillow"
        );
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("samples.npy");
    for descriptor in descriptors(&zoo) {
        compare(&python, &zoo, &descriptor, &out);
    }
}

fn compare(python: &std::ffi::OsStr, zoo: &Path, descriptor: &Path, out: &Path) {
    let name = descriptor.file_stem().unwrap().to_str().unwrap();
    let indices = [0, 3, 50, 99, 101, 180, 255];
    let mut command = Command::new(python);
    command
        .args(["-c", SCRIPT])
        .arg(zoo.join("score.py"))
        .arg(name)
        .arg(out);
    let done = command
        .args(indices.map(|i: usize| i.to_string()))
        .output()
        .unwrap();
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    let printed = String::from_utf8(done.stdout).unwrap();
    let words: Vec<_> = printed.split_whitespace().collect();
    let numbers: Vec<usize> = words[1..].iter().map(|w| w.parse().unwrap()).collect();
    let spec = InputSpec {
        name: words[0].into(),
        shape: numbers[4..].to_vec(),
        dtype: Dtype::F32,
    };
    let data = Dataset::open(descriptor, std::slice::from_ref(&spec)).unwrap();
    let labels: i64 = data.labels().unwrap_or_default().iter().sum();
    let evaluate = data.split().evaluate.as_ref().unwrap().len();
    let calibrate = data.split().calibrate.len();
    assert_eq!(
        [data.len(), labels as usize, calibrate, evaluate],
        numbers[..4],
        "{name}"
    );
    let wanted = read_npy(out).unwrap();
    let ours: Vec<f32> = indices
        .iter()
        .flat_map(|&i| data.sample(i).unwrap().remove(0).data)
        .collect();
    assert!(
        ours == wanted.data,
        "{name}: samples differ from the reference"
    );
}
