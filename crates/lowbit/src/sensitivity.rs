//! `lowbit sensitivity`: what each layer would lose and cost with each of its formats.

mod choose;
mod grouped;

use std::path::Path;
use std::sync::OnceLock;

use lowbit_data::{DataError, Dataset, spread};
use lowbit_ir::{Def, Tensor};
use lowbit_num::Format;
use lowbit_passes::calibrate::{Method, Stats, calibrate};
use lowbit_passes::loss::Objective;
use lowbit_passes::quantize::{Fit, Solver};
use lowbit_passes::sensitivity::{
    COLUMNS, Curvature, Draws, Effort, FLOATS, Layer, Measured, Metric, SensitivityError, Study,
    Trace, WEIGHTS, fisher, gauss_newton, hessian_losses, hutchinson, layers, lrp, measure,
    worst_error,
};
use lowbit_report::{
    Evidence, HessianTraces, LayerTrace, SensitiveChoice, SensitiveLayer, Sensitivity,
};

use rayon::prelude::*;

pub use grouped::Grouping;

use crate::fit::{LOW_BITS, failed, fitted};
use crate::model::{Model, Shapes};
use crate::tie::Tying;
use crate::{Cache, Error, Key, Progress, temperature};
use choose::JUDGE;
use grouped::{Chosen, GROUPED, combined, told};

/// How sensitivities are found.
#[derive(Clone, Debug)]
pub struct SensitivityOptions {
    /// The metric; where it is not given, the one that orders random mixed plans best on this model.
    pub metric: Option<Metric>,
    /// Groups of layers that each get the metric which orders random plans of the group best; no metric may be given then.
    pub groups: Option<Grouping>,
    /// Samples of the calibration split that everything is measured on; where it is not given, 256, and fewer where
    /// that would take long.
    pub samples: Option<usize>,
    /// Random plans of each kind on which all metrics are judged, beside those that choose between them.
    pub judge: usize,
    /// Standard error that every layer's trace of the Hessian may have, over the trace.
    pub trace_error: f64,
    /// Most gradients that the traces may take, and an eighth as many Hessian-vector products.
    pub probes: usize,
    /// Seed of everything that is drawn.
    pub seed: u64,
    /// Layers that share their formats.
    pub tie: Option<Tying>,
    /// Where results are kept.
    pub cache: Cache,
}

impl Default for SensitivityOptions {
    fn default() -> Self {
        Self {
            metric: None,
            groups: None,
            samples: None,
            judge: 0,
            trace_error: 0.05,
            probes: 2048,
            seed: 1,
            tie: None,
            cache: Cache::default(),
        }
    }
}

/// Losses by layer and column.
type Losses = Vec<Vec<f64>>;

/// Most samples by default.
const MOST_SAMPLES: usize = 256;
/// Fewest samples by default.
const LEAST_SAMPLES: usize = 16;
/// Multiply-accumulates that measuring layers alone, or the plans of one kind that judge metrics, may take by default.
const MOST_WORK: usize = 4_000_000_000_000;
/// Samples between two entries of the cache.
const BLOCK: usize = 32;
/// Resamplings behind an interval.
const RESAMPLINGS: usize = 1000;
/// Directions that a sample's gradients are taken in.
const DRAWS: usize = 2;
/// Bytes of the object for one channel beside its weights: bias and multiplier.
const CHANNEL_BYTES: usize = 8;

/// The sensitivity table of a model, with what speaks for it.
///
/// # Errors
/// Model or data cannot be read or do not fit; a layer gives numbers that are not finite.
pub fn sensitivity(
    model: &Path,
    data: &Path,
    shapes: &Shapes,
    options: &SensitivityOptions,
    progress: &dyn Progress,
) -> Result<Evidence, Error> {
    progress.step("import", 0, 0);
    let model = Model::open(model, shapes)?;
    let data = model.data(data)?;
    let mut found = sensitivity_of(&model, &data, options, progress)?;
    if let Some(tie) = options.tie {
        tie.bind(&mut found.table, &model.graph)?;
    }
    Ok(found)
}

