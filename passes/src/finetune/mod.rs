//! Label-free distillation: the rounded network learns to give what the float network gives.
//!
//! Weights, their steps and biases are trained on calibration samples through the compiler's own derivatives, rounding
//! by an [`Estimator`]. The result is a float graph whose weights lie on the grids of their formats, so that quantising
//! it again changes none of them. Tensors of fewer than 8 bits are rounded while training, and so are
//! the wider ones that they are copies of; other 8-bit ones are not.

mod adam;
mod blocks;
mod estimator;
mod parameters;
mod samples;
mod student;

use std::collections::{HashMap, HashSet};

use lowbit_ir::derive::DeriveError;
use lowbit_ir::eval::{self, EvalError};
use lowbit_ir::{DType, Graph, Tensor, ValueId};
use rayon::prelude::*;

use crate::loss::softened;
use crate::quantize::{Layer, Quantized};
pub use estimator::Estimator;
use parameters::{Derivatives, Optimizer, Scale, Trained};
use samples::{Samples, Teacher};
use student::Student;
pub use student::{compared, target};

/// What the student is to have in common with the teacher.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Loss {
    /// The distribution over classes: the Kullback-Leibler divergence of the softmax.
    Divergence {
        /// What scores are divided by first: see [`Objective::temperature`](crate::loss::Objective::temperature_for).
        temperature: f64,
    },
    /// The values: half the mean squared difference.
    Square,
}

impl Loss {
    /// The loss of values against what [`target`] made of the teacher's; 0 where they are equal.
    pub fn between(self, target: &Tensor, values: &[f64]) -> f64 {
        self.between_up_to(f64::INFINITY, target, values)
    }

    /// The loss by which networks are held against each other. A class that is wholly lost counts no more than
    /// [`LOST`]: else a few such samples would decide between networks, and they change with every rounding.
    pub fn judged(self, target: &Tensor, values: &[f64]) -> f64 {
        self.between_up_to(LOST, target, values)
    }

    fn between_up_to(self, most: f64, target: &Tensor, values: &[f64]) -> f64 {
        let expected = target.to_f64();
        match self {
            Self::Square => {
                let square = |(a, b): (&f64, &f64)| (a - b) * (a - b);
                0.5 * expected.iter().zip(values).map(square).sum::<f64>()
                    / values.len().max(1) as f64
            }
            Self::Divergence { temperature } => {
                let classes = target.shape().last().copied().unwrap_or(1).max(1);
                let rows = expected
                    .chunks_exact(classes)
                    .zip(values.chunks_exact(classes));
                rows.map(|(p, x)| divergence(p, &softened(x, temperature)).min(most))
                    .sum()
            }
        }
    }
}

/// The most that a distribution's divergence counts where networks are compared, in nats.
const LOST: f64 = 1.0;

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
    /// Steps for each block, before the whole network is trained.
    pub block_steps: usize,
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
    /// The same network with what layers read rounded where it has few bits: what was trained.
    pub rounded: Graph,
    /// Values of the float graph and those that stand for them in `rounded`.
    pub values: HashMap<ValueId, ValueId>,
    /// Ranges of tensors of few bits.
    pub ranges: HashMap<ValueId, (f64, f64)>,
    /// Layers whose parameters were trained, by their results in the float graph.
    pub layers: HashSet<ValueId>,
    /// Loss on held-out samples before training.
    pub before: f64,
    /// And after it.
    pub after: f64,
}

/// Samples of a step.
pub const BATCH: usize = 16;
/// Samples whose derivatives are in memory at once.
const CHUNK: usize = 4;
/// Times that the student is judged on the way.
const CHECKS: usize = 10;

