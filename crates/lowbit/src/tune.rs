//! Latency tables: layers' own kernels, measured on this machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lowbit_kernel::Program;
use lowbit_load::{Arena, Module, Sizes};
use lowbit_num::Format;
use lowbit_passes::latency::{Geometry, LatencyTable, layers_program, other_key};
use lowbit_passes::lower::Lowered;
use lowbit_passes::quantize::Quantized;
use lowbit_targets::ResolvedTarget;

use crate::artefact::Artefact;
use crate::{Cache, Error, Key, Progress, verify};

/// How long the layers of one format are measured.
const SPAN: Duration = Duration::from_millis(300);

/// Where latencies of layers and formats come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Latencies {
    /// The target's cost numbers, from the texts of the kernels.
    #[default]
    Model,
    /// A table that was measured before.
    Table(PathBuf),
    /// Measured on this machine; what the cache has of its processor is not measured again.
    Tune,
}

impl Latencies {
    /// What is read before anything is measured.
    pub(crate) fn read(&self, target: &ResolvedTarget) -> Result<LatencyTable, Error> {
        let Self::Table(path) = self else {
            return Ok(LatencyTable::default());
        };
        let table = read_latency_table(path)?;
        if table.level != target.level.name {
            return Err(Error::Other(format!(
                "{} was measured on {}, and the target is {}: measure with lowbit bench DIR --tune FILE on the target, \
                 or give --cpu {}",
                path.display(),
                table.level,
                target.level.name,
                table.level
            )));
        }
        Ok(table)
    }

    /// In words, for the report.
    pub(crate) fn describe(&self, target: &ResolvedTarget) -> String {
        match self {
            Self::Model => format!("the cost model of {}", target.level.name),
            Self::Table(path) => format!("kernels measured in {}", path.display()),
            Self::Tune => "kernels measured on this machine".into(),
        }
    }

    pub(crate) fn are_measured(&self) -> bool {
        *self != Self::Model
    }

    /// The table's file.
    pub(crate) fn path(&self) -> Option<String> {
        match self {
            Self::Table(path) => Some(path.display().to_string()),
            _ => None,
        }
    }
}

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
    let network = (&compiled.quantized, &compiled.lowered);
    let cache = Cache::none();
    tune_network(&compiled.target, network, Format::ALL, &cache, progress)
}

/// Times a network's layers by themselves in formats, and the rest of it as it is. What the cache has of this processor is
/// not measured again.
///
/// # Errors
/// This processor cannot run code for the target.
pub(crate) fn tune_network(
    target: &ResolvedTarget,
    (quantized, lowered): (&Quantized, &Lowered),
    formats: &[Format],
    cache: &Cache,
    progress: &dyn Progress,
) -> Result<LatencyTable, Error> {
    let resident = lowered.program.consts.len() + lowered.program.arena_bytes;
    let layers = quantized.layers.iter();
    let layers = layers.filter_map(|l| Geometry::of(&quantized.graph, l.int, resident));
    let layers: Vec<Geometry> = layers.collect();
    let kept = Kept { target, cache };
    let mut table = kept.layers(&layers, formats);
    let missing: Vec<Geometry> = layers
        .into_iter()
        .filter(|l| {
            formats
                .iter()
                .any(|&f| table.measured(target, l, f).is_none())
        })
        .collect();
    if !missing.is_empty() {
        let new = tune(target, &missing, formats, progress)?;
        kept.keep_layers(&new)?;
        table.layers.extend(new.layers);
    }
    table.others = kept.others(quantized, lowered, progress)?;
    Ok(table)
}

/// Measurements of a processor in a cache.
struct Kept<'a> {
    target: &'a ResolvedTarget,
    cache: &'a Cache,
}

