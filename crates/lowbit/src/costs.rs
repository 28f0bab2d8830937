//! What each layer's formats cost on the target: time, and memory at each step of the schedule.
//!
//! The network is lowered once for each pair of formats, with all layers in it, as it would be lowered for the object: what
//! a layer's kernels take and what lives meanwhile is read off the programs.

use std::collections::HashMap;

use lowbit_ir::{Op, ValueId};
use lowbit_llvm::Options as EmitOptions;
use lowbit_num::Format;
use lowbit_passes::allocate::{Budget, Limits};
use lowbit_passes::latency::{LatencyTable, NetworkTime, network_us};
use lowbit_passes::lower::{Lowered, lower};
use lowbit_passes::quantize::{Formats, Quantized};
use lowbit_passes::sensitivity::{FLOATS, WEIGHTS};
use lowbit_report::{Fixed, MemoryStep, Sensitivity};
use lowbit_targets::ResolvedTarget;

use crate::fit::Quantizer;
use crate::{Error, Progress};

/// A plan's network lowered with weights that are not fitted: it takes the time and the memory that the object will.
pub(crate) struct Sketch {
    pub(crate) quantized: Quantized,
    pub(crate) lowered: Lowered,
}

impl Sketch {
    /// Lowers a network at formats.
    ///
    /// # Errors
    /// Nodes that cannot be compiled.
    pub(crate) fn new(
        quantizer: &Quantizer,
        formats: &Formats,
        target: &ResolvedTarget,
    ) -> Result<Self, Error> {
        let quantized = quantizer.plain(formats)?;
        let lowered = lower(&quantized.graph, target, "sketch", 1)
            .map_err(|e| Error::Nodes(vec![e.to_string()]))?;
        Ok(Self { quantized, lowered })
    }

    /// Bytes that the object touches from one run to the next.
    pub(crate) fn resident(&self) -> usize {
        let program = &self.lowered.program;
        program.consts.len() + program.arena_bytes
    }

    fn time(
        &self,
        resident: usize,
        target: &ResolvedTarget,
        latencies: &LatencyTable,
    ) -> NetworkTime {
        network_us(&self.quantized, &self.lowered, resident, target, latencies)
    }

    /// Bytes of a layer's constants.
    fn constants(&self, layer: ValueId) -> f64 {
        self.lowered
            .constants
            .get(&layer)
            .map_or(0.0, |&b| b as f64)
    }

    /// The bytes of the object, and of each layer's code in it; layers that run the same kernel share its bytes.
    ///
    /// # Errors
    /// It cannot be emitted.
    fn code(&self, target: &ResolvedTarget) -> Result<(f64, HashMap<ValueId, f64>), Error> {
        let program = &self.lowered.program;
        let object = lowbit_llvm::emit(program, target, &EmitOptions::default())?.object;
        let bytes = lowbit_llvm::kernel_bytes(&object)?;
        let mut calls = vec![0.0; program.kernels.len()];
        program.calls.iter().for_each(|c| calls[c.kernel] += 1.0);
        let mut layers = HashMap::new();
        for (call, &value) in program.calls.iter().zip(&self.lowered.computes) {
            let own = bytes[&program.kernels[call.kernel].name] as f64;
            *layers.entry(value).or_default() += own / calls[call.kernel];
        }
        Ok((object.len() as f64, layers))
    }

    /// Bytes of all other constants.
    fn other_bytes(&self) -> f64 {
        let layers = self.quantized.layers.iter().map(|l| self.constants(l.int));
        self.lowered.program.consts.len() as f64 - layers.sum::<f64>()
    }

    /// Most bytes that live while a value is computed, by value.
    fn live(&self) -> HashMap<ValueId, f64> {
        let mut live: HashMap<ValueId, f64> = HashMap::new();
        for (call, &value) in self.lowered.computes.iter().enumerate() {
            let rooms = self.lowered.rooms.iter().map(|r| r.lifetime);
            let alive = rooms.filter(|l| l.first <= call && call <= l.last);
            let bytes = alive.map(|l| l.bytes).sum::<usize>() as f64;
            let most = live.entry(value).or_default();
            *most = most.max(bytes);
        }
        live
    }
}

