//! Losses of layers alone, weighted so that their sums are what random mixed plans lose as a whole.
//!
//! Layers do not add up: what one errs is damped or amplified by what others err. Each layer has two factors, for wide and
//! for narrow weights, that are fitted in logarithms with a ridge towards 1 (Levenberg-Marquardt). How strong it is the plans
//! say themselves, by cross-validation: many layers of like kind leave much to be fitted, a few that are odd little.

use super::WEIGHTS;

/// Shares of the ridge in the mean squared error that are tried.
const RIDGES: [f64; 3] = [0.01, 0.05, 0.2];
/// Most steps of the fit.
const STEPS: usize = 60;
/// Weights of at most so many bits have the other factor.
const NARROW: u32 = 2;
/// Plans are fitted with one part in so many left out, to predict that part.
const FOLDS: usize = 4;
/// What is less than this share of the mean does not show.
const FLOOR: f64 = 1e-4;

/// Predicts the losses of plans, by layer and column.
#[derive(Clone, Debug)]
pub struct Joint {
    /// Losses by layer and column, on the scale of what plans lose.
    pub losses: Vec<Vec<f64>>,
    /// Logarithms of predicted losses are `offset + power · ln Σ losses`.
    offset: f64,
    power: f64,
}

fn is_narrow(column: usize) -> bool {
    WEIGHTS.get(column).is_some_and(|f| f.bits() <= NARROW)
}

impl Joint {
    /// Fits factors of what layers lose `alone`, by layer and column, to what `plans` lose; a plan is an index of columns
    /// by layer.
    pub fn fit(alone: &[Vec<f64>], plans: &[Vec<usize>], lost: &[f64]) -> Self {
        let (ridge, _) = held_out(alone, plans, lost);
        Self::with(ridge, alone, plans, lost)
    }

    fn with(ridge: f64, alone: &[Vec<f64>], plans: &[Vec<usize>], lost: &[f64]) -> Self {
        let data = Data::new(ridge, alone, plans, lost);
        let found = data.descend();
        let n = alone.len();
        let weighted = |(l, row): (usize, &Vec<f64>)| {
            let columns = row.iter().enumerate();
            let factor = |c: usize| found[l] + if is_narrow(c) { found[n + l] } else { 0.0 };
            let own = columns.map(|(c, x)| x.max(0.0) * libm::exp(factor(c)));
            own.collect()
        };
        let mut joint = Self {
            losses: alone.iter().enumerate().map(weighted).collect(),
            offset: found[2 * n],
            power: found[2 * n + 1],
        };
        let mut ratios: Vec<f64> = (plans.iter().zip(lost))
            .map(|(plan, lost)| lost / joint.sum(plan))
            .filter(|r| r.is_finite() && *r > 0.0)
            .collect();
        ratios.sort_by(f64::total_cmp);
        let scale = ratios.get(ratios.len() / 2).copied().unwrap_or(1.0);
        joint.losses.iter_mut().flatten().for_each(|x| *x *= scale);
        joint.offset -= joint.power * libm::log(scale);
        joint
    }

    fn sum(&self, plan: &[usize]) -> f64 {
        plan.iter().zip(&self.losses).map(|(&c, row)| row[c]).sum()
    }

    /// The logarithm of what a plan is predicted to lose.
    pub fn predict(&self, plan: &[usize]) -> f64 {
        self.offset + self.power * libm::log(self.sum(plan).max(f64::MIN_POSITIVE))
    }
}

/// What plans are predicted to lose by fits that have not seen them, in logarithms. `lost` is what the fits see of other
/// plans; all plans chose the ridge.
pub fn unseen(alone: &[Vec<f64>], plans: &[Vec<usize>], lost: &[f64]) -> Vec<f64> {
    held_out(alone, plans, lost).1
}

