//! Quantising a model on its data: ranges, rounding and biases, and training where the effort allows it.

use std::collections::HashSet;

use lowbit_data::{DataError, Dataset};
use lowbit_ir::eval::{self, Plan};
use lowbit_ir::{Graph, Op, Tensor, ValueId};
use lowbit_num::real;
use lowbit_passes::calibrate::{CalibrateError, Method, Stats, calibrate};
use lowbit_passes::finetune::{
    Estimator, Finetune, FinetuneError, Loss, compared, finetune, target,
};
use lowbit_passes::quantize::{
    Fit, FitError, Formats, Layer, Quantized, Rounding, quantize, quantize_fitted,
};
use lowbit_report::Reproduce;
use rayon::prelude::*;

use crate::model::Model;
use crate::object::encode_sample;
use crate::{Error, Progress};

/// How the network is made to lose as little as its formats allow.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tuning {
    /// 0 takes seconds: nearest codes and corrected biases. 1 adds error feedback. 2 chooses ranges by what the network
    /// loses and trains for a short time, 3 for a long one. 1 where it is not given.
    pub effort: Option<u8>,
    /// How ranges are chosen; by the effort where it is not given.
    pub ranges: Option<Method>,
    /// Steps of training; by the effort where it is not given.
    pub finetune: Option<usize>,
    /// What stands for the derivative of rounding while training.
    pub estimator: Estimator,
    /// Order of samples while training.
    pub seed: u64,
}

/// Most samples that ranges are taken from.
const RANGE_SAMPLES: usize = 1024;
/// Most samples that layers are fitted on, by effort.
const FIT_SAMPLES: [usize; 4] = [32, 128, 128, 256];
/// Weights of at most so many bits are rounded with error feedback, by effort.
const FEEDBACK_BITS: [u32; 4] = [0, 6, 6, 6];
/// Steps of training, by effort.
const STEPS: [usize; 4] = [0, 0, 200, 1000];
/// Multiply-accumulates of all samples under which fitting counts as cheap.
const CHEAP: usize = 4_000_000_000;
/// One in so many calibration samples is held out to judge on, from the effort on that chooses.
const HELD_OUT: usize = 8;
/// Fewest and most samples to judge on.
const JUDGES: [usize; 2] = [16, 64];
/// The ranges that are chosen from.
const METHODS: [Method; 4] = [
    Method::Mse,
    Method::MinMax,
    Method::Percentile(99.99),
    Method::Kl,
];

impl Tuning {
    fn effort(&self) -> usize {
        self.effort.unwrap_or(1).min(3).into()
    }

    /// What a report was made with.
    pub(crate) fn from_report(r: &Reproduce) -> Self {
        Self {
            effort: r.effort,
            ranges: ranges_from_name(&r.ranges),
            finetune: r.finetune,
            estimator: Estimator::from_name(&r.estimator).unwrap_or_default(),
            seed: r.seed,
        }
    }
}

/// The name of a method on the command line and in reports.
pub fn ranges_name(method: Method) -> String {
    match method {
        Method::MinMax => "minmax".into(),
        Method::Percentile(p) => format!("percentile:{p}"),
        Method::Mse => "mse".into(),
        Method::Kl => "kl".into(),
    }
}

/// The method of a name, see [`ranges_name`].
pub fn ranges_from_name(name: &str) -> Option<Method> {
    match name {
        "minmax" => Some(Method::MinMax),
        "mse" => Some(Method::Mse),
        "kl" => Some(Method::Kl),
        _ => {
            let p: f64 = name.strip_prefix("percentile:")?.parse().ok()?;
            (p > 50.0 && p <= 100.0).then_some(Method::Percentile(p))
        }
    }
}

/// Results of all layers before residual and clamp.
fn conv_results(graph: &Graph) -> HashSet<ValueId> {
    let convs = graph.nodes().filter(|(_, n)| matches!(n.op, Op::Conv(_)));
    convs.map(|(_, n)| n.output).collect()
}

/// A model with what was seen of it on calibration samples: quantises it to any formats.
pub(crate) struct Quantizer<'a> {
    model: &'a Model,
    data: &'a Dataset,
    tuning: Tuning,
    /// Calibration samples.
    indices: Vec<usize>,
    stats: Stats,
}