/// What a layer costs with a pair of formats.
#[derive(Clone, Copy, Debug)]
struct Cost {
    latency_us: f64,
    /// Most bytes that live while it is computed.
    live_bytes: f64,
    /// Bytes of its constants in the object.
    weight_bytes: f64,
    /// Bytes of its code, where a budget asks for them.
    code_bytes: f64,
}

/// Layer, format of its weights, format of its input.
type Formatted = (String, Format, Format);

/// Costs of all layers in all formats.
pub(crate) struct Costs {
    layers: HashMap<Formatted, Cost>,
    /// Steps that no layer's format changes.
    others: Vec<MemoryStep>,
    /// Microseconds of all that is no layer.
    other_us: f64,
    /// Bytes of constants that belong to no layer.
    other_bytes: f64,
    /// Bytes of the object at 8 bits, where a budget asks for them.
    object_bytes: Option<f64>,
}

impl Costs {
    /// Lowers the network at every weight format, with inputs of each of `activations`, and emits it where `code` asks
    /// for the bytes of the object.
    ///
    /// # Errors
    /// Nodes that cannot be compiled.
    pub(crate) fn new(
        quantizer: &Quantizer,
        (target, latencies): (&ResolvedTarget, &LatencyTable),
        activations: &[Format],
        eight: &Sketch,
        code: bool,
        progress: &dyn Progress,
    ) -> Result<Self, Error> {
        let resident = eight.resident();
        let mut costs = Self {
            layers: HashMap::new(),
            others: eight.others(),
            other_us: eight.time(resident, target, latencies).others_us(),
            other_bytes: eight.other_bytes(),
            object_bytes: None,
        };
        let weights = || WEIGHTS.iter().copied().chain(FLOATS.iter().map(|f| f.0));
        let total = activations.len() * weights().count();
        let pairs = activations
            .iter()
            .flat_map(|&a| weights().map(move |w| (w, a)));
        for (done, (weight, activation)) in pairs.enumerate() {
            progress.step("costs of formats", done, total);
            let formats = Formats::uniform(weight, activation);
            let sketch = Sketch::new(quantizer, &formats, target)?;
            let time = sketch.time(resident, target, latencies);
            let live = sketch.live();
            let (object, codes) = match code {
                true => sketch.code(target).map(|(o, c)| (Some(o), c))?,
                false => Default::default(),
            };
            if (weight, activation) == (Format::Int8, Format::Int8) {
                costs.object_bytes = object;
            }
            for layer in &sketch.quantized.layers {
                let copy = sketch.copy_for(layer.int);
                let copy = copy.and_then(|v| time.others.get(&v)).unwrap_or(&0.0);
                let cost = Cost {
                    latency_us: time.layers[&layer.int] + copy,
                    live_bytes: live.get(&layer.int).copied().unwrap_or(0.0),
                    weight_bytes: sketch.constants(layer.int),
                    code_bytes: codes.get(&layer.int).copied().unwrap_or(0.0),
                };
                let key = (layer.name.clone(), weight, activation);
                costs.layers.insert(key, cost);
            }
        }
        Ok(costs)
    }

    fn of(&self, layer: &str, weight: Format, activation: Format) -> Option<&Cost> {
        self.layers.get(&(layer.into(), weight, activation))
    }

    /// Bytes that live while a layer is computed, whatever its formats.
    fn least_live(&self, layer: &str) -> f64 {
        let own = self.layers.iter().filter(|((name, ..), _)| name == layer);
        own.map(|(_, c)| c.live_bytes).fold(f64::INFINITY, f64::min)
    }

