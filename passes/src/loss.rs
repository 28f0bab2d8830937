//! What a network loses when its outputs change: divergence of its class distributions, or error of its outputs.

use lowbit_ir::derive::Emit;
use lowbit_ir::ops::{ReduceFn, UnaryFn};
use lowbit_ir::{Graph, Op, OpError, Tensor, ValueId};

/// How one output is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Class scores before the softmax, along an axis of this many classes and elements from one class to the next.
    Scores { classes: usize, inner: usize },
    /// Numbers.
    Values,
}

/// The loss of a network against its own float outputs, without labels.
///
/// An output that a softmax ends is compared before the softmax, by the divergence in nats `Σ p (log p − log q)`, a sum
/// over all distributions of a sample. Where labels say that the network classifies, an output without softmax is one
/// distribution over all its elements. Any other output is compared by its noise-to-signal ratio `Σ (y − y')² / Σ y²`.
///
/// Scores are divided by a temperature first (Hinton et al. 2015), 1 if nothing else is said: see [`Objective::temperature_for`].
#[derive(Clone, Debug)]
pub struct Objective {
    outputs: Vec<(ValueId, Kind)>,
    temperature: f64,
}

/// Least mean entropy of class distributions, in nats, with which they are compared. A network that knows its calibration
/// samples by heart gives nearly all of them one class for certain: what rounding changes of its other scores, and of samples
/// that it does not know, would not show.
const ENTROPY: f64 = 0.1;
/// Temperatures are sought up to this.
const HOTTEST: f64 = 1024.0;

impl Objective {
    /// The objective of a float graph; `classifies` where the data has labels.
    pub fn new(graph: &Graph, classifies: bool) -> Self {
        let outputs = graph
            .outputs()
            .iter()
            .map(|o| compared(graph, o.value, classifies));
        Self {
            outputs: outputs.collect(),
            temperature: 1.0,
        }
    }

    /// The same at another temperature.
    #[must_use]
    pub fn at(mut self, temperature: f64) -> Self {
        self.temperature = temperature;
        self
    }

    /// What scores are divided by.
    pub fn temperature(&self) -> f64 {
        self.temperature
    }

    /// The temperature to compare a network's classes at: the least from 1 up at which its distributions have a mean entropy
    /// of 0.1 nats over samples, given as what the float network computes for each, in the order of [`Objective::values`]; 1
    /// where none up to 1024 has.
    pub fn temperature_for(&self, samples: &[Vec<Tensor>]) -> f64 {
        let scores: Vec<(Vec<f64>, usize, usize)> = samples
            .iter()
            .flat_map(|values| values.iter().zip(&self.outputs))
            .filter_map(|(t, (_, kind))| match *kind {
                Kind::Scores { classes, inner } => Some((t.to_f64(), classes, inner)),
                Kind::Values => None,
            })
            .collect();
        let is_cold = |temperature: f64| {
            let all = scores.iter().flat_map(|(x, classes, inner)| {
                let x = softened(x, temperature);
                let each = distributions(x.len(), *classes, *inner);
                each.map(|at| entropy(&log_softmax(&x, at)))
                    .collect::<Vec<_>>()
            });
            let all: Vec<f64> = all.collect();
            all.iter().sum::<f64>() < ENTROPY * all.len() as f64
        };
        if !is_cold(1.0) || is_cold(HOTTEST) {
            return 1.0;
        }
        let (mut cold, mut hot) = (1.0, HOTTEST);
        while hot / cold > 1.001 {
            let middle = libm::sqrt(cold * hot);
            *(if is_cold(middle) { &mut cold } else { &mut hot }) = middle;
        }
        hot
    }

