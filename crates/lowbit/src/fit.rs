//! Quantising a model on its data: ranges, rounding and biases, and training where the effort allows it.

pub(crate) mod judged;
mod streams;
mod train;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use lowbit_data::{DataError, Dataset, spread};
use lowbit_ir::eval::{self, Plan};
use lowbit_ir::{Graph, Op, Tensor, ValueId};
use lowbit_num::real;
use lowbit_passes::calibrate::{CalibrateError, Method, Stats, calibrate};
use lowbit_passes::equalize::equalize;
use lowbit_passes::finetune::{Loss, compared, target};
use lowbit_passes::quantize::{
    Fit, FitError, Formats, LayerFormats, Quantized, Ranges, quantize, quantize_fitted,
};
use rayon::prelude::*;

use crate::drop::Held;
use crate::model::Model;
use crate::network::Network;
use crate::object::encode_sample;
use crate::plan::short;
use crate::tuning::{RoundingMethod, Tuning};
use crate::{Cache, Error, Key, Progress, temperature};
use train::Training;

/// Most samples that ranges are taken from.
const RANGE_SAMPLES: usize = 1024;
/// Most samples that layers are fitted on, by effort.
const FIT_SAMPLES: [usize; 4] = [32, 128, 128, 256];
/// Multiply-accumulates of small networks over the samples that layers are fitted on, which may be more then.
const FITTING: usize = 1_000_000_000;
/// Weights of more bits are rounded to the nearest code.
pub(crate) const LOW_BITS: u32 = 6;
/// Weights below so many bits on average get effort 2 where none is given: under every plan for 6 bits.
const LOW: f64 = 5.5;
/// Multiply-accumulates of a fit up to which it is done once for each way to choose ranges, by effort.
const CHEAP: [usize; 4] = [0, 20_000_000_000, 64_000_000_000, usize::MAX];
/// One in so many calibration samples is held out to judge on, from the effort on that chooses.
const HELD_OUT: usize = 4;
/// Calibration samples from which on a large network is fitted once, the judges apart: as plans are compared.
const FEW: usize = HELD_OUT * JUDGES[0];
/// Fewest and most samples to judge on: a divergence is mostly that of a few samples, so that few judges take what
/// suits those.
const JUDGES: [usize; 2] = [16, 256];
/// Multiply-accumulates that judging once may take where that leaves [`ENOUGH`] samples.
const JUDGING: usize = 16_000_000_000;
/// See [`JUDGING`].
const ENOUGH: usize = 64;
/// The ranges that are chosen from where the output is a choice of a class.
const METHODS: [Method; 4] = [
    Method::Mse,
    Method::MinMax,
    Method::Percentile(99.99),
    Method::Kl,
];
/// Where the output is a quantity nothing that was seen is clipped: what is rare in calibration data may be what the
/// network is asked for, as in the detection of anomalies, and no loss on usual samples tells.
const QUANTITY_METHODS: [Method; 1] = [Method::MinMax];

/// Results of all layers before residual and clamp.
fn conv_results(graph: &Graph) -> HashSet<ValueId> {
    let convs = graph.nodes().filter(|(_, n)| matches!(n.op, Op::Conv(_)));
    convs.map(|(_, n)| n.output).collect()
}

