//! Which metric predicts best, by random mixed plans.

use std::ops::Range;

use lowbit_passes::sensitivity::{
    Joint, Metric, PlanKind, bootstrap, gain, plan_loss, random_plan, unseen,
};
use lowbit_report::RankCorrelation;

use super::{LEAST_SAMPLES, Losses, MOST_SAMPLES, MOST_WORK, RESAMPLINGS, Session};
use crate::Error;

/// Fewest and most random plans of each kind that choose between metrics.
const CHOOSING: [usize; 2] = [12, 96];
/// Plans of each kind that are worth measuring for each layer.
const PLANS_PER_LAYER: usize = 2;
/// Multiply-accumulates that all these plans may take where no number of samples is asked for.
const CHOOSING_WORK: usize = 2_000_000_000_000;
/// Standard errors from a value to the end of its 90 % interval.
const ERRORS: f64 = 1.645;
/// Most samples that the plans of a group are measured on.
const GROUP_SAMPLES: usize = 64;
/// What the plans that choose between metrics are drawn for.
const CHOOSE: &str = "choose";
/// What the plans are drawn for that tell how well all metrics predict.
pub(super) const JUDGE: &str = "judge";

/// A kind of plans with what they lose and what they are predicted to lose.
pub(super) struct Judged {
    pub(super) kind: String,
    pub(super) lost: Vec<f64>,
    /// By metric.
    pub(super) predicted: Vec<(String, Vec<f64>)>,
}

impl Judged {
    fn of(&self, metric: Metric) -> &[f64] {
        let own = self.predicted.iter().find(|p| p.0 == metric.name());
        &own.expect("every metric predicts").1
    }
}

/// What sums of losses by layer predict for plans.
pub(super) fn sums(losses: &Losses, plans: &[Vec<usize>]) -> Vec<f64> {
    let sum = |p: &Vec<usize>| p.iter().zip(losses).map(|(&f, row)| row[f]).sum();
    plans.iter().map(sum).collect()
}

/// The metric that orders plans best on average. Since it measures what is asked, divergence of layers alone gives way only
/// to a metric that is better by more than a standard error.
pub(super) fn surest(all: &[Judged], seed: u64) -> Metric {
    let won = |m: Metric| {
        let gains = all.iter().map(|j| {
            let found = gain(j.of(m), j.of(Metric::Kl), &j.lost, RESAMPLINGS, seed);
            (found.value, found.value - found.low)
        });
        // kinds are drawn apart: their errors add as squares
        let (value, square) = gains.fold((0.0, 0.0), |(v, s), (value, below)| {
            (v + value, s + below * below)
        });
        (value, value - libm::sqrt(square) / ERRORS)
    };
    let others = Metric::ALL.iter().copied().filter(|&m| m != Metric::Kl);
    let better = others
        .map(|m| (m, won(m)))
        .filter(|(_, (_, low))| *low > 0.0);
    let best = better.max_by(|a, b| a.1.0.total_cmp(&b.1.0));
    best.map_or(Metric::Kl, |b| b.0)
}

/// Plans that choose, with what they lose.
struct Seen {
    plans: Vec<Vec<usize>>,
    lost: Vec<f64>,
}

fn tag(purpose: &str, kind: PlanKind) -> String {
    format!("{purpose} {}", kind.name())
}

