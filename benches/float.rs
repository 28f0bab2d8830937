//! The float interpreter beside onnxruntime on one thread, interleaved: `cargo bench --bench float -- MODEL DESCRIPTOR`.
//!
//! Needs `LOWBIT_PYTHON`, a Python with the packages of `tests/requirements.txt`. Samples run on all cores here, as
//! calibration runs them, and again on one.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use lowbit_ir::Tensor;
use lowbit_ir::eval::{Plan, run_observed};
use rayon::prelude::*;

/// Answers each line with the milliseconds that one run took.
const ORACLE: &str = r#"
import sys, time
import numpy as np, onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads = 1
options.log_severity_level = 3
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
dims = lambda x: [d if isinstance(d, int) and d > 0 else 1 for d in x.shape]
feeds = {x.name: np.random.rand(*dims(x)).astype(np.float32) for x in session.get_inputs()}
for line in sys.stdin:
    start = time.perf_counter()
    for _ in range(int(line)):
        session.run(None, feeds)
    print((time.perf_counter() - start) * 1e3 / int(line), flush=True)
"#;

const ROUNDS: usize = 15;
const SAMPLES: usize = 8;

fn median(mut x: Vec<f64>) -> f64 {
    x.sort_by(f64::total_cmp);
    x[x.len() / 2]
}

fn main() {
    let arguments: Vec<String> = std::env::args().filter(|a| a != "--bench").collect();
    let [_, path, data] = &arguments[..] else {
        eprintln!("usage: cargo bench --bench float -- MODEL DESCRIPTOR");
        return;
    };
    let model = lowbit::Model::open(Path::new(path), &Vec::new()).expect("the model opens");
    let data = model.data(Path::new(data)).expect("the data opens");
    let samples: Vec<Vec<Tensor>> = (0..SAMPLES)
        .map(|i| model.sample(&data, i).expect("the sample is there"))
        .collect();
    let plan = Plan::only(&model.graph, |_| false);
    let run = |x: &Vec<Tensor>| run_observed(&model.graph, &plan, x, |_, _, _| {}).unwrap();
    let timed = |f: &dyn Fn()| {
        let start = Instant::now();
        f();
        start.elapsed().as_secs_f64() * 1e3 / SAMPLES as f64
    };
    let python = std::env::var_os("LOWBIT_PYTHON").expect("LOWBIT_PYTHON names a Python");
    let mut oracle = Command::new(python)
        .args(["-c", ORACLE, path])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python starts");
    let mut ask = oracle.stdin.take().expect("it is piped");
    let mut answers = BufReader::new(oracle.stdout.take().expect("it is piped")).lines();
    let (mut all, mut one, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        all.push(timed(&|| samples.par_iter().for_each(|x| drop(run(x)))));
        one.push(timed(&|| samples.iter().for_each(|x| drop(run(x)))));
        writeln!(ask, "{SAMPLES}").expect("Python listens");
        let answer = answers.next().expect("Python answers").expect("in text");
        theirs.push(answer.parse::<f64>().expect("with a number"));
    }
    drop(ask);
    oracle.wait().expect("Python ends");
    let ratio = |x: &[f64]| median(x.iter().zip(&theirs).map(|(a, b)| a / b).collect());
    let cores = rayon::current_num_threads();
    println!("medians of {ROUNDS} interleaved rounds, ms a sample, ratio to onnxruntime");
    println!("onnxruntime, one thread   {:8.3}", median(theirs.clone()));
    println!(
        "interpreter, {cores} threads    {:8.3}  {:.2}×",
        median(all.clone()),
        ratio(&all)
    );
    println!(
        "interpreter, one thread   {:8.3}  {:.2}×",
        median(one.clone()),
        ratio(&one)
    );
}
