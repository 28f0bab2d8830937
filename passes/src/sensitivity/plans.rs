//! Random mixed plans and what they lose: what predictions are judged by.

use lowbit_ir::Tensor;

use super::measured::{Given, Rerun, Values};
use super::random::Random;
use super::{Layer, SensitivityError, Study, WEIGHTS, stream};

/// A kind of random plan. Ternary weights are in none: every number of bits has one format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Every layer 2 to 8 bits.
    Any,
    /// Every layer 3 to 8 bits.
    AtLeast3,
    /// Every layer 2 to 8 bits, 4.5 ± 0.15 on average over the weights.
    Average,
}

impl Kind {
    /// Every kind.
    pub const ALL: &'static [Self] = &[Self::Any, Self::AtLeast3, Self::Average];

    /// What a table calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Any => "2–8 bits",
            Self::AtLeast3 => "3–8 bits",
            Self::Average => "average 4.5",
        }
    }
}

/// Formats that plans pick from, as indices into [`WEIGHTS`]: 8, 6, 5, 4, 3, 2 bits.
const PICKED: usize = 6;
/// Bits on average, and how far from it.
const AVERAGE: (f64, f64) = (4.5, 0.15);

/// The `number`-th random plan of a kind: an index into [`WEIGHTS`] for each layer.
pub fn random_plan(layers: &[Layer], kind: Kind, number: usize, seed: u64) -> Vec<usize> {
    let mut random = Random::new(seed, number as u64);
    let formats = if kind == Kind::AtLeast3 {
        PICKED - 1
    } else {
        PICKED
    };
    let mut plan: Vec<usize> = layers.iter().map(|_| random.below(formats)).collect();
    if kind == Kind::Average {
        towards_average(layers, &mut plan, &mut random);
    }
    plan
}

/// The `number`-th random plan of some layers, with 2 to 8 bits each, all others at 8: indices as in [`random_plan`].
pub fn random_plan_of(layers: &[Layer], members: &[usize], number: usize, seed: u64) -> Vec<usize> {
    let mut random = Random::new(seed, number as u64);
    let mut plan = vec![0; layers.len()];
    members.iter().for_each(|&l| plan[l] = random.below(PICKED));
    plan
}

/// Changes random layers, each change one that comes nearer, until the average is met or no change is left in sight.
fn towards_average(layers: &[Layer], plan: &mut [usize], random: &mut Random) {
    let total: usize = layers.iter().map(|l| l.params).sum();
    let bits = |plan: &[usize]| -> f64 {
        let own = plan.iter().zip(layers);
        let sum: f64 = own
            .map(|(&f, l)| f64::from(WEIGHTS[f].bits()) * l.params as f64)
            .sum();
        sum / total as f64
    };
    let distance = |plan: &[usize]| (bits(plan) - AVERAGE.0).abs();
    for _ in 0..100 * plan.len() {
        let before = distance(plan);
        if before <= AVERAGE.1 {
            return;
        }
        let layer = random.below(plan.len());
        let old = std::mem::replace(&mut plan[layer], random.below(PICKED));
        if distance(plan) > before {
            plan[layer] = old;
        }
    }
}

/// Mean losses of plans over `n` samples, every layer's weights rounded as the plan says and all else float.
///
/// # Errors
/// A sample that cannot be read or run.
pub fn plan_loss<E: std::error::Error + Send + 'static>(
    study: &Study<'_>,
    plans: &[Vec<usize>],
    n: usize,
    sample: impl Fn(usize) -> Result<Vec<Tensor>, E> + Sync,
    progress: impl FnMut(usize, usize),
) -> Result<Vec<f64>, SensitivityError<E>> {
    let rerun = Rerun::layers(study);
    let mut sums = vec![0.0; plans.len()];
    let row = |i: usize, inputs: &[Tensor]| one(study, &rerun, plans, i, inputs);
    stream::rows(n, sample, progress, row, |row: Vec<f64>| {
        sums.iter_mut()
            .zip(row)
            .for_each(|(s, x)| *s += x / n as f64);
    })?;
    Ok(sums)
}

fn one<E: std::error::Error>(
    study: &Study<'_>,
    rerun: &Rerun,
    plans: &[Vec<usize>],
    sample: usize,
    inputs: &[Tensor],
) -> Result<Vec<f64>, SensitivityError<E>> {
    let failed = |error| SensitivityError::Eval { sample, error };
    let values = Values::new(study.graph, inputs).map_err(failed)?;
    let float = values.compared(study);
    plans
        .iter()
        .map(|plan| {
            let own = |given| match given {
                Given::Value(_) => None,
                Given::Weights(l) => Some(&study.rounded[l][plan[l]]),
                Given::Bias(l) => Some(&study.biases[l][plan[l]]),
            };
            let other = rerun.run(&values, own).map_err(failed)?;
            Ok(study.objective.loss(&float, &other))
        })
        .collect()
}
