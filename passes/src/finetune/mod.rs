//! Label-free distillation: the rounded network learns to give what the float network gives.
//!
//! Weights, their steps and biases are trained on calibration samples through the compiler's own derivatives, rounding
//! by an [`Estimator`]. The result is a float graph whose weights lie on the grids of their formats, so that quantising
//! it again changes none of them. Tensors of fewer than 8 bits are rounded while training; 8-bit ones are not.

mod adam;
mod estimator;
mod student;

use lowbit_ir::derive::DeriveError;
use lowbit_ir::eval::{self, EvalError};
use lowbit_ir::{Graph, Tensor};
use lowbit_num::{Format, real};
use rayon::prelude::*;

use crate::quantize::{Layer, Quantized};
use adam::Adam;
pub use estimator::Estimator;
use student::Student;
pub use student::{compared, target};

/// What the student is to have in common with the teacher.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// The distribution over classes: the Kullback-Leibler divergence of the softmax.
    Divergence,
    /// The values: half the mean squared difference.
    Square,
}

impl Loss {
    /// The loss of values against what [`target`] made of the teacher's; 0 where they are equal.
    pub fn between(self, target: &Tensor, values: &[f64]) -> f64 {
        let expected = target.to_f64();
        match self {
            Self::Square => {
                let square = |(a, b): (&f64, &f64)| (a - b) * (a - b);
                0.5 * expected.iter().zip(values).map(square).sum::<f64>()
                    / values.len().max(1) as f64
            }
            Self::Divergence => {
                let classes = target.shape().last().copied().unwrap_or(1).max(1);
                let rows = expected
                    .chunks_exact(classes)
                    .zip(values.chunks_exact(classes));
                rows.map(|(p, x)| divergence(p, x)).sum()
            }
        }
    }
}

/// `Σ p (ln p − ln softmax(x))`.
fn divergence(p: &[f64], x: &[f64]) -> f64 {
    let largest = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = x.iter().map(|x| libm::exp(x - largest)).sum();
    let logarithm = largest + libm::log(sum);
    let term = |(&p, x): (&f64, &f64)| {
        let own = if p > 0.0 { libm::log(p) } else { 0.0 };
        p * (own - (x - logarithm))
    };
    p.iter().zip(x).map(term).sum()
}

/// How to train.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Finetune {
    /// Steps of the optimiser.
    pub steps: usize,
    /// What stands for the derivative of rounding.
    pub estimator: Estimator,
    /// What is compared.
    pub loss: Loss,
    /// Order of samples.
    pub seed: u64,
}

/// Why training failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FinetuneError {
    /// An operation has no derivative.
    #[error(transparent)]
    Derive(#[from] DeriveError),
    /// The graph failed on a sample.
    #[error("sample {sample}: {error}")]
    Eval {
        /// Index of the sample.
        sample: usize,
        /// What failed.
        error: EvalError,
    },
}

/// A trained network.
pub struct Tuned {
    /// The float graph, values as in the one it was made from.
    pub graph: Graph,
    /// Loss on held-out samples before training.
    pub before: f64,
    /// And after it.
    pub after: f64,
}

/// Samples of a step.
const BATCH: usize = 16;
/// Samples whose derivatives are in memory at once.
const CHUNK: usize = 4;
/// Every so many samples one is held out.
const HELD_OUT: usize = 8;
/// Most samples that are held out.
const JUDGES: usize = 64;
/// Times that the student is judged on the way.
const CHECKS: usize = 8;
/// Step of a weight in steps of its code, of a scale relative to itself, and of a bias in steps of the result's codes.
const RATES: [f64; 3] = [0.004, 0.0005, 0.03];
/// How far from its code a weight starts at most, in steps: nearer to the next code, noise would turn many of them over.
const REACH: f64 = 0.3;

