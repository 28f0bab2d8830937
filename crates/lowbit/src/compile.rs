//! `lowbit compile`: from a model to an object.

use std::cell::{OnceCell, RefCell};
use std::path::PathBuf;

use lowbit_data::{Dataset, InputSpec};
use lowbit_ir::{Graph, Op, Tensor, ValueId};
use lowbit_llvm::{Emitted, Options as EmitOptions};
use lowbit_num::{Format, real};
use lowbit_passes::allocate::Pin;
use lowbit_passes::bounds;
use lowbit_passes::latency::{LatencyTable, NetworkTime, network_us};
use lowbit_passes::lower::{Lowered, check_memory, lower};
use lowbit_passes::quantize::{Formats, Quantized};
use lowbit_passes::sensitivity::{Metric, WEIGHTS};
use lowbit_report::{
    Budget, Layer, Model as ModelFacts, Plan, Port, Predictor, Proofs, Report, Reproduce, Target,
    Totals,
};
use lowbit_targets::ResolvedTarget;
use rayon::prelude::*;

use crate::artefact::{Artefact, object_name};
use crate::baseline::Plainer;
use crate::costs::{Costs, Sketch};
use crate::decide::{self, Ask, Decision};
use crate::fit::Quantizer;
use crate::model::{Model, Shapes, sha256};
use crate::object::{Runner, bytes_of, encode_sample};
use crate::tie::Tying;
use crate::tune::{Latencies, tune_network};
use crate::tuning::{Tuning, ranges_name};
use crate::within::within;
use crate::{Cache, Error, Progress, baseline, bench, diagnose, drop, eval, floats, timeline};

/// What to compile, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The ONNX file.
    pub model: PathBuf,
    /// What `--data` names.
    pub data: Option<PathBuf>,
    /// Shapes of inputs by name.
    pub shapes: Shapes,
    /// LLVM triple; the host's where it is not given.
    pub target: Option<String>,
    /// Processor or level.
    pub cpu: Option<String>,
    /// Features of the level that may be used; those of the processor where it is not given.
    pub features: Option<Vec<String>>,
    /// Name of the object; the file's stem where it is not given.
    pub name: Option<String>,
    /// Budgets.
    pub budget: Budget,
    /// A plan to follow.
    pub plan: Option<Plan>,
    /// Every layer at the width of the budget of bits.
    pub uniform: bool,
    /// Bits of what layers read: 4 or 8; chosen where it is not given.
    pub act_bits: Option<u32>,
    /// Formats that layers must have.
    pub pins: Vec<Pin>,
    /// How losses are predicted; where it is not given, by what orders random mixed plans best on this model.
    pub metric: Option<Metric>,
    /// Layers that share their formats.
    pub tie: Option<Tying>,
    /// Plans that are measured around the integer program's; none where it is not given.
    pub search: Option<usize>,
    /// Threads that layers are cut for; with one, the object has no entry for several.
    pub threads: usize,
    /// How the network is made to lose as little as its formats allow.
    pub tuning: Tuning,
    /// Seed of random samples, where there is no data.
    pub seed: u64,
    /// Samples of the evaluation split to evaluate: all where it is not given, 0 for none.
    pub eval: Option<usize>,
    /// Where latencies of layers and formats come from.
    pub latencies: Latencies,
    /// Where results are kept between runs.
    pub cache: Cache,
}

impl Options {
    /// The defaults for a model.
    pub fn new(model: impl Into<PathBuf>) -> Self {
        Self {
            model: model.into(),
            data: None,
            shapes: Vec::new(),
            target: None,
            cpu: None,
            features: None,
            name: None,
            budget: Budget::default(),
            plan: None,
            uniform: false,
            act_bits: None,
            pins: Vec::new(),
            metric: None,
            tie: None,
            search: None,
            threads: 1,
            tuning: Tuning::default(),
            seed: 1,
            eval: None,
            latencies: Latencies::default(),
            cache: Cache::default(),
        }
    }
}