/// The same of a model that is open, without ties.
///
/// # Errors
/// As [`sensitivity`].
pub fn sensitivity_of(
    model: &Model,
    data: &Dataset,
    options: &SensitivityOptions,
    progress: &dyn Progress,
) -> Result<Evidence, Error> {
    Session::new(model, data, options, progress)?.evidence()
}

/// Every weight format with an input of 8 bits, then, where that may be, with one of 4; `shares` are those of
/// [`Study::shares`] for [`FLOATS`].
fn choices(layer: &Layer, losses: &[f64], shares: &[f64], narrow: bool) -> Vec<SensitiveChoice> {
    let input = losses[WEIGHTS.len()];
    let of = |format: Format| WEIGHTS.iter().position(|&w| w == format);
    let floats = FLOATS.iter().zip(shares).map(|(&(float, integer), share)| {
        let at = of(integer).expect("the integers are studied");
        (float, share * losses[at])
    });
    let integers = WEIGHTS.iter().copied().zip(losses.iter().copied());
    let weights: Vec<(Format, f64)> = integers.chain(floats).collect();
    let all = |activation: Format, extra: f64| {
        weights.iter().map(move |&(weight, loss)| SensitiveChoice {
            weight: weight.name().into(),
            activation: activation.name().into(),
            loss: loss + extra,
            weight_bytes: Some(
                (weight.packed_len(layer.params) + CHANNEL_BYTES * layer.channels) as f64,
            ),
            bops: Some(layer.macs as f64 * f64::from(weight.bits() * activation.bits())),
            ..SensitiveChoice::default()
        })
    };
    match narrow {
        true => all(Format::Int8, 0.0)
            .chain(all(Format::Int4, input))
            .collect(),
        false => all(Format::Int8, 0.0).collect(),
    }
}

fn table(
    model: &Model,
    layers: &[Layer],
    losses: &[Vec<f64>],
    shares: &[Vec<f64>],
) -> Vec<SensitiveLayer> {
    let readers = |l: &Layer| layers.iter().filter(|o| o.input == l.input).count();
    let rows = layers.iter().zip(losses).zip(shares);
    let row = |((layer, losses), shares): ((&Layer, &Vec<f64>), &Vec<f64>)| {
        let input = model.graph.value(layer.input);
        let given = matches!(input.def, Def::Input(_));
        SensitiveLayer {
            name: layer.name.clone(),
            params: Some(layer.params as f64),
            tie: None,
            reads: (readers(layer) > 1).then(|| layer.input.to_string()),
            choices: choices(layer, losses, shares, !given),
        }
    };
    rows.map(row).collect()
}

/// The table of a model of which nothing was measured: a format loses as the square of its step, in each weight.
pub(crate) fn unmeasured(model: &Model) -> Sensitivity {
    let layers = layers(&model.graph);
    let loss = |l: &Layer, f: Format| l.params as f64 * libm::exp2(-2.0 * f64::from(f.bits()));
    let columns = WEIGHTS.iter().copied().chain([Format::Int4]);
    let losses = |l: &Layer| columns.clone().map(|f| loss(l, f)).collect();
    let losses: Losses = layers.iter().map(losses).collect();
    let shares = vec![vec![1.0; FLOATS.len()]; layers.len()];
    Sensitivity {
        layers: table(model, &layers, &losses, &shares),
        ..Sensitivity::default()
    }
}

/// Samples by default: as many as keep the work of measuring layers alone within bounds.
fn samples(layers: &[Layer], metric: Option<Metric>) -> usize {
    if matches!(metric, Some(Metric::Hessian | Metric::Fisher | Metric::Lrp)) {
        return MOST_SAMPLES;
    }
    let network: usize = layers.iter().map(|l| l.macs).sum();
    // half of the network again for each layer and column, on average
    let each = network * layers.len() * COLUMNS / 2;
    (MOST_WORK / each.max(1)).clamp(LEAST_SAMPLES, MOST_SAMPLES)
}

