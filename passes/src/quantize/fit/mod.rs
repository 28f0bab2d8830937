//! Fitting layers to the float network, one after another in the quantised network.
//!
//! Each layer is rounded and given its bias on the codes that it will really read: those of calibration samples that
//! have passed all layers before it. So it also makes up for what those err.

mod adaround;
pub(crate) mod alone;
mod bias;
mod feed;
mod feedback;
mod moments;

use lowbit_ir::eval::EvalError;
use lowbit_ir::ops::{Codes, Conv, Epilogue, IntConv};
use lowbit_ir::{Node, Op, Tensor, ValueId};
use lowbit_num::Format;
use rayon::prelude::*;

use super::conv::Draft;
use super::{Affine, Builder, Coded, Problem, Stop};
use alone::Rounded;
pub(crate) use feed::Feed;
use feedback::{Channel, Factor};
use moments::{Moments, Stride};

/// What layers are fitted on.
pub struct Fit<'a> {
    /// Real inputs of the graph, sample by sample.
    pub samples: &'a [Vec<Tensor>],
    /// Mean of a tensor of the float graph by channel over the same samples.
    pub mean: &'a (dyn Fn(ValueId) -> Vec<f64> + Sync),
    /// How weights of at most `low_bits` bits are rounded; wider ones are rounded to the nearest code.
    pub solver: Solver,
    /// See [`Fit::solver`].
    pub low_bits: u32,
    /// Whether biases make up for what rounding does to the mean of each channel.
    pub correct: bool,
}

/// How the codes of a layer are found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Solver {
    /// Each weight by itself.
    Nearest,
    /// One weight after another, each making up for those before it.
    Feedback,
    /// Up or down for all weights of a channel together, by gradient descent.
    AdaRound,
}

/// Why a network could not be fitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FitError {
    /// Nodes that cannot be quantised.
    #[error("{} nodes cannot be quantised", .0.len())]
    Problems(Vec<Problem>),
    /// The integer graph failed on a sample.
    #[error("sample {sample}: {error}")]
    Eval {
        /// Index of the sample.
        sample: usize,
        /// What failed.
        error: EvalError,
    },
}

/// How the weights of a layer were rounded.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub enum Rounding {
    /// Each to the nearest code.
    #[default]
    Nearest,
    /// With error feedback.
    Feedback {
        /// What it won over the nearest codes: error of the layer's output on samples that it was not fitted on, in
        /// decibels.
        gain_db: f64,
    },
    /// Up or down by gradient descent.
    AdaRound {
        /// As for error feedback.
        gain_db: f64,
    },
    /// By training one stretch of the network after another.
    Blocks {
        /// As for training.
        gain_db: f64,
    },
    /// By training the whole network.
    Trained {
        /// What it won: loss of the network on samples that it was not trained on, in decibels.
        gain_db: f64,
    },
}

impl Rounding {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nearest => "nearest",
            Self::Feedback { .. } => "error feedback",
            Self::AdaRound { .. } => "adaround",
            Self::Blocks { .. } => "block reconstruction",
            Self::Trained { .. } => "training",
        }
    }

    /// What it won, in decibels.
    pub fn gain_db(self) -> Option<f64> {
        match self {
            Self::Nearest => None,
            Self::Feedback { gain_db }
            | Self::AdaRound { gain_db }
            | Self::Blocks { gain_db }
            | Self::Trained { gain_db } => Some(gain_db),
        }
    }
}

/// Damping of the covariance, as a share of the mean of its diagonal; what errs least on samples held out is taken.
const DAMPINGS: [f64; 3] = [0.01, 0.1, 1.0];
/// Every so many samples one is held out.
const HELD_OUT: usize = 4;

/// A layer is rounded with error feedback where there is at least one row for so many weights of a channel: fewer say
/// next to nothing about which errors cancel.
const WEIGHTS_PER_ROW: usize = 4;

/// Rows of second moments that are worth gathering for `k` weights a channel.
fn enough_rows(k: usize) -> usize {
    (16 * k).max(4096)
}

