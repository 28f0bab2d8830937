//! Running an object on samples.

use lowbit_ir::{Graph, Tensor};
use lowbit_load::{Arena, Module, Pool};
use lowbit_num::real;
use lowbit_report::{Port, Report};
use lowbit_targets::Feature;
use rayon::prelude::*;

use crate::{Error, qemu};

/// Bytes that an element of a port takes.
pub(crate) fn element_bytes(port: &Port) -> usize {
    match port.r#type.as_str() {
        "u8" => 1,
        "i16" | "u16" => 2,
        _ => 4,
    }
}

/// Bytes of a port.
pub(crate) fn port_bytes(port: &Port) -> usize {
    port.shape.iter().product::<usize>() * element_bytes(port)
}

/// Codes of real values for an input.
pub fn encode(port: &Port, x: &[f64]) -> Vec<u8> {
    x.iter()
        .map(|&x| real::quantize(x, port.scale, port.zero_point, 0, 255) as u8)
        .collect()
}

/// Codes of an output.
pub(crate) fn codes(port: &Port, bytes: &[u8]) -> Vec<i64> {
    match port.r#type.as_str() {
        "u8" => bytes.iter().map(|&b| b.into()).collect(),
        "i16" => bytes
            .chunks_exact(2)
            .map(|c| i16::from_le_bytes([c[0], c[1]]).into())
            .collect(),
        "u16" => bytes
            .chunks_exact(2)
            .map(|c| u16::from_le_bytes([c[0], c[1]]).into())
            .collect(),
        _ => bytes
            .chunks_exact(4)
            .map(|c| i32::from_le_bytes([c[0], c[1], c[2], c[3]]).into())
            .collect(),
    }
}

/// Real values of an output.
pub(crate) fn decode(port: &Port, bytes: &[u8]) -> Vec<f64> {
    codes(port, bytes)
        .into_iter()
        .map(|q| real::dequantize(q, port.scale, port.zero_point))
        .collect()
}

/// Bytes of a tensor of codes.
pub(crate) fn bytes_of(tensor: &Tensor) -> Vec<u8> {
    let width = tensor.dtype().bytes();
    let wide = tensor.to_i64().expect("codes are integers");
    wide.iter()
        .flat_map(|x| x.to_le_bytes()[..width].to_vec())
        .collect()
}

/// Inputs of a graph of the integer stage for real tensors.
pub(crate) fn encode_sample(graph: &Graph, inputs: &[Tensor]) -> Vec<Tensor> {
    graph
        .inputs()
        .iter()
        .zip(inputs)
        .map(|(&v, x)| {
            let quant = graph.quant_of(v).expect("inputs are codes");
            let scale = real::value(quant.scale());
            let code = |x: f64| real::quantize(x, scale, quant.zero_point, 0, 255) as u8;
            Tensor::new(graph.shape(v), x.to_f64().into_iter().map(code).collect())
        })
        .collect()
}

/// Index of the largest element, the lowest of equal ones.
pub fn top1(x: &[f64]) -> usize {
    let mut best = 0;
    for (i, v) in x.iter().enumerate() {
        if *v > x[best] {
            best = i;
        }
    }
    best
}

/// Something that runs an object.
pub enum Runner {
    /// In this process.
    Native(Box<Module>),
    /// On an emulated processor.
    Emulated(qemu::Program),
}

impl Runner {
    /// Whether the loader executes tiles for this processor, which has none.
    pub(crate) fn emulates_tiles(&self) -> bool {
        matches!(self, Self::Native(module) if module.check_cpu() != 0)
    }

