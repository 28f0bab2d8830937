//! The plain facts that a compilation reports: `report.json` and `plan.json`, and the page that shows them.
#![forbid(unsafe_code)]

mod evidence;
pub mod insight;
mod page;
mod reproduce;
mod sensitivity;
pub mod text;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use evidence::{
    Evidence, HessianTraces, LayerTrace, MetricGroup, Predictor, RankCorrelation,
    temperature_sentence,
};
pub use page::{frontier_page, loss_sentences, memory_sentence, report_page};
pub use reproduce::{command, quoted};
pub use sensitivity::{
    Fixed, MemoryStep, SensitiveChoice, SensitiveLayer, Sensitivity, Tie, read_sensitivity,
};

/// What `report.json` holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The model that was compiled.
    pub model: Model,
    /// What it was compiled for.
    pub target: Target,
    /// What was asked for.
    pub budget: Budget,
    /// Layers with weights, in execution order.
    pub layers: Vec<Layer>,
    /// Sums over the object.
    pub totals: Totals,
    /// Measured on the evaluation split by the object itself; `None` where there is no such data.
    pub accuracy: Option<Accuracy>,
    /// The same figures of other plans, by name.
    pub baselines: BTreeMap<String, Baseline>,
    /// How losses were predicted; `None` where no sensitivity was measured.
    #[serde(default)]
    pub predictor: Option<Predictor>,
    /// Best plans from the smallest to the largest; empty where no sensitivity was measured.
    #[serde(default)]
    pub frontier: Vec<Point>,
    /// Plans that were compared on samples which none was made on; empty where nothing was.
    #[serde(default)]
    pub tried: Vec<Tried>,
    /// What lies in the arena during each call.
    #[serde(default)]
    pub memory: Memory,
    /// What was proved or checked about the object.
    pub proofs: Proofs,
    /// How to get the same bytes again.
    pub reproduce: Reproduce,
}

/// A plan that was measured beside others.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tried {
    /// `mixed`: the integer program's; `search`: the best that a search around it found; or the width that all layers had.
    pub plan: String,
    /// What the network quantised so loses on calibration samples that it was not fitted on: divergence from the float
    /// network in nats, or noise to signal of the output where that is no choice of a class.
    pub loss: f64,
    /// Whether it is the one that was compiled.
    pub returned: bool,
    /// Format of each layer's weights, in the order of the report's layers.
    #[serde(default)]
    pub formats: Vec<String>,
    /// Format of each layer's input.
    #[serde(default)]
    pub activations: Vec<String>,
    /// Average bits of a weight, where a drop was bounded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bits: Option<f64>,
    /// Percentage points of top-1 that it lies below the float model, where a drop was bounded; without labels, of samples
    /// whose class is not the float model's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drop: Option<f64>,
    /// Samples that the drop was measured on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<usize>,
}

/// The model that was compiled.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// Name of the object, its files and functions.
    pub name: String,
    /// Path that was given.
    pub path: String,
    /// SHA-256 of the file.
    pub sha256: String,
    /// Version of ONNX's operator set.
    pub opset: i64,
    /// Inputs in order.
    pub inputs: Vec<Port>,
    /// Outputs in order.
    pub outputs: Vec<Port>,
}

/// An input or output of the object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Port {
    /// Name in the model.
    pub name: String,
    /// Extents as the model has them.
    pub shape: Vec<usize>,
    /// Element type of the codes: `u8`, `i16`, `u16` or `i32`.
    pub r#type: String,
    /// Real value of one step.
    pub scale: f64,
    /// The code of zero.
    pub zero_point: i32,
}

/// What the object was compiled for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// LLVM triple.
    pub triple: String,
    /// The processor as it was named.
    pub cpu: String,
    /// The feature level that it became.
    pub level: String,
    /// Features that the object needs.
    pub features: Vec<String>,
}

/// What was asked for; budgets that were not given are `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Budget {
    /// Average bits of a weight.
    pub bits: Option<f64>,
    /// Bytes of weights and constants.
    pub size: Option<u64>,
    /// Bit operations: multiply-accumulates times weight bits times activation bits.
    pub bops: Option<f64>,
    /// Bytes of the arena.
    pub ram: Option<u64>,
    /// Bytes of the object file.
    #[serde(default)]
    pub object_size: Option<u64>,
    /// Milliseconds of one inference.
    #[serde(default)]
    pub latency: Option<f64>,
    /// Percentage points of top-1 below the float model, the smallest plan within which was asked for.
    #[serde(default)]
    pub max_drop: Option<f64>,
}