impl Builder<'_> {
    /// The samples of a fit before the first node.
    pub(super) fn feed(&self, fit: &Fit) -> Feed {
        let inputs = self
            .float
            .inputs()
            .iter()
            .map(|v| self.coded.get(v).copied().flatten());
        let inputs: Vec<Option<Coded>> = inputs.collect();
        let codes = |sample: &Vec<Tensor>| inputs.iter().zip(sample).filter_map(encode).collect();
        let live = fit.samples.par_iter().map(codes).collect();
        Feed::new(self.float, &self.fusion, live)
    }

    /// Rounds a layer again and corrects its bias, where there are samples to fit it on.
    pub(super) fn fit_layer(
        &mut self,
        draft: &mut Draft,
        node: &Node,
        x: Coded,
        weights: &[f64],
        y: Affine,
    ) -> Result<(), Stop> {
        let (Some(fit), Some(feed), Op::Conv(op)) = (self.fit, &mut self.feed, &node.op) else {
            return Ok(());
        };
        feed.advance(&self.out)
            .map_err(|e| Stop::Problem(e.to_string()))?;
        let shape = self.float.shape(node.inputs[1]);
        let geometry = geometry(op, x.affine, draft.format);
        let samples = feed.codes(x.id);
        let weights_per_channel = shape[1..].iter().product::<usize>();
        let rows = positions(&geometry, &samples, shape);
        let solved = fit.solver != Solver::Nearest
            && draft.format.bits() <= fit.low_bits
            && weights_per_channel <= WEIGHTS_PER_ROW * rows;
        let studied = self.alone.is_some()
            && weights_per_channel <= WEIGHTS_PER_ROW * rows
            && weights_per_channel <= alone::WIDEST;
        let [mut fitted, mut held] = gather(&geometry, &samples, shape, solved || studied);
        let layer = |format: Format| Layer {
            solver: fit.solver,
            weights,
            k: weights_per_channel,
            groups: op.groups,
            format,
        };
        if solved {
            layer(draft.format).round(draft, &mut fitted, &mut held, y);
        }
        if let Some(alone) = &mut self.alone {
            let one = |&format: &Format| {
                let mut own = Draft::nearest(weights, format, draft.bias.clone(), [x.affine, y]);
                let layer = layer(own.format);
                if studied && format.bits() <= fit.low_bits {
                    layer.round(&mut own, &mut fitted, &mut held, y);
                }
                let judge = studied.then(|| layer.covariances(&mut held));
                let error = judge.map(|c| layer.error(&layer.nearest(&own), &c));
                Rounded {
                    weights: own.real(),
                    error,
                }
            };
            let found = alone.formats.iter().map(one).collect();
            alone.found.insert(node.output, found);
        }
        if !fit.correct {
            return Ok(());
        }
        let moments = fitted.merge(held);
        let means = bias::means(&moments, &draft.codes, op.groups, x.affine.zero_point);
        for (o, (mean, wanted)) in means.into_iter().zip((fit.mean)(node.output)).enumerate() {
            draft.bias[o] = wanted - draft.accumulator(o) * mean;
        }
        Ok(())
    }
}

fn encode((coded, x): (&Option<Coded>, &Tensor)) -> Option<(ValueId, Tensor)> {
    let coded = (*coded)?;
    let codes = x.to_f64().into_iter().map(|x| coded.affine.encode(x) as u8);
    Some((coded.id, Tensor::new(x.shape(), codes.collect())))
}

fn geometry(op: &Conv, x: Affine, weights: Format) -> IntConv {
    IntConv {
        stride: op.stride,
        dilation: op.dilation,
        pad: op.pad,
        groups: op.groups,
        pad_code: x.zero_point as u8,
        weights,
        epilogue: Epilogue::Accumulator,
        out: Codes::I32,
    }
}

/// Positions of a layer's output in all samples.
fn positions(op: &IntConv, samples: &[&Tensor], shape: &[usize]) -> usize {
    let of = |x: &Tensor| {
        let size = op.output_size([x.shape()[1], x.shape()[2]], [shape[1], shape[2]]);
        x.shape()[0] * size.map_or(1, |[h, w]| h * w)
    };
    samples.first().map_or(0, |x| samples.len() * of(x))
}