/// A model with what was seen of it on calibration samples: quantises it to any formats.
pub(crate) struct Quantizer<'a> {
    pub(crate) model: &'a Model,
    pub(crate) data: &'a Dataset,
    pub(crate) tuning: Tuning,
    /// Calibration samples.
    pub(crate) indices: Vec<usize>,
    /// Samples that accuracy is measured on, once it is.
    pub(crate) held: OnceLock<Held>,
    pub(crate) cache: Cache,
    /// The key of what plans lose, once it is asked for.
    pub(crate) losses: OnceLock<Option<Key>>,
    own: Network,
    /// What networks are compared by.
    loss: Loss,
    /// The last fits that plans were compared by: the plan that wins is not fitted again.
    fits: Mutex<Vec<Fitted>>,
    /// The same function with equalised channels, where there are any to equalise; made when it is asked for.
    equalized: OnceLock<Option<Network>>,
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
        cache: &Cache,
        progress: &dyn Progress,
    ) -> Result<Self, Error> {
        let split: Vec<usize> = data.split().calibrate.clone().collect();
        let indices = spread(&split, RANGE_SAMPLES);
        let graph = (model.graph.clone(), "own");
        let own = Network::new(model, data, &indices, graph, (cache, progress))?;
        let objective = temperature::objective(model, data, cache, progress)?;
        Ok(Self {
            model,
            data,
            tuning,
            indices,
            held: OnceLock::new(),
            cache: cache.clone(),
            losses: OnceLock::new(),
            own,
            loss: compared_by(model, data, objective.temperature()),
            fits: Mutex::default(),
            equalized: OnceLock::new(),
        })
    }

    /// The network with equalised channels, where there are any to equalise.
    fn equalized(&self, progress: &dyn Progress) -> Result<Option<&Network>, Error> {
        if self.equalized.get().is_none() {
            let graph = equalize(&self.own.graph, &|v| self.own.stats.peaks(v));
            let new = |graph| {
                let graph = (graph, "equalized");
                let kept = (&self.cache, progress);
                Network::new(self.model, self.data, &self.indices, graph, kept)
            };
            let found = graph.map(new).transpose()?;
            // whoever was first, it is the same
            let _ = self.equalized.set(found);
        }
        Ok(self.equalized.get().and_then(Option::as_ref))
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
        let effort = self.effort(formats);
        self.quantize_with(formats, effort, &self.trainings(effort), progress)
    }

    /// Quantises the model to formats without training.
    ///
    /// # Errors
    /// As [`Quantizer::quantize`].
    pub(crate) fn untrained(
        &self,
        formats: &Formats,
        progress: &dyn Progress,
    ) -> Result<Quantized, Error> {
        self.quantize_with(formats, self.effort(formats).min(1), &[], progress)
    }

    fn quantize_with(
        &self,
        formats: &Formats,
        effort: usize,
        trainings: &[Training],
        progress: &dyn Progress,
    ) -> Result<Quantized, Error> {
        let once = effort > 0 && self.indices.len() >= FEW && !self.cheap(formats, effort);
        let judges = if once || self.chooses(formats, effort) || !trainings.is_empty() {
            self.judges()
        } else {
            Vec::new()
        };
        let run = Run::new(self, &self.own, formats, effort, judges, progress)?;
        let (run, best, is_trained) = run.best(trainings)?;
        if once || is_trained || run.judges.is_empty() {
            return Ok(best.quantized);
        }
        // what was chosen is fitted again, with the judges among the samples
        Run::new(self, run.network, formats, effort, Vec::new(), progress)?.fit(best.how)
    }

    /// Quantises the model to formats with samples left out, which only choose; with what it loses on them.
    ///
    /// # Errors
    /// As [`Quantizer::quantize`].
    pub(crate) fn apart(
        &self,
        formats: &Formats,
        judges: Vec<usize>,
        progress: &dyn Progress,
    ) -> Result<(Quantized, f64), Error> {
        let effort = self.effort(formats);
        let run = Run::new(self, &self.own, formats, effort, judges, progress)?;
        let (_, best, _) = run.best(&self.trainings(effort))?;
        Ok((best.quantized, best.loss))
    }

    /// Quantises to formats without fitting anything: shapes, formats and kernels are those of [`Quantizer::quantize`].
    ///
    /// # Errors
    /// Nodes that cannot be quantised.
    pub(crate) fn plain(&self, formats: &Formats) -> Result<Quantized, Error> {
        let ranges = self.own.stats.ranges(METHODS[0]);
        let formats = Formats {
            wide_streams: self.tuning.residual_bits == Some(16),
            ..formats.clone()
        };
        quantize(&self.own.graph, &ranges, &formats)
            .map_err(|all| Error::Nodes(all.iter().map(ToString::to_string).collect()))
    }

    /// The formats of all layers in the order of the graph.
    fn by_layer(&self, formats: &Formats) -> Vec<LayerFormats> {
        let graph = &self.model.graph;
        let convs = graph.nodes().filter(|(_, n)| matches!(n.op, Op::Conv(_)));
        convs
            .map(|(_, n)| formats.of(&graph.value(n.output).name))
            .collect()
    }

    /// The effort that was asked for, or the one that the formats need.
    fn effort(&self, formats: &Formats) -> usize {
        let wanted = self.tuning.effort.map(usize::from);
        wanted.unwrap_or_else(|| self.needed(formats)).min(3)
    }

    /// 2 where weights have few bits on average or some layer reads few, else 1.
    fn needed(&self, formats: &Formats) -> usize {
        let graph = &self.model.graph;
        let layers = conv_results(graph).into_iter().map(|v| {
            let weights = graph
                .producer(v)
                .map_or(0, |n| graph.ty(n.inputs[1]).elements());
            (weights as f64, formats.of(&graph.value(v).name))
        });
        let layers: Vec<(f64, LayerFormats)> = layers.collect();
        let all: f64 = layers.iter().map(|l| l.0).sum();
        let bits: f64 = layers
            .iter()
            .map(|(weights, f)| weights * f64::from(f.weight.bits()))
            .sum();
        let narrow = layers.iter().any(|(_, f)| f.activation.bits() < 8);
        if narrow || bits < LOW * all { 2 } else { 1 }
    }

    /// Whether the way to choose ranges is chosen: where a fit is cheap enough to be done once for each.
    fn chooses(&self, formats: &Formats, effort: usize) -> bool {
        self.tuning.ranges.is_none() && self.cheap(formats, effort)
    }

    /// Whether a fit may be done several times.
    fn cheap(&self, formats: &Formats, effort: usize) -> bool {
        self.work(formats, effort) < CHEAP[effort]
    }

    /// Multiply-accumulates of a fit.
    fn work(&self, formats: &Formats, effort: usize) -> usize {
        let samples = self.indices.len().min(FIT_SAMPLES[effort]);
        let work = self.macs().saturating_mul(samples);
        work.saturating_add(self.solving(formats, LOW_BITS))
    }

    /// The ways to choose ranges that may be taken, the first of them without a comparison.
    fn methods(&self) -> Vec<Method> {
        match (self.tuning.ranges, self.loss) {
            (Some(given), _) => vec![given],
            (None, Loss::Square) => QUANTITY_METHODS.to_vec(),
            (None, _) => METHODS.to_vec(),
        }
    }

    /// Multiply-accumulates of error feedback, which factors the covariance of what each channel reads.
    fn solving(&self, formats: &Formats, low_bits: u32) -> usize {
        let graph = &self.model.graph;
        let layer = |v: ValueId| {
            let low = formats.of(&graph.value(v).name).weight.bits() <= low_bits;
            let inputs: usize = graph
                .producer(v)
                .map_or(0, |n| graph.shape(n.inputs[1])[1..].iter().product());
            if low {
                inputs.saturating_pow(3).saturating_mul(4)
            } else {
                0
            }
        };
        conv_results(graph)
            .into_iter()
            .map(layer)
            .fold(0, usize::saturating_add)
    }

    /// Multiply-accumulates of a sample.
    fn macs(&self) -> usize {
        let graph = &self.model.graph;
        let layer = |v: ValueId| {
            let weights = graph.producer(v).map_or(0, |n| {
                let shape = graph.shape(n.inputs[1]);
                shape[1..].iter().product()
            });
            graph.ty(v).elements() * weights
        };
        conv_results(graph).into_iter().map(layer).sum()
    }

    /// Samples to judge on, spread over the calibration split.
    pub(crate) fn judges(&self) -> Vec<usize> {
        self.folds().swap_remove(0)
    }

    /// Disjoint sets of samples to judge on, each spread over the calibration split; the first is the one that all but
    /// plans are judged on.
    fn folds(&self) -> Vec<Vec<usize>> {
        let most = (JUDGING / self.macs().max(1)).clamp(ENOUGH, JUDGES[1]);
        let tune = self.data.split().tune.clone();
        if let Some(range) = tune.filter(|r| !r.is_empty()) {
            return vec![range.take(most).collect()];
        }
        folds(&self.indices, most)
    }

    fn samples(&self, indices: &[usize]) -> Result<Vec<Vec<Tensor>>, Error> {
        let read = |&i: &usize| self.model.sample(self.data, i);
        let samples: Result<_, DataError> = indices.par_iter().map(read).collect();
        Ok(samples?)
    }
}

