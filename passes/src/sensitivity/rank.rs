//! Rank correlation and how sure it is.

use super::random::Random;

/// An interval that holds nine of ten resampled values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The value over all pairs.
    pub value: f64,
    /// Its 5 % quantile.
    pub low: f64,
    /// Its 95 % quantile.
    pub high: f64,
}

/// Spearman's rank correlation, equal numbers sharing the mean of their ranks; 0 where one side does not vary.
pub fn spearman(x: &[f64], y: &[f64]) -> f64 {
    pearson(&ranks(x), &ranks(y))
}

fn ranks(x: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|&a, &b| x[a].total_cmp(&x[b]));
    let mut ranks = vec![0.0; x.len()];
    for group in order.chunk_by(|&a, &b| x[a] == x[b]) {
        let below = order.partition_point(|&i| x[i].total_cmp(&x[group[0]]).is_lt());
        let rank = below as f64 + (group.len() as f64 - 1.0) / 2.0;
        group.iter().for_each(|&i| ranks[i] = rank);
    }
    ranks
}

fn pearson(x: &[f64], y: &[f64]) -> f64 {
    let n = x.len() as f64;
    let (mx, my) = (x.iter().sum::<f64>() / n, y.iter().sum::<f64>() / n);
    let (mut xy, mut xx, mut yy) = (0.0, 0.0, 0.0);
    for (x, y) in x.iter().zip(y) {
        xy += (x - mx) * (y - my);
        xx += (x - mx) * (x - mx);
        yy += (y - my) * (y - my);
    }
    if xx * yy > 0.0 {
        xy / libm::sqrt(xx * yy)
    } else {
        0.0
    }
}

/// Spearman's correlation with a 90 % interval from `rounds` resamplings of the pairs.
pub fn bootstrap(x: &[f64], y: &[f64], rounds: usize, seed: u64) -> Interval {
    resampled(x.len(), spearman(x, y), rounds, seed, |picked| {
        spearman(&of(x, picked), &of(y, picked))
    })
}

/// By how much `x` correlates better with `y` than `other` does, with a 90 % interval from `rounds` resamplings of the
/// triples.
pub fn gain(x: &[f64], other: &[f64], y: &[f64], rounds: usize, seed: u64) -> Interval {
    let value = spearman(x, y) - spearman(other, y);
    resampled(x.len(), value, rounds, seed, |picked| {
        let y = of(y, picked);
        spearman(&of(x, picked), &y) - spearman(&of(other, picked), &y)
    })
}

fn of(values: &[f64], picked: &[usize]) -> Vec<f64> {
    picked.iter().map(|&i| values[i]).collect()
}

fn resampled(
    len: usize,
    value: f64,
    rounds: usize,
    seed: u64,
    again: impl Fn(&[usize]) -> f64,
) -> Interval {
    let mut random = Random::new(seed, 0);
    let mut values: Vec<f64> = (0..rounds)
        .map(|_| {
            let picked: Vec<usize> = (0..len).map(|_| random.below(len)).collect();
            again(&picked)
        })
        .collect();
    values.sort_by(f64::total_cmp);
    let quantile = |q: f64| values[((rounds - 1) as f64 * q) as usize];
    Interval {
        value,
        low: quantile(0.05),
        high: quantile(0.95),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_alone_counts() {
        let x = [1.0, 2.0, 3.0, 4.0, 5.0];
        assert!((spearman(&x, &x.map(f64::exp)) - 1.0).abs() < 1e-12);
        assert!((spearman(&x, &x.map(|x| -x * x)) + 1.0).abs() < 1e-12);
        assert!((spearman(&[1.0, 2.0, 3.0, 4.0], &[2.0, 1.0, 4.0, 3.0]) - 0.6).abs() < 1e-12);
        assert_eq!(spearman(&x, &[7.0; 5]), 0.0);
    }

    #[test]
    fn equal_numbers_share_their_rank() {
        assert_eq!(ranks(&[5.0, 1.0, 5.0, 0.0, 5.0]), [3.0, 1.0, 3.0, 0.0, 3.0]);
    }

    #[test]
    fn the_interval_holds_the_value_and_narrows() {
        let pair = |n: usize| -> (Vec<f64>, Vec<f64>) {
            let mut random = Random::new(3, 1);
            (0..n)
                .map(|i| (i as f64, i as f64 + 0.7 * n as f64 * random.uniform()))
                .unzip()
        };
        let width = |n| {
            let (x, y) = pair(n);
            let found = bootstrap(&x, &y, 200, 1);
            assert!(
                found.low <= found.value && found.value <= found.high,
                "{found:?}"
            );
            found.high - found.low
        };
        assert!(width(400) < width(40));
    }
}
