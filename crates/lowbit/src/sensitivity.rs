//! `lowbit sensitivity`: what each layer would lose and cost with each of its formats.

use std::path::Path;
use std::sync::OnceLock;

use lowbit_data::{DataError, Dataset};
use lowbit_ir::{Def, Tensor};
use lowbit_num::Format;
use lowbit_passes::calibrate::{Method, calibrate};
use lowbit_passes::sensitivity::{
    COLUMNS, Draws, Gradients, Layer, Measured, Metric, SensitivityError, Study, WEIGHTS,
    hessian_losses, layers, measure,
};
use lowbit_report::{SensitiveChoice, SensitiveLayer, Sensitivity};

use crate::model::{Model, Shapes};
use crate::{Cache, Error, Key, Progress};

/// How sensitivities are found.
#[derive(Clone, Debug)]
pub struct SensitivityOptions {
    /// The metric.
    pub metric: Metric,
    /// Most samples of the calibration split.
    pub samples: usize,
    /// Seed of everything that is drawn.
    pub seed: u64,
    /// Where results are kept.
    pub cache: Cache,
}

impl Default for SensitivityOptions {
    fn default() -> Self {
        Self {
            metric: Metric::Kl,
            samples: 128,
            seed: 1,
            cache: Cache::default(),
        }
    }
}

/// Losses by layer and column.
type Losses = Vec<Vec<f64>>;

/// Samples between two entries of the cache.
const BLOCK: usize = 32;
/// Directions that a sample's gradients are taken in.
const DRAWS: usize = 2;
/// Bytes of the object for one channel beside its weights: bias and multiplier.
const CHANNEL_BYTES: usize = 8;

/// The sensitivity table of a model.
///
/// # Errors
/// Model or data cannot be read or do not fit; a layer gives numbers that are not finite.
pub fn sensitivity(
    model: &Path,
    data: &Path,
    shapes: &Shapes,
    options: &SensitivityOptions,
    progress: &dyn Progress,
) -> Result<Sensitivity, Error> {
    progress.step("import", 0, 0);
    let model = Model::open(model, shapes)?;
    let data = model.data(data)?;
    sensitivity_of(&model, &data, options, progress)
}

/// [`sensitivity`] of a model that is open.
///
/// # Errors
/// As [`sensitivity`].
pub fn sensitivity_of(
    model: &Model,
    data: &Dataset,
    options: &SensitivityOptions,
    progress: &dyn Progress,
) -> Result<Sensitivity, Error> {
    let session = Session::new(model, data, options, progress)?;
    let losses = session.losses(options.metric)?;
    let readers = |l: &Layer| session.layers.iter().filter(|o| o.input == l.input).count();
    let rows = session.layers.iter().zip(&losses);
    Ok(Sensitivity {
        metric: Some(options.metric.name().into()),
        layers: rows
            .map(|(layer, losses)| {
                let input = model.graph.value(layer.input);
                let given = matches!(input.def, Def::Input(_));
                SensitiveLayer {
                    name: layer.name.clone(),
                    params: Some(layer.params as f64),
                    tie: None,
                    reads: (readers(layer) > 1).then(|| layer.input.to_string()),
                    choices: choices(layer, losses, !given),
                }
            })
            .collect(),
    })
}

/// Every weight format with an input of 8 bits, then, where that may be, with one of 4.
fn choices(layer: &Layer, losses: &[f64], narrow: bool) -> Vec<SensitiveChoice> {
    let input = losses[WEIGHTS.len()];
    let all = |activation: Format, extra: f64| {
        WEIGHTS
            .iter()
            .zip(losses)
            .map(move |(&weight, loss)| SensitiveChoice {
                weight: weight.name().into(),
                activation: activation.name().into(),
                loss: loss + extra,
                weight_bytes: Some(
                    (weight.packed_len(layer.params) + CHANNEL_BYTES * layer.channels) as f64,
                ),
                bops: Some(layer.macs as f64 * f64::from(weight.bits() * activation.bits())),
                latency_us: None,
                object_bytes: None,
            })
    };
    match narrow {
        true => all(Format::Int8, 0.0)
            .chain(all(Format::Int4, input))
            .collect(),
        false => all(Format::Int8, 0.0).collect(),
    }
}