/// What networks are compared by.
fn compared_by(model: &Model, data: &Dataset, temperature: f64) -> Loss {
    let graph = &model.graph;
    let softmax = compared(graph) != graph.outputs()[0].value;
    if softmax || data.labels().is_some() {
        Loss::Divergence { temperature }
    } else {
        Loss::Square
    }
}

/// Samples of some that layers are fitted on, in a network of so many multiply-accumulates.
pub(crate) fn fitted(own: &[usize], macs: usize, effort: usize) -> Vec<usize> {
    spread(own, FIT_SAMPLES[effort].max(FITTING / macs.max(1)))
}

fn folds(all: &[usize], most: usize) -> Vec<Vec<usize>> {
    let n = (all.len() / HELD_OUT)
        .clamp(JUDGES[0], most)
        .min(all.len() / 2);
    let step = (all.len() / n.max(1)).max(1);
    let from = |first: usize| all.iter().skip(first).step_by(step).copied().take(n);
    (0..step)
        .map(|k| from((step / 2 + k) % step).collect())
        .collect()
}

/// The error of a fit on some samples.
pub(crate) fn failed(e: FitError, fitted: &[usize]) -> Error {
    match e {
        FitError::Problems(problems) => {
            Error::Nodes(problems.iter().map(ToString::to_string).collect())
        }
        FitError::Eval { sample, error } => Error::Eval {
            sample: fitted[sample],
            error,
        },
    }
}