/// Trains a network that was quantised, on real inputs; `None` where that does not lower the loss on the `held` ones.
///
/// # Errors
/// An operation without derivative; a sample that the graph cannot be run on, those held out counted after the others.
pub fn finetune(
    float: &Graph,
    quantized: &Quantized,
    samples: &[Vec<Tensor>],
    held: &[Vec<Tensor>],
    how: &Finetune,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Option<Tuned>, FinetuneError> {
    let layers: Vec<&Layer> = quantized
        .layers
        .iter()
        .filter(|l| is_own(float, l))
        .collect();
    let student = Student::new(float, quantized, &layers, how.loss)?;
    let trained = layers
        .iter()
        .map(|l| Trained::new(float, quantized, l))
        .collect();
    let scales = student.scales.iter().map(|s| Scale::new(s.grid.scale));
    let teacher = Teacher::new(float, how.loss);
    let taught = |(i, x): (usize, &Vec<Tensor>)| {
        let failed = |error| failed(samples.len() + i, error);
        teacher.teach(x).map_err(failed)
    };
    let targets: Result<Vec<Tensor>, FinetuneError> =
        held.par_iter().enumerate().map(taught).collect();
    let held: Vec<Taught<'_>> = held.iter().zip(targets?).collect();
    let mut training = Training {
        float,
        scales: scales.collect(),
        trained,
        student,
        how,
    };
    let before = training.judge(&held)?;
    let start = training.parameters();
    if how.block_steps > 0 {
        let all: Vec<&Vec<Tensor>> = samples.iter().chain(held.iter().map(|h| h.0)).collect();
        training.reconstruct(quantized, &layers, &all, samples.len(), progress)?;
        if training.judge(&held)? >= before {
            training.restore(start);
        }
    }
    let mut drawn = Samples::new(samples, &teacher, how.seed);
    let after = training.run(&mut || drawn.take(BATCH), &held, progress)?;
    Ok((after < before).then(|| training.tuned(&layers, before, after)))
}

fn failed(sample: usize, error: EvalError) -> FinetuneError {
    FinetuneError::Eval { sample, error }
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

struct Training<'a> {
    float: &'a Graph,
    student: Student,
    trained: Vec<Trained>,
    scales: Vec<Scale>,
    how: &'a Finetune,
}

/// Inputs and what the float network gives for them.
type Taught<'a> = (&'a Vec<Tensor>, Tensor);