/// A compiled model with everything that its checks need.
pub struct Compiled {
    /// Object and report.
    pub artefact: Artefact,
    /// The formats of all layers.
    pub plan: Plan,
    /// The float model.
    pub model: Model,
    /// The data, or random samples.
    pub data: Dataset,
    /// The integer graph: the definition of what the object computes.
    pub quantized: Quantized,
    /// The program behind the object.
    pub lowered: Lowered,
    /// The target.
    pub target: ResolvedTarget,
    /// Measured latencies, empty where none were given or made.
    pub latencies: LatencyTable,
}

/// Fewest and most random samples where there is no data: a large network sees enough values in few.
const RANDOM_SAMPLES: [usize; 2] = [16, 64];
/// Elements of all random samples that are enough.
const RANDOM_ELEMENTS: usize = 1 << 20;
/// Samples that the object is compared with the interpreter on before it is written.
const SPOT_SAMPLES: usize = 8;

/// Compiles a model; nothing is written.
///
/// # Errors
/// The model, the data or the target is at fault, or a budget cannot be met.
pub fn compile(options: &Options, progress: &dyn Progress) -> Result<Compiled, Error> {
    floats::refuse(&options.pins)?;
    let mut target = crate::targets::resolve(options.target.as_deref(), options.cpu.as_deref())?;
    if let Some(named) = &options.features {
        let all = target.level.features.iter().chain(target.level.optional);
        target.features = all
            .copied()
            .filter(|f| named.contains(&f.to_string()))
            .collect();
    }
    progress.step("import", 0, 0);
    let model = Model::open(&options.model, &options.shapes)?;
    drop::refuse(options, &model)?;
    let data = match &options.data {
        Some(path) => model.data(path)?,
        None => {
            progress.note("no --data: ranges come from random samples, and no accuracy is claimed");
            let inputs = model.inputs();
            Dataset::random(&inputs, options.seed, random_samples(&inputs))
        }
    };
    let tuning = tuning(options);
    let quantizer = Quantizer::new(&model, &data, tuning, &options.cache, progress)?;
    let (latencies, costs) = costs(options, &quantizer, &target, progress)?;
    let ask = Ask {
        options,
        model: &model,
        quantizer: &quantizer,
        costs,
        evidence: OnceCell::new(),
        drops: RefCell::default(),
        losses: RefCell::default(),
        data: &data,
        progress,
    };
    let built = within(&ask, &target, &latencies)?;
    let time = built.time(&target, &latencies);
    let Built {
        decision,
        quantized,
        lowered,
        emitted,
        mut report,
    } = built;
    decision.fill(&mut report);
    report.predictor = ask.evidence.get().map(Predictor::from);
    report.totals.predicted_latency_us = Some(time.total_us());
    report.totals.prediction_source = Some(options.latencies.describe(&target));
    if time.predicted > 0 && options.latencies.are_measured() {
        progress.note(&format!(
            "the latency table lacks {} parts of the network, which the cost model predicts",
            time.predicted
        ));
    }
    let artefact = Artefact {
        object: emitted.object,
        report,
    };
    let evaluates = options.eval != Some(0) && data.split().evaluate.is_some();
    let plainer = if evaluates {
        baseline::objects(&quantizer, &artefact, &target, progress)?
    } else {
        Vec::new()
    };
    let mut compiled = Compiled {
        artefact,
        plan: decision.plan,
        model,
        data,
        quantized,
        lowered,
        target,
        latencies,
    };
    compiled.spot_check(progress)?;
    diagnose::diagnose(&mut compiled, progress)?;
    let measures = options.eval != Some(0) || options.budget.latency.is_some();
    bench::fill(&mut compiled, measures, progress)?;
    compiled.evaluate(options.eval, &plainer, progress)?;
    Ok(compiled)
}

fn random_samples(inputs: &[InputSpec]) -> usize {
    let sample: usize = inputs
        .iter()
        .map(|i| i.shape.iter().product::<usize>())
        .sum();
    let [fewest, most] = RANDOM_SAMPLES;
    (RANDOM_ELEMENTS / sample.max(1)).clamp(fewest, most)
}

