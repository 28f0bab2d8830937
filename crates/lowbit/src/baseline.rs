//! Plainer plans that a plan is held against, as objects of their own and without training: every layer at 8 bits, every
//! layer at 4.

use lowbit_llvm::Options as EmitOptions;
use lowbit_num::Format;
use lowbit_passes::lower::lower;
use lowbit_passes::quantize::{Formats, LayerFormats, Quantized};
use lowbit_report::{Accuracy, Baseline, Layer, Port, Report};
use lowbit_targets::ResolvedTarget;
use serde::{Deserialize, Serialize};

use crate::artefact::Artefact;
use crate::compile::ports;
use crate::fit::Quantizer;
use crate::object::Runner;
use crate::{Cache, Error, Progress};

/// The widths that are held against.
const UNIFORM: [(&str, Format); 2] = [("uniform8", Format::Int8), ("uniform4", Format::Int4)];

/// The first and the last layer stay at 8 bits unless they hold more of all weights than this.
const PINNED_SHARE: f64 = 0.05;

/// What a plainer plan's report tells that the compiled object's does not.
#[derive(Serialize, Deserialize)]
struct Facts {
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    arena_bytes: u64,
    weight_bytes: u64,
    avg_weight_bits: f64,
}

/// The object of a plainer plan, with a report that tells what is needed to run it.
pub(crate) struct Plainer {
    name: &'static str,
    artefact: Artefact,
}

/// Tells how far a plainer plan is; what is noted of it would be taken for the compiled object's.
struct Steps<'a>(&'a dyn Progress);

impl Progress for Steps<'_> {
    fn step(&self, stage: &str, done: usize, total: usize) {
        self.0.step(stage, done, total);
    }

    fn note(&self, _: &str) {}
}

