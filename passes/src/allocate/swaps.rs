//! Greedy swaps: what a sum of losses cannot know is measured, one exchange after another.

use std::collections::HashSet;

use super::problem::Problem;

/// A plan with its measured loss.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// Index of the choice of each layer.
    pub choice: Vec<usize>,
    /// Measured loss; less is better.
    pub score: f64,
}

/// Measures a plan.
pub(crate) type Measure<'a, E> = &'a mut dyn FnMut(&[usize]) -> Result<f64, E>;

/// Tries changes of one group, and exchanges between two, that keep every limit, those of least predicted loss first;
/// takes each that measures better and goes on from there. Ends after `evaluations`, or when nothing is left to try.
///
/// # Errors
/// A measurement fails.
pub fn swaps<E>(
    problem: &Problem,
    start: Scored,
    evaluations: usize,
    measure: Measure<'_, E>,
) -> Result<Scored, E> {
    let mut best = start;
    let mut seen = HashSet::from([best.choice.clone()]);
    let mut left = evaluations;
    'better: while left > 0 {
        let picks = problem.picks(&best.choice);
        for candidate in neighbours(problem, &picks) {
            let choice = problem.spread(&candidate);
            if !seen.insert(choice.clone()) {
                continue;
            }
            if left == 0 {
                break 'better;
            }
            left -= 1;
            let score = measure(&choice)?;
            if score < best.score {
                best = Scored { choice, score };
                continue 'better;
            }
        }
        break;
    }
    Ok(best)
}

/// How many groups' changes are combined to exchanges.
const PAIRED: usize = 24;

/// Plans one change or one exchange away within the limits, least predicted loss first.
fn neighbours(problem: &Problem, picks: &[usize]) -> Vec<Vec<usize>> {
    let single = |g: usize, o: usize| {
        let mut new = picks.to_vec();
        new[g] = o;
        new
    };
    let moves = || {
        let options = |g: usize| (0..problem.groups[g].options.len()).map(move |o| (g, o));
        let all = (0..picks.len()).flat_map(options);
        all.filter(|&(g, o)| o != picks[g])
    };
    let delta = |&(g, o): &(usize, usize)| {
        let options = &problem.groups[g].options;
        options[o].loss - options[picks[g]].loss
    };
    let mut gains: Vec<(usize, usize)> = moves().filter(|m| delta(m) < 0.0).collect();
    let mut losses: Vec<(usize, usize)> = moves().filter(|m| delta(m) >= 0.0).collect();
    gains.sort_by(|a, b| delta(a).total_cmp(&delta(b)));
    losses.sort_by(|a, b| delta(a).total_cmp(&delta(b)));
    gains.truncate(PAIRED);
    losses.truncate(4 * PAIRED);
    let mut plans: Vec<Vec<usize>> = moves().map(|(g, o)| single(g, o)).collect();
    for &(g, o) in &gains {
        for &(h, p) in losses.iter().filter(|l| l.0 != g) {
            let mut new = single(g, o);
            new[h] = p;
            plans.push(new);
        }
    }
    plans.retain(|p| problem.admits(p) && spends(problem, picks, p));
    plans.sort_by(|a, b| problem.loss(a).total_cmp(&problem.loss(b)));
    plans
}

/// Whether a plan spends more of some budget, or is predicted to lose less: others cannot be expected to measure better.
fn spends(problem: &Problem, old: &[usize], new: &[usize]) -> bool {
    let costs = problem.costs(old).into_iter().zip(problem.costs(new));
    problem.loss(new) < problem.loss(old) || costs.into_iter().any(|(a, b)| b > a) || {
        problem.rows.is_empty()
    }
}