/// The ridge whose fits err least on plans that they have not seen, and what they predict of those.
fn held_out(alone: &[Vec<f64>], plans: &[Vec<usize>], lost: &[f64]) -> (f64, Vec<f64>) {
    let logarithms = Data::new(0.0, alone, plans, lost).lost;
    let tried = RIDGES.map(|ridge| {
        let predicted = folds(ridge, alone, plans, lost);
        let errors = predicted.iter().zip(&logarithms).map(|(p, l)| p - l);
        (errors.map(|e| e * e).sum::<f64>(), ridge, predicted)
    });
    let best = tried.into_iter().min_by(|a, b| a.0.total_cmp(&b.0));
    best.map(|(_, ridge, predicted)| (ridge, predicted))
        .expect("ridges are tried")
}

fn folds(ridge: f64, alone: &[Vec<f64>], plans: &[Vec<usize>], lost: &[f64]) -> Vec<f64> {
    let mut predicted = vec![0.0; plans.len()];
    for fold in 0..FOLDS {
        let seen = |i: &usize| i % FOLDS != fold;
        let own: Vec<usize> = (0..plans.len()).filter(seen).collect();
        let of: Vec<Vec<usize>> = own.iter().map(|&i| plans[i].clone()).collect();
        let what: Vec<f64> = own.iter().map(|&i| lost[i]).collect();
        let joint = Joint::with(ridge, alone, &of, &what);
        for i in (fold..plans.len()).step_by(FOLDS) {
            predicted[i] = joint.predict(&plans[i]);
        }
    }
    predicted
}

/// Losses of layers in plans, and logarithms of what the plans lose.
struct Data {
    layers: usize,
    /// By plan and layer: the loss alone, and whether the weights are narrow.
    alone: Vec<Vec<(f64, bool)>>,
    lost: Vec<f64>,
    floor: f64,
    ridge: f64,
}

impl Data {
    fn new(ridge: f64, alone: &[Vec<f64>], plans: &[Vec<usize>], lost: &[f64]) -> Self {
        let mean = |x: &mut dyn Iterator<Item = f64>| x.sum::<f64>() / plans.len().max(1) as f64;
        let least = (FLOOR * mean(&mut lost.iter().copied())).max(f64::MIN_POSITIVE);
        let row = |plan: &Vec<usize>| -> Vec<(f64, bool)> {
            let columns = plan.iter().zip(alone);
            columns
                .map(|(&c, row)| (row[c].max(0.0), is_narrow(c)))
                .collect()
        };
        let rows: Vec<Vec<(f64, bool)>> = plans.iter().map(row).collect();
        let sums = rows.iter().map(|r| r.iter().map(|x| x.0).sum::<f64>());
        let floor = (FLOOR * mean(&mut sums.clone())).max(f64::MIN_POSITIVE);
        Self {
            layers: alone.len(),
            lost: lost.iter().map(|l| libm::log(l.max(least))).collect(),
            alone: rows,
            floor,
            ridge,
        }
    }

    /// Logarithms of the factors of all layers, then what narrow weights add to them, then offset and power.
    fn descend(&self) -> Vec<f64> {
        let mut at = vec![0.0; 2 * self.layers + 2];
        at[2 * self.layers + 1] = 1.0;
        let (mut error, mut damping) = (self.error(&at), 1e-3);
        for _ in 0..STEPS {
            let (mut matrix, gradient) = self.normal(&at);
            let size = at.len();
            (0..size).for_each(|i| matrix[i * size + i] += damping * (matrix[i * size + i] + 1e-9));
            let Some(step) = solved(matrix, gradient) else {
                damping *= 10.0;
                continue;
            };
            let new: Vec<f64> = at.iter().zip(&step).map(|(x, s)| x - s).collect();
            let found = self.error(&new);
            if found < error {
                let won = error - found;
                (at, error, damping) = (new, found, damping / 10.0);
                if won < 1e-9 * error {
                    break;
                }
            } else if damping > 1e9 {
                break;
            } else {
                damping *= 10.0;
            }
        }
        at
    }