/// A layer with weights.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Layer {
    /// Name in the model.
    pub name: String,
    /// The operation.
    pub op: String,
    /// Number of weights, bias not counted.
    pub params: u64,
    /// Multiply-accumulates of one inference.
    pub macs: u64,
    /// Format of the weights.
    pub weight_format: String,
    /// Format of the layer's input.
    pub activation_format: String,
    /// Bytes of weights in the object, padding not counted.
    pub weight_bytes: u64,
    /// Loss that weights of 4 bits are predicted to cost, by which layers compare; `None` where it was not measured.
    pub sensitivity: Option<f64>,
    /// Loss that the format is predicted to cost.
    pub predicted_loss: Option<f64>,
    /// Signal to quantisation noise of the layer's output, measured on calibration samples, in decibels.
    pub sqnr_db: Option<f64>,
    /// Cosine between the layer's real values and the float model's, on the same samples.
    #[serde(default)]
    pub cosine: Option<f64>,
    /// Microseconds of one inference; [`Totals::latency_source`] says where they come from.
    pub latency_us: Option<f64>,
    /// Why the layer has its formats.
    pub why: String,
    /// How the weights were rounded: `nearest`, `error feedback` or `training`.
    #[serde(default)]
    pub rounding: String,
    /// What that won over the nearest codes, in decibels on samples held out: of the error of the layer's output for
    /// error feedback, of the network's loss for training.
    #[serde(default)]
    pub rounding_gain_db: Option<f64>,
    /// Formats that the layer could have, with what each is predicted to cost; empty where none were measured.
    #[serde(default)]
    pub choices: Vec<Choice>,
}

/// Formats that a layer could have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// Format of the weights.
    pub weight_format: String,
    /// Format of the layer's input.
    pub activation_format: String,
    /// Loss that they are predicted to cost.
    pub predicted_loss: f64,
    /// Bytes of the layer's weights.
    pub weight_bytes: u64,
}

/// A plan on the frontier: none that is as small is predicted to lose less.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Average bits of a weight.
    pub bits: f64,
    /// Bytes of weights and constants, as [`Totals::weight_bytes`] counts them; predicted.
    pub weight_bytes: u64,
    /// Sum of the layers' predicted losses.
    pub predicted_loss: f64,
    /// Format of each layer's weights, in the order of the report's layers.
    pub formats: Vec<String>,
    /// Format of each layer's input; empty where all points have those of the report's layers.
    #[serde(default)]
    pub activations: Vec<String>,
    /// Multiply-accumulates times weight bits times activation bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bops: Option<f64>,
    /// Loss of the quantised network on calibration samples that it was not fitted on; `None` where it was not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured_loss: Option<f64>,
}

/// What lies in the arena during each call.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// The object's calls, in order.
    pub steps: Vec<Step>,
    /// Tensors and work spaces of the arena.
    pub buffers: Vec<Buffer>,
}

/// A call of a kernel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// What it computes (a part of), by its name in the model.
    pub name: String,
    /// The kernel.
    pub kernel: String,
    /// Bytes of all buffers that live during the call.
    pub live_bytes: u64,
}

/// A tensor or work space of the arena.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Buffer {
    /// Name of the tensor in the model, or of the one that is computed with the help of the work space.
    pub name: String,
    /// Whether it is a work space.
    pub scratch: bool,
    /// Bytes.
    pub bytes: u64,
    /// Where it starts in the arena.
    pub offset: u64,
    /// First call that needs it.
    pub first: usize,
    /// Last call that needs it.
    pub last: usize,
}

/// Sums over the object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Bytes of constants in the object: weights, biases, multipliers, tables, padding.
    pub weight_bytes: u64,
    /// Average bits of a weight: biases, multipliers, tables and padding are not counted.
    pub avg_weight_bits: f64,
    /// Multiply-accumulates times weight bits times activation bits.
    pub bops: f64,
    /// Multiply-accumulates of one inference.
    pub macs: u64,
    /// Bits of residual streams, the tensors that are added to what layers make of them, where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub residual_bits: Option<u32>,
    /// Bytes of the caller's arena.
    pub arena_bytes: u64,
    /// The largest total of tensors and work spaces that any step needs: no arena can be smaller.
    pub arena_lower_bound_bytes: u64,
    /// Bytes of stack that a run needs at most.
    pub stack_bytes: u64,
    /// Bytes of the object file.
    pub object_bytes: u64,
    /// Bytes of code in the object.
    pub code_bytes: u64,
    /// Microseconds of one inference.
    #[serde(default)]
    pub latency_us: Option<f64>,
    /// Microseconds of one inference on the threads that layers are cut for, measured on the machine that compiled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallel_latency_us: Option<f64>,
    /// `measured` on the machine that compiled, `predicted` by the target's table; `None` where there are no latencies.
    #[serde(default)]
    pub latency_source: Option<String>,
    /// Microseconds of one inference as the plan was made with.
    #[serde(default)]
    pub predicted_latency_us: Option<f64>,
    /// What predicted them: the target's cost model, or a table of measured kernels.
    #[serde(default)]
    pub prediction_source: Option<String>,
}