    /// Writes times, bytes and the schedule into a table.
    pub(crate) fn fill(&self, table: &mut Sensitivity) {
        let mut eight = 0.0;
        table.steps.clone_from(&self.others);
        for l in &mut table.layers {
            let least = self.least_live(&l.name);
            table.steps.push(MemoryStep {
                name: l.name.clone(),
                bytes: least,
            });
            for c in &mut l.choices {
                let formats = Format::from_name(&c.weight).zip(Format::from_name(&c.activation));
                let Some(cost) = formats.and_then(|(w, a)| self.of(&l.name, w, a)) else {
                    continue;
                };
                c.latency_us = Some(cost.latency_us);
                c.weight_bytes = Some(cost.weight_bytes);
                c.object_bytes = Some(cost.weight_bytes + cost.code_bytes);
                if formats == Some((Format::Int8, Format::Int8)) {
                    eight += cost.weight_bytes + cost.code_bytes;
                }
                if cost.live_bytes > least {
                    c.step_bytes.insert(l.name.clone(), cost.live_bytes - least);
                }
            }
        }
        table.fixed = Fixed {
            weight_bytes: self.other_bytes,
            latency_us: self.other_us,
            object_bytes: self.object_bytes.map_or(0.0, |bytes| bytes - eight),
        };
    }

    /// Microseconds of a layer with inputs of 8 bits, at 8 bits and at the widest format under it.
    pub(crate) fn narrower_us(&self, layer: &str) -> Option<(f64, Format, f64)> {
        let eight = self.of(layer, Format::Int8, Format::Int8)?.latency_us;
        let next = WEIGHTS.iter().copied().filter(|w| w.bits() < 8);
        let next = next.max_by_key(|w| w.bits())?;
        Some((eight, next, self.of(layer, next, Format::Int8)?.latency_us))
    }

    /// Whether 8 bits everywhere keep the limits of time, memory and the object, the only ones that are given.
    pub(crate) fn eight_keeps(&self, limits: &Limits) -> bool {
        let eight = (Format::Int8, Format::Int8);
        let own = || {
            self.layers
                .iter()
                .filter(|((_, w, a), _)| (*w, *a) == eight)
        };
        let mut us: Vec<f64> = own().map(|(_, c)| c.latency_us).collect();
        us.sort_by(f64::total_cmp);
        let us = us.iter().sum::<f64>() + self.other_us;
        let steps = own().map(|(_, c)| c.live_bytes);
        let live = steps.chain(self.others.iter().map(|s| s.bytes));
        let live = live.fold(0.0, f64::max);
        let size = own().map(|(_, c)| c.weight_bytes).sum::<f64>() + self.other_bytes;
        limits.given().all(|(budget, limit)| match budget {
            Budget::Bits => limit >= 8.0,
            Budget::Latency => us <= 1000.0 * limit,
            Budget::Ram => live <= limit,
            Budget::ObjectSize => self.object_bytes.is_some_and(|b| b <= limit),
            Budget::Size => size <= limit,
            Budget::Bops => false,
        })
    }
}

impl Sketch {
    /// Steps that compute no layer, with what lives during them.
    fn others(&self) -> Vec<MemoryStep> {
        let graph = &self.quantized.graph;
        let mut steps: Vec<MemoryStep> = Vec::new();
        let live = self.live();
        let mut seen: Vec<ValueId> = self.quantized.layers.iter().map(|l| l.int).collect();
        let names: Vec<&String> = self.quantized.layers.iter().map(|l| &l.name).collect();
        for &v in &self.lowered.computes {
            if seen.contains(&v) {
                continue;
            }
            seen.push(v);
            let mut name = graph.value(v).name.clone();
            while names.contains(&&name) || steps.iter().any(|s| s.name == name) {
                name.push('\'');
            }
            steps.push(MemoryStep {
                name,
                bytes: live[&v],
            });
        }
        steps
    }

    /// The copy in fewer bits that was made for a layer to read; the first layer that reads it counts it.
    fn copy_for(&self, layer: ValueId) -> Option<ValueId> {
        let graph = &self.quantized.graph;
        let read = graph.producer(layer)?.inputs[0];
        let node = graph.producer(read)?;
        let same = |&from: &ValueId| graph.value(from).name == graph.value(read).name;
        let copies = matches!(node.op, Op::IntSum(_)) && node.inputs.len() == 1;
        let reads = |v: ValueId| graph.producer(v).is_some_and(|n| n.inputs[0] == read);
        let first = self.quantized.layers.iter().find(|l| reads(l.int))?;
        (copies && node.inputs.iter().all(same) && first.int == layer).then_some(read)
    }
}