/// Latencies that were measured, and what formats cost where a budget asks for that.
fn costs(
    options: &Options,
    quantizer: &Quantizer,
    target: &ResolvedTarget,
    progress: &dyn Progress,
) -> Result<(LatencyTable, Option<Costs>), Error> {
    let budget = &options.budget;
    let asked = budget.latency.is_some()
        || budget.ram.is_some()
        || budget.object_size.is_some()
        || budget.size.is_some();
    let decides = options.plan.is_none() && !options.uniform && asked;
    let tunes = matches!(options.latencies, Latencies::Tune);
    if !decides && !tunes {
        return Ok((options.latencies.read(target)?, None));
    }
    let eight = Sketch::new(quantizer, &Formats::default(), target)?;
    let latencies = match tunes {
        true => {
            let network = (&eight.quantized, &eight.lowered);
            tune_network(target, network, WEIGHTS, &options.cache, progress)?
        }
        false => options.latencies.read(target)?,
    };
    if !decides {
        return Ok((latencies, None));
    }
    let narrow =
        options.act_bits == Some(4) || (options.act_bits.is_none() && budget.bops.is_some());
    let inputs = if narrow {
        &[Format::Int8, Format::Int4][..]
    } else {
        &[Format::Int8]
    };
    let code = budget.object_size.is_some();
    let on = (target, &latencies);
    let costs = Costs::new(quantizer, on, inputs, &eight, code, progress)?;
    Ok((latencies, Some(costs)))
}

/// What was asked for; residual streams keep 8 bits under a budget that 16 would take from.
fn tuning(options: &Options) -> Tuning {
    let b = &options.budget;
    let time = b.latency.is_some();
    let bytes = [b.ram, b.size, b.object_size].iter().any(Option::is_some);
    let bounded = time || bytes;
    let asked = options.tuning.residual_bits;
    Tuning {
        residual_bits: asked.or(bounded.then_some(8)),
        ..options.tuning
    }
}

/// A plan that became an object.
pub(crate) struct Built {
    pub(crate) decision: Decision,
    quantized: Quantized,
    lowered: Lowered,
    emitted: Emitted,
    pub(crate) report: Report,
}

impl Built {
    /// Microseconds of one inference, as measured kernels or the target's cost numbers predict.
    pub(crate) fn latency_us(&self, target: &ResolvedTarget, latencies: &LatencyTable) -> f64 {
        self.time(target, latencies).total_us()
    }

    fn time(&self, target: &ResolvedTarget, latencies: &LatencyTable) -> NetworkTime {
        let program = &self.lowered.program;
        let resident = program.consts.len() + program.arena_bytes;
        network_us(&self.quantized, &self.lowered, resident, target, latencies)
    }
}

pub(crate) fn build(
    ask: &Ask,
    decision: Decision,
    target: &ResolvedTarget,
) -> Result<Built, Error> {
    let (options, progress) = (ask.options, ask.progress);
    let formats = decide::formats(&decision.plan);
    let quantized = ask.quantizer.quantize(&formats, progress)?;
    progress.step("lower", 0, 0);
    let name = options
        .name
        .clone()
        .unwrap_or_else(|| object_name(&options.model));
    let lowered = lower(&quantized.graph, target, &name, options.threads)
        .map_err(|e| Error::Nodes(vec![e.to_string()]))?;
    if let Err(e) = check_memory(&quantized.graph, &lowered) {
        panic!("the memory plan is wrong: {e}");
    }
    progress.step("emit", 0, 0);
    let emit = EmitOptions {
        parallel: options.threads > 1,
        ..EmitOptions::default()
    };
    let emitted = lowbit_llvm::emit(&lowered.program, target, &emit)?;
    let scan = lowbit_llvm::scan(&emitted.object)?;
    let mut report = report(
        options, ask.model, ask.data, &quantized, &lowered, target, name,
    )?;
    report.totals.stack_bytes = emitted.stack_bytes.into();
    report.totals.object_bytes = emitted.object.len() as u64;
    report.totals.code_bytes = scan.text_bytes;
    report.proofs.float_instructions = scan.float_instructions.len();
    report.proofs.undefined_symbols = scan.undefined_symbols;
    report.reproduce.object_sha256 = sha256(&emitted.object);
    report.memory = timeline::memory(&quantized.graph, &lowered);
    Ok(Built {
        decision,
        quantized,
        lowered,
        emitted,
        report,
    })
}