/// Moments over the samples to fit on and over those held out.
fn gather(op: &IntConv, samples: &[&Tensor], shape: &[usize], second: bool) -> [Moments; 2] {
    let kernel = [shape[1], shape[2]];
    let channels = shape[3] * op.groups;
    let empty =
        || [(); 2].map(|()| Moments::new(kernel[0] * kernel[1], channels, op.groups, second));
    let rows = enough_rows(kernel[0] * kernel[1] * shape[3]);
    let step = (positions(op, samples, shape) / rows).max(1) * usize::from(second);
    samples
        .par_iter()
        .enumerate()
        .fold(empty, |mut moments, (i, x)| {
            let part = usize::from(i % HELD_OUT == HELD_OUT - 1);
            moments[part].add(op, x, kernel, Stride { start: i, step });
            moments
        })
        .reduce(empty, |[a, b], [c, d]| [a.merge(c), b.merge(d)])
}

/// The weights of a layer that are to be rounded.
struct Layer<'a> {
    solver: Solver,
    weights: &'a [f64],
    /// Weights of a channel.
    k: usize,
    groups: usize,
    format: Format,
}

impl Layer<'_> {
    fn round(&self, draft: &mut Draft, fitted: &mut Moments, held: &mut Moments, y: Affine) {
        let nearest = self.nearest(draft);
        let (fit, judge) = (self.covariances(fitted), self.covariances(held));
        let limit = |o: usize, s: f64| draft.admitted(s, o, y);
        let mut best = (self.error(&nearest, &judge), None);
        let plain = best.0;
        for damping in DAMPINGS {
            let error = self.error(&self.solve(&fit, damping, draft, &limit), &judge);
            if error < best.0 {
                best = (error, Some(damping));
            }
        }
        let Some(damping) = best.1 else { return };
        let share = |m: &Moments| m.rows() as f64 / (fitted.rows() + held.rows()) as f64;
        let (a, b) = (share(fitted), share(held));
        let mix =
            |(f, j): (&Vec<f64>, &Vec<f64>)| f.iter().zip(j).map(|(f, j)| a * f + b * j).collect();
        let all: Vec<Vec<f64>> = fit.iter().zip(&judge).map(mix).collect();
        let channels = self.solve(&all, damping, draft, &limit);
        let gain_db = 10.0 * libm::log10(plain / best.0.max(1e-300));
        draft.replace(channels.into_iter().map(|c| (c.codes, c.scale)).collect());
        draft.rounding = match self.solver {
            Solver::AdaRound => Rounding::AdaRound { gain_db },
            _ => Rounding::Feedback { gain_db },
        };
    }

    fn covariances(&self, moments: &mut Moments) -> Vec<Vec<f64>> {
        (0..self.groups).map(|g| moments.covariance(g)).collect()
    }

    /// The channels of a draft.
    fn nearest(&self, draft: &Draft) -> Vec<Channel> {
        let rows = draft.codes.chunks_exact(self.k).zip(&draft.weight_scale);
        rows.map(|(codes, &scale)| Channel {
            codes: codes.to_vec(),
            scale,
        })
        .collect()
    }

    fn solve(
        &self,
        covariances: &[Vec<f64>],
        damping: f64,
        draft: &Draft,
        admitted: &(dyn Fn(usize, f64) -> f64 + Sync),
    ) -> Vec<Channel> {
        let scales = &draft.weight_scale;
        let per_group = scales.len() / self.groups;
        let group = |(g, c): (usize, &Vec<f64>)| {
            let first = g * per_group;
            let factor = Factor::new(c, self.k, damping);
            let rows = &self.weights[first * self.k..][..per_group * self.k];
            let (scales, limit) = (&scales[first..][..per_group], |o, s| admitted(first + o, s));
            match self.solver {
                Solver::AdaRound => adaround::round(rows, scales, self.format, &factor.covariance),
                _ => feedback::round(rows, scales, self.format, &factor, &limit),
            }
        };
        covariances
            .par_iter()
            .enumerate()
            .flat_map_iter(group)
            .collect()
    }

    /// Error of the layer's output, summed over channels.
    fn error(&self, channels: &[Channel], covariances: &[Vec<f64>]) -> f64 {
        let per_group = channels.len() / self.groups;
        let one = |(o, channel): (usize, &Channel)| {
            let row = &self.weights[o * self.k..][..self.k];
            channel.error(row, &covariances[o / per_group])
        };
        let errors: Vec<f64> = channels.par_iter().enumerate().map(one).collect();
        errors.iter().sum()
    }
}