/// Accuracy on labelled samples, or agreement alone where there are no labels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Share of samples that the float model gets right.
    pub float_top1: Option<f64>,
    /// Share of samples that the object gets right.
    pub top1: Option<f64>,
    /// Share of samples where both give the same class.
    pub agreement: Option<f64>,
    /// Mean Kullback-Leibler divergence of the classes' distributions from the float model's, in nats.
    #[serde(default)]
    pub divergence: Option<f64>,
    /// Signal to noise of the object's output against the float model's, in decibels.
    pub sqnr_db: Option<f64>,
    /// Number of samples.
    pub samples: usize,
}

/// Accuracy and size of another plan.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// Share of samples that it gets right.
    pub top1: Option<f64>,
    /// Share of samples where it gives the float model's class.
    pub agreement: Option<f64>,
    /// Average bits of a weight.
    pub avg_weight_bits: f64,
    /// Bytes of weights and constants.
    pub weight_bytes: u64,
}

/// What was proved or checked about the object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Proofs {
    /// Floating-point instructions in the object.
    pub float_instructions: usize,
    /// Bits of the widest accumulator, by interval analysis over the actual weights.
    pub max_accumulator_bits: u32,
    /// Samples on which object and interpreter gave the same bytes.
    pub bit_exact_samples: usize,
    /// Symbols that a linker would have to find elsewhere.
    pub undefined_symbols: Vec<String>,
}

/// How to get the same bytes again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reproduce {
    /// Version of the compiler.
    pub lowbit_version: String,
    /// Path of the data that was given.
    pub data: Option<String>,
    /// SHA-256 over the data.
    pub data_sha256: Option<String>,
    /// Seed of random samples.
    pub seed: u64,
    /// Shapes that were given for inputs.
    pub shapes: Vec<(String, Vec<usize>)>,
    /// How ranges were chosen: a method, or `auto`.
    pub ranges: String,
    /// Effort that was asked for; by the formats where it was not.
    #[serde(default)]
    pub effort: Option<u8>,
    /// Steps of training that were asked for; by the effort where they were not.
    #[serde(default)]
    pub finetune: Option<usize>,
    /// How weights were rounded before any training: a method, or `auto`.
    #[serde(default)]
    pub rounding: String,
    /// Bits of residual streams that were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub residual_bits: Option<u32>,
    /// What stood for the derivative of rounding.
    #[serde(default)]
    pub estimator: String,
    /// The table of measured latencies that was given or made.
    #[serde(default)]
    pub latency_table: Option<String>,
    /// Name of the object, where it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What `--cpu` takes for the same features.
    #[serde(default)]
    pub cpu: String,
    /// Path of the plan that was followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// Every layer at the width of the budget of bits.
    #[serde(default)]
    pub uniform: bool,
    /// Bits of what layers read, where they were asked for.
    #[serde(default)]
    pub act_bits: Option<u32>,
    /// How losses were to be predicted, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<String>,
    /// Formats that layers had to have, as the command line takes them.
    #[serde(default)]
    pub pins: Vec<String>,
    /// Which layers had to share their formats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tie: Option<String>,
    /// Plans that were measured around the integer program's, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<usize>,
    /// Threads that layers are cut for, where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// SHA-256 of the object.
    pub object_sha256: String,
}

/// What `plan.json` holds; a person may edit it and compile with `--plan`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Formats by layer, in execution order.
    pub layers: Vec<PlannedLayer>,
}

/// Formats of a layer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PlannedLayer {
    /// Name in the model.
    pub name: String,
    /// Format of the weights.
    pub weight: String,
    /// Format of the layer's input.
    pub activation: String,
    /// Why.
    #[serde(default)]
    pub why: String,
}

/// JSON with stable order and indentation, and a line break at the end.
///
/// # Panics
/// Never: the types of this crate have no keys that are not text.
pub fn to_json<T: Serialize>(value: &T) -> String {
    serde_json::to_string_pretty(value).expect("facts are plain") + "\n"
}

/// Reads a report.
///
/// # Errors
/// The text is no report.
pub fn read_report(text: &str) -> Result<Report, serde_json::Error> {
    serde_json::from_str(text)
}

/// Reads a plan.
///
/// # Errors
/// The text is no plan.
pub fn read_plan(text: &str) -> Result<Plan, serde_json::Error> {
    serde_json::from_str(text)
}