/// A model and the samples that decide.
struct Session<'a> {
    model: &'a Model,
    data: &'a Dataset,
    options: &'a SensitivityOptions,
    progress: &'a dyn Progress,
    indices: Vec<usize>,
    layers: Vec<Layer>,
    study: OnceLock<Study<'a>>,
    key: Key,
}

impl<'a> Session<'a> {
    fn new(
        model: &'a Model,
        data: &'a Dataset,
        options: &'a SensitivityOptions,
        progress: &'a dyn Progress,
    ) -> Result<Self, Error> {
        let split = data.split().calibrate.clone();
        let indices: Vec<usize> = split.take(options.samples).collect();
        let shapes: Vec<_> = model.inputs().into_iter().map(|i| i.shape).collect();
        let key = Key::new("sensitivity")
            .with(&model.sha256)
            .with(format!("{shapes:?}"))
            .with(data.sha256()?.unwrap_or_default())
            .with(format!("{indices:?}"))
            .with(options.seed.to_string());
        Ok(Self {
            layers: layers(&model.graph),
            study: OnceLock::new(),
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

    /// The layers at all formats; made when first asked for, since the cache may do without.
    fn study(&self) -> Result<&Study<'a>, Error> {
        if let Some(study) = self.study.get() {
            return Ok(study);
        }
        let read: std::collections::HashSet<_> = self.layers.iter().map(|l| l.input).collect();
        let step = |done, total| self.progress.step("ranges", done, total);
        let sample = |i| self.sample(i);
        let stats = calibrate(
            &self.model.graph,
            self.indices.len(),
            sample,
            |v| read.contains(&v),
            step,
        )
        .map_err(|e| Error::Sample(e.to_string()))?;
        let ranges = stats.ranges(Method::Mse);
        let study = Study::new(&self.model.graph, &ranges, self.data.labels().is_some());
        Ok(self.study.get_or_init(|| study))
    }

    fn losses(&self, metric: Metric) -> Result<Losses, Error> {
        match metric {
            Metric::Kl => Ok(self.measured()?.loss),
            Metric::Sqnr => Ok(self.measured()?.noise),
            Metric::Fisher => Ok(self.gradients()?[0].clone()),
            Metric::Hessian => Ok(self.gradients()?[1].clone()),
        }
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
        let rows = |flat: &[f64]| flat.chunks(COLUMNS).map(<[f64]>::to_vec).collect();
        Ok(Measured {
            loss: rows(&sum[..layers * COLUMNS]),
            noise: rows(&sum[layers * COLUMNS..]),
        })
    }

    /// Losses by Fisher information and by the trace of the Gauss-Newton matrix.
    fn gradients(&self) -> Result<[Losses; 2], Error> {
        let size = self.layers.len() * COLUMNS;
        let flat = self.kept(&self.key.clone().with("gradients"), 2 * size, || {
            let study = self.study()?;
            let step = |done, total| self.progress.step("gradients", done, total);
            let (sample, label) = (|i| self.sample(i), |i| self.label(i));
            let draws = Draws {
                count: DRAWS,
                seed: self.options.seed,
            };
            let found = Gradients::new(study, self.indices.len(), sample, label, draws, step)
                .map_err(|e| self.named(e, 0))?;
            let inputs = found
                .inputs
                .iter()
                .copied()
                .zip(found.input_errors.iter().copied());
            let inputs: Vec<_> = inputs.collect();
            let hessian = hessian_losses(study, &found.weights, &inputs);
            Ok([found.fisher.concat(), hessian.concat()].concat())
        })?;
        let rows = |flat: &[f64]| flat.chunks(COLUMNS).map(<[f64]>::to_vec).collect();
        Ok([rows(&flat[..size]), rows(&flat[size..])])
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
