//! The operator tests of the onnx package, through the importer and the float interpreter.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use lowbit_ir::{DType, Tensor, eval};
use lowbit_onnx::{Options, import_bytes, proto, read_tensor};
use prost::Message;
use rayon::prelude::*;

const CLAIMED: &str = "Conv ConvTranspose Gemm MatMul BatchNormalization Relu Clip LeakyRelu PRelu Elu HardSwish \
    HardSigmoid Sigmoid Tanh Softplus Mish Erf Gelu Softmax LogSoftmax Add Sub Mul Div Min Max Neg Abs Exp Log Sqrt \
    Pow Sign GlobalAveragePool GlobalMaxPool AveragePool MaxPool ReduceMean ReduceSum ReduceMax ReduceMin ReduceL2 \
    Concat Split Slice Flatten Reshape Transpose Squeeze Unsqueeze Expand Pad Resize Upsample DepthToSpace Identity \
    Dropout Constant ConstantOfShape Cast Where Gather LayerNormalization InstanceNormalization LRN Round Floor Ceil \
    Equal Greater GreaterOrEqual Less LessOrEqual Not And Or QuantizeLinear DequantizeLinear";

const FIND: &str = "import onnx.backend.test, os; \
    print(os.path.join(os.path.dirname(onnx.backend.test.__file__), 'data', 'node'))";

fn data() -> Option<PathBuf> {
    if let Some(dir) = std::env::var_os("LOWBIT_ONNX_NODE_TESTS") {
        return Some(dir.into());
    }
    let python = std::env::var_os("LOWBIT_PYTHON")?;
    let found = Command::new(python).args(["-c", FIND]).output().ok()?;
    let dir = PathBuf::from(String::from_utf8(found.stdout).ok()?.trim());
    dir.is_dir().then_some(dir)
}

fn is_claimed(model: &Path) -> bool {
    let Ok(model) = proto::Model::decode(Bytes::from(std::fs::read(model).unwrap())) else {
        return false;
    };
    let nodes = model.graph.map_or(Vec::new(), |g| g.node);
    let known = |n: &proto::Node| CLAIMED.split_whitespace().any(|op| op == n.op_type);
    !nodes.is_empty() && nodes.iter().all(known)
}

const BFLOAT16: i32 = 16;

/// Tensors of a data set. The package stores what is declared to be bfloat16 as codes of 16 bits.
fn tensors(set: &Path, kind: &str, declared: &[i32]) -> Result<Vec<Tensor>, String> {
    let paths = (0..).map(|i| set.join(format!("{kind}_{i}.pb")));
    paths
        .take_while(|p| p.exists())
        .enumerate()
        .map(|(i, p)| {
            let bytes = Bytes::from(std::fs::read(&p).map_err(|e| e.to_string())?);
            let mut tensor = proto::Tensor::decode(bytes).map_err(|e| e.to_string())?;
            if declared.get(i) == Some(&BFLOAT16) {
                tensor.data_type = BFLOAT16;
            }
            read_tensor(&tensor).map_err(|e| format!("{}: {e}", p.display()))
        })
        .collect()
}

fn compare(found: &Tensor, wanted: &Tensor) -> Result<(), String> {
    if found.ty() != wanted.ty() {
        return Err(format!("it is {}, not {}", found.ty(), wanted.ty()));
    }
    let float = matches!(wanted.dtype(), DType::F32 | DType::F64);
    let same = |(a, b): (f64, f64)| match float {
        true => a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-5 + 1e-3 * b.abs(),
        false => a == b,
    };
    let (found, wanted) = (found.to_f64(), wanted.to_f64());
    let bad = (0..found.len()).find(|&i| !same((found[i], wanted[i])));
    bad.map_or(Ok(()), |i| {
        Err(format!("element {i} is {}, not {}", found[i], wanted[i]))
    })
}

fn codes(values: &[proto::ValueInfo]) -> Vec<i32> {
    let code = |v: &proto::ValueInfo| {
        let tensor = v.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
        tensor.map_or(0, |t| t.elem_type)
    };
    values.iter().map(code).collect()
}

/// Runs one data set with the inputs from `free` on as constants.
fn attempt(model: &Path, set: &Path, free: usize) -> Result<(), String> {
    let bytes = Bytes::from(std::fs::read(model).map_err(|e| e.to_string())?);
    let decoded = proto::Model::decode(bytes.clone()).map_err(|e| e.to_string())?;
    let graph = decoded.graph.unwrap_or_default();
    let (inputs, wanted) = (
        tensors(set, "input", &codes(&graph.input))?,
        tensors(set, "output", &codes(&graph.output))?,
    );
    let names = graph.input.into_iter().map(|i| i.name);
    let options = Options {
        constants: names.zip(inputs.iter().cloned()).skip(free).collect(),
        ..Options::default()
    };
    let imported = import_bytes(bytes, model, &options).map_err(|e| e.to_string())?;
    let given = &inputs[..free.min(inputs.len())];
    let found = eval::run(&imported.graph, given).map_err(|e| e.to_string())?;
    if found.len() != wanted.len() {
        return Err(format!("{} outputs, not {}", found.len(), wanted.len()));
    }
    found
        .iter()
        .zip(&wanted)
        .try_for_each(|(f, w)| compare(f, w))
}

fn sets(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    entries.filter(|p| p.is_dir()).collect()
}

fn test(dir: &Path) -> Result<(), String> {
    let model = dir.join("model.onnx");
    let sets = sets(dir);
    assert!(!sets.is_empty(), "{} holds no data", dir.display());
    sets.iter().try_for_each(|set| {
        let all = attempt(&model, set, usize::MAX);
        all.or_else(|first| {
            let rest = attempt(&model, set, 1).or_else(|_| attempt(&model, set, 0));
            rest.map_err(|_| first)
        })
    })
}

fn guarded(dir: &Path) -> Result<(), String> {
    std::panic::catch_unwind(|| test(dir)).unwrap_or_else(|_| Err("it panics".into()))
}

fn list(file: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/operators")
        .join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let name = |l: &str| l.split(" — ").next().unwrap_or(l).trim().to_owned();
    text.lines().map(name).filter(|n| !n.is_empty()).collect()
}

#[test]
fn claimed_operators_agree_with_onnx() {
    let Some(dir) = data() else {
        println!("the operator tests of the onnx package are not here: skipped");
        return;
    };
    let claimed: Vec<PathBuf> = sets(&dir)
        .into_iter()
        .filter(|d| is_claimed(&d.join("model.onnx")))
        .collect();
    let name = |d: &Path| d.file_name().unwrap().to_string_lossy().into_owned();
    let results: BTreeMap<String, Result<(), String>> =
        claimed.par_iter().map(|d| (name(d), guarded(d))).collect();
    let (passing, denied) = (list("passing.txt"), list("denied.txt"));
    let wrong = |(name, result): (&String, &Result<(), String>)| {
        let listed = (passing.contains(name), denied.contains(name));
        match (result, listed) {
            (Ok(()), (true, false)) | (Err(_), (false, true)) => None,
            (Ok(()), _) => Some(format!("{name}: passes; list it as passing only")),
            (Err(e), _) => Some(format!("{name}: {e}")),
        }
    };
    let mut wrong: Vec<String> = results.iter().filter_map(wrong).collect();
    let gone = passing
        .iter()
        .chain(&denied)
        .filter(|n| !results.contains_key(*n));
    wrong.extend(gone.map(|n| format!("{n}: listed, but there is no such test")));
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        results.len(),
        wrong.join("\n")
    );
}
