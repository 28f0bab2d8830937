//! A metric of its own for each group of layers, all on the scale of measured loss.

use lowbit_passes::sensitivity::{Group, Metric, by_kind, by_pattern, plan_loss, random_plan_of};
use lowbit_report::{MetricGroup, RankCorrelation};

use super::choose::{Judged, surest};
use super::{Losses, Session};
use crate::Error;

/// How layers are grouped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grouping {
    /// Convolutions, depthwise convolutions, linear layers, attention.
    Kind,
    /// By names and patterns of layers; `*` stands for any characters, the first pattern that takes a layer has it.
    Named(Vec<(String, String)>),
}

/// The name of predictions by groups.
pub(super) const GROUPED: &str = "grouped";
/// Random plans that choose the metric of a group.
const PLANS: usize = 36;

/// What a group is predicted by.
pub(super) struct Chosen {
    group: Group,
    metric: Metric,
    /// Measured loss over predicted.
    scale: f64,
    ranks: Vec<RankCorrelation>,
}

impl Session<'_> {
    /// Groups with the metrics that order random plans of their layers best, all other layers at 8 bits.
    pub(super) fn chosen(&self, all: &[(&str, Losses)]) -> Result<Vec<Chosen>, Error> {
        let groups = match self.options.groups.as_ref() {
            None => return Ok(Vec::new()),
            Some(Grouping::Kind) => by_kind(&self.model.graph, &self.layers),
            Some(Grouping::Named(patterns)) => {
                by_pattern(&self.layers, patterns).map_err(|pattern| {
                    let first = self.layers.first().map_or("", |l| &l.name);
                    Error::Usage(format!(
                        "--group: '{pattern}' takes no layer that another pattern leaves; `lowbit inspect` lists the layers, such as '{first}'"
                    ))
                })?
            }
        };
        groups.into_iter().map(|g| self.choose(g, all)).collect()
    }

    fn choose(&self, group: Group, all: &[(&str, Losses)]) -> Result<Chosen, Error> {
        let (plans, lost) = self.group_plans(&group)?;
        let predicted = all.iter().map(|(m, losses)| {
            let sum = |p: &Vec<usize>| group.layers.iter().map(|&l| losses[l][p[l]]).sum();
            ((*m).to_string(), plans.iter().map(sum).collect())
        });
        let judged = [Judged {
            kind: group.name.clone(),
            predicted: predicted.collect(),
            lost,
        }];
        let metric = surest(&judged, self.options.seed);
        let ranks = self.ranks(&judged);
        let [
            Judged {
                predicted, lost, ..
            },
        ] = judged;
        let own = predicted.iter().find(|(m, _)| *m == metric.name());
        Ok(Chosen {
            scale: scale(&own.expect("every metric predicts").1, &lost),
            group,
            metric,
            ranks,
        })
    }

    /// Random plans of a group and what they lose.
    fn group_plans(&self, group: &Group) -> Result<(Vec<Vec<usize>>, Vec<f64>), Error> {
        let tag = format!("group {:?}", group.layers);
        let plans: Vec<Vec<usize>> = (0..PLANS)
            .map(|i| random_plan_of(&self.layers, &group.layers, i, self.seeded(&tag)))
            .collect();
        let n = self.group_samples(PLANS);
        let key = self.key.clone().with(tag).with(format!("{PLANS} on {n}"));
        let lost = self.kept(&key, PLANS, || {
            let step = |done, total| self.progress.step("random plans", done, total);
            plan_loss(self.study()?, &plans, n, |i| self.sample(i), step)
                .map_err(|e| self.named(e, 0))
        })?;
        Ok((plans, lost))
    }
}

/// The median of what was measured over what was predicted; 1 where nothing was predicted.
fn scale(predicted: &[f64], lost: &[f64]) -> f64 {
    let pairs = predicted.iter().zip(lost);
    let mut ratios: Vec<f64> = pairs
        .filter(|&(&p, &l)| p > 0.0 && l > 0.0)
        .map(|(p, l)| l / p)
        .collect();
    ratios.sort_by(f64::total_cmp);
    ratios.get(ratios.len() / 2).copied().unwrap_or(1.0)
}

/// Every group's losses by its own metric, on one scale.
pub(super) fn combined(all: &[(&str, Losses)], chosen: &[Chosen]) -> Losses {
    let mut losses = vec![Vec::new(); all.first().map_or(0, |(_, l)| l.len())];
    for c in chosen {
        let own = all.iter().find(|(m, _)| *m == c.metric.name());
        let (_, own) = own.expect("every metric predicts");
        for &l in &c.group.layers {
            losses[l] = own[l].iter().map(|x| c.scale * x).collect();
        }
    }
    losses
}

/// What a file says of groups.
pub(super) fn told(session: &Session<'_>, chosen: Vec<Chosen>) -> Vec<MetricGroup> {
    let name = |&l: &usize| session.layers[l].name.clone();
    let group = |c: Chosen| MetricGroup {
        layers: c.group.layers.iter().map(name).collect(),
        name: c.group.name,
        metric: c.metric.name().into(),
        scale: c.scale,
        ranks: c.ranks,
    };
    chosen.into_iter().map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_put_on_the_scale_of_what_was_measured() {
        let lost = [2.0, 4.0, 6.0, 800.0];
        assert_eq!(scale(&[1.0, 2.0, 3.0, 4.0], &lost), 2.0);
        assert_eq!(scale(&[0.0; 4], &lost), 1.0);
        let chosen = |layers: &[usize], metric, scale| Chosen {
            group: Group {
                name: "g".into(),
                layers: layers.to_vec(),
            },
            metric,
            scale,
            ranks: Vec::new(),
        };
        let all = [
            ("kl", vec![vec![1.0], vec![2.0], vec![3.0]]),
            ("lrp", vec![vec![10.0], vec![20.0], vec![30.0]]),
        ];
        let groups = [
            chosen(&[0, 2], Metric::Lrp, 0.1),
            chosen(&[1], Metric::Kl, 1.5),
        ];
        assert_eq!(combined(&all, &groups), [[1.0], [3.0], [3.0]]);
    }
}
