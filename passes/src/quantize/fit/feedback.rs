//! Rounding with error feedback: what one weight errs, later ones make up for.
//!
//! The error of a channel is `e C eᵀ`, e the errors of its weights and C the covariance of what they multiply (means are
//! the bias's business). With `C = RᵀR` it is a sum of squares that are decided one after another, each given those
//! before: Babai's nearest plane, which equals GPTQ. Then single codes are changed as long as that lowers the error,
//! and the scale is fitted to the codes.

use lowbit_num::{Format, real};
use rayon::prelude::*;

/// Channels that are decided together.
const LANES: usize = 8;
/// Elements of a matrix that are worth a thread.
const PIECE: usize = 1 << 14;
/// Most sweeps over the codes of a channel.
const SWEEPS: usize = 32;

/// A covariance, damped, with its factor.
pub(crate) struct Factor {
    k: usize,
    /// Symmetric, row-major, with the damping.
    pub(crate) covariance: Vec<f64>,
    /// Upper triangle of rows divided by their diagonal, in the order of decision reversed.
    rows: Vec<f64>,
    order: Vec<usize>,
}

impl Factor {
    /// Of a symmetric matrix `[k, k]`, `damping` times the mean of its diagonal added to the diagonal.
    pub(crate) fn new(covariance: &[f64], k: usize, damping: f64) -> Self {
        let mut c = covariance.to_vec();
        let mean = (0..k).map(|i| c[i * k + i]).sum::<f64>() / k.max(1) as f64;
        let extra = (damping * mean).max(1e-9);
        (0..k).for_each(|i| c[i * k + i] += extra);
        let mut order: Vec<usize> = (0..k).collect();
        order.sort_by(|&a, &b| c[a * k + a].total_cmp(&c[b * k + b]).then(a.cmp(&b)));
        let rows = cholesky(&c, &order);
        Self {
            k,
            covariance: c,
            rows,
            order,
        }
    }
}

/// Rows of R with `C = RᵀR`, rows and columns in `order`, each divided by its diagonal.
fn cholesky(c: &[f64], order: &[usize]) -> Vec<f64> {
    let k = order.len();
    let mut r: Vec<f64> = (0..k * k)
        .map(|i| c[order[i / k] * k + order[i % k]])
        .collect();
    for i in 0..k {
        let (head, tail) = r.split_at_mut((i + 1) * k);
        let row = &mut head[i * k..];
        let diagonal = row[i].max(1e-30);
        tail.par_chunks_exact_mut(k)
            .with_min_len(PIECE / k)
            .enumerate()
            .for_each(|(n, below)| {
                let j = i + 1 + n;
                let factor = row[j] / diagonal;
                if factor != 0.0 {
                    let pairs = below[j..].iter_mut().zip(&row[j..]);
                    pairs.for_each(|(b, &r)| *b -= factor * r);
                }
            });
        row[i..].iter_mut().for_each(|x| *x /= diagonal);
    }
    r
}

/// A channel: its weights and what they became.
#[derive(Clone)]
pub(crate) struct Channel {
    /// Codes.
    pub(crate) codes: Vec<i8>,
    /// Real value of one step.
    pub(crate) scale: f64,
}

impl Channel {
    fn errors(&self, weights: &[f64]) -> Vec<f64> {
        let pairs = weights.iter().zip(&self.codes);
        pairs.map(|(w, &q)| w - self.scale * f64::from(q)).collect()
    }