/// Trains a network that was quantised, on real inputs; `None` where that does not lower the loss on samples held out.
///
/// # Errors
/// An operation without derivative; a sample that the graph cannot be run on.
pub fn finetune(
    float: &Graph,
    quantized: &Quantized,
    samples: &[Vec<Tensor>],
    how: &Finetune,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Option<Tuned>, FinetuneError> {
    let layers: Vec<&Layer> = quantized
        .layers
        .iter()
        .filter(|l| is_own(float, l))
        .collect();
    let student = Student::new(float, quantized, &layers, how.loss)?;
    let mut training = Training {
        trained: layers
            .iter()
            .map(|l| Trained::new(float, quantized, l))
            .collect(),
        samples: with_targets(float, samples, how.loss)?,
        student,
        how,
    };
    training.run(progress).map(|(before, after)| {
        (after < before).then(|| Tuned {
            graph: training.apply(float, &layers),
            before,
            after,
        })
    })
}

/// Whether nothing else reads the layer's parameters.
fn is_own(float: &Graph, layer: &Layer) -> bool {
    let users = float.users();
    let inputs = &float
        .producer(layer.float)
        .expect("a layer is a node")
        .inputs;
    inputs[1..]
        .iter()
        .all(|&v| users[v].len() == 1 && float.as_const(v).is_some())
}

/// The inputs of each sample with what the float network gives for it.
fn with_targets(
    float: &Graph,
    samples: &[Vec<Tensor>],
    loss: Loss,
) -> Result<Vec<Vec<Tensor>>, FinetuneError> {
    let (plan, end) = (eval::Plan::new(float), compared(float));
    let one = |(sample, inputs): (usize, &Vec<Tensor>)| {
        let mut all = inputs.clone();
        eval::run_observed(float, &plan, inputs, |_, v, t| {
            if v == end {
                all.push(target(t, loss));
            }
        })
        .map_err(|error| FinetuneError::Eval { sample, error })?;
        Ok(all)
    };
    samples.par_iter().enumerate().map(one).collect()
}

/// Parameters of a layer.
#[derive(Clone)]
struct Trained {
    format: Format,
    weights: Vec<f64>,
    scales: Vec<f64>,
    bias: Vec<f64>,
    /// Real value of one step of the result.
    unit: f64,
}

impl Trained {
    /// Starts as close to the float weights as rounding to the codes that they were given allows.
    fn new(float: &Graph, quantized: &Quantized, layer: &Layer) -> Self {
        let node = quantized
            .graph
            .producer(layer.int)
            .expect("a layer is a node");
        let codes = quantized
            .graph
            .as_const(node.inputs[1])
            .expect("weights are constants");
        let source = &float
            .producer(layer.float)
            .expect("a layer is a node")
            .inputs;
        let weights = float
            .as_const(source[1])
            .expect("weights are constants")
            .to_f64();
        let k = weights.len() / layer.weight_scale.len();
        let reach = REACH * f64::from(layer.weights.step());
        let start = |(i, (w, &q)): (usize, (&f64, &i8))| {
            let (s, q) = (layer.weight_scale[i / k], f64::from(q));
            s * (w / s).clamp(q - reach, q + reach)
        };
        let pairs = weights.iter().zip(codes.as_slice::<i8>()).enumerate();
        let quant = quantized
            .graph
            .quant_of(layer.int)
            .expect("results are codes");
        Self {
            format: layer.weights,
            weights: pairs.map(start).collect(),
            scales: layer.weight_scale.clone(),
            bias: layer.bias.clone(),
            unit: real::value(quant.scale()),
        }
    }

    fn k(&self) -> usize {
        self.weights.len() / self.scales.len()
    }

    fn rounded(&self) -> Vec<f64> {
        let k = self.k();
        let one = |(i, w): (usize, &f64)| {
            let s = self.scales[i / k];
            s * f64::from(real::encode(w / s, self.format))
        };
        self.weights.iter().enumerate().map(one).collect()
    }

    /// Derivatives by weights and scales from those by rounded weights.
    fn derivatives(
        &self,
        rounded: &[f64],
        estimator: Estimator,
        done: f64,
    ) -> (Vec<f64>, Vec<f64>) {
        let (k, (lo, hi)) = (self.k(), self.format.range());
        let (lo, hi, step) = (f64::from(lo), f64::from(hi), f64::from(self.format.step()));
        let mut scales = vec![0.0; self.scales.len()];
        let weight = |(i, (&w, &d)): (usize, (&f64, &f64))| {
            let u = w / self.scales[i / k];
            let q = f64::from(real::encode(u, self.format));
            let inside = (lo..=hi).contains(&u);
            let fields = (u - lo) / step;
            let slope = estimator.slope(fields - fields.floor() - 0.5, done);
            scales[i / k] += d * if inside { q - u } else { q };
            if inside { d * slope } else { 0.0 }
        };
        let weights = self
            .weights
            .iter()
            .zip(rounded)
            .enumerate()
            .map(weight)
            .collect();
        (weights, scales)
    }
}

/// Optimisers of a layer's weights, scales and bias.
struct Optimizer([Adam; 3]);

impl Optimizer {
    fn new(t: &Trained) -> Self {
        Self([&t.weights, &t.scales, &t.bias].map(|x| Adam::new(x.len())))
    }

    /// `rate` is the share of the full rates that is left.
    fn step(&mut self, t: &mut Trained, derivatives: &Derivatives, how: &Finetune, done: f64) {
        let left = 0.5 * (1.0 + libm::cos(core::f64::consts::PI * done));
        let (weights, scales) = t.derivatives(&derivatives.weights, how.estimator, done);
        let (k, unit) = (t.k(), t.unit);
        let old = t.scales.clone();
        self.0[0].step(&mut t.weights, &weights, |i| left * RATES[0] * old[i / k]);
        self.0[1].step(&mut t.scales, &scales, |o| left * RATES[1] * old[o]);
        if let Some(bias) = &derivatives.bias {
            self.0[2].step(&mut t.bias, bias, |_| left * RATES[2] * unit);
        }
    }
}

/// Derivatives by the rounded weights and the bias of a layer.
#[derive(Clone)]
struct Derivatives {
    weights: Vec<f64>,
    bias: Option<Vec<f64>>,
}

struct Training<'a> {
    student: Student,
    trained: Vec<Trained>,
    /// Inputs and the teacher's output.
    samples: Vec<Vec<Tensor>>,
    how: &'a Finetune,
}

