//! What is trained of a layer, and how far a step of the optimiser moves it.

use lowbit_ir::Graph;
use lowbit_num::{Format, real};

use super::adam::Adam;
use super::{Estimator, Finetune};
use crate::quantize::{Layer, Quantized};

/// Step of a weight in steps of its code, of a scale relative to itself, and of a bias in steps of the result's codes.
const RATES: [f64; 3] = [0.004, 0.0005, 0.03];
/// How far from its code a weight starts at most, in steps: nearer to the next code, noise would turn many of them over.
const REACH: f64 = 0.3;
/// Step of the scale of codes that a layer reads, relative to itself.
const INPUT_RATE: f64 = 0.001;

/// Parameters of a layer.
#[derive(Clone)]
pub(super) struct Trained {
    format: Format,
    pub(super) weights: Vec<f64>,
    scales: Vec<f64>,
    pub(super) bias: Vec<f64>,
    /// Real value of one step of the result.
    unit: f64,
}

impl Trained {
    /// Starts as close to the float weights as rounding to the codes that they were given allows.
    pub(super) fn new(float: &Graph, quantized: &Quantized, layer: &Layer) -> Self {
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

    pub(super) fn rounded(&self) -> Vec<f64> {
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
        let (lo, hi) = (f64::from(lo), f64::from(hi));
        let origin = self.format.knee().map_or(lo, |_| 0.0);
        let mut scales = vec![0.0; self.scales.len()];
        let weight = |(i, (&w, &d)): (usize, (&f64, &f64))| {
            let u = w / self.scales[i / k];
            let q = f64::from(real::encode(u, self.format));
            let inside = (lo..=hi).contains(&u);
            let fields = (u - origin) / f64::from(real::step_at(u, self.format));
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
pub(super) struct Optimizer([Adam; 3]);

impl Optimizer {
    pub(super) fn new(t: &Trained) -> Self {
        Self([&t.weights, &t.scales, &t.bias].map(|x| Adam::new(x.len())))
    }

    /// `rate` is the share of the full rates that is left.
    pub(super) fn step(
        &mut self,
        t: &mut Trained,
        derivatives: &Derivatives,
        how: &Finetune,
        done: f64,
    ) {
        let left = left(done);
        let (weights, scales) = t.derivatives(&derivatives.weights, how.estimator, done);
        let (k, unit) = (t.k(), t.unit);
        let old = t.scales.clone();
        let gap = |(i, w): (usize, &f64)| {
            let s = old[i / k];
            s * f64::from(real::step_at(w / s, t.format))
        };
        let gaps: Vec<f64> = t.weights.iter().enumerate().map(gap).collect();
        self.0[0].step(&mut t.weights, &weights, |i| left * RATES[0] * gaps[i]);
        self.0[1].step(&mut t.scales, &scales, |o| left * RATES[1] * old[o]);
        if let Some(bias) = &derivatives.bias {
            self.0[2].step(&mut t.bias, bias, |_| left * RATES[2] * unit);
        }
    }
}

/// Derivatives by the rounded weights and the bias of a layer.
#[derive(Clone)]
pub(super) struct Derivatives {
    pub(super) weights: Vec<f64>,
    pub(super) bias: Option<Vec<f64>>,
}

/// The share of the full rates that is left: half a wave of the cosine.
fn left(done: f64) -> f64 {
    0.5 * (1.0 + libm::cos(core::f64::consts::PI * done))
}

/// The scale of codes of few bits.
pub(super) struct Scale {
    pub(super) value: f64,
    adam: Adam,
}

impl Scale {
    pub(super) fn new(value: f64) -> Self {
        Self {
            value,
            adam: Adam::new(1),
        }
    }

    pub(super) fn step(&mut self, derivative: f64, done: f64) {
        let rate = left(done) * INPUT_RATE * self.value;
        let mut x = [self.value];
        self.adam.step(&mut x, &[derivative], |_| rate);
        self.value = x[0];
    }
}