    /// The sum of a plan, and what each layer is in it.
    fn terms(&self, plan: &[(f64, bool)], at: &[f64]) -> (f64, Vec<f64>) {
        let term = |(l, &(x, narrow)): (usize, &(f64, bool))| {
            let narrow = if narrow { at[self.layers + l] } else { 0.0 };
            x * libm::exp(at[l] + narrow)
        };
        let terms: Vec<f64> = plan.iter().enumerate().map(term).collect();
        (terms.iter().sum::<f64>() + self.floor, terms)
    }

    fn ridge(&self) -> f64 {
        self.ridge / self.layers.max(1) as f64
    }

    fn error(&self, at: &[f64]) -> f64 {
        let [offset, power] = [at[2 * self.layers], at[2 * self.layers + 1]];
        let squares = self.alone.iter().zip(&self.lost).map(|(plan, lost)| {
            let r = offset + power * libm::log(self.terms(plan, at).0) - lost;
            r * r
        });
        let ridge: f64 = at[..2 * self.layers].iter().map(|x| x * x).sum();
        squares.sum::<f64>() / self.lost.len().max(1) as f64 + self.ridge() * ridge
    }

    /// Half the second and half the first derivatives of the error, after Gauss and Newton.
    fn normal(&self, at: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let (n, size) = (self.layers, at.len());
        let (mut matrix, mut gradient) = (vec![0.0; size * size], vec![0.0; size]);
        let share = 1.0 / self.lost.len().max(1) as f64;
        for (plan, lost) in self.alone.iter().zip(&self.lost) {
            let (sum, terms) = self.terms(plan, at);
            let logarithm = libm::log(sum);
            let residual = at[2 * n] + at[2 * n + 1] * logarithm - lost;
            let mut row = vec![0.0; size];
            for (l, (term, (_, narrow))) in terms.iter().zip(plan).enumerate() {
                row[l] = at[2 * n + 1] * term / sum;
                row[n + l] = if *narrow { row[l] } else { 0.0 };
            }
            (row[2 * n], row[2 * n + 1]) = (1.0, logarithm);
            for i in 0..size {
                gradient[i] += share * residual * row[i];
                let own = share * row[i];
                let line = &mut matrix[i * size..][..=i];
                line.iter_mut().zip(&row).for_each(|(m, r)| *m += own * r);
            }
        }
        for i in 0..2 * n {
            matrix[i * size + i] += self.ridge();
            gradient[i] += self.ridge() * at[i];
        }
        (matrix, gradient)
    }
}

/// The solution of a symmetric positive system, given by its lower triangle (Cholesky); `None` where it is not positive.
fn solved(mut a: Vec<f64>, mut b: Vec<f64>) -> Option<Vec<f64>> {
    let n = b.len();
    for i in 0..n {
        for j in 0..=i {
            let dot: f64 = (0..j).map(|k| a[i * n + k] * a[j * n + k]).sum();
            let left = a[i * n + j] - dot;
            a[i * n + j] = match i == j {
                true if left > 0.0 => libm::sqrt(left),
                true => return None,
                false => left / a[j * n + j],
            };
        }
    }
    for i in 0..n {
        let dot: f64 = (0..i).map(|k| a[i * n + k] * b[k]).sum();
        b[i] = (b[i] - dot) / a[i * n + i];
    }
    for i in (0..n).rev() {
        let dot: f64 = (i + 1..n).map(|k| a[k * n + i] * b[k]).sum();
        b[i] = (b[i] - dot) / a[i * n + i];
    }
    Some(b)
}

#[cfg(test)]
mod tests {
    use super::super::random::Random;
    use super::super::{COLUMNS, spearman};
    use super::*;

