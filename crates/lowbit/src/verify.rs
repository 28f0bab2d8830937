//! `lowbit verify`: the object against its definition.

use std::path::{Path, PathBuf};

use lowbit_ir::{DType, Tensor};
use lowbit_passes::bounds;
use lowbit_report::{Budget, Report};
use rayon::prelude::*;
use serde::Serialize;

use crate::artefact::Artefact;
use crate::bench::random_codes;
use crate::compile::{Compiled, Options};

use crate::object::{Runner, bytes_of, encode_sample};
use crate::tuning::Tuning;
use crate::{Error, Progress, decide};

/// What `verify` finds.
#[derive(Clone, Debug, Serialize)]
pub struct Verification {
    /// Whether object and interpreter gave the same bytes on every sample.
    pub bit_exact: bool,
    /// Samples compared.
    pub samples: usize,
    /// Whether compiling again gives the same object.
    pub reproduced: bool,
    /// Floating-point instructions in the object.
    pub float_instructions: usize,
    /// Symbols that a linker would have to find elsewhere.
    pub undefined_symbols: Vec<String>,
    /// Bits of the widest accumulator, by interval analysis over the actual weights.
    pub max_accumulator_bits: u32,
    /// The first thing that differs, where something does: a layer with its call, or the object's digest.
    pub first_difference: Option<String>,
}

impl Verification {
    /// Whether nothing is wrong.
    pub fn passed(&self) -> bool {
        self.bit_exact
            && self.reproduced
            && self.float_instructions == 0
            && self.undefined_symbols.is_empty()
            && self.max_accumulator_bits <= 32
    }
}

/// Samples that are compared at least.
const SAMPLES: usize = 200;

/// The options that a report was made with.
pub(crate) fn options(report: &Report) -> Options {
    Options {
        data: report.reproduce.data.as_ref().map(PathBuf::from),
        shapes: report.reproduce.shapes.clone(),
        target: Some(report.target.triple.clone()),
        cpu: Some(report.target.level.clone()),
        features: Some(report.target.features.clone()),
        name: Some(report.model.name.clone()),
        // the plan is given, and its latency was predicted by a table that may be gone
        budget: Budget {
            latency: None,
            ..report.budget.clone()
        },
        plan: Some(decide::plan_of(report)),
        tuning: Tuning::from_report(report),
        seed: report.reproduce.seed,
        threads: report.reproduce.threads.unwrap_or(1),
        eval: Some(0),
        ..Options::new(&report.model.path)
    }
}

/// Compiles the model of a folder again and compares: the bytes of the object, then its results with the interpreter's on
/// at least 200 samples, from the evaluation split first, then random codes.
///
/// # Errors
/// The folder, its model or its data cannot be read.
pub fn verify(
    folder: &Path,
    data: Option<&Path>,
    progress: &dyn Progress,
) -> Result<Verification, Error> {
    let artefact = Artefact::open_unchecked(folder)?;
    let report = &artefact.report;
    if !artefact.is_whole() {
        return foreign(&artefact);
    }
    let compiled = crate::compile(&options(report), progress)?;
    let scan = lowbit_llvm::scan(&artefact.object)?;
    let other = data.map(|d| compiled.model.data(d)).transpose()?;
    let samples = samples(&compiled, report, other.as_ref())?;
    progress.step("compare", 0, samples.len());
    let runner = Runner::new(&artefact.object, report)?;
    let bytes: Vec<Vec<Vec<u8>>> = samples
        .iter()
        .map(|s| s.iter().map(bytes_of).collect())
        .collect();
    let found = runner.run(&bytes)?;
    let parallel = runner.run_parallel(&bytes)?;
    let graph = &compiled.quantized.graph;
    let differs: Result<Vec<Option<usize>>, Error> = samples
        .par_iter()
        .zip(&found)
        .enumerate()
        .map(|(sample, (inputs, found))| {
            let expected = lowbit_ir::eval::run(graph, inputs)
                .map_err(|error| Error::Eval { sample, error })?;
            let beside = parallel.as_ref().is_none_or(|p| p[sample] == *found);
            let same = beside && expected.iter().map(bytes_of).eq(found.iter().cloned());
            Ok((!same).then_some(sample))
        })
        .collect();
    let differs: Vec<usize> = differs?.into_iter().flatten().collect();
    let first_difference = match differs.first() {
        Some(&sample) => Some(locate(&compiled, report, &samples[sample])?),
        None => None,
    };
    Ok(Verification {
        bit_exact: differs.is_empty(),
        samples: samples.len(),
        reproduced: compiled.artefact.object == artefact.object,
        float_instructions: scan.float_instructions.len(),
        undefined_symbols: scan.undefined_symbols,
        max_accumulator_bits: bounds::max_accumulator_bits(graph),
        first_difference,
    })
}

