//! AdaRound (Nagel et al. 2020): whether each weight is rounded up or down is found by gradient descent on the error of
//! the layer's output, through a soft step that is pushed to either side as the descent goes on.
//!
//! The error of a channel is `e C eᵀ`, as in error feedback; what the two give can be compared.

use lowbit_num::{Format, real};
use rayon::prelude::*;

use super::feedback::Channel;

/// Steps of the descent.
const STEPS: usize = 500;
/// Share of the steps before a side is chosen.
const FREE: f64 = 0.2;
/// Weight of the term that chooses a side, beside the error in units of independent rounding.
const CHOICE: f64 = 2.0;
/// Its exponent at the start and at the end.
const SHARPNESS: [f64; 2] = [20.0, 2.0];
/// Adam's rate and decays.
const RATE: f64 = 0.02;
const DECAYS: [f64; 2] = [0.9, 0.999];
/// The sigmoid is stretched beyond 0 and 1, so that both are reached.
const STRETCH: [f64; 2] = [-0.1, 1.1];

/// Rounds channels `weights` `[o, k]` on scales, for the covariance `[k, k]` of what they multiply.
pub(crate) fn round(
    weights: &[f64],
    scales: &[f64],
    format: Format,
    covariance: &[f64],
) -> Vec<Channel> {
    let k = weights.len() / scales.len().max(1);
    let rows = weights.par_chunks_exact(k.max(1)).zip(scales);
    rows.map(|(row, &scale)| channel(row, scale, format, covariance))
        .collect()
}

fn channel(weights: &[f64], scale: f64, format: Format, covariance: &[f64]) -> Channel {
    let k = weights.len();
    // in units of the least distance of codes, from the lowest code on, or from 0 where distances differ
    let step = f64::from(format.step());
    let lo = format.knee().map_or(f64::from(format.range().0), |_| 0.0);
    let gap = |w: &f64| f64::from(real::step_at(w / scale, format)) / step;
    let gaps: Vec<f64> = weights.iter().map(gap).collect();
    let steps: Vec<f64> = weights.iter().map(|w| (w / scale - lo) / step).collect();
    let pairs = steps.iter().zip(&gaps);
    let below: Vec<f64> = pairs.map(|(u, g)| (u / g).floor() * g).collect();
    let mean = (0..k).map(|i| covariance[i * k + i]).sum::<f64>() / k.max(1) as f64;
    let unit = 12.0 / mean.max(1e-30);
    let fraction = |i: usize| logit((steps[i] - below[i]) / gaps[i]);
    let mut sides: Vec<f64> = (0..k).map(fraction).collect();
    let mut moments = [vec![0.0; k], vec![0.0; k]];
    let mut errors = vec![0.0; k];
    for t in 0..STEPS {
        for i in 0..k {
            errors[i] = steps[i] - below[i] - gaps[i] * soft(sides[i]).0;
        }
        let done = t as f64 / STEPS as f64;
        for i in 0..k {
            let (h, slope) = soft(sides[i]);
            let pull: f64 = dot(&covariance[i * k..][..k], &errors);
            let gradient = slope * (choice(h, done) - 2.0 * unit * gaps[i] * pull);
            for ((m, decay), x) in moments
                .iter_mut()
                .zip(DECAYS)
                .zip([gradient, gradient * gradient])
            {
                m[i] += (1.0 - decay) * (x - m[i]);
            }
            let n = t as i32 + 1;
            let [m, v] = [0, 1].map(|j| moments[j][i] / (1.0 - DECAYS[j].powi(n)));
            sides[i] -= RATE * m / (libm::sqrt(v) + 1e-8);
        }
    }
    let code = |i: usize| {
        let up = if soft(sides[i]).0 >= 0.5 {
            gaps[i]
        } else {
            0.0
        };
        real::encode(lo + step * (below[i] + up), format) as i8
    };
    Channel {
        codes: (0..k).map(code).collect(),
        scale,
    }
}

/// Derivative by h of `CHOICE · (1 − |2h − 1|^β)`.
fn choice(h: f64, done: f64) -> f64 {
    if done < FREE {
        return 0.0;
    }
    let part = (done - FREE) / (1.0 - FREE);
    let beta = SHARPNESS[0] + part * (SHARPNESS[1] - SHARPNESS[0]);
    let x = 2.0 * h - 1.0;
    -CHOICE * 2.0 * beta * libm::pow(x.abs(), beta - 1.0) * x.signum()
}

/// The stretched sigmoid, cut at 0 and 1, and its derivative.
fn soft(v: f64) -> (f64, f64) {
    let s = 1.0 / (1.0 + libm::exp(-v));
    let width = STRETCH[1] - STRETCH[0];
    let h = s * width + STRETCH[0];
    let slope = width * s * (1.0 - s);
    if h <= 0.0 || h >= 1.0 {
        (h.clamp(0.0, 1.0), 0.0)
    } else {
        (h, slope)
    }
}

/// Where the stretched sigmoid is `h`.
fn logit(h: f64) -> f64 {
    let s = (h - STRETCH[0]) / (STRETCH[1] - STRETCH[0]);
    libm::log(s / (1.0 - s))
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::noise;
    use super::*;

    #[test]
    fn it_errs_less_than_the_nearest_codes_where_inputs_go_together() {
        let k = 16;
        let bell = |n, seed| {
            noise(n, seed)
                .into_iter()
                .map(f64::from)
                .collect::<Vec<f64>>()
        };
        let mut covariance = vec![0.0; k * k];
        for row in 0..60 {
            let (cause, own) = (bell(1, 70 + row)[0], bell(k, 900 + row));
            let x: Vec<f64> = own.iter().map(|o| o + 2.0 * cause).collect();
            (0..k * k).for_each(|i| covariance[i] += x[i / k] * x[i % k] / 60.0);
        }
        let weights = bell(4 * k, 3);
        for format in [Format::Int4, Format::Int3, Format::Odd3, Format::Odd2] {
            let scale = 1.0 / f64::from(format.range().1);
            let found = round(&weights, &[scale; 4], format, &covariance);
            let error = |channels: &[Channel]| -> f64 {
                let rows = weights.chunks_exact(k).zip(channels);
                rows.map(|(row, c)| c.error(row, &covariance)).sum()
            };
            let nearest = |row: &[f64]| Channel {
                codes: row
                    .iter()
                    .map(|w| real::encode(w / scale, format) as i8)
                    .collect(),
                scale,
            };
            let nearest: Vec<Channel> = weights.chunks_exact(k).map(nearest).collect();
            let gain = error(&nearest) / error(&found);
            assert!(gain > 1.5, "{format}: {gain}");
        }
    }
}