fn report(
    options: &Options,
    model: &Model,
    data: &Dataset,
    quantized: &Quantized,
    lowered: &Lowered,
    target: &ResolvedTarget,
    name: String,
) -> Result<Report, Error> {
    let graph = &quantized.graph;
    let layers: Vec<Layer> = quantized.layers.iter().map(|l| layer(graph, l)).collect();
    let macs: u64 = layers.iter().map(|l| l.macs).sum();
    let bits = |l: &lowbit_passes::quantize::Layer| f64::from(l.weights.bits());
    let each = || layers.iter().zip(&quantized.layers);
    let params: u64 = layers.iter().map(|l| l.params).sum();
    let weight_bits: f64 = each().map(|(l, q)| l.params as f64 * bits(q)).sum();
    let bops = each().map(|(l, q)| l.macs as f64 * bits(q) * f64::from(q.activation_bits));
    let (inputs, outputs) = ports(graph);
    Ok(Report {
        model: ModelFacts {
            name,
            path: options.model.display().to_string(),
            sha256: model.sha256.clone(),
            opset: model.opset,
            inputs,
            outputs,
        },
        target: Target {
            triple: target.triple.clone(),
            cpu: target.cpu.clone(),
            level: target.level.name.into(),
            features: target.features.iter().map(ToString::to_string).collect(),
        },
        budget: options.budget.clone(),
        totals: Totals {
            weight_bytes: lowered.program.consts.len() as u64,
            avg_weight_bits: weight_bits / params.max(1) as f64,
            bops: bops.sum(),
            macs,
            residual_bits: quantized.stream_bits,
            arena_bytes: lowered.program.arena_bytes as u64,
            arena_lower_bound_bytes: lowered.arena_lower_bound as u64,
            ..Totals::default()
        },
        layers,
        proofs: Proofs {
            max_accumulator_bits: bounds::max_accumulator_bits(graph),
            ..Proofs::default()
        },
        reproduce: Reproduce {
            lowbit_version: env!("CARGO_PKG_VERSION").into(),
            data: options.data.as_ref().map(|p| p.display().to_string()),
            data_sha256: data.sha256()?,
            seed: options.seed,
            shapes: options.shapes.clone(),
            ranges: options
                .tuning
                .ranges
                .map_or_else(|| "auto".into(), ranges_name),
            effort: options.tuning.effort,
            finetune: options.tuning.finetune,
            rounding: options
                .tuning
                .rounding
                .map_or("auto", crate::RoundingMethod::name)
                .into(),
            residual_bits: options.tuning.residual_bits,
            estimator: options.tuning.estimator.name().into(),
            latency_table: options.latencies.path(),
            name: options.name.clone(),
            cpu: target.again().into(),
            plan: None,
            uniform: options.uniform,
            act_bits: options.act_bits,
            metric: options.metric.map(|m| m.name().into()),
            pins: options.pins.iter().map(pin_text).collect(),
            tie: options.tie.map(|t| t.name().into()),
            search: options.search,
            threads: Some(options.threads).filter(|&n| n > 1),
            object_sha256: String::new(),
        },
        ..Report::default()
    })
}

/// A pin as the command line takes it.
fn pin_text(pin: &Pin) -> String {
    let formats: Vec<&str> = [&pin.weight, &pin.activation]
        .into_iter()
        .flatten()
        .map(String::as_str)
        .collect();
    format!("{}={}", pin.layer, formats.join("x"))
}

fn layer(graph: &Graph, l: &lowbit_passes::quantize::Layer) -> Layer {
    let node = graph.producer(l.int).expect("a layer is a node");
    let weights = graph.ty(node.inputs[1]);
    let params = weights.elements() as u64;
    let out = graph.ty(l.int);
    let per_output: usize = weights.shape[1..].iter().product();
    let Op::IntConv(op) = &node.op else {
        unreachable!("a layer is a convolution")
    };
    let op = match (
        op.groups > 1 && weights.shape[3] == 1,
        weights.shape[1] * weights.shape[2],
    ) {
        (true, _) => "depthwise conv",
        (false, 1) => "linear",
        (false, _) => "conv",
    };
    Layer {
        name: l.name.clone(),
        op: op.into(),
        params,
        macs: (out.elements() * per_output) as u64,
        weight_format: l.weights.name().into(),
        activation_format: format!("int{}", l.activation_bits),
        weight_bytes: l.weights.packed_len(params as usize) as u64,
        rounding: l.rounding.name().into(),
        rounding_gain_db: l.rounding.gain_db(),
        ..Layer::default()
    }
}