    /// The values that are compared.
    pub fn values(&self) -> impl ExactSizeIterator<Item = ValueId> + '_ {
        self.outputs.iter().map(|&(v, _)| v)
    }

    /// Whether any output is compared by divergence.
    pub fn is_divergence(&self) -> bool {
        self.outputs.iter().any(|(_, k)| *k != Kind::Values)
    }

    /// The loss of `other` against `float`, both in the order of [`Objective::values`].
    pub fn loss(&self, float: &[Tensor], other: &[Tensor]) -> f64 {
        let pairs = float.iter().zip(other).zip(&self.outputs);
        pairs
            .map(|((p, q), (_, kind))| match *kind {
                Kind::Scores { classes, inner } => {
                    divergence(&self.scores(p), &self.scores(q), classes, inner)
                }
                Kind::Values => noise_to_signal(&p.to_f64(), &q.to_f64()),
            })
            .sum()
    }

    /// The noise-to-signal ratio of all outputs, divergences or not.
    pub fn noise(&self, float: &[Tensor], other: &[Tensor]) -> f64 {
        let pairs = float.iter().zip(other);
        pairs
            .map(|(p, q)| noise_to_signal(&p.to_f64(), &q.to_f64()))
            .sum()
    }

    /// The trace of the loss's second derivative by the outputs at the float network.
    pub fn curvature(&self, float: &[Tensor]) -> f64 {
        let pairs = float.iter().zip(&self.outputs);
        pairs
            .map(|(p, (_, kind))| match *kind {
                Kind::Scores { classes, inner } => {
                    impurity(&self.scores(p), classes, inner) / self.temperature.powi(2)
                }
                Kind::Values => {
                    let x = p.to_f64();
                    2.0 * x.len() as f64 / signal(&x)
                }
            })
            .sum()
    }

    /// A direction in the outputs whose outer product is, in expectation, the second derivative of the loss at the float
    /// network. Where classes are compared it is the distribution less the class that `label` names; without a label, all
    /// classes at once with random signs, which have the covariance of a class drawn from the distribution without its
    /// rare large outcomes. `uniform` gives numbers in 0…1, the next at each call.
    pub fn direction(
        &self,
        float: &[Tensor],
        label: Option<usize>,
        uniform: &mut dyn FnMut() -> f64,
    ) -> Vec<Tensor> {
        let pairs = float.iter().zip(&self.outputs);
        pairs
            .map(|(p, (_, kind))| {
                let d = match *kind {
                    Kind::Scores { classes, inner } => {
                        let d = drawn(&self.scores(p), classes, inner, label, uniform);
                        softened(&d, self.temperature)
                    }
                    Kind::Values => signs(&p.to_f64(), uniform),
                };
                Tensor::from_f64(p.dtype(), p.shape(), d)
            })
            .collect()
    }

    /// Relevance of the outputs to start from: 1 at the class that each distribution picks, the lowest of equal ones;
    /// the share in the sum of magnitudes where numbers are compared.
    pub fn picked(&self, float: &[Tensor]) -> Vec<Tensor> {
        let pairs = float.iter().zip(&self.outputs);
        pairs
            .map(|(p, (_, kind))| {
                let x = p.to_f64();
                let r = match *kind {
                    Kind::Scores { classes, inner } => largest(&x, classes, inner),
                    Kind::Values => magnitudes(&x),
                };
                Tensor::from_f64(p.dtype(), p.shape(), r)
            })
            .collect()
    }

    /// Appends the loss as a value of rank 0: each value's float result becomes an input of the graph.
    ///
    /// # Errors
    /// What shape rules say.
    pub fn emit(&self, graph: &mut Graph) -> Result<ValueId, OpError> {
        let mut sum = None;
        for &(value, kind) in &self.outputs {
            let name = format!("{} (float)", graph.value(value).name);
            let target = graph.input(name, graph.ty(value).clone());
            let term = match kind {
                Kind::Scores { classes, inner } => {
                    emit_divergence(graph, [target, value], classes, inner, self.temperature)?
                }
                Kind::Values => emit_noise_to_signal(graph, target, value)?,
            };
            sum = Some(match sum {
                None => term,
                Some(s) => Emit::new(graph, "loss").add(s, term)?,
            });
        }
        sum.ok_or_else(|| OpError::Value("the graph has no output".into()))
    }
}

impl Objective {
    fn scores(&self, t: &Tensor) -> Vec<f64> {
        softened(&t.to_f64(), self.temperature)
    }
}

/// Scores divided by a temperature.
pub(crate) fn softened(x: &[f64], temperature: f64) -> Vec<f64> {
    x.iter().map(|x| x / temperature).collect()
}

/// `−Σ p log p`, from logarithms.
fn entropy(log_p: &[f64]) -> f64 {
    -log_p.iter().map(|&l| libm::exp(l) * l).sum::<f64>()
}

