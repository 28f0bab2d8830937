//! Latency tables: layers' own kernels, measured on this machine.

use std::path::Path;
use std::time::{Duration, Instant};

use lowbit_load::{Module, Sizes};
use lowbit_num::Format;
use lowbit_passes::latency::{Geometry, LatencyTable, layers_program};
use lowbit_targets::ResolvedTarget;

use crate::artefact::Artefact;
use crate::{Error, Progress, verify};

/// How long the layers of one format are measured.
const SPAN: Duration = Duration::from_millis(300);

/// The table that a file holds.
///
/// # Errors
/// The file cannot be read, or is no table.
pub fn read_latency_table(path: &Path) -> Result<LatencyTable, Error> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::file("read", path, e))?;
    serde_json::from_str(&text)
        .map_err(|e| Error::Other(format!("{} is no latency table: {e}", path.display())))
}

/// Times the layers of the model that a folder was compiled from, in every weight format.
///
/// # Errors
/// The folder or its model cannot be read, or this processor cannot run code for its target.
pub fn tune_folder(folder: &Path, progress: &dyn Progress) -> Result<LatencyTable, Error> {
    let artefact = Artefact::open(folder)?;
    let compiled = crate::compile(&verify::options(&artefact.report), progress)?;
    let program = &compiled.lowered.program;
    let resident = program.consts.len() + program.arena_bytes;
    let graph = &compiled.quantized.graph;
    let layers = compiled.quantized.layers.iter();
    let layers: Vec<Geometry> = layers
        .filter_map(|l| Geometry::of(graph, l.int, resident))
        .collect();
    tune(&compiled.target, &layers, Format::ALL, progress)
}

/// Times each layer in each format with made-up parameters, one after the other as in a network.
///
/// # Errors
/// This processor cannot run code for the target.
pub fn tune(
    target: &ResolvedTarget,
    layers: &[Geometry],
    formats: &[Format],
    progress: &dyn Progress,
) -> Result<LatencyTable, Error> {
    let mut table = LatencyTable {
        level: target.level.name.into(),
        ..LatencyTable::default()
    };
    let mut distinct: Vec<&Geometry> = layers.iter().collect();
    distinct.sort_by_key(|l| l.key());
    distinct.dedup_by_key(|l| l.key());
    let distinct: Vec<Geometry> = distinct.into_iter().cloned().collect();
    for (done, &format) in formats.iter().enumerate() {
        progress.step("tune", done, formats.len());
        for (layer, us) in distinct.iter().zip(times(target, &distinct, format)?) {
            table.insert(layer, format, us);
        }
    }
    Ok(table)
}

/// Median microseconds of each layer in a format.
fn times(target: &ResolvedTarget, layers: &[Geometry], format: Format) -> Result<Vec<f64>, Error> {
    if layers.is_empty() {
        return Ok(Vec::new());
    }
    let (program, calls) = layers_program(target, layers, format);
    let options = lowbit_llvm::Options {
        debug_steps: true,
        ..Default::default()
    };
    let object = lowbit_llvm::emit(&program, target, &options)?.object;
    let sizes = Sizes {
        inputs: Vec::new(),
        outputs: Vec::new(),
        arena_bytes: program.arena_bytes,
        arena_align: 64,
    };
    let module = Module::load(&object, &program.name, sizes)?;
    if module.check_cpu() != 0 {
        return Err(Error::Other(format!(
            "layers are measured on this machine, which cannot run code for {}",
            target.level.name
        )));
    }
    let mut arena = module.arena();
    let mut all = vec![Vec::new(); layers.len()];
    let start = Instant::now();
    while start.elapsed() < SPAN || all[0].len() < 5 {
        for (times, calls) in all.iter_mut().zip(&calls) {
            let before = Instant::now();
            for call in calls.clone() {
                let code = module.step(call as i32, &[], &mut [], &mut arena);
                assert_eq!(code, Some(0), "the object refuses call {call}");
            }
            times.push(before.elapsed().as_secs_f64() * 1e6);
        }
    }
    Ok(all.into_iter().map(median).collect())
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