/// Objects of the plainer plans that this machine can run, but for the one that was compiled itself.
///
/// # Errors
/// A sample cannot be run, or an object not be emitted.
pub(crate) fn objects(
    quantizer: &Quantizer<'_>,
    own: &Artefact,
    target: &ResolvedTarget,
    progress: &dyn Progress,
) -> Result<Vec<Plainer>, Error> {
    if !matches!(Runner::new(&own.object, &own.report), Ok(Runner::Native(_))) {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for (name, format) in UNIFORM {
        let formats = uniform(&own.report.layers, format);
        if is(&own.report.layers, &formats) {
            continue;
        }
        progress.step(name, 0, 0);
        let make = || {
            let quantized = quantizer.untrained(&formats, &Steps(progress))?;
            emit(&quantized, &own.report, target)
        };
        let bytes = match quantizer.losses()? {
            None => make()?,
            Some(key) => {
                let key = key.clone().with("object").with(name);
                let key = key.with(&own.report.model.name).with(format!("{target:?}"));
                quantizer.cache.get_or(&key, progress, make)?
            }
        };
        let artefact = artefact(&bytes, &own.report).ok_or_else(Cache::damaged)?;
        found.push(Plainer { name, artefact });
    }
    Ok(found)
}

/// Every layer's weights in one format, its input at 8 bits; layers at the ends keep 8 bits where that costs little.
fn uniform(layers: &[Layer], weight: Format) -> Formats {
    let total: u64 = layers.iter().map(|l| l.params).sum();
    let mut formats = Formats::uniform(weight, Format::Int8);
    for end in [layers.first(), layers.last()].into_iter().flatten() {
        if end.params as f64 <= PINNED_SHARE * total as f64 {
            let pinned = LayerFormats {
                weight: Format::Int8,
                activation: Format::Int8,
            };
            formats.layers.insert(end.name.clone(), pinned);
        }
    }
    formats
}

/// Whether layers have these formats.
fn is(layers: &[Layer], formats: &Formats) -> bool {
    layers.iter().all(|l| {
        let wanted = formats.of(&l.name);
        (l.weight_format.as_str(), l.activation_format.as_str())
            == (wanted.weight.name(), wanted.activation.name())
    })
}

/// The facts in JSON, a zero byte, and the object.
fn emit(quantized: &Quantized, own: &Report, target: &ResolvedTarget) -> Result<Vec<u8>, Error> {
    let graph = &quantized.graph;
    let lowered =
        lower(graph, target, &own.model.name, 1).map_err(|e| Error::Nodes(vec![e.to_string()]))?;
    let object = lowbit_llvm::emit(&lowered.program, target, &EmitOptions::default())?.object;
    let (inputs, outputs) = ports(graph);
    let sizes = own.layers.iter().zip(&quantized.layers);
    let bits: f64 = sizes
        .map(|(l, q)| l.params as f64 * f64::from(q.weights.bits()))
        .sum();
    let params: u64 = own.layers.iter().map(|l| l.params).sum();
    let facts = Facts {
        inputs,
        outputs,
        arena_bytes: lowered.program.arena_bytes as u64,
        weight_bytes: lowered.program.consts.len() as u64,
        avg_weight_bits: bits / params.max(1) as f64,
    };
    let facts = serde_json::to_vec(&facts).expect("facts are plain data");
    Ok([&facts, &[0][..], &object].concat())
}

/// The object with a report that tells its facts; nothing where the bytes are not those of [`emit`].
fn artefact(bytes: &[u8], own: &Report) -> Option<Artefact> {
    let end = bytes.iter().position(|&b| b == 0)?;
    let facts: Facts = serde_json::from_slice(&bytes[..end]).ok()?;
    let mut report = own.clone();
    report.model.inputs = facts.inputs;
    report.model.outputs = facts.outputs;
    report.totals.arena_bytes = facts.arena_bytes;
    report.totals.weight_bytes = facts.weight_bytes;
    report.totals.avg_weight_bits = facts.avg_weight_bits;
    Some(Artefact {
        object: bytes[end + 1..].to_vec(),
        report,
    })
}

impl Plainer {
    /// What runs it.
    ///
    /// # Errors
    /// As [`Runner::new`].
    pub(crate) fn runner(&self) -> Result<Runner, Error> {
        Runner::new(&self.artefact.object, &self.artefact.report)
    }

    /// What is needed to run it.
    pub(crate) fn report(&self) -> &Report {
        &self.artefact.report
    }
}

/// The figures of plainer plans by name: those measured, and the object's own where it is one of them.
pub(crate) fn record(report: &mut Report, plainer: &[Plainer], measured: &[Accuracy]) {
    let row = |a: &Accuracy, r: &Report| Baseline {
        top1: a.top1,
        agreement: a.agreement,
        avg_weight_bits: r.totals.avg_weight_bits,
        weight_bytes: r.totals.weight_bytes,
    };
    for (p, accuracy) in plainer.iter().zip(measured) {
        let found = row(accuracy, p.report());
        report.baselines.insert(p.name.into(), found);
    }
    let Some(accuracy) = report.accuracy.clone() else {
        return;
    };
    for (name, format) in UNIFORM {
        if is(&report.layers, &uniform(&report.layers, format)) {
            let own = row(&accuracy, report);
            report.baselines.insert(name.into(), own);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(name: &str, params: u64, format: &str) -> Layer {
        Layer {
            name: name.into(),
            params,
            weight_format: format.into(),
            activation_format: "int8".into(),
            ..Layer::default()
        }
    }

    #[test]
    fn small_ends_keep_8_bits() {
        let layers = [
            layer("first", 10, "int8"),
            layer("middle", 1000, "int4"),
            layer("last", 500, "int4"),
        ];
        let formats = uniform(&layers, Format::Int4);
        assert_eq!(formats.of("first").weight, Format::Int8);
        assert_eq!(formats.of("last").weight, Format::Int4);
        assert!(is(&layers, &formats));
        assert!(!is(&layers, &uniform(&layers, Format::Int8)));
    }
}