impl Training<'_> {
    /// Trains on batches that are drawn, keeps the best parameters; their loss on held-out samples.
    fn run(
        &mut self,
        draw: &mut dyn FnMut() -> Result<Vec<Vec<Tensor>>, FinetuneError>,
        held: &[Taught<'_>],
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<f64, FinetuneError> {
        let mut optimizers: Vec<Optimizer> = self.trained.iter().map(Optimizer::new).collect();
        let before = self.judge(held)?;
        let mut best = (before, self.parameters());
        let steps = self.how.steps;
        for step in 0..steps {
            progress(step, steps);
            let batch = draw()?;
            let derivatives = self.derivatives(&batch)?;
            let done = step as f64 / steps as f64;
            let how = self.how;
            let layers = self.trained.par_iter_mut().zip(&mut optimizers);
            let layers = layers.zip(&derivatives.0);
            layers.for_each(|((t, o), d)| o.step(t, d, how, done));
            for (s, d) in self.scales.iter_mut().zip(&derivatives.1) {
                s.step(*d, done);
            }
            if (step + 1) % (steps / CHECKS).max(1) == 0 || step + 1 == steps {
                let loss = self.judge(held)?;
                if loss < best.0 {
                    best = (loss, self.parameters());
                }
            }
        }
        progress(steps, steps);
        self.restore(best.1);
        Ok(best.0)
    }

    fn restore(&mut self, (trained, scales): (Vec<Trained>, Vec<f64>)) {
        self.trained = trained;
        let pairs = self.scales.iter_mut().zip(scales);
        pairs.for_each(|(s, value)| s.value = value);
    }

    fn parameters(&self) -> (Vec<Trained>, Vec<f64>) {
        let scales = self.scales.iter().map(|s| s.value);
        (self.trained.clone(), scales.collect())
    }

    /// The graph with the parameters as they are.
    fn load(&self, mut graph: Graph) -> Graph {
        let mut set = |v, x: Vec<f64>| {
            let (dtype, shape) = (graph.ty(v).dtype, graph.shape(v).to_vec());
            graph.replace_constant(v, Tensor::from_f64(dtype, shape, x));
        };
        let rounded: Vec<Vec<f64>> = self.trained.par_iter().map(Trained::rounded).collect();
        let layers = self.student.parameters.iter().zip(&self.trained);
        for ((&(w, b), t), rounded) in layers.zip(rounded) {
            set(w, rounded);
            if let Some(b) = b {
                set(b, t.bias.clone());
            }
        }
        for (place, scale) in self.student.scales.iter().zip(&self.scales) {
            set(place.value, vec![scale.value]);
        }
        graph
    }

    /// Mean loss over samples.
    fn judge(&mut self, held: &[Taught<'_>]) -> Result<f64, FinetuneError> {
        let network = std::mem::take(&mut self.student.network);
        let graph = self.load(network);
        let one = |(i, (inputs, target)): (usize, &Taught<'_>)| {
            let found = eval::run(&graph, inputs).map_err(|error| failed(i, error))?;
            Ok(self.how.loss.judged(target, &found[0].to_f64()))
        };
        let losses: Result<Vec<f64>, FinetuneError> =
            held.par_iter().enumerate().map(one).collect();
        self.student.network = graph;
        Ok(losses?.iter().sum::<f64>() / held.len().max(1) as f64)
    }

    /// Sums of derivatives over samples, by layer, then by scale; in the order of samples, whatever the number of threads.
    fn derivatives(
        &mut self,
        batch: &[Vec<Tensor>],
    ) -> Result<(Vec<Derivatives>, Vec<f64>), FinetuneError> {
        let student = std::mem::take(&mut self.student.graph);
        let graph = self.load(student);
        let zero = |(t, &(_, b)): (&Trained, &(_, Option<_>))| Derivatives {
            weights: vec![0.0; t.weights.len()],
            bias: b.map(|_| vec![0.0; t.bias.len()]),
        };
        let layers = self.trained.iter().zip(&self.student.parameters);
        let mut sums: Vec<Derivatives> = layers.map(zero).collect();
        let mut scales = vec![0.0; self.scales.len()];
        for (chunk, first) in batch.chunks(CHUNK).zip((0..).step_by(CHUNK)) {
            let one = |(i, sample): (usize, &Vec<Tensor>)| {
                eval::run(&graph, sample).map_err(|error| failed(first + i, error))
            };
            let parts: Result<Vec<Vec<Tensor>>, _> =
                chunk.par_iter().enumerate().map(one).collect();
            for part in parts? {
                let mut tensors = part.iter();
                for sum in &mut sums {
                    add(&mut sum.weights, tensors.next());
                    if let Some(bias) = &mut sum.bias {
                        add(bias, tensors.next());
                    }
                }
                scales
                    .iter_mut()
                    .for_each(|s| add(std::slice::from_mut(s), tensors.next()));
            }
        }
        self.student.graph = graph;
        Ok((sums, scales))
    }

    fn tuned(mut self, layers: &[&Layer], before: f64, after: f64) -> Tuned {
        let network = std::mem::take(&mut self.student.network);
        let rounded = self.load(network);
        let scales = self.student.scales.iter().zip(&self.scales);
        let ranges = scales.map(|(place, s)| {
            let zero = f64::from(place.grid.zero_point);
            let highest = f64::from(place.grid.highest);
            (place.source, (-zero * s.value, (highest - zero) * s.value))
        });
        Tuned {
            ranges: ranges.collect(),
            layers: layers.iter().map(|l| l.float).collect(),
            graph: self.apply(layers),
            rounded,
            values: self.student.values,
            before,
            after,
        }
    }

    /// The float graph with the trained parameters.
    fn apply(&self, layers: &[&Layer]) -> Graph {
        let mut graph = self.float.clone();
        for (layer, t) in layers.iter().zip(&self.trained) {
            let node = self.float.producer(layer.float).expect("a layer is a node");
            let mut set = |v, x: Vec<f64>| {
                let (dtype, shape) = (graph.ty(v).dtype, graph.shape(v).to_vec());
                graph.replace_constant(v, Tensor::from_f64(dtype, shape, x));
            };
            set(node.inputs[1], t.rounded());
            if let Some(&b) = node.inputs.get(2) {
                set(b, t.bias.clone());
            }
        }
        graph
    }
}

fn add(sum: &mut [f64], part: Option<&Tensor>) {
    let part = part.expect("one derivative a parameter");
    match part.dtype() {
        DType::F32 => {
            let pairs = sum.iter_mut().zip(part.as_slice::<f32>());
            pairs.for_each(|(s, &p)| *s += f64::from(p));
        }
        _ => {
            let pairs = sum.iter_mut().zip(part.as_slice::<f64>());
            pairs.for_each(|(s, p)| *s += p);
        }
    }
}

#[cfg(test)]
mod tests;