pub(crate) fn unseen(e: CalibrateError<DataError>) -> Error {
    Error::Sample(e.to_string())
}

/// One plan on its way.
struct Run<'a> {
    quantizer: &'a Quantizer<'a>,
    /// What is quantised.
    network: &'a Network,
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
    /// Means of the float network over them, where they are not all that was calibrated on.
    means: Option<Arc<Stats>>,
    progress: &'a dyn Progress,
}

/// A candidate that a plan was compared by, fitted on samples with those left out that judge.
struct Fitted {
    formats: Vec<LayerFormats>,
    samples: Vec<usize>,
    candidate: Candidate,
}

/// How a network is fitted.
#[derive(Clone, Copy, PartialEq)]
struct How {
    ranges: Method,
    /// See [`Fit::low_bits`].
    low_bits: u32,
    /// See [`Formats::wide_streams`].
    wide_streams: bool,
}

impl How {
    /// With what weights of a layer are rounded by default, and the streams that are asked for.
    fn new(ranges: Method, tuning: &Tuning) -> Self {
        Self {
            ranges,
            low_bits: LOW_BITS,
            wide_streams: tuning.residual_bits == Some(16),
        }
    }
}

/// A candidate and what it loses on the judges.
struct Candidate {
    quantized: Quantized,
    loss: f64,
    how: How,
}