    /// `e C eᵀ` for a covariance.
    pub(crate) fn error(&self, weights: &[f64], covariance: &[f64]) -> f64 {
        let e = self.errors(weights);
        dot(&e, &times(covariance, &e))
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `C x` for a symmetric matrix, all elements at once.
fn times(c: &[f64], x: &[f64]) -> Vec<f64> {
    let mut y = vec![0.0; x.len()];
    for (row, &x) in c.chunks_exact(x.len().max(1)).zip(x) {
        y.iter_mut().zip(row).for_each(|(y, c)| *y += c * x);
    }
    y
}

/// Rounds channels `weights` `[o, k]` on scales to start from; `admitted` gives the scale that channel o may have in
/// place of another.
pub(crate) fn round(
    weights: &[f64],
    scales: &[f64],
    format: Format,
    factor: &Factor,
    admitted: &(dyn Fn(usize, f64) -> f64 + Sync),
) -> Vec<Channel> {
    let k = factor.k;
    let blocks = scales.par_chunks(LANES).enumerate();
    blocks
        .flat_map_iter(|(block, scales)| {
            let first = block * LANES;
            let rows = &weights[first * k..][..scales.len() * k];
            let mut channels = nearest_plane(rows, scales, format, factor);
            for (n, channel) in channels.iter_mut().enumerate() {
                let row = &rows[n * k..][..k];
                descend(channel, row, format, &factor.covariance);
                refit(channel, row, &factor.covariance, |s| admitted(first + n, s));
                descend(channel, row, format, &factor.covariance);
            }
            channels
        })
        .collect()
}

fn nearest_plane(weights: &[f64], scales: &[f64], format: Format, factor: &Factor) -> Vec<Channel> {
    let (k, lanes) = (factor.k, scales.len());
    let mut errors = vec![[0.0; LANES]; k];
    let mut codes = vec![vec![0i8; k]; lanes];
    for i in (0..k).rev() {
        let mut pull = [0.0; LANES];
        for (&r, e) in factor.rows[i * k..][i + 1..k].iter().zip(&errors[i + 1..]) {
            pull.iter_mut().zip(e).for_each(|(p, e)| *p += r * e);
        }
        let tap = factor.order[i];
        for lane in 0..lanes {
            let w = weights[lane * k + tap] / scales[lane];
            let q = real::encode(w + pull[lane], format);
            codes[lane][tap] = q as i8;
            errors[i][lane] = w - f64::from(q);
        }
    }
    let channel = |(codes, &scale)| Channel { codes, scale };
    codes.into_iter().zip(scales).map(channel).collect()
}

/// Changes one code after another to the best one given all others.
fn descend(channel: &mut Channel, weights: &[f64], format: Format, covariance: &[f64]) {
    let (k, scale) = (weights.len(), channel.scale);
    let e = channel.errors(weights);
    let mut gradient = times(covariance, &e);
    gradient.iter_mut().for_each(|g| *g /= scale);
    for _ in 0..SWEEPS {
        let mut changed = false;
        for i in 0..k {
            let row = &covariance[i * k..][..k];
            let old = i32::from(channel.codes[i]);
            let new = real::encode(f64::from(old) + gradient[i] / row[i], format);
            if new == old {
                continue;
            }
            changed = true;
            channel.codes[i] = new as i8;
            let step = f64::from(new - old);
            gradient
                .iter_mut()
                .zip(row)
                .for_each(|(g, c)| *g -= step * c);
        }
        if !changed {
            return;
        }
    }
}

/// The scale with the least error for the codes.
fn refit(
    channel: &mut Channel,
    weights: &[f64],
    covariance: &[f64],
    admitted: impl Fn(f64) -> f64,
) {
    let codes: Vec<f64> = channel.codes.iter().map(|&q| q.into()).collect();
    let pulled = times(covariance, &codes);
    let (along, own) = (dot(&pulled, weights), dot(&pulled, &codes));
    if own > 0.0 && along > 0.0 {
        channel.scale = admitted(along / own);
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::noise;
    use super::*;

    fn bell(n: usize, seed: u64) -> Vec<f64> {
        noise(n, seed).iter().map(|&x| f64::from(x)).collect()
    }

    /// Covariance of `n` rows whose columns share one cause.
    fn covariance(k: usize, n: usize) -> Vec<f64> {
        let mut c = vec![0.0; k * k];
        for row in 0..n {
            let cause = bell(1, 77 + row as u64)[0];
            let own = bell(k, 1000 + row as u64);
            let x: Vec<f64> = own.iter().map(|o| o + 2.0 * cause).collect();
            for i in 0..k * k {
                c[i] += x[i / k] * x[i % k] / n as f64;
            }
        }
        c
    }

    #[test]
    fn the_factor_gives_the_covariance_back() {
        let (k, c) = (7, covariance(7, 30));
        let factor = Factor::new(&c, k, 0.0);
        // e C eᵀ = Σ d_i (R e)_i² with d_i the variance of i given those before it
        let e = bell(k, 5);
        let whole: f64 = (0..k * k).map(|i| c[i] * e[i / k] * e[i % k]).sum();
        let turned: Vec<f64> = factor.order.iter().map(|&i| e[i]).collect();
        let mut left = c.iter().map(|_| 0.0).collect::<Vec<f64>>();
        for i in 0..k * k {
            left[i] = c[factor.order[i / k] * k + factor.order[i % k]];
        }
        let mut sum = 0.0;
        for i in 0..k {
            let d = left[i * k + i];
            sum += d * dot(&factor.rows[i * k + i..(i + 1) * k], &turned[i..]).powi(2);
            for a in i + 1..k {
                for b in i + 1..k {
                    left[a * k + b] -= d * factor.rows[i * k + a] * factor.rows[i * k + b];
                }
            }
        }
        assert!((sum - whole).abs() < 1e-6 * whole, "{sum} {whole}");
    }

    #[test]
    fn no_single_code_can_be_bettered() {
        let (k, c) = (12, covariance(12, 60));
        let factor = Factor::new(&c, k, 0.01);
        for &format in Format::ALL {
            let weights = bell(k * 3, 9);
            let largest = f64::from(format.range().1);
            let scales = [1.0, 0.7, 0.4].map(|s| s / largest);
            for (n, channel) in round(&weights, &scales, format, &factor, &|_, s| s)
                .iter()
                .enumerate()
            {
                let row = &weights[n * k..][..k];
                let best = channel.error(row, &factor.covariance);
                for i in 0..k {
                    for code in format.codes() {
                        let mut other = channel.clone();
                        other.codes[i] = code as i8;
                        assert!(
                            other.error(row, &factor.covariance) >= best - 1e-12,
                            "{format}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn weights_on_the_grid_stay() {
        let (k, c) = (9, covariance(9, 40));
        let factor = Factor::new(&c, k, 0.1);
        let codes: Vec<f64> = (0..k).map(|i| (i as f64 * 5.0) % 15.0 - 7.0).collect();
        let weights: Vec<f64> = codes.iter().map(|q| q * 0.25).collect();
        let found = round(&weights, &[0.25], Format::Int4, &factor, &|_, s| s);
        assert!(
            found[0]
                .codes
                .iter()
                .zip(&codes)
                .all(|(&q, &c)| f64::from(q) == c)
        );
        assert!((found[0].scale - 0.25).abs() < 1e-12);
    }
}