/// What gradients say of second derivatives.
struct Curved {
    losses: Losses,
    /// By the weights of each layer.
    traces: Vec<Trace>,
    draws: usize,
}

/// Numbers of the cache for traces, and traces from them.
fn flat(traces: &[Trace]) -> impl Iterator<Item = f64> + '_ {
    traces.iter().flat_map(|t| [t.mean, t.standard_error])
}

fn paired(flat: &[f64]) -> Vec<Trace> {
    let trace = |t: &[f64]| Trace {
        mean: t[0],
        standard_error: t[1],
    };
    flat.chunks_exact(2).map(trace).collect()
}

fn rows(flat: &[f64]) -> Losses {
    flat.chunks(COLUMNS).map(<[f64]>::to_vec).collect()
}

/// A model and the samples that decide.
struct Session<'a> {
    model: &'a Model,
    data: &'a Dataset,
    options: &'a SensitivityOptions,
    progress: &'a dyn Progress,
    indices: Vec<usize>,
    layers: Vec<Layer>,
    objective: Objective,
    study: OnceLock<Study<'a>>,
    curvature: OnceLock<Curvature>,
    key: Key,
}

impl<'a> Session<'a> {
    fn new(
        model: &'a Model,
        data: &'a Dataset,
        options: &'a SensitivityOptions,
        progress: &'a dyn Progress,
    ) -> Result<Self, Error> {
        let split: Vec<usize> = data.split().calibrate.clone().collect();
        let layers = layers(&model.graph);
        let most = options
            .samples
            .unwrap_or_else(|| samples(&layers, options.metric));
        let indices = spread(&split, most);
        let shapes: Vec<_> = model.inputs().into_iter().map(|i| i.shape).collect();
        let key = Key::new("sensitivity")
            .with("error feedback, softened")
            .with(&model.sha256)
            .with(format!("{shapes:?}"))
            .with(data.sha256()?.unwrap_or_default())
            .with(format!("{indices:?}"))
            .with(options.seed.to_string());
        Ok(Self {
            layers,
            objective: temperature::objective(model, data, &options.cache, progress)?,
            study: OnceLock::new(),
            curvature: OnceLock::new(),
            model,
            data,
            options,
            progress,
            indices,
            key,
        })
    }

    fn sample(&self, i: usize) -> Result<Vec<Tensor>, DataError> {
        self.model.sample(self.data, self.indices[i])
    }

    fn label(&self, i: usize) -> Option<usize> {
        let label = *self.data.labels()?.get(self.indices[i])?;
        usize::try_from(label).ok()
    }