fn compared(graph: &Graph, output: ValueId, classifies: bool) -> (ValueId, Kind) {
    let mut v = output;
    while let Some(node) = graph.producer(v) {
        match &node.op {
            Op::Reshape(_) => v = node.inputs[0],
            Op::Softmax(op) => {
                let shape = graph.shape(v);
                let kind = Kind::Scores {
                    classes: shape[op.axis],
                    inner: shape[op.axis + 1..].iter().product(),
                };
                return (node.inputs[0], kind);
            }
            _ => break,
        }
    }
    let classes = graph.ty(output).elements();
    match classifies && classes > 1 {
        true => (output, Kind::Scores { classes, inner: 1 }),
        false => (output, Kind::Values),
    }
}

/// Indices of each distribution's elements.
fn distributions(
    len: usize,
    classes: usize,
    inner: usize,
) -> impl Iterator<Item = impl Iterator<Item = usize> + Clone> {
    (0..len / classes.max(1)).map(move |d| {
        let first = d / inner * inner * classes + d % inner;
        (0..classes).map(move |c| first + c * inner)
    })
}

/// Logarithms of the softmax over some elements.
fn log_softmax(x: &[f64], at: impl Iterator<Item = usize> + Clone) -> Vec<f64> {
    let largest = at.clone().map(|i| x[i]).fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = at.clone().map(|i| libm::exp(x[i] - largest)).sum();
    let shift = largest + libm::log(sum);
    at.map(|i| x[i] - shift).collect()
}

fn divergence(p: &[f64], q: &[f64], classes: usize, inner: usize) -> f64 {
    let one = |at: &mut dyn Iterator<Item = usize>| {
        let at: Vec<usize> = at.collect();
        let (p, q) = (
            log_softmax(p, at.iter().copied()),
            log_softmax(q, at.iter().copied()),
        );
        let terms = p.iter().zip(&q).map(|(p, q)| libm::exp(*p) * (p - q));
        terms.sum::<f64>()
    };
    distributions(p.len(), classes, inner)
        .map(|mut at| one(&mut at))
        .sum()
}

fn noise_to_signal(p: &[f64], q: &[f64]) -> f64 {
    let noise: f64 = p.iter().zip(q).map(|(p, q)| (p - q) * (p - q)).sum();
    noise / signal(p)
}

fn signal(p: &[f64]) -> f64 {
    p.iter().map(|p| p * p).sum::<f64>().max(f64::MIN_POSITIVE)
}

fn largest(x: &[f64], classes: usize, inner: usize) -> Vec<f64> {
    let mut r = vec![0.0; x.len()];
    for at in distributions(x.len(), classes, inner) {
        let best = at.reduce(|a, b| if x[b] > x[a] { b } else { a });
        best.into_iter().for_each(|i| r[i] = 1.0);
    }
    r
}

fn magnitudes(x: &[f64]) -> Vec<f64> {
    let sum = x
        .iter()
        .map(|x| x.abs())
        .sum::<f64>()
        .max(f64::MIN_POSITIVE);
    x.iter().map(|x| x.abs() / sum).collect()
}

/// `Σ p (1 − p)` over all distributions.
fn impurity(x: &[f64], classes: usize, inner: usize) -> f64 {
    let of = |p: f64| p * (1.0 - p);
    distributions(x.len(), classes, inner)
        .map(|at| {
            log_softmax(x, at)
                .into_iter()
                .map(|l| of(libm::exp(l)))
                .sum::<f64>()
        })
        .sum()
}

fn drawn(
    x: &[f64],
    classes: usize,
    inner: usize,
    label: Option<usize>,
    uniform: &mut dyn FnMut() -> f64,
) -> Vec<f64> {
    let mut d = vec![0.0; x.len()];
    for at in distributions(x.len(), classes, inner) {
        let p: Vec<f64> = log_softmax(x, at.clone())
            .into_iter()
            .map(libm::exp)
            .collect();
        let direction = match label.filter(|&l| l < classes) {
            Some(l) => (0..classes)
                .map(|c| p[c] - f64::from(u8::from(c == l)))
                .collect(),
            None => signed(&p, uniform),
        };
        at.zip(direction).for_each(|(i, u)| d[i] = u);
    }
    d
}

/// `√p ⊙ z − p ⟨√p, z⟩` with random signs z; its covariance is `diag(p) − p pᵀ`.
fn signed(p: &[f64], uniform: &mut dyn FnMut() -> f64) -> Vec<f64> {
    let rooted: Vec<f64> = p
        .iter()
        .map(|&p| libm::sqrt(p).copysign(uniform() - 0.5))
        .collect();
    let shift: f64 = rooted.iter().sum();
    p.iter().zip(&rooted).map(|(p, r)| r - p * shift).collect()
}

