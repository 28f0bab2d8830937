//! `lowbit bench`: how fast an object runs.

use std::path::Path;
use std::time::{Duration, Instant};

use lowbit_load::{Module, Pool};
use lowbit_passes::latency::{call_us, ceiling};
use lowbit_report::Report;
use serde::Serialize;

use crate::artefact::Artefact;
use crate::compile::{Compiled, Options};
use crate::object::port_bytes;
use crate::{Error, Progress, verify};

/// Time of one layer.
#[derive(Clone, Debug, Serialize)]
pub struct LayerTime {
    /// Name in the model.
    pub name: String,
    /// The kernel.
    pub kernel: String,
    /// Median microseconds.
    pub median_us: f64,
    /// Least microseconds.
    pub min_us: f64,
    /// Microseconds that the target's cost numbers predict.
    pub predicted_us: f64,
    /// Multiply-accumulates.
    pub macs: u64,
    /// Multiply-accumulates a nanosecond.
    pub gmac_per_s: f64,
    /// Share of the ceiling that is reached: 1 where the layer could not be faster.
    pub share: f64,
    /// What sets the ceiling: `compute`, or a level of memory.
    pub bound: &'static str,
}

/// Times of an object: random codes, warm caches.
#[derive(Clone, Debug, Serialize)]
pub struct Bench {
    /// Threads that shared the layers.
    pub threads: usize,
    /// Median microseconds of one inference.
    pub median_us: f64,
    /// Least microseconds of one inference.
    pub min_us: f64,
    /// Inferences that were timed.
    pub runs: usize,
    /// Multiply-accumulates of one inference.
    pub macs: u64,
    /// Multiply-accumulates a nanosecond, at the median.
    pub gmac_per_s: f64,
    /// Times by call, where asked for.
    pub layers: Vec<LayerTime>,
}

/// How long is measured.
const SPAN: Duration = Duration::from_millis(700);

/// Times an object on a number of threads, on one as `NAME_run` is called; `layers` times each of its calls too, on the same program built with an entry for single calls.
///
/// # Errors
/// The folder cannot be read, this processor cannot run the object, or it does not cut its layers for threads.
pub fn bench(
    folder: &Path,
    threads: usize,
    layers: bool,
    progress: &dyn Progress,
) -> Result<Bench, Error> {
    let artefact = Artefact::open(folder)?;
    let report = &artefact.report;
    let module = native(&artefact.object, report)?;
    let mut state = State::new(&module, report);
    let times = match threads {
        1 => timed(|| state.run(&module)),
        _ if !module.is_parallel() => {
            return Err(Error::Usage(format!(
                "{} was compiled for one thread; compile it with --threads {threads}",
                folder.display()
            )));
        }
        _ => on_threads(threads, &module, &mut state)?,
    };
    let macs = report.totals.macs;
    let median = times[times.len() / 2];
    Ok(Bench {
        threads,
        median_us: median,
        min_us: times[0],
        runs: times.len(),
        macs,
        gmac_per_s: rate(median, macs),
        layers: if layers {
            by_layer(report, progress)?
        } else {
            Vec::new()
        },
    })
}

/// Microseconds of inferences whose layers are shared by threads, ascending.
fn on_threads(threads: usize, module: &Module, state: &mut State) -> Result<Vec<f64>, Error> {
    let mut pool = Pool::new(threads)
        .map_err(|e| Error::Other(format!("cannot start {threads} threads: {e}")))?;
    Ok(timed(|| state.run_parallel(module, &mut pool)))
}

/// Multiply-accumulates a nanosecond.
fn rate(us: f64, macs: u64) -> f64 {
    if us > 0.0 {
        macs as f64 / us / 1000.0
    } else {
        0.0
    }
}

fn native(object: &[u8], report: &Report) -> Result<Module, Error> {
    let sizes = lowbit_load::Sizes {
        inputs: report.model.inputs.iter().map(port_bytes).collect(),
        outputs: report.model.outputs.iter().map(port_bytes).collect(),
        arena_bytes: report.totals.arena_bytes as usize,
        arena_align: 64,
    };
    let module = Module::load(object, &report.model.name, sizes)?;
    match module.check_cpu() {
        0 => Ok(module),
        _ => Err(Error::Other(
            "this processor lacks what the object uses; compile with --cpu native".into(),
        )),
    }
}

struct State {
    inputs: Vec<Vec<u8>>,
    outputs: Vec<Vec<u8>>,
    arena: lowbit_load::Arena,
}

impl State {
    fn new(module: &Module, report: &Report) -> Self {
        Self {
            inputs: random_codes(report, 1),
            outputs: report
                .model
                .outputs
                .iter()
                .map(|p| vec![0; port_bytes(p)])
                .collect(),
            arena: module.arena(),
        }
    }

    fn run(&mut self, module: &Module) {
        let inputs: Vec<&[u8]> = self.inputs.iter().map(Vec::as_slice).collect();
        let mut outputs: Vec<&mut [u8]> = self.outputs.iter_mut().map(Vec::as_mut_slice).collect();
        let code = module.run(&inputs, &mut outputs, &mut self.arena);
        assert_eq!(code, 0, "the object refuses to run");
    }

    fn run_parallel(&mut self, module: &Module, pool: &mut Pool) {
        let inputs: Vec<&[u8]> = self.inputs.iter().map(Vec::as_slice).collect();
        let mut outputs: Vec<&mut [u8]> = self.outputs.iter_mut().map(Vec::as_mut_slice).collect();
        let mut each = |task: &(dyn Fn(i32) + Sync), parts| pool.for_each(task, parts);
        let code = module.run_parallel(&inputs, &mut outputs, &mut self.arena, &mut each);
        assert_eq!(code, Some(0), "the object refuses to run on threads");
    }