/// Inputs and outputs of a graph in the integer stage.
pub(crate) fn ports(graph: &Graph) -> (Vec<Port>, Vec<Port>) {
    let inputs = graph.inputs().iter();
    let outputs = graph.outputs().iter();
    (
        inputs
            .map(|&v| port(graph, graph.value(v).name.clone(), v))
            .collect(),
        outputs
            .map(|o| port(graph, o.name.clone(), o.value))
            .collect(),
    )
}

fn port(graph: &Graph, name: String, v: ValueId) -> Port {
    let (ty, quant) = (graph.ty(v), graph.quant_of(v).expect("ports are codes"));
    Port {
        name,
        shape: ty.shape.clone(),
        r#type: ty.dtype.name().into(),
        scale: real::value(quant.scale()),
        zero_point: quant.zero_point,
    }
}

impl Compiled {
    /// Compares the object with the interpreter on a few samples, where this machine can run it.
    fn spot_check(&mut self, progress: &dyn Progress) -> Result<(), Error> {
        progress.step("check", 0, 0);
        let Ok(runner) = Runner::new(&self.artefact.object, &self.artefact.report) else {
            progress.note("this machine cannot run the object: it is written unevaluated");
            return Ok(());
        };
        if runner.emulates_tiles() {
            progress.note(
                "this processor has no matrix tiles: the object runs on emulated ones, which takes long (--eval none leaves it out)",
            );
        }
        let indices: Vec<usize> = self
            .data
            .split()
            .calibrate
            .clone()
            .take(SPOT_SAMPLES)
            .collect();
        let inputs: Result<Vec<Vec<Tensor>>, Error> = indices
            .iter()
            .map(|&i| {
                Ok(encode_sample(
                    &self.quantized.graph,
                    &self.model.sample(&self.data, i)?,
                ))
            })
            .collect();
        let inputs = inputs?;
        let bytes: Vec<Vec<Vec<u8>>> = inputs
            .iter()
            .map(|s| s.iter().map(bytes_of).collect())
            .collect();
        let found = runner.run(&bytes)?;
        let parallel = runner.run_parallel(&bytes)?;
        let expected: Result<Vec<_>, Error> = inputs
            .par_iter()
            .enumerate()
            .map(|(sample, s)| {
                lowbit_ir::eval::run(&self.quantized.graph, s)
                    .map_err(|error| Error::Eval { sample, error })
            })
            .collect();
        for (i, (e, f)) in expected?.iter().zip(&found).enumerate() {
            let e: Vec<Vec<u8>> = e.iter().map(bytes_of).collect();
            let same = &e == f && parallel.as_ref().is_none_or(|p| e == p[i]);
            assert!(
                same,
                "the object differs from its definition on calibration sample {}",
                indices[i]
            );
        }
        self.artefact.report.proofs.bit_exact_samples = indices.len();
        Ok(())
    }

    /// Runs the object and those of plainer plans on the evaluation split.
    fn evaluate(
        &mut self,
        limit: Option<usize>,
        plainer: &[Plainer],
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        let Some(split) = self
            .data
            .split()
            .evaluate
            .clone()
            .filter(|_| limit != Some(0))
        else {
            return Ok(());
        };
        let Ok(runner) = Runner::new(&self.artefact.object, &self.artefact.report) else {
            return Ok(());
        };
        let indices: Vec<usize> = split.take(limit.unwrap_or(usize::MAX)).collect();
        let others: Vec<Runner> = plainer
            .iter()
            .map(Plainer::runner)
            .collect::<Result<_, _>>()?;
        let own = (&runner, &self.artefact.report);
        let others = others.iter().zip(plainer.iter().map(Plainer::report));
        let objects: Vec<_> = std::iter::once(own).chain(others).collect();
        let mut found = eval::objects(&self.model, &self.data, &objects, &indices, progress)?;
        let report = &mut self.artefact.report;
        report.accuracy = Some(found.remove(0));
        baseline::record(report, plainer, &found);
        Ok(())
    }
}