    /// The layers at all formats, as they will be compiled: rounded with error feedback, but for metrics that know errors of
    /// weights alone, and with corrected biases. Made when first asked for, since the cache may do without.
    fn study(&self) -> Result<&Study<'a>, Error> {
        if let Some(study) = self.study.get() {
            return Ok(study);
        }
        let step = |done, total| self.progress.step("ranges", done, total);
        let sample = |i| self.sample(i);
        let stats = calibrate(
            &self.model.graph,
            self.indices.len(),
            sample,
            |_| true,
            step,
        )
        .map_err(|e| Error::Sample(e.to_string()))?;
        let ranges = stats.ranges(Method::Mse);
        let mut study = Study::new(&self.model.graph, &ranges, self.objective.clone());
        if self.rounds() {
            self.round(&mut study, &stats)?;
        }
        let step = |done, total| self.progress.step("biases", done, total);
        let corrected = study.correct(self.indices.len(), |i| self.sample(i), step);
        corrected.map_err(|e| self.named(e, 0))?;
        Ok(self.study.get_or_init(|| study))
    }

    /// Whether layers are rounded as they are fitted: not where nothing is measured with rounded weights, since the metric
    /// knows their errors alone.
    fn rounds(&self) -> bool {
        let alone = matches!(self.options.metric, Some(Metric::Hessian | Metric::Fisher));
        !alone || self.options.judge > 0
    }

    /// Calibration samples to round layers on: those that nothing is measured on, since what is fitted to samples flatters
    /// itself on them; where they are few, every other one of all.
    fn apart(&self) -> Vec<usize> {
        let split = self.data.split().calibrate.clone();
        let rest: Vec<usize> = split.filter(|i| !self.indices.contains(i)).collect();
        if rest.len() >= self.indices.len() / 2 {
            return rest;
        }
        self.indices.iter().copied().step_by(2).collect()
    }

    /// Rounds the layers as they are fitted.
    fn round(&self, study: &mut Study<'a>, stats: &Stats) -> Result<(), Error> {
        let macs = self.layers.iter().map(|l| l.macs).sum();
        let indices = fitted(&self.apart(), macs, 1);
        let read = |&i: &usize| self.model.sample(self.data, i);
        let samples: Result<Vec<_>, DataError> = indices.par_iter().map(read).collect();
        let fit = Fit {
            samples: &samples?,
            mean: &|v| stats.mean(v),
            solver: Solver::Feedback,
            low_bits: LOW_BITS,
            correct: true,
        };
        let mut step = |done, total| self.progress.step("round layers", done, total);
        let ranges = stats.ranges(Method::Mse);
        let rounded = study.fit(&ranges, &fit, &mut step);
        rounded.map_err(|e| failed(e, &indices))
    }

    /// Shares of [`Study::shares`].
    fn shares(&self) -> Result<Losses, Error> {
        let key = self.key.clone().with("floats");
        let key = key.with(self.rounds().to_string());
        let flat = self.kept(&key, self.layers.len() * FLOATS.len(), || {
            Ok(self.study()?.shares().concat())
        })?;
        Ok(flat.chunks(FLOATS.len()).map(<[f64]>::to_vec).collect())
    }

    fn table(&self, metric: &str, losses: &Losses) -> Result<Sensitivity, Error> {
        let rows = table(self.model, &self.layers, losses, &self.shares()?);
        Ok(Sensitivity {
            metric: Some(metric.into()),
            layers: rows,
            ..Sensitivity::default()
        })
    }

    /// The table with what speaks for it.
    fn evidence(&self) -> Result<Evidence, Error> {
        if self.options.groups.is_some() {
            return self.by_groups();
        }
        let (metric, mut ranks) = self.metric()?;
        if self.options.judge > 0 {
            ranks = self.ranks(&self.judged(JUDGE, self.options.judge, &self.all()?)?);
        }
        Ok(Evidence {
            table: self.table(metric.name(), &self.losses(metric)?)?,
            ranks,
            groups: Vec::new(),
            temperature: self.temperature(),
            traces: match self.options.metric {
                // choosing has taken the gradients
                None => Some(self.traces(false)?),
                Some(Metric::Hessian) => Some(self.traces(true)?),
                Some(_) => None,
            },
        })
    }

    /// Of the objective, where it is not 1.
    fn temperature(&self) -> Option<f64> {
        let temperature = self.objective.temperature();
        (temperature > 1.0).then_some(temperature)
    }

    /// The table of groups, and how it compares with each metric alone.
    fn by_groups(&self) -> Result<Evidence, Error> {
        let all = self.all()?;
        let chosen: Vec<Chosen> = self.chosen(&all)?;
        let losses = combined(&all, &chosen);
        let mut named: Vec<(&str, Losses)> = all;
        named.push((GROUPED, losses.clone()));
        let ranks = match self.options.judge {
            0 => self.chosen_on(&named)?,
            plans => self.judged(JUDGE, plans, &named)?,
        };
        let ranks = self.ranks(&ranks);
        Ok(Evidence {
            table: self.table(GROUPED, &losses)?,
            ranks,
            groups: told(self, chosen),
            temperature: self.temperature(),
            traces: None,
        })
    }

    /// The losses by every metric.
    fn all(&self) -> Result<Vec<(&'static str, Losses)>, Error> {
        let one = |&m: &Metric| Ok((m.name(), self.losses(m)?));
        Metric::ALL.iter().map(one).collect()
    }

    fn losses(&self, metric: Metric) -> Result<Losses, Error> {
        match metric {
            Metric::Kl => Ok(self.measured()?.loss),
            Metric::Joint => self.joint(),
            Metric::Sqnr => Ok(self.measured()?.noise),
            Metric::Fisher => self.fisher(),
            Metric::Hessian => Ok(self.curved()?.losses),
            Metric::Lrp => self.relevance(),
        }
    }

    fn relevance(&self) -> Result<Losses, Error> {
        let key = self.key.clone().with("relevance");
        let flat = self.kept(&key, self.layers.len() * COLUMNS, || {
            let step = |done, total| self.progress.step("relevance", done, total);
            let found = lrp(self.study()?, self.indices.len(), |i| self.sample(i), step);
            Ok(found.map_err(|e| self.named(e, 0))?.concat())
        })?;
        Ok(rows(&flat))
    }

    fn effort(&self, most: usize) -> Effort {
        Effort {
            error: self.options.trace_error,
            most,
            seed: self.options.seed,
        }
    }

    /// Where the loss bends; found when first asked for.
    fn curvature(&self) -> Result<&Curvature, Error> {
        if let Some(known) = self.curvature.get() {
            return Ok(known);
        }
        let step = |done, total| self.progress.step("curvature", done, total);
        let found = Curvature::new(self.study()?, self.indices.len(), |i| self.sample(i), step);
        let found = found.map_err(|e| self.named(e, 0))?;
        Ok(self.curvature.get_or_init(|| found))
    }

    /// The key of traces that were estimated with some draws.
    fn traced(&self, what: &str, most: usize) -> Key {
        let error = self.options.trace_error;
        self.key.clone().with(what).with(format!("{error} {most}"))
    }

    /// Traces by squared gradients, and what they predict.
    fn curved(&self) -> Result<Curved, Error> {
        let (count, most) = (self.layers.len(), self.options.probes);
        let size = count * COLUMNS;
        let key = self.traced("gauss-newton", most);
        let found = self.kept(&key, size + 2 * count + 1, || {
            let (study, curvature) = (self.study()?, self.curvature()?);
            let step = |done, total| self.progress.step("gradients", done, total);
            let sample = |i| self.sample(i);
            let found = gauss_newton(study, curvature, self.effort(most), sample, step)
                .map_err(|e| self.named(e, 0))?;
            let inputs = found.inputs.iter().copied();
            let errors = curvature.input_errors.iter().copied();
            let inputs: Vec<_> = inputs.zip(errors).collect();
            let losses = hessian_losses(study, &found.weights, &inputs).concat();
            let traces = flat(&found.weights);
            Ok(losses
                .into_iter()
                .chain(traces)
                .chain([found.draws as f64])
                .collect())
        })?;
        Ok(Curved {
            losses: rows(&found[..size]),
            traces: paired(&found[size..size + 2 * count]),
            draws: found[size + 2 * count] as usize,
        })
    }

    /// Every layer's trace by gradients, and by probes too where they are wanted.
    fn traces(&self, probes: bool) -> Result<HessianTraces, Error> {
        let gradients = self.curved()?;
        let layer = |(layer, g): (&Layer, &Trace)| LayerTrace {
            name: layer.name.clone(),
            gradients: g.mean,
            gradients_error: g.standard_error,
            ..LayerTrace::default()
        };
        let mut found = HessianTraces {
            asked_error: self.options.trace_error,
            error: worst_error(&gradients.traces),
            gradients: gradients.draws,
            layers: self
                .layers
                .iter()
                .zip(&gradients.traces)
                .map(layer)
                .collect(),
            ..HessianTraces::default()
        };
        if probes {
            let (traces, count) = self.probed(&gradients.traces)?;
            found.probes = Some(count);
            found.probes_error = Some(worst_error(&traces));
            for (layer, p) in found.layers.iter_mut().zip(traces) {
                layer.probes = Some(p.mean);
                layer.probes_error = Some(p.standard_error);
            }
        }
        Ok(found)
    }

    /// Traces by Hutchinson's probes, and how many there were. `expected` are those by gradients.
    fn probed(&self, expected: &[Trace]) -> Result<(Vec<Trace>, usize), Error> {
        let (count, most) = (self.layers.len(), self.options.probes.div_ceil(8));
        let found = self.kept(&self.traced("hutchinson", most), 2 * count + 1, || {
            let (study, curvature) = (self.study()?, self.curvature()?);
            let step = |done, total| self.progress.step("probes", done, total);
            let known = (curvature, expected);
            let found = hutchinson(study, known, self.effort(most), |i| self.sample(i), step);
            let found = found.map_err(|e| self.named(e, 0))?;
            Ok(flat(&found.layers).chain([found.probes as f64]).collect())
        })?;
        Ok((paired(&found[..2 * count]), found[2 * count] as usize))
    }

    /// Layers measured alone, kept block by block.
    fn measured(&self) -> Result<Measured, Error> {
        let (n, layers) = (self.indices.len(), self.layers.len());
        let mut sum = vec![0.0; 2 * layers * COLUMNS];
        for first in (0..n).step_by(BLOCK) {
            let count = BLOCK.min(n - first);
            let key = self.key.clone().with(format!("measured {first}+{count}"));
            let block = self.kept(&key, sum.len(), || {
                let step = |done, _| self.progress.step("measure layers", first + done, n);
                let sample = |i| self.sample(first + i);
                let found = measure(self.study()?, count, sample, step);
                let found = found.map_err(|e| self.named(e, first))?;
                Ok([found.loss.concat(), found.noise.concat()].concat())
            })?;
            let share = count as f64 / n as f64;
            sum.iter_mut().zip(block).for_each(|(s, x)| *s += share * x);
        }
        Ok(Measured {
            loss: rows(&sum[..layers * COLUMNS]),
            noise: rows(&sum[layers * COLUMNS..]),
        })
    }

    fn fisher(&self) -> Result<Losses, Error> {
        let key = self.key.clone().with("fisher");
        let flat = self.kept(&key, self.layers.len() * COLUMNS, || {
            let step = |done, total| self.progress.step("squared gradients", done, total);
            let (sample, label) = (|i| self.sample(i), |i| self.label(i));
            let draws = Draws {
                count: DRAWS,
                seed: self.options.seed,
            };
            let found = fisher(
                self.study()?,
                self.indices.len(),
                sample,
                label,
                draws,
                step,
            );
            Ok(found.map_err(|e| self.named(e, 0))?.concat())
        })?;
        Ok(rows(&flat))
    }

    /// `len` numbers from the cache, or made.
    fn kept(
        &self,
        key: &Key,
        len: usize,
        make: impl FnOnce() -> Result<Vec<f64>, Error>,
    ) -> Result<Vec<f64>, Error> {
        let encode = |x: Vec<f64>| x.iter().flat_map(|x| x.to_le_bytes()).collect();
        let bytes = self
            .options
            .cache
            .get_or(key, self.progress, || make().map(encode))?;
        let numbers: Vec<f64> = bytes
            .chunks_exact(8)
            .map(|b| f64::from_le_bytes(b.try_into().expect("eight bytes")))
            .collect();
        match numbers.len() == len {
            true => Ok(numbers),
            false => Err(Error::Other(
                "an entry of the cache does not fit; --no-cache makes it anew".into(),
            )),
        }
    }

    /// An error that names the sample by its place in the data; `first` is the place of the block's first sample.
    fn named(&self, e: SensitivityError<DataError>, first: usize) -> Error {
        match e {
            SensitivityError::Sample(e) => e.into(),
            SensitivityError::Eval { sample, error } => Error::Eval {
                sample: self.indices[first + sample],
                error,
            },
            SensitivityError::NotFinite {
                layer,
                sample,
                what,
                found,
            } => Error::Sample(
                SensitivityError::<DataError>::NotFinite {
                    layer,
                    sample: self.indices[first + sample],
                    what,
                    found,
                }
                .to_string(),
            ),
            other @ SensitivityError::Derive(_) => Error::Sample(other.to_string()),
        }
    }
}