impl<'a> Quantizer<'a> {
    /// Calibrates a model.
    ///
    /// # Errors
    /// A sample cannot be read or run.
    pub(crate) fn new(
        model: &'a Model,
        data: &'a Dataset,
        tuning: Tuning,
        progress: &dyn Progress,
    ) -> Result<Self, Error> {
        let indices: Vec<usize> = data.split().calibrate.clone().take(RANGE_SAMPLES).collect();
        let sample = |i: usize| model.sample(data, indices[i]);
        let step = |done, total| progress.step("calibrate", done, total);
        let stats =
            calibrate(&model.graph, indices.len(), sample, |_| true, step).map_err(unseen)?;
        Ok(Self {
            model,
            data,
            tuning,
            indices,
            stats,
        })
    }

    /// Quantises the model to formats.
    ///
    /// # Errors
    /// Nodes that cannot be quantised; samples that cannot be run.
    pub(crate) fn quantize(
        &self,
        formats: &Formats,
        progress: &dyn Progress,
    ) -> Result<Quantized, Error> {
        let trains = self.tuning.finetune.unwrap_or(STEPS[self.tuning.effort()]) > 0;
        let judges = if self.chooses() || trains {
            self.judges()
        } else {
            Vec::new()
        };
        let run = Run::new(self, formats, judges, progress)?;
        let (best, judge) = run.choose()?;
        if trains && let Some(trained) = run.finetune(&best, &judge)? {
            return Ok(trained);
        }
        if run.judges.is_empty() {
            return Ok(best.quantized);
        }
        // what was chosen is fitted again, with the judges among the samples
        Run::new(self, formats, Vec::new(), progress)?.fit(best.ranges)
    }

    /// Quantises to formats without fitting anything: shapes, formats and kernels are those of [`Quantizer::quantize`].
    ///
    /// # Errors
    /// Nodes that cannot be quantised.
    pub(crate) fn plain(&self, formats: &Formats) -> Result<Quantized, Error> {
        let ranges = self.stats.ranges(METHODS[0]);
        quantize(&self.model.graph, &ranges, formats)
            .map_err(|all| Error::Nodes(all.iter().map(ToString::to_string).collect()))
    }

    /// What the network loses at formats on samples that it is not fitted on, without training.
    ///
    /// # Errors
    /// As [`Quantizer::quantize`].
    pub(crate) fn judged(&self, formats: &Formats, progress: &dyn Progress) -> Result<f64, Error> {
        let run = Run::new(self, formats, self.judges(), progress)?;
        Ok(run.choose()?.0.loss)
    }

    /// Whether the way to choose ranges is chosen.
    fn chooses(&self) -> bool {
        let effort = self.tuning.effort();
        self.tuning.ranges.is_none() && (effort > 1 || self.is_cheap(effort))
    }

    /// Whether layers are fitted in seconds, so that it may be done once for each way to choose ranges.
    fn is_cheap(&self, effort: usize) -> bool {
        let graph = &self.model.graph;
        let layer = |v: ValueId| {
            let weights = graph.producer(v).map_or(0, |n| {
                let shape = graph.shape(n.inputs[1]);
                shape[1..].iter().product()
            });
            graph.ty(v).elements() * weights
        };
        let macs: usize = conv_results(graph).into_iter().map(layer).sum();
        effort > 0 && macs.saturating_mul(self.indices.len().min(FIT_SAMPLES[effort])) < CHEAP
    }

    /// Samples to judge on, spread over the calibration split.
    fn judges(&self) -> Vec<usize> {
        let tune = self.data.split().tune.clone();
        if let Some(range) = tune.filter(|r| !r.is_empty()) {
            return range.take(JUDGES[1]).collect();
        }
        let n = (self.indices.len() / HELD_OUT)
            .clamp(JUDGES[0], JUDGES[1])
            .min(self.indices.len() / 2);
        let step = self.indices.len() / n.max(1);
        self.indices
            .iter()
            .skip(step / 2)
            .step_by(step.max(1))
            .copied()
            .take(n)
            .collect()
    }

    fn samples(&self, indices: &[usize]) -> Result<Vec<Vec<Tensor>>, Error> {
        let read = |&i: &usize| self.model.sample(self.data, i);
        let samples: Result<_, DataError> = indices.par_iter().map(read).collect();
        Ok(samples?)
    }