impl<'a> Run<'a> {
    fn new(
        q: &'a Quantizer<'a>,
        network: &'a Network,
        formats: &'a Formats,
        effort: usize,
        judges: Vec<usize>,
        progress: &'a dyn Progress,
    ) -> Result<Self, Error> {
        let all = q.indices.iter().copied();
        let own: Vec<usize> = all.filter(|i| !judges.contains(i)).collect();
        let fitted = fitted(&own, q.macs(), effort);
        let mut run = Self {
            quantizer: q,
            network,
            formats,
            effort,
            samples: q.samples(&fitted)?,
            own,
            judges,
            means: None,
            fitted,
            progress,
        };
        if run.fitted != q.indices {
            let see = || run.means(&network.graph);
            run.means = Some(network.part(&run.fitted, progress, see)?);
        }
        Ok(run)
    }

    /// Fits with each way to choose ranges that may be taken; what loses least on the judges.
    fn choose(&self, wide_streams: bool, judge: &Judge) -> Result<Candidate, Error> {
        let q = self.quantizer;
        let mut methods = q.methods();
        if self.judges.is_empty() || !q.chooses(self.formats, self.effort) {
            methods.truncate(1);
        }
        let mut best: Option<Candidate> = None;
        let how = |ranges| How {
            wide_streams,
            ..How::new(ranges, &q.tuning)
        };
        for how in methods.into_iter().map(how) {
            let candidate = match self.known(how) {
                Some(known) => known,
                None => self.judged(how, judge)?,
            };
            if best.as_ref().is_none_or(|b| candidate.loss < b.loss) {
                best = Some(candidate);
            }
        }
        Ok(best.expect("there is a method"))
    }

    /// Fits in one way.
    fn judged(&self, how: How, judge: &Judge) -> Result<Candidate, Error> {
        let quantized = self.fit(how)?;
        let loss = judge.loss(&quantized)?;
        Ok(Candidate {
            quantized,
            loss,
            how,
        })
    }

    /// The fit in one way, where the plan was compared by it.
    fn known(&self, how: How) -> Option<Candidate> {
        let q = self.quantizer;
        if !std::ptr::eq(self.network, &q.own) || self.effort == 0 {
            return None;
        }
        let mut fits = q.fits.lock().unwrap_or_else(PoisonError::into_inner);
        let formats = q.by_layer(self.formats);
        let same = |f: &Fitted| {
            f.candidate.how == how
                && f.samples == self.fitted
                && f.formats == formats
                && self.judges == q.judges()
        };
        let at = fits.iter().position(same)?;
        Some(fits.remove(at).candidate)
    }

    /// Fits, equalises and trains what loses least on the judges; tells whether it is trained.
    fn best(self, trainings: &[Training]) -> Result<(Self, Candidate, bool), Error> {
        let judge = Judge::new(&self)?;
        let asked = self.quantizer.tuning.residual_bits == Some(16);
        let mut best = self.choose(asked, &judge)?;
        let mut run = self;
        if let Some(better) = run.widened(&best, &judge)? {
            best = better;
        }
        if let Some(better) = run.fed(&best, &judge)? {
            best = better;
        }
        if let Some((other, better)) = run.equalized(&best, &judge)? {
            (run, best) = (other, better);
        }
        if let Some(trained) = run.trained(&best, &judge, trainings)? {
            return Ok((run, trained, true));
        }
        Ok((run, best, false))
    }

    fn fit(&self, how: How) -> Result<Quantized, Error> {
        let Network { graph, stats, .. } = self.network;
        let ranges = stats.ranges(how.ranges);
        let mut found = self.fit_to(graph, &|v| self.mean(v), &ranges, (how, true))?;
        let is_own = std::ptr::eq(self.network, &self.quantizer.own);
        found.equalized = (!is_own).then(|| graph.clone());
        Ok(found)
    }

    /// Whether a candidate has 8-bit weights only and other ways to fit them are tried.
    fn tries(&self, best: &Candidate) -> bool {
        let eight = best.quantized.layers.iter().all(|l| l.weights.bits() == 8);
        eight && !self.judges.is_empty() && self.quantizer.chooses(self.formats, self.effort)
    }