    fn step(&mut self, module: &Module, call: usize) {
        let inputs: Vec<&[u8]> = self.inputs.iter().map(Vec::as_slice).collect();
        let mut outputs: Vec<&mut [u8]> = self.outputs.iter_mut().map(Vec::as_mut_slice).collect();
        let code = module.step(call as i32, &inputs, &mut outputs, &mut self.arena);
        assert_eq!(code, Some(0), "the object refuses call {call}");
    }
}

/// Codes that repeat for equal seeds.
pub(crate) fn random_codes(report: &Report, seed: u64) -> Vec<Vec<u8>> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    report
        .model
        .inputs
        .iter()
        .map(|p| (0..port_bytes(p)).map(|_| byte()).collect())
        .collect()
}

/// Microseconds of each call, ascending.
fn timed(mut call: impl FnMut()) -> Vec<f64> {
    for _ in 0..3 {
        call();
    }
    let start = Instant::now();
    let mut times = Vec::new();
    while start.elapsed() < SPAN || times.len() < 5 {
        let before = Instant::now();
        call();
        times.push(before.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    times
}

/// Fills in the times of inference and of each layer: measured where that is wanted and this machine runs the object,
/// else predicted from the target's cost numbers.
///
/// # Errors
/// The object for single calls cannot be emitted or mapped.
pub(crate) fn fill(
    compiled: &mut Compiled,
    measures: bool,
    progress: &dyn Progress,
) -> Result<(), Error> {
    let report = &compiled.artefact.report;
    let host = report.target.triple.starts_with(std::env::consts::ARCH);
    let module = native(&compiled.artefact.object, report).ok();
    let mut shared = None;
    let (whole, calls, source) = match module.filter(|_| host && measures) {
        Some(module) => {
            progress.step("time", 0, 0);
            let mut state = State::new(&module, report);
            let whole = median(&timed(|| state.run(&module)));
            if let Some(threads) = report.reproduce.threads {
                shared = Some(median(&on_threads(threads, &module, &mut state)?));
            }
            let calls = call_times(compiled)?.iter().map(|t| median(t)).collect();
            (whole, calls, "measured")
        }
        None => {
            let calls = call_us(&compiled.lowered.program, &compiled.target);
            (calls.iter().sum(), calls, "predicted")
        }
    };
    let of_layer = |v| {
        let parts = compiled.lowered.computes.iter().zip(&calls);
        parts.filter(|(c, _)| **c == v).map(|(_, us)| us).sum()
    };
    let times: Vec<f64> = (compiled.quantized.layers.iter())
        .map(|l| of_layer(l.int))
        .collect();
    let report = &mut compiled.artefact.report;
    report.totals.latency_us = Some(whole);
    report.totals.parallel_latency_us = shared;
    report.totals.latency_source = Some(source.into());
    for (layer, us) in report.layers.iter_mut().zip(times) {
        layer.latency_us = Some(us);
    }
    Ok(())
}

fn median(ascending: &[f64]) -> f64 {
    ascending[ascending.len() / 2]
}

/// Microseconds of each call, ascending, on the same program built with an entry for single calls.
fn call_times(compiled: &Compiled) -> Result<Vec<Vec<f64>>, Error> {
    let report = &compiled.artefact.report;
    let steps = lowbit_llvm::Options {
        debug_steps: true,
        ..Default::default()
    };
    let object = lowbit_llvm::emit(&compiled.lowered.program, &compiled.target, &steps)?.object;
    let module = native(&object, report)?;
    let mut state = State::new(&module, report);
    let mut all = vec![Vec::new(); compiled.lowered.program.calls.len()];
    let start = Instant::now();
    while start.elapsed() < SPAN || all[0].len() < 5 {
        for (call, times) in all.iter_mut().enumerate() {
            let before = Instant::now();
            state.step(&module, call);
            times.push(before.elapsed().as_secs_f64() * 1e6);
        }
    }
    for times in &mut all {
        times.sort_by(f64::total_cmp);
    }
    Ok(all)
}

fn by_layer(report: &Report, progress: &dyn Progress) -> Result<Vec<LayerTime>, Error> {
    let options = Options {
        eval: Some(0),
        ..verify::options(report)
    };
    let compiled = crate::compile(&options, progress)?;
    let times = call_times(&compiled)?;
    let predicted = call_us(&compiled.lowered.program, &compiled.target);
    let calls = times.iter().zip(predicted).enumerate();
    Ok(calls
        .map(|(call, (times, predicted_us))| layer(&compiled, call, times, predicted_us))
        .collect())
}

fn layer(compiled: &Compiled, call: usize, times: &[f64], predicted_us: f64) -> LayerTime {
    let (program, report) = (&compiled.lowered.program, &compiled.artefact.report);
    let call = &program.calls[call];
    let kernel = &program.kernels[call.kernel];
    let heavy = kernel.name.starts_with("conv") || kernel.name.starts_with("depthwise");
    let known = report.layers.iter().find(|l| heavy && l.name == call.label);
    let macs = known.map_or(0, |l| l.macs);
    let resident = program.consts.len() + program.arena_bytes;
    let ceiling = ceiling(kernel, macs, resident, &compiled.target);
    let median_us = median(times);
    LayerTime {
        name: call.label.clone(),
        kernel: kernel.name.clone(),
        median_us,
        min_us: times[0],
        predicted_us,
        macs,
        gmac_per_s: rate(median_us, macs),
        share: if median_us > 0.0 {
            ceiling.us / median_us
        } else {
            0.0
        },
        bound: ceiling.bound,
    }
}