impl Session<'_> {
    /// The metric asked for, or the surest over random plans, with what was found.
    pub(super) fn metric(&self) -> Result<(Metric, Vec<RankCorrelation>), Error> {
        if let Some(metric) = self.options.metric {
            return Ok((metric, Vec::new()));
        }
        let judged = self.chosen_on(&self.all()?)?;
        Ok((surest(&judged, self.options.seed), self.ranks(&judged)))
    }

    /// Random plans of each kind that choose.
    fn choosing(&self) -> usize {
        let each = PlanKind::ALL.len() * LEAST_SAMPLES * self.network().max(1);
        let wanted = (PLANS_PER_LAYER * self.layers.len()).max(32);
        (CHOOSING_WORK / each).clamp(CHOOSING[0], CHOOSING[1].min(wanted))
    }

    /// Multiply-accumulates of an inference.
    fn network(&self) -> usize {
        self.layers.iter().map(|l| l.macs).sum()
    }

    /// What predictions say of `count` random plans of each kind, and what those lose.
    pub(super) fn judged(
        &self,
        purpose: &str,
        count: usize,
        predictions: &[(&str, Losses)],
    ) -> Result<Vec<Judged>, Error> {
        let n = self.affordable(count, MOST_WORK, MOST_SAMPLES);
        let kind = |&kind: &PlanKind| {
            let plans = self.plans(purpose, kind, count);
            let lost = self.lost(purpose, kind, &plans, 0..n)?;
            let predicted = predictions
                .iter()
                .map(|(m, losses)| (String::from(*m), sums(losses, &plans)));
            Ok(Judged {
                kind: kind.name().into(),
                lost,
                predicted: predicted.collect(),
            })
        };
        PlanKind::ALL.iter().map(kind).collect()
    }

    /// What predictions say of the plans that choose, and what those lose: the weighted metric predicts each plan by fits to
    /// what other plans lose.
    pub(super) fn chosen_on(&self, predictions: &[(&str, Losses)]) -> Result<Vec<Judged>, Error> {
        let seen = self.seen()?;
        let unseen = unseen(&self.measured()?.loss, &seen.plans, &seen.lost);
        let count = self.choosing();
        let kind = |(k, kind): (usize, &PlanKind)| {
            let own = k * count..(k + 1) * count;
            let predicted = predictions.iter().map(|(m, losses)| {
                let predicted = match *m == Metric::Joint.name() {
                    true => unseen[own.clone()].to_vec(),
                    false => sums(losses, &seen.plans[own.clone()]),
                };
                (String::from(*m), predicted)
            });
            Judged {
                kind: kind.name().into(),
                predicted: predicted.collect(),
                lost: seen.lost[own.clone()].to_vec(),
            }
        };
        Ok(PlanKind::ALL.iter().enumerate().map(kind).collect())
    }

    /// Rank correlation of predictions with what plans lose.
    pub(super) fn ranks(&self, judged: &[Judged]) -> Vec<RankCorrelation> {
        let kind = |j: &Judged| -> Vec<RankCorrelation> {
            let one = |(metric, predicted): &(String, Vec<f64>)| {
                let found = bootstrap(predicted, &j.lost, RESAMPLINGS, self.options.seed);
                RankCorrelation {
                    metric: metric.clone(),
                    plans: j.kind.clone(),
                    count: j.lost.len(),
                    value: found.value,
                    low: found.low,
                    high: found.high,
                }
            };
            j.predicted.iter().map(one).collect()
        };
        judged.iter().flat_map(kind).collect()
    }

    /// All plans that choose, one kind after another, and what they lose.
    fn seen(&self) -> Result<Seen, Error> {
        let count = self.choosing();
        let n = self.affordable(PlanKind::ALL.len() * count, CHOOSING_WORK, MOST_SAMPLES);
        let mut seen = Seen {
            plans: Vec::new(),
            lost: Vec::new(),
        };
        for &kind in PlanKind::ALL {
            let plans = self.plans(CHOOSE, kind, count);
            seen.lost.extend(self.lost(CHOOSE, kind, &plans, 0..n)?);
            seen.plans.extend(plans);
        }
        Ok(seen)
    }

    /// Losses of layers alone, weighted by what plans lose.
    pub(super) fn joint(&self) -> Result<Losses, Error> {
        let Seen { plans, lost } = self.seen()?;
        Ok(Joint::fit(&self.measured()?.loss, &plans, &lost).losses)
    }

    /// Random plans of a kind, by layer an index into the weight formats; plans of different purposes are drawn apart.
    fn plans(&self, purpose: &str, kind: PlanKind, count: usize) -> Vec<Vec<usize>> {
        let seed = self.seeded(&tag(purpose, kind));
        (0..count)
            .map(|i| random_plan(&self.layers, kind, i, seed))
            .collect()
    }

    /// What plans lose on some samples.
    fn lost(
        &self,
        purpose: &str,
        kind: PlanKind,
        plans: &[Vec<usize>],
        samples: Range<usize>,
    ) -> Result<Vec<f64>, Error> {
        let key = self.key.clone().with(tag(purpose, kind));
        let key = key.with(format!("{} on {samples:?}", plans.len()));
        self.kept(&key, plans.len(), || {
            let step = |done, total| self.progress.step("random plans", done, total);
            let sample = |i| self.sample(samples.start + i);
            plan_loss(self.study()?, plans, samples.len(), sample, step)
                .map_err(|e| self.named(e, samples.start))
        })
    }

    /// Samples that the plans of a group are measured on.
    pub(super) fn group_samples(&self, plans: usize) -> usize {
        self.affordable(plans, MOST_WORK, GROUP_SAMPLES)
    }

    /// The seed of what is drawn for a purpose.
    pub(super) fn seeded(&self, tag: &str) -> u64 {
        tag.bytes().fold(self.options.seed, |h, b| {
            (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    }

    /// Samples that so many plans are measured on: those asked for, or what some work allows.
    fn affordable(&self, plans: usize, work: usize, most: usize) -> usize {
        if self.options.samples.is_some() {
            return self.indices.len();
        }
        let affordable = work / (self.network() * plans).max(1);
        affordable
            .clamp(LEAST_SAMPLES, most)
            .min(self.indices.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plans that lose 0, 1, 2 …, each metric's predictions in that order but for so many neighbours exchanged.
    fn judged(exchanged: impl Fn(Metric) -> usize) -> Judged {
        let lost: Vec<f64> = (0..60).map(f64::from).collect();
        let of = |&m: &Metric| {
            let mut p = lost.clone();
            (0..exchanged(m)).for_each(|i| p.swap(i, 59 - i));
            (m.name().to_string(), p)
        };
        Judged {
            kind: "all".into(),
            predicted: Metric::ALL.iter().map(of).collect(),
            lost,
        }
    }

    #[test]
    fn divergence_gives_way_to_what_is_surely_better() {
        let none = judged(|_| 3);
        assert_eq!(surest(&[none], 1), Metric::Kl);
        let better = judged(|m| match m {
            Metric::Joint => 0,
            Metric::Fisher => 4,
            _ => 12,
        });
        assert_eq!(surest(&[better], 1), Metric::Joint);
        let worse = judged(|m| if m == Metric::Kl { 2 } else { 6 });
        assert_eq!(surest(&[worse], 1), Metric::Kl);
    }
}