/// What can be said of an object that is not the one of its report. It is not run: nobody knows what it does.
fn foreign(artefact: &Artefact) -> Result<Verification, Error> {
    let name = &artefact.report.model.name;
    let scan = lowbit_llvm::scan(&artefact.object)?;
    Ok(Verification {
        bit_exact: false,
        samples: 0,
        reproduced: false,
        float_instructions: scan.float_instructions.len(),
        undefined_symbols: scan.undefined_symbols,
        max_accumulator_bits: artefact.report.proofs.max_accumulator_bits,
        first_difference: Some(format!(
            "{name}.o itself: its digest is not the one in report.json"
        )),
    })
}

fn samples(
    compiled: &Compiled,
    report: &Report,
    other: Option<&lowbit_data::Dataset>,
) -> Result<Vec<Vec<Tensor>>, Error> {
    let data = other.unwrap_or(&compiled.data);
    let graph = &compiled.quantized.graph;
    let real = data.split().evaluate.clone().unwrap_or(0..data.len());
    let mut samples: Vec<Vec<Tensor>> = real
        .take(SAMPLES)
        .map(|i| Ok(encode_sample(graph, &compiled.model.sample(data, i)?)))
        .collect::<Result<_, Error>>()?;
    let random = SAMPLES.saturating_sub(samples.len()).max(8);
    for seed in 0..random {
        let codes = random_codes(report, seed as u64 + 7);
        let tensors = graph.inputs().iter().zip(codes);
        samples.push(
            tensors
                .map(|(&v, c)| Tensor::new(graph.shape(v), c))
                .collect(),
        );
    }
    Ok(samples)
}

/// Runs the program call by call and names the first layer whose codes differ from the interpreter's.
fn locate(compiled: &Compiled, report: &Report, inputs: &[Tensor]) -> Result<String, Error> {
    let graph = &compiled.quantized.graph;
    let mut values = std::collections::HashMap::new();
    lowbit_ir::eval::run_observed(
        graph,
        &lowbit_ir::eval::Plan::new(graph),
        inputs,
        |_, v, t| {
            values.insert(v, t.clone());
        },
    )
    .map_err(|error| Error::Eval { sample: 0, error })?;
    let steps = lowbit_llvm::Options {
        debug_steps: true,
        ..Default::default()
    };
    let object = lowbit_llvm::emit(&compiled.lowered.program, &compiled.target, &steps)?.object;
    let Ok(Runner::Native(module)) = Runner::new(&object, report) else {
        return Ok("unknown: single calls can only be run on the host's processor".into());
    };
    let bytes: Vec<Vec<u8>> = inputs.iter().map(bytes_of).collect();
    let given: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
    let mut outputs: Vec<Vec<u8>> = module.sizes().outputs.iter().map(|&n| vec![0; n]).collect();
    let mut arena = module.arena();
    let calls = &compiled.lowered.program.calls;
    for (call, &v) in compiled.lowered.computes.iter().enumerate() {
        let mut slices: Vec<&mut [u8]> = outputs.iter_mut().map(Vec::as_mut_slice).collect();
        let code = module.step(call as i32, &given, &mut slices, &mut arena);
        assert_eq!(code, Some(0), "the object refuses call {call}");
        let last = compiled.lowered.computes.get(call + 1) != Some(&v);
        let (Some(expected), Some(located)) = (values.get(&v), compiled.lowered.located.get(&v))
        else {
            continue;
        };
        let lowbit_kernel::Place::Arena(at) = located.place else {
            continue;
        };
        if last && !holds(&arena.bytes()[at..], &located.storage, expected) {
            return Ok(format!("{} (call {call})", calls[call].label));
        }
    }
    Ok("an output".into())
}

/// Whether memory holds a tensor.
fn holds(memory: &[u8], storage: &lowbit_passes::lower::Storage, expected: &Tensor) -> bool {
    let width = storage.dtype.bytes();
    debug_assert_ne!(storage.dtype, DType::F32);
    let bytes = bytes_of(expected);
    (0..storage.elements()).all(|i| {
        let (mut at, mut rest) = (storage.offset, i);
        for (extent, stride) in storage.shape.iter().zip(&storage.strides).rev() {
            at += rest % extent * stride;
            rest /= extent;
        }
        memory[at..at + width] == bytes[i * width..][..width]
    })
}