    /// For an object that a report describes.
    ///
    /// # Errors
    /// The object cannot be mapped, this processor lacks what it needs, or there is no emulator for it.
    pub fn new(object: &[u8], report: &Report) -> Result<Self, Error> {
        let host = std::env::consts::ARCH;
        if !report.target.triple.starts_with(host) {
            return Ok(Self::Emulated(qemu::Program::build(object, report)?));
        }
        let sizes = lowbit_load::Sizes {
            inputs: report.model.inputs.iter().map(port_bytes).collect(),
            outputs: report.model.outputs.iter().map(port_bytes).collect(),
            arena_bytes: report.totals.arena_bytes as usize,
            arena_align: 64,
        };
        let module = Module::load(object, &report.model.name, sizes)?;
        if module.check_cpu() != 0 && !emulates(report) {
            return Err(Error::Other(format!(
                "this processor lacks what the object uses ({}); compile with --cpu native or run it elsewhere",
                report.target.features.join(", ")
            )));
        }
        Ok(Self::Native(Box::new(module)))
    }

    /// Runs every sample: bytes of all inputs to bytes of all outputs.
    ///
    /// # Errors
    /// The object refuses to run.
    pub fn run(&self, samples: &[Vec<Vec<u8>>]) -> Result<Vec<Vec<Vec<u8>>>, Error> {
        match self {
            Self::Native(module) => samples
                .par_iter()
                .map_init(
                    || module.arena(),
                    |arena, sample| run_one(module, sample, arena),
                )
                .collect(),
            Self::Emulated(program) => program.run(samples),
        }
    }
}

impl Runner {
    /// Runs every sample with the layers' parts on several threads; `None` where the object does not cut its layers.
    ///
    /// # Errors
    /// The object refuses to run.
    pub fn run_parallel(
        &self,
        samples: &[Vec<Vec<u8>>],
    ) -> Result<Option<Vec<Vec<Vec<u8>>>>, Error> {
        let module = match self {
            Self::Native(module) if module.is_parallel() => module,
            Self::Emulated(program) if program.is_parallel() => {
                return program.run_parallel(samples).map(Some);
            }
            _ => return Ok(None),
        };
        let mut arena = module.arena();
        let mut pool = Pool::new(CHECKED_ON).map_err(|e| {
            Error::Other(format!(
                "cannot start {CHECKED_ON} threads to check the object on: {e}"
            ))
        })?;
        let mut one = |sample: &Vec<Vec<u8>>| {
            let run = |inputs: &[&[u8]], outputs: &mut [&mut [u8]], arena: &mut Arena| {
                let mut each = |task: &(dyn Fn(i32) + Sync), parts| pool.for_each(task, parts);
                let code = module.run_parallel(inputs, outputs, arena, &mut each);
                code.expect("the object has this entry")
            };
            call(module, sample, &mut arena, run)
        };
        samples
            .iter()
            .map(&mut one)
            .collect::<Result<_, _>>()
            .map(Some)
    }
}

/// Whether all that this processor lacks are tiles, which are then executed by the loader. A processor that has them executes
/// some of their instructions even where the system refuses the others.
fn emulates(report: &Report) -> bool {
    if Feature::AmxTile.on_host() {
        return false;
    }
    let features = report.target.features.iter();
    let has =
        |name: &String| Feature::of_llvm_name(name).is_some_and(|f| f.is_tile() || f.on_host());
    features.into_iter().all(has) && lowbit_load::emulate_tiles()
}

/// Threads that objects whose layers are cut are checked on.
const CHECKED_ON: usize = 3;

fn run_one(module: &Module, sample: &[Vec<u8>], arena: &mut Arena) -> Result<Vec<Vec<u8>>, Error> {
    call(module, sample, arena, |inputs, outputs, arena| {
        module.run(inputs, outputs, arena)
    })
}

fn call(
    module: &Module,
    sample: &[Vec<u8>],
    arena: &mut Arena,
    run: impl FnOnce(&[&[u8]], &mut [&mut [u8]], &mut Arena) -> i32,
) -> Result<Vec<Vec<u8>>, Error> {
    let mut outputs: Vec<Vec<u8>> = module.sizes().outputs.iter().map(|&n| vec![0; n]).collect();
    let inputs: Vec<&[u8]> = sample.iter().map(Vec::as_slice).collect();
    let mut slices: Vec<&mut [u8]> = outputs.iter_mut().map(Vec::as_mut_slice).collect();
    match run(&inputs, &mut slices, arena) {
        0 => Ok(outputs),
        code => Err(Error::Other(format!("the object returned error {code}"))),
    }
}