    /// What error feedback makes of a candidate of 8-bit weights, where that loses less on the judges.
    fn fed(&self, best: &Candidate, judge: &Judge) -> Result<Option<Candidate>, Error> {
        let q = self.quantizer;
        let how = How {
            low_bits: 8,
            ..best.how
        };
        let feeds = q.tuning.rounding.is_none() && self.effort > 0;
        let work = q.solving(self.formats, how.low_bits);
        if !feeds || !self.tries(best) || work >= CHEAP[self.effort] {
            return Ok(None);
        }
        let found = self.judged(how, judge)?;
        Ok((found.loss < best.loss).then_some(found))
    }

    /// What equalised channels make of a candidate of 8-bit weights, where that loses less on the judges.
    fn equalized(
        &self,
        best: &Candidate,
        judge: &Judge,
    ) -> Result<Option<(Run<'a>, Candidate)>, Error> {
        let (q, progress) = (self.quantizer, self.progress);
        if !self.tries(best) {
            return Ok(None);
        }
        let Some(network) = q.equalized(progress)? else {
            return Ok(None);
        };
        let judges = self.judges.clone();
        let run = Run::new(q, network, self.formats, self.effort, judges, progress)?;
        let found = run.judged(best.how, judge)?;
        if found.loss >= best.loss {
            return Ok(None);
        }
        progress.note(&format!(
            "channels are equalised: on held-out samples the network loses {}, without it {}",
            short(found.loss),
            short(best.loss)
        ));
        Ok(Some((run, found)))
    }

    /// Mean of a layer of the float network over the samples that layers are fitted on.
    fn mean(&self, v: ValueId) -> Vec<f64> {
        self.means.as_deref().unwrap_or(&self.network.stats).mean(v)
    }

    fn fit_to(
        &self,
        graph: &Graph,
        mean: &(dyn Fn(ValueId) -> Vec<f64> + Sync),
        ranges: &dyn Ranges,
        (how, correct): (How, bool),
    ) -> Result<Quantized, Error> {
        let by_effort = match self.effort {
            0 => RoundingMethod::Corrected,
            _ => RoundingMethod::Feedback,
        };
        let method = self.quantizer.tuning.rounding.unwrap_or(by_effort);
        let fit = Fit {
            samples: &self.samples,
            mean,
            solver: method.solver(),
            low_bits: how.low_bits,
            correct: correct && method != RoundingMethod::Nearest,
        };
        let mut step = |done, total| self.progress.step("fit", done, total);
        let formats = Formats {
            wide_streams: how.wide_streams,
            ..self.formats.clone()
        };
        quantize_fitted(graph, ranges, &formats, &fit, &mut step)
            .map_err(|e| failed(e, &self.fitted))
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
        Self::of(run, run.quantizer.loss)
    }

    /// By another loss than the network's own.
    fn of(run: &Run, loss: Loss) -> Result<Self, Error> {
        let q = run.quantizer;
        let graph = &q.model.graph;
        let (end, plan) = (compared(graph), Plan::new(graph));
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

    /// Mean loss of the integer network.
    fn loss(&self, quantized: &Quantized) -> Result<f64, Error> {
        Ok(judged::mean(&self.losses(quantized)?))
    }

    /// What the integer network loses on each sample.
    fn losses(&self, quantized: &Quantized) -> Result<Vec<f64>, Error> {
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
                    found = self.loss.judged(target, &x);
                }
            };
            let codes = encode_sample(graph, inputs);
            eval::run_observed(graph, &plan, &codes, see)
                .map_err(|error| Error::Eval { sample: i, error })?;
            Ok(found)
        };
        let pairs = self.samples.par_iter().zip(&self.targets).enumerate();
        pairs.map(one).collect()
    }
}
