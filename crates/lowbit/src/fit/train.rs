//! Training of a quantised network: how long, in which ways, and which of them is kept.

use std::collections::HashMap;

use lowbit_ir::ValueId;
use lowbit_passes::calibrate::ChosenRanges;
use lowbit_passes::finetune::{BATCH, Finetune, FinetuneError, Tuned, finetune};
use lowbit_passes::quantize::{Layer, Quantized, Ranges, Rounding};

use super::{Candidate, How, Judge, Quantizer, Run, judged};
use crate::Error;
use crate::plan::short;
use crate::tuning::RoundingMethod;

/// Most steps of one training, by effort.
const STEPS: [usize; 4] = [0, 0, 1000, 4000];
/// Multiply-accumulates that one training may take, by effort: large networks are trained for fewer steps.
const WORK: [usize; 4] = [0, 0, 300_000_000_000, 1_500_000_000_000];
/// Fewest steps that are worth a start.
const FEWEST: usize = 32;

/// Steps of training: of each block, then of the whole network.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Training {
    blocks: usize,
    whole: usize,
}

impl Training {
    fn name(&self) -> &'static str {
        match (self.blocks, self.whole) {
            (_, 0) => "blocks",
            (0, _) => "the whole network",
            _ => "blocks, then the whole network",
        }
    }
}

impl Quantizer<'_> {
    /// The ways to train that are tried: what was asked for; or else, from effort 2 on, of one block after another and of
    /// the whole network. Neither is the better one on all networks.
    pub(super) fn trainings(&self, effort: usize) -> Vec<Training> {
        let by_effort = |effort: usize| {
            // a step forwards and two back for each sample
            let step = 3 * BATCH * self.macs().max(1);
            let steps = (WORK[effort] / step).min(STEPS[effort]);
            if effort > 1 { steps.max(FEWEST) } else { 0 }
        };
        let whole = |blocks| Training {
            blocks,
            whole: self.tuning.finetune.unwrap_or_else(|| by_effort(effort)),
        };
        let blocks = Training {
            blocks: by_effort(effort),
            whole: 0,
        };
        let ways = match (self.tuning.rounding, self.tuning.finetune) {
            (Some(RoundingMethod::Blocks), _) => vec![whole(by_effort(effort.max(2)))],
            (None, None) => vec![blocks, whole(0)],
            _ => vec![whole(0)],
        };
        let any = |t: &Training| t.blocks + t.whole > 0;
        ways.into_iter().filter(any).collect()
    }
}

impl Run<'_> {
    /// Trains the network in each of the given ways, where it has few bits; what loses least on the judges, where that
    /// is less than it did. A later way must win by more than the standard error: the whole network is trained to what the
    /// judges lose least at, blocks to much that they do not see.
    pub(super) fn trained(
        &self,
        start: &Candidate,
        judge: &Judge,
        ways: &[Training],
    ) -> Result<Option<Candidate>, Error> {
        let q = self.quantizer;
        let low = |l: &Layer| l.weights.bits() < 8 || l.activation_bits < 8;
        if !start.quantized.layers.iter().any(low) {
            return Ok(None);
        }
        let own = q.samples(&self.own)?;
        let (float, held) = (&self.network.graph, &judge.samples);
        let mut best: Option<(Candidate, Vec<f64>)> = None;
        for way in ways {
            let how = Finetune {
                block_steps: way.blocks,
                steps: way.whole,
                estimator: q.tuning.estimator,
                loss: q.loss,
                seed: q.tuning.seed,
            };
            let mut step = |done, total| self.progress.step("train", done, total);
            let tuned = match finetune(float, &start.quantized, &own, held, &how, &mut step) {
                Ok(Some(tuned)) => tuned,
                Ok(None) => continue,
                Err(FinetuneError::Eval { sample, error }) => {
                    let all = self.own.iter().chain(&self.judges);
                    let sample = all.copied().nth(sample).unwrap_or(sample);
                    return Err(Error::Eval { sample, error });
                }
                Err(e @ FinetuneError::Derive(_)) => {
                    self.progress.note(&format!("not trained: {e}"));
                    return Ok(None);
                }
            };
            let (mut quantized, losses) = self.refit(&tuned, start.how, judge)?;
            let loss = judged::mean(&losses);
            self.progress.note(&format!(
                "training of {}: on held-out samples the network loses {}, before {}",
                way.name(),
                short(loss),
                short(start.loss)
            ));
            let to_beat = match &best {
                Some((best, lost)) => best.loss - judged::standard_error(lost, &losses),
                None => start.loss,
            };
            if loss >= to_beat {
                continue;
            }
            let gain_db = 10.0 * libm::log10(start.loss / loss.max(1e-300));
            for layer in &mut quantized.layers {
                if tuned.layers.contains(&layer.float) {
                    layer.rounding = match way.whole {
                        0 => Rounding::Blocks { gain_db },
                        _ => Rounding::Trained { gain_db },
                    };
                }
            }
            let candidate = Candidate {
                quantized,
                loss,
                how: start.how,
            };
            best = Some((candidate, losses));
        }
        Ok(best.map(|b| b.0))
    }

    /// Quantises a trained network, whose weights lie on their grids already: with its biases as they were trained, or
    /// corrected to the means that it was trained to, whichever loses less on the judges; with what each of them loses.
    fn refit(
        &self,
        tuned: &Tuned,
        how: How,
        judge: &Judge,
    ) -> Result<(Quantized, Vec<f64>), Error> {
        let means = self.means(&tuned.rounded)?;
        let mean = |v: ValueId| match tuned.values.get(&v) {
            Some(&own) => means.mean(own),
            None => self.mean(v),
        };
        let ranges = TrainedRanges {
            trained: &tuned.ranges,
            others: self.network.stats.ranges(how.ranges),
        };
        let one = |correct: bool| {
            let quantized = self.fit_to(&tuned.graph, &mean, &ranges, (how, correct))?;
            let losses = judge.losses(&quantized)?;
            Ok::<_, Error>((quantized, losses))
        };
        let (trained, corrected) = (one(false)?, one(true)?);
        Ok(if judged::mean(&corrected.1) < judged::mean(&trained.1) {
            corrected
        } else {
            trained
        })
    }
}

/// Ranges of a trained network.
struct TrainedRanges<'a> {
    /// Of tensors of fewer than 8 bits.
    trained: &'a HashMap<ValueId, (f64, f64)>,
    others: ChosenRanges<'a>,
}

impl Ranges for TrainedRanges<'_> {
    fn range(&self, value: ValueId, bits: u32) -> (f64, f64) {
        let trained = self.trained.get(&value).filter(|_| bits < 8);
        trained.map_or_else(|| self.others.range(value, bits), |&range| range)
    }

    fn extremes(&self, value: ValueId) -> (f64, f64) {
        self.others.extremes(value)
    }
}