/// Signs, so large that the outer product is the second derivative of the noise-to-signal ratio.
fn signs(x: &[f64], uniform: &mut dyn FnMut() -> f64) -> Vec<f64> {
    let size = libm::sqrt(2.0 / signal(x));
    x.iter()
        .map(|_| if uniform() < 0.5 { -size } else { size })
        .collect()
}

/// Appends `Σ p (log p − log q)`, p and q the softmax of scores; see [`Objective`].
fn emit_divergence(
    graph: &mut Graph,
    [p, q]: [ValueId; 2],
    classes: usize,
    inner: usize,
    temperature: f64,
) -> Result<ValueId, OpError> {
    let n = graph.ty(q).elements();
    let mut e = Emit::new(graph, "divergence");
    let shape = [n / (classes * inner).max(1), classes, inner];
    let logs = |e: &mut Emit<'_>, x| {
        let x = e.reshape(x, &shape)?;
        let x = e.scale(x, 1.0 / temperature)?;
        let largest = e.reduce(ReduceFn::Max, x, &[1])?;
        let shifted = e.sub(x, largest)?;
        let exp = e.unary(UnaryFn::Exp, shifted)?;
        let sum = e.reduce(ReduceFn::Sum, exp, &[1])?;
        let log = e.unary(UnaryFn::Log, sum)?;
        e.sub(shifted, log)
    };
    let (log_p, log_q) = (logs(&mut e, p)?, logs(&mut e, q)?);
    let p = e.unary(UnaryFn::Exp, log_p)?;
    let ratio = e.sub(log_p, log_q)?;
    let terms = e.mul(p, ratio)?;
    e.total(terms)
}

fn emit_noise_to_signal(graph: &mut Graph, p: ValueId, q: ValueId) -> Result<ValueId, OpError> {
    let mut e = Emit::new(graph, "noise");
    let difference = e.sub(p, q)?;
    let square = e.mul(difference, difference)?;
    let noise = e.total(square)?;
    let power = e.mul(p, p)?;
    let signal = e.total(power)?;
    let least = e.number(p, f64::from(f32::MIN_POSITIVE));
    let signal = e.binary(lowbit_ir::ops::BinaryFn::Max, signal, least)?;
    e.div(noise, signal)
}

#[cfg(test)]
mod tests {
    use lowbit_ir::eval::run;
    use lowbit_ir::ops::Softmax;
    use lowbit_ir::{DType, Type};

    use super::*;

    fn network(softmax: bool) -> Graph {
        let mut g = Graph::new("g");
        let x = g.input("x", Type::new(DType::F64, [2, 3]));
        let y = match softmax {
            true => g.push("y", Softmax { axis: 1 }, &[x]).unwrap(),
            false => x,
        };
        g.output("y", y);
        g
    }

    fn scores(k: f64) -> Tensor {
        Tensor::new([2, 3], vec![1.0, 2.0 * k, -1.0, 0.5, 0.0, 3.0 + k])
    }

    #[test]
    fn equal_outputs_lose_nothing_and_others_something() {
        for (softmax, labels) in [(true, false), (false, true), (false, false)] {
            let objective = Objective::new(&network(softmax), labels);
            assert_eq!(objective.is_divergence(), softmax || labels);
            assert!(objective.loss(&[scores(1.0)], &[scores(1.0)]).abs() < 1e-15);
            assert!(objective.loss(&[scores(1.0)], &[scores(1.5)]) > 1e-3);
        }
    }

    #[test]
    fn divergence_is_that_of_the_softmax() {
        let graph = network(true);
        let p = run(&graph, &[scores(1.0)]).unwrap()[0].to_f64();
        let q = run(&graph, &[scores(1.5)]).unwrap()[0].to_f64();
        let expected: f64 = p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum();
        let found = Objective::new(&graph, false).loss(&[scores(1.0)], &[scores(1.5)]);
        assert!((expected - found).abs() < 1e-12, "{expected} {found}");
    }

    #[test]
    fn the_emitted_loss_is_the_loss() {
        for (softmax, labels) in [(true, false), (false, true), (false, false)] {
            let mut graph = network(softmax);
            let objective = Objective::new(&graph, labels).at(1.7);
            let loss = objective.emit(&mut graph).unwrap();
            graph.output("loss", loss);
            let found = run(&graph, &[scores(1.5), scores(1.0)]).unwrap()[1].to_f64()[0];
            let expected = objective.loss(&[scores(1.0)], &[scores(1.5)]);
            assert!((expected - found).abs() < 1e-12, "{expected} {found}");
        }
    }