    /// Random plans of layers, and what they lose where each layer counts `factors` times what it loses alone, damped.
    fn network(count: usize) -> (Vec<Vec<f64>>, Vec<Vec<usize>>, Vec<f64>) {
        let factors = [0.2, 3.0, 1.0, 0.5, 6.0, 1.0];
        let mut random = Random::new(5, 0);
        let column = |l: usize, c: usize| (1.0 + l as f64) * libm::exp(1.2 * c as f64);
        let alone: Vec<Vec<f64>> = (0..factors.len())
            .map(|l| (0..COLUMNS).map(|c| column(l, c)).collect())
            .collect();
        let plans: Vec<Vec<usize>> = (0..count)
            .map(|_| factors.iter().map(|_| random.below(6)).collect())
            .collect();
        let lost = plans.iter().map(|plan| {
            let sum: f64 = (0..factors.len())
                .map(|l| factors[l] * alone[l][plan[l]])
                .sum();
            libm::pow(sum, 0.7)
        });
        let lost = lost.collect();
        (alone, plans, lost)
    }

    fn sums(losses: &[Vec<f64>], plans: &[Vec<usize>]) -> Vec<f64> {
        let sum = |p: &Vec<usize>| p.iter().zip(losses).map(|(&c, row)| row[c]).sum();
        plans.iter().map(sum).collect()
    }

    #[test]
    fn factors_of_layers_are_found() {
        let (alone, plans, lost) = network(200);
        let (seen, rest) = plans.split_at(100);
        let joint = Joint::fit(&alone, seen, &lost[..100]);
        let plain = spearman(&sums(&alone, rest), &lost[100..]);
        let found = spearman(&sums(&joint.losses, rest), &lost[100..]);
        assert!(found > 0.98 && plain < 0.85, "{found} {plain}");
        let factor = |l: usize| joint.losses[l][3] / alone[l][3];
        // the ridge holds factors back
        let ratio = factor(4) / factor(0);
        assert!(ratio > 3.0 && ratio < 30.0, "{ratio}");
        // the scale is that of what plans lose
        let mut ratios: Vec<f64> = sums(&joint.losses, seen)
            .iter()
            .zip(&lost)
            .map(|(s, l)| s / l)
            .collect();
        ratios.sort_by(f64::total_cmp);
        assert!((ratios[50] - 1.0).abs() < 0.2, "{}", ratios[50]);
    }

    #[test]
    fn the_ridge_is_as_strong_as_plans_say() {
        let (alone, plans, lost) = network(200);
        assert_eq!(held_out(&alone, &plans, &lost).0, RIDGES[0]);
        // layers count as they do alone, but for noise
        let mut random = Random::new(11, 0);
        let noisy: Vec<f64> = sums(&alone, &plans)
            .iter()
            .map(|sum| sum * libm::exp(random.below(1000) as f64 / 500.0))
            .collect();
        assert_eq!(held_out(&alone, &plans, &noisy).0, RIDGES[2]);
    }

    #[test]
    fn plans_are_predicted_by_fits_that_have_not_seen_them() {
        let (alone, plans, mut lost) = network(120);
        assert!(spearman(&unseen(&alone, &plans, &lost), &lost) > 0.95);
        // where plans lose nothing that layers tell, nothing is predicted
        let mut random = Random::new(9, 0);
        lost.iter_mut()
            .for_each(|l| *l = 1.0 + random.below(1000) as f64);
        assert!(spearman(&unseen(&alone, &plans, &lost), &lost) < 0.4);
    }

    #[test]
    fn without_plans_layers_are_as_alone() {
        let (alone, ..) = network(1);
        assert_eq!(Joint::fit(&alone, &[], &[]).losses, alone);
    }

    #[test]
    fn a_symmetric_system_is_solved() {
        let a = vec![4.0, 0.0, 0.0, 2.0, 5.0, 0.0, 1.0, 3.0, 6.0];
        let x = solved(a, vec![11.0, 21.0, 25.0]).unwrap();
        for (found, wanted) in x.iter().zip([1.0, 2.0, 3.0]) {
            assert!((found - wanted).abs() < 1e-12, "{found} {wanted}");
        }
        assert!(solved(vec![1.0, 0.0, 2.0, 1.0], vec![1.0, 1.0]).is_none());
    }
}