impl Training<'_> {
    /// Trains, keeps the best parameters; the loss on held-out samples before and after.
    fn run(&mut self, progress: &mut dyn FnMut(usize, usize)) -> Result<(f64, f64), FinetuneError> {
        let (held, own): (Vec<usize>, Vec<usize>) =
            (0..self.samples.len()).partition(|i| i % HELD_OUT == HELD_OUT - 1);
        let held = &held[..held.len().min(JUDGES)];
        let mut optimizers: Vec<Optimizer> = self.trained.iter().map(Optimizer::new).collect();
        let mut order = Order::new(own, self.how.seed);
        let before = self.judge(held)?;
        let mut best = (before, self.trained.clone());
        let steps = self.how.steps;
        for step in 0..steps {
            progress(step, steps);
            let batch = order.take(BATCH);
            let derivatives = self.derivatives(&batch)?;
            let done = step as f64 / steps as f64;
            for ((t, o), d) in self
                .trained
                .iter_mut()
                .zip(&mut optimizers)
                .zip(&derivatives)
            {
                o.step(t, d, self.how, done);
            }
            if (step + 1) % (steps / CHECKS).max(1) == 0 || step + 1 == steps {
                let loss = self.judge(held)?;
                if loss < best.0 {
                    best = (loss, self.trained.clone());
                }
            }
        }
        progress(steps, steps);
        self.trained = best.1;
        Ok((before, best.0))
    }

    /// Puts the parameters into the student.
    fn load(&mut self) {
        let graph = &mut self.student.graph;
        let mut set = |v, x: Vec<f64>| {
            let (dtype, shape) = (graph.ty(v).dtype, graph.shape(v).to_vec());
            graph.replace_constant(v, Tensor::from_f64(dtype, shape, x));
        };
        for (&(w, b), t) in self.student.parameters.iter().zip(&self.trained) {
            set(w, t.rounded());
            if let Some(b) = b {
                set(b, t.bias.clone());
            }
        }
    }

    fn run_sample(&self, sample: usize) -> Result<Vec<Tensor>, FinetuneError> {
        eval::run(&self.student.graph, &self.samples[sample])
            .map_err(|error| FinetuneError::Eval { sample, error })
    }

    /// Mean loss over samples.
    fn judge(&mut self, samples: &[usize]) -> Result<f64, FinetuneError> {
        self.load();
        let one = |&i: &usize| Ok(self.run_sample(i)?[0].to_f64()[0] - self.entropy(i));
        let losses: Result<Vec<f64>, FinetuneError> = samples.par_iter().map(one).collect();
        Ok(losses?.iter().sum::<f64>() / samples.len().max(1) as f64)
    }

    /// What the loss of a perfect student is.
    fn entropy(&self, sample: usize) -> f64 {
        if self.how.loss == Loss::Square {
            return 0.0;
        }
        let teacher = self.samples[sample]
            .last()
            .expect("the teacher's output is last");
        let term = |p: &f64| if *p > 0.0 { -p * libm::log(*p) } else { 0.0 };
        teacher.to_f64().iter().map(term).sum()
    }

    /// Sums of derivatives over samples, by layer; in the order of samples, whatever the number of threads.
    fn derivatives(&mut self, batch: &[usize]) -> Result<Vec<Derivatives>, FinetuneError> {
        self.load();
        let zero = |(t, &(_, b)): (&Trained, &(_, Option<_>))| Derivatives {
            weights: vec![0.0; t.weights.len()],
            bias: b.map(|_| vec![0.0; t.bias.len()]),
        };
        let mut sums: Vec<Derivatives> = self
            .trained
            .iter()
            .zip(&self.student.parameters)
            .map(zero)
            .collect();
        for chunk in batch.chunks(CHUNK) {
            let parts: Result<Vec<Vec<Tensor>>, _> =
                chunk.par_iter().map(|&i| self.run_sample(i)).collect();
            for part in parts? {
                let mut tensors = part[1..].iter();
                for sum in &mut sums {
                    add(&mut sum.weights, tensors.next());
                    if let Some(bias) = &mut sum.bias {
                        add(bias, tensors.next());
                    }
                }
            }
        }
        Ok(sums)
    }

    /// The float graph with the trained parameters.
    fn apply(&self, float: &Graph, layers: &[&Layer]) -> Graph {
        let mut graph = float.clone();
        for (layer, t) in layers.iter().zip(&self.trained) {
            let inputs = float
                .producer(layer.float)
                .expect("a layer is a node")
                .inputs
                .clone();
            let mut set = |v, x: Vec<f64>| {
                let (dtype, shape) = (graph.ty(v).dtype, graph.shape(v).to_vec());
                graph.replace_constant(v, Tensor::from_f64(dtype, shape, x));
            };
            set(inputs[1], t.rounded());
            if let Some(&b) = inputs.get(2) {
                set(b, t.bias.clone());
            }
        }
        graph
    }
}

fn add(sum: &mut [f64], part: Option<&Tensor>) {
    let part = part.expect("one derivative a parameter").to_f64();
    sum.iter_mut().zip(part).for_each(|(s, p)| *s += p);
}

/// Samples in an order that is shuffled anew each time all were taken.
struct Order {
    samples: Vec<usize>,
    left: Vec<usize>,
    state: u64,
}

impl Order {
    fn new(samples: Vec<usize>, seed: u64) -> Self {
        Self {
            samples,
            left: Vec::new(),
            state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        }
    }

    fn random(&mut self, below: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 16) as usize % below
    }

    fn take(&mut self, n: usize) -> Vec<usize> {
        let mut taken = Vec::with_capacity(n);
        while taken.len() < n.min(self.samples.len()) {
            if self.left.is_empty() {
                self.left.clone_from(&self.samples);
            }
            let at = self.random(self.left.len());
            taken.push(self.left.swap_remove(at));
        }
        taken
    }
}

#[cfg(test)]
mod tests;