    /// What the student is compared by.
    fn loss(&self) -> Loss {
        let graph = &self.model.graph;
        let softmax = compared(graph) != graph.outputs()[0].value;
        if softmax || self.data.labels().is_some() {
            Loss::Divergence
        } else {
            Loss::Square
        }
    }
}

fn unseen(e: CalibrateError<DataError>) -> Error {
    Error::Sample(e.to_string())
}

/// One plan on its way.
struct Run<'a> {
    quantizer: &'a Quantizer<'a>,
    formats: &'a Formats,
    effort: usize,
    /// Samples to train on.
    own: Vec<usize>,
    /// Those of them that layers are fitted on.
    fitted: Vec<usize>,
    /// Samples to choose on.
    judges: Vec<usize>,
    /// What layers are fitted on, real inputs.
    samples: Vec<Vec<Tensor>>,
    /// Means of the float network over them.
    means: Stats,
    progress: &'a dyn Progress,
}

/// A candidate and what it loses on the judges.
struct Candidate {
    quantized: Quantized,
    loss: f64,
    ranges: Method,
}

impl<'a> Run<'a> {
    fn new(
        q: &'a Quantizer<'a>,
        formats: &'a Formats,
        judges: Vec<usize>,
        progress: &'a dyn Progress,
    ) -> Result<Self, Error> {
        let effort = q.tuning.effort();
        let all = q.indices.iter().copied();
        let own: Vec<usize> = all.filter(|i| !judges.contains(i)).collect();
        let fitted: Vec<usize> = own.iter().copied().take(FIT_SAMPLES[effort]).collect();
        let mut run = Self {
            quantizer: q,
            formats,
            effort,
            samples: q.samples(&fitted)?,
            own,
            judges,
            means: Stats::default(),
            fitted,
            progress,
        };
        if run.fitted != q.indices {
            run.means = run.means(&q.model.graph)?;
        }
        Ok(run)
    }

    /// Fits with each way to choose ranges that may be taken; what loses least on the judges.
    fn choose(&self) -> Result<(Candidate, Judge), Error> {
        let q = self.quantizer;
        let methods = match q.tuning.ranges {
            Some(one) => vec![one],
            None if !self.judges.is_empty() && q.chooses() => METHODS.to_vec(),
            None => vec![METHODS[0]],
        };
        let judge = Judge::new(self)?;
        let mut best: Option<Candidate> = None;
        for ranges in methods {
            let quantized = self.fit(ranges)?;
            let loss = judge.loss(&quantized)?;
            if best.as_ref().is_none_or(|b| loss < b.loss) {
                best = Some(Candidate {
                    quantized,
                    loss,
                    ranges,
                });
            }
        }
        Ok((best.expect("there is a method"), judge))
    }

    fn fit(&self, ranges: Method) -> Result<Quantized, Error> {
        let q = self.quantizer;
        let whole = self.fitted == q.indices;
        let means = if whole { &q.stats } else { &self.means };
        self.fit_to(&q.model.graph, means, ranges)
    }

    fn fit_to(&self, graph: &Graph, means: &Stats, ranges: Method) -> Result<Quantized, Error> {
        let q = self.quantizer;
        let samples = &self.samples;
        let fit = Fit {
            samples,
            mean: &|v| means.mean(v),
            feedback_bits: FEEDBACK_BITS[self.effort],
        };
        let mut step = |done, total| self.progress.step("fit", done, total);
        let failed = |e| match e {
            FitError::Problems(problems) => {
                Error::Nodes(problems.iter().map(ToString::to_string).collect())
            }
            FitError::Eval { sample, error } => Error::Eval {
                sample: self.fitted[sample],
                error,
            },
        };
        quantize_fitted(
            graph,
            &q.stats.ranges(ranges),
            self.formats,
            &fit,
            &mut step,
        )
        .map_err(failed)
    }

    fn means(&self, graph: &Graph) -> Result<Stats, Error> {
        let q = self.quantizer;
        let layers = conv_results(graph);
        let sample = |i: usize| q.model.sample(q.data, self.fitted[i]);
        let step = |done, total| self.progress.step("means", done, total);
        calibrate(
            graph,
            self.fitted.len(),
            sample,
            |v| layers.contains(&v),
            step,
        )
        .map_err(unseen)
    }