    #[test]
    fn certain_networks_are_softened_until_they_tell_something() {
        let objective = Objective::new(&network(true), false);
        let certain: Vec<Vec<Tensor>> = vec![vec![scores(20.0)], vec![scores(30.0)]];
        let temperature = objective.temperature_for(&certain);
        let entropy_at = |t: f64| {
            let softened = certain.iter().map(|s| softened(&s[0].to_f64(), t));
            let each = softened.flat_map(|x| [0..3, 3..6].map(|at| entropy(&log_softmax(&x, at))));
            each.sum::<f64>() / 4.0
        };
        assert!(entropy_at(1.0) < ENTROPY, "{}", entropy_at(1.0));
        let found = entropy_at(temperature);
        assert!(
            (found / ENTROPY - 1.0).abs() < 0.01,
            "{temperature}: {found}"
        );
        assert_eq!(objective.temperature_for(&[vec![scores(1e9)]]), 1.0);
        // what is unsure stays as it is, and so does what has no classes or is no number
        assert_eq!(objective.temperature_for(&[vec![scores(1.0)]]), 1.0);
        let values = Objective::new(&network(false), false);
        assert_eq!(values.temperature_for(&certain), 1.0);
        let broken = vec![vec![Tensor::new([2, 3], vec![f64::NAN; 6])]];
        assert_eq!(objective.temperature_for(&broken), 1.0);
    }

    #[test]
    fn a_temperature_divides_scores() {
        let objective = Objective::new(&network(true), false);
        let tenth = |t: &Tensor| {
            Tensor::new(
                [2, 3],
                t.to_f64().iter().map(|x| x / 10.0).collect::<Vec<_>>(),
            )
        };
        let expected = objective.loss(&[tenth(&scores(1.0))], &[tenth(&scores(1.5))]);
        let found = objective
            .clone()
            .at(10.0)
            .loss(&[scores(1.0)], &[scores(1.5)]);
        assert!((expected - found).abs() < 1e-15, "{expected} {found}");
        // the second derivative by scores that are divided by 10 is a hundredth
        let curvature = objective.curvature(&[tenth(&scores(1.0))]) / 100.0;
        let found = objective.at(10.0).curvature(&[scores(1.0)]);
        assert!((curvature - found).abs() < 1e-15, "{curvature} {found}");
    }

    /// The sum over classes of the outer products of directions, over their number, and the largest square of one.
    fn moments(x: &Tensor, label: impl Fn(usize) -> Option<usize>, n: usize) -> [f64; 9] {
        let classes = 3;
        let kind = Kind::Scores { classes, inner: 1 };
        let objective = Objective {
            outputs: vec![(network(false).inputs()[0], kind)],
            temperature: 1.0,
        };
        let mut state = 1u64;
        let mut uniform = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 11) as f64 / (1u64 << 53) as f64
        };
        let mut sum = [0.0; 9];
        for k in 0..n {
            let d = objective.direction(std::slice::from_ref(x), label(k), &mut uniform);
            let d = d[0].to_f64();
            (0..9).for_each(|i| sum[i] += d[i / 3] * d[i % 3] / n as f64);
        }
        let trace = sum[0] + sum[4] + sum[8];
        if label(0).is_none() {
            let expected = objective.curvature(std::slice::from_ref(x));
            assert!((trace - expected).abs() < 0.01, "{trace} {expected}");
        }
        sum
    }

    #[test]
    fn directions_have_the_second_derivative_as_their_outer_product() {
        let x = Tensor::new([3], vec![0.3, 1.0, -0.4]);
        let p: Vec<f64> = log_softmax(&x.to_f64(), 0..3)
            .into_iter()
            .map(f64::exp)
            .collect();
        let found = moments(&x, |_| None, 40_000);
        for i in 0..9 {
            let diagonal = if i / 3 == i % 3 { p[i / 3] } else { 0.0 };
            let expected = diagonal - p[i / 3] * p[i % 3];
            assert!((found[i] - expected).abs() < 0.01, "{i}");
        }
        let named = moments(&x, |_| Some(1), 1);
        let u = [p[0], p[1] - 1.0, p[2]];
        (0..9).for_each(|i| assert!((named[i] - u[i / 3] * u[i % 3]).abs() < 1e-12, "{i}"));
    }
}