impl Kept<'_> {
    fn key(&self, what: &str, format: &str) -> Key {
        let features: Vec<String> = self
            .target
            .features
            .iter()
            .map(ToString::to_string)
            .collect();
        Key::new("latency")
            .with(self.target.level.name)
            .with(features.join(" "))
            .with(processor())
            .with(what)
            .with(format)
    }

    fn get(&self, what: &str, format: &str) -> Option<f64> {
        let bytes = self.cache.get(&self.key(what, format))?;
        Some(f64::from_le_bytes(bytes.try_into().ok()?))
    }

    fn put(&self, what: &str, format: &str, us: f64) -> Result<(), Error> {
        self.cache.put(&self.key(what, format), &us.to_le_bytes())
    }

    fn layers(&self, layers: &[Geometry], formats: &[Format]) -> LatencyTable {
        let mut table = empty(self.target);
        for layer in layers {
            for &format in formats {
                if let Some(us) = self.get(&layer.key(), format.name()) {
                    table.insert(layer, format, us);
                }
            }
        }
        table
    }

    fn keep_layers(&self, table: &LatencyTable) -> Result<(), Error> {
        for (layer, formats) in &table.layers {
            for (format, &us) in formats {
                self.put(layer, format, us)?;
            }
        }
        Ok(())
    }

    /// What is no layer, by its key.
    fn others(
        &self,
        quantized: &Quantized,
        lowered: &Lowered,
        progress: &dyn Progress,
    ) -> Result<BTreeMap<String, f64>, Error> {
        let layers: Vec<_> = quantized.layers.iter().map(|l| l.int).collect();
        let others = || lowered.computes.iter().filter(|v| !layers.contains(v));
        let keys = others().map(|&v| other_key(&quantized.graph, v));
        let known: Option<BTreeMap<String, f64>> =
            keys.map(|k| self.get(&k, "").map(|us| (k, us))).collect();
        if let Some(known) = known {
            return Ok(known);
        }
        progress.step("tune the rest", 0, 0);
        let calls: Vec<Vec<usize>> = (0..lowered.program.calls.len()).map(|c| vec![c]).collect();
        let times = time_calls(self.target, &lowered.program, &calls)?;
        let mut by_value: BTreeMap<_, f64> = BTreeMap::new();
        for (&v, us) in lowered.computes.iter().zip(times) {
            *by_value.entry(v).or_default() += us;
        }
        let mut found = BTreeMap::new();
        for (v, us) in by_value.into_iter().filter(|(v, _)| !layers.contains(v)) {
            let key = other_key(&quantized.graph, v);
            self.put(&key, "", us)?;
            found.insert(key, us);
        }
        Ok(found)
    }
}

fn empty(target: &ResolvedTarget) -> LatencyTable {
    LatencyTable {
        level: target.level.name.into(),
        processor: processor(),
        ..LatencyTable::default()
    }
}

/// What the system calls this processor; its family where it does not say.
fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = |line: &str| {
        let (key, value) = line.split_once(':')?;
        matches!(key.trim(), "model name" | "CPU part").then(|| value.trim().to_string())
    };
    text.lines()
        .find_map(name)
        .unwrap_or_else(|| std::env::consts::ARCH.into())
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
    let mut table = empty(target);
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
    let calls: Vec<Vec<usize>> = calls.into_iter().map(Iterator::collect).collect();
    time_calls(target, &program, &calls)
}

/// Median microseconds of each group of calls, all in order, over and over.
fn time_calls(
    target: &ResolvedTarget,
    program: &Program,
    groups: &[Vec<usize>],
) -> Result<Vec<f64>, Error> {
    let options = lowbit_llvm::Options {
        debug_steps: true,
        ..Default::default()
    };
    let object = lowbit_llvm::emit(program, target, &options)?.object;
    let sizes = Sizes {
        inputs: program.inputs.clone(),
        outputs: program.outputs.clone(),
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
    let mut calls = Calls::new(&module);
    let mut all = vec![Vec::new(); groups.len()];
    let overhead = timer_us();
    let start = Instant::now();
    while start.elapsed() < SPAN || all[0].len() < 5 {
        for (times, group) in all.iter_mut().zip(groups) {
            let before = Instant::now();
            group.iter().for_each(|&call| calls.run(call));
            let us = before.elapsed().as_secs_f64() * 1e6;
            times.push((us - overhead).max(0.0));
        }
    }
    Ok(all.into_iter().map(median).collect())
}

/// Microseconds that looking at the clock takes.
fn timer_us() -> f64 {
    let look = |_| Instant::now().elapsed().as_secs_f64() * 1e6;
    median((0..1001).map(look).collect())
}

/// Single calls of an object, on codes that do not matter.
struct Calls<'a> {
    module: &'a Module,
    inputs: Vec<Vec<u8>>,
    outputs: Vec<Vec<u8>>,
    arena: Arena,
}

impl<'a> Calls<'a> {
    fn new(module: &'a Module) -> Self {
        let sizes = module.sizes();
        let codes = |n: usize| (0..n).map(|i| (i * 151 % 256) as u8).collect();
        Self {
            inputs: sizes.inputs.iter().map(|&n| codes(n)).collect(),
            outputs: sizes.outputs.iter().map(|&n| vec![0; n]).collect(),
            arena: module.arena(),
            module,
        }
    }

    fn run(&mut self, call: usize) {
        let inputs: Vec<&[u8]> = self.inputs.iter().map(Vec::as_slice).collect();
        let mut outputs: Vec<&mut [u8]> = self.outputs.iter_mut().map(Vec::as_mut_slice).collect();
        let code = self
            .module
            .step(call as i32, &inputs, &mut outputs, &mut self.arena);
        assert_eq!(code, Some(0), "the object refuses call {call}");
    }
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