    /// Trains the network, where it has few bits and that lowers what it loses.
    fn finetune(&self, start: &Candidate, judge: &Judge) -> Result<Option<Quantized>, Error> {
        let q = self.quantizer;
        let steps = q.tuning.finetune.unwrap_or(STEPS[self.effort]);
        let low = |l: &Layer| l.weights.bits() < 8 || l.activation_bits < 8;
        if !start.quantized.layers.iter().any(low) {
            return Ok(None);
        }
        let how = Finetune {
            steps,
            estimator: q.tuning.estimator,
            loss: q.loss(),
            seed: q.tuning.seed,
        };
        let own = q.samples(&self.own)?;
        let mut step = |done, total| self.progress.step("train", done, total);
        let tuned = finetune(&q.model.graph, &start.quantized, &own, &how, &mut step);
        let tuned = match tuned {
            Ok(tuned) => tuned,
            Err(FinetuneError::Eval { sample, error }) => {
                let sample = self.own[sample];
                return Err(Error::Eval { sample, error });
            }
            Err(e @ FinetuneError::Derive(_)) => {
                self.progress.note(&format!("not trained: {e}"));
                None
            }
        };
        let Some(tuned) = tuned else { return Ok(None) };
        let means = self.means(&tuned.graph)?;
        let mut quantized = self.fit_to(&tuned.graph, &means, start.ranges)?;
        let gain_db = 10.0 * (tuned.before / tuned.after.max(1e-300)).log10();
        for layer in quantized.layers.iter_mut().filter(|l| low(l)) {
            layer.rounding = Rounding::Trained { gain_db };
        }
        let loss = judge.loss(&quantized)?;
        let better = judge.is_empty() || loss < start.loss;
        Ok(better.then_some(quantized))
    }
}

/// Samples with what the float network gives for them.
struct Judge {
    end: ValueId,
    loss: Loss,
    samples: Vec<Vec<Tensor>>,
    targets: Vec<Tensor>,
}

impl Judge {
    fn new(run: &Run) -> Result<Self, Error> {
        let q = run.quantizer;
        let graph = &q.model.graph;
        let (end, loss, plan) = (compared(graph), q.loss(), Plan::new(graph));
        let samples = q.samples(&run.judges)?;
        let one = |(i, inputs): (usize, &Vec<Tensor>)| {
            let mut found = None;
            let see = |_, v: ValueId, t: &Tensor| {
                if v == end {
                    found = Some(target(t, loss));
                }
            };
            eval::run_observed(graph, &plan, inputs, see).map_err(|error| Error::Eval {
                sample: run.judges[i],
                error,
            })?;
            Ok(found.expect("the compared value is computed"))
        };
        let targets: Result<Vec<Tensor>, Error> = samples.par_iter().enumerate().map(one).collect();
        Ok(Self {
            end,
            loss,
            targets: targets?,
            samples,
        })
    }

    fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Mean loss of the integer network.
    fn loss(&self, quantized: &Quantized) -> Result<f64, Error> {
        let graph = &quantized.graph;
        let end = quantized.values.get(&self.end).copied();
        let end = end.unwrap_or(graph.outputs()[0].value);
        let quant = graph.quant_of(end).expect("results are codes");
        let (scale, zero) = (real::value(quant.scale()), quant.zero_point);
        let plan = Plan::new(graph);
        let one = |(i, (inputs, target)): (usize, (&Vec<Tensor>, &Tensor))| {
            let mut found = 0.0;
            let see = |_, v: ValueId, t: &Tensor| {
                if v == end {
                    let x: Vec<f64> = t
                        .to_f64()
                        .iter()
                        .map(|x| scale * (x - f64::from(zero)))
                        .collect();
                    found = self.loss.between(target, &x);
                }
            };
            let codes = encode_sample(graph, inputs);
            eval::run_observed(graph, &plan, &codes, see)
                .map_err(|error| Error::Eval { sample: i, error })?;
            Ok(found)
        };
        let pairs = self.samples.par_iter().zip(&self.targets).enumerate();
        let losses: Result<Vec<f64>, Error> = pairs.map(one).collect();
        let losses = losses?;
        Ok(losses.iter().sum::<f64>() / losses.len().max(1) as f64)
    }
}
