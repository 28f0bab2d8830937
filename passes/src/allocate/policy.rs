//! A policy-gradient search over plans without training, after FLIQS: a softmax over the choices of each group is moved
//! towards plans that measure well.

use super::problem::Problem;
use super::swaps::{Measure, Scored};

/// How the search is run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Search {
    /// Plans that are measured at most.
    pub evaluations: usize,
    /// Seed of the samples.
    pub seed: u64,
}

/// Step of the logits for a reward of one standard deviation.
const RATE: f64 = 0.3;
/// How slowly the average reward follows.
const MEMORY: f64 = 0.9;
/// Lead of the first plan's logits: it is sampled in about nine of ten groups.
const LEAD: f64 = 4.0;
/// Samples that may be drawn for each that keeps the limits.
const TRIES: usize = 200;

/// Samples plans within the limits around `start` and measures them; returns the best.
///
/// # Errors
/// A measurement fails.
pub fn search<E>(
    problem: &Problem,
    start: Scored,
    how: Search,
    measure: Measure<'_, E>,
) -> Result<Scored, E> {
    let mut policy = Policy::around(problem, &problem.picks(&start.choice), how.seed);
    let mut best = start;
    let mut average = -best.score;
    let mut spread = best.score.abs().max(1e-12);
    for _ in 0..how.evaluations {
        let Some(picks) = policy.sample(problem) else {
            break;
        };
        let choice = problem.spread(&picks);
        let score = measure(&choice)?;
        let advantage = -score - average;
        policy.learn(&picks, (advantage / spread).clamp(-3.0, 3.0));
        average = MEMORY * average + (1.0 - MEMORY) * -score;
        spread = (MEMORY * spread + (1.0 - MEMORY) * advantage.abs()).max(1e-12);
        if score < best.score {
            best = Scored { choice, score };
        }
    }
    Ok(best)
}

struct Policy {
    logits: Vec<Vec<f64>>,
    state: u64,
}

impl Policy {
    fn around(problem: &Problem, picks: &[usize], seed: u64) -> Self {
        let lead = |(g, &p): (&super::problem::Group, &usize)| {
            let mut logits = vec![0.0; g.options.len()];
            logits[p] = LEAD + libm::log(g.options.len() as f64);
            logits
        };
        Self {
            logits: problem.groups.iter().zip(picks).map(lead).collect(),
            state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d,
        }
    }

    /// A number from 0 to 1.
    fn uniform(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A plan that keeps the limits; `None` where none was drawn in many tries.
    fn sample(&mut self, problem: &Problem) -> Option<Vec<usize>> {
        (0..TRIES).find_map(|_| {
            let picks: Vec<usize> = (0..self.logits.len()).map(|g| self.draw(g)).collect();
            problem.admits(&picks).then_some(picks)
        })
    }

    /// A choice of a group.
    fn draw(&mut self, group: usize) -> usize {
        let mut u = self.uniform();
        let shares = softmax(&self.logits[group]);
        let taken = shares.iter().position(|s| {
            u -= s;
            u < 0.0
        });
        taken.unwrap_or(shares.len() - 1)
    }

    /// Moves the policy along the gradient of the logarithm of the plan's probability.
    fn learn(&mut self, picks: &[usize], advantage: f64) {
        for (logits, &pick) in self.logits.iter_mut().zip(picks) {
            let shares = softmax(logits);
            for (o, (logit, share)) in logits.iter_mut().zip(shares).enumerate() {
                let chosen = if o == pick { 1.0 } else { 0.0 };
                *logit += RATE * advantage * (chosen - share);
            }
        }
    }
}

fn softmax(logits: &[f64]) -> Vec<f64> {
    let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let all: Vec<f64> = logits.iter().map(|l| libm::exp(l - top)).collect();
    let sum: f64 = all.iter().sum();
    all.into_iter().map(|e| e / sum).collect()
}
