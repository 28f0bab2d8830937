//! Codes of weights: the scale of a channel by a search, and the nearest codes.

use lowbit_num::{Format, real};
use rayon::prelude::*;

use super::rough::promising;

/// Shrink factors of the search in hundredths, from 100 down to this one; a grid of few levels is best far inside the
/// range of its weights.
fn smallest_factor(format: Format) -> u32 {
    if format.bits() > 2 { 21 } else { 5 }
}

/// The scale for the weights of one channel; 0 where all of them are 0.
///
/// Weights that are whole multiples of one number keep their values. Else nothing is clipped at 8 bits, and below the
/// scale has the least error in the norm of power 2⅜ among shrink factors 1.00, 0.99, … 0.21 of the whole range (BRECQ's search,
/// its power 2.4 made of square roots).
pub fn scale(weights: &[f64], format: Format) -> f64 {
    let whole = whole_range(weights, format);
    if whole == 0.0 {
        return whole;
    }
    if let Some(unit) = common_unit(weights, format) {
        return unit;
    }
    if format == Format::Int8 {
        return whole;
    }
    let factors = (smallest_factor(format)..=100).rev();
    let factors = promising(weights, whole, format, factors);
    let candidates = factors.map(|hundredths| whole * f64::from(hundredths) / 100.0);
    let mut best = (f64::INFINITY, whole);
    for scale in candidates {
        let error = error(weights, scale, format);
        if error < best.0 {
            best = (error, scale);
        }
    }
    best.1
}

/// Scales of all channels of `weights`, `per_channel` numbers each.
pub fn scales(weights: &[f64], per_channel: usize, format: Format) -> Vec<f64> {
    weights
        .par_chunks_exact(per_channel.max(1))
        .map(|row| scale(row, format))
        .collect()
}

/// The codes nearest to the weights.
pub fn codes(weights: &[f64], scale: f64, format: Format) -> impl Iterator<Item = i8> {
    weights
        .iter()
        .map(move |&w| real::encode(w / scale, format) as i8)
}

/// The format that stands for another with the same bits: of the two grids of 2 or of 3 bits the one that errs less over
/// all channels.
pub fn resolve(weights: &[f64], per_channel: usize, format: Format) -> Format {
    let Some(odd) = format.odd() else {
        return format;
    };
    let total = |format: Format| -> f64 {
        let scales = scales(weights, per_channel, format);
        let rows = weights.chunks_exact(per_channel.max(1)).zip(scales);
        rows.filter(|(_, scale)| *scale > 0.0)
            .map(|(row, scale)| error(row, scale, format))
            .sum()
    };
    if total(odd) < total(format) {
        odd
    } else {
        format
    }
}

/// The smallest scale at which nothing is clipped.
fn whole_range(weights: &[f64], format: Format) -> f64 {
    let (lo, hi) = format.range();
    let need = |w: f64| w / f64::from(if w < 0.0 { lo } else { hi });
    weights
        .iter()
        .fold(0.0, |scale: f64, &w| scale.max(need(w)))
}

/// `Σ |w − scale · code|^(2⅜)`.
fn error(weights: &[f64], scale: f64, format: Format) -> f64 {
    let power = |distance: f64| {
        let quarter = distance.sqrt().sqrt();
        distance * distance * quarter * quarter.sqrt()
    };
    if format.knee().is_some() {
        let code = |w: f64| f64::from(real::encode(w / scale, format));
        let one = |&w: &f64| power((w - scale * code(w)).abs());
        return weights.iter().map(one).sum();
    }
    let ((lo, hi), step) = (format.range(), f64::from(format.step()));
    let (first, most) = (f64::from(lo), f64::from(hi - lo) / step);
    let (inverse, unit) = (1.0 / (scale * step), scale * step);
    let (offset, start) = (0.5 - first / step, scale * first);
    let one = |&w: &f64| {
        let field = (w * inverse + offset).clamp(0.0, most + 0.5) as i32;
        power((w - (start + unit * f64::from(field))).abs())
    };
    weights.iter().map(one).sum()
}

/// The number that all weights are whole multiples of, where the multiples are codes: weights that were trained on a
/// grid.
fn common_unit(weights: &[f64], format: Format) -> Option<f64> {
    let largest = weights.iter().fold(0.0f64, |m, w| m.max(w.abs()));
    let tolerance = largest * 1e-5;
    let smallest = largest / f64::from(format.range().1.max(-format.range().0)) * 0.999;
    let mut unit = largest;
    for &w in weights {
        // Euclid's algorithm; what is left below the tolerance is rounding
        let (mut a, mut b) = (unit, w.abs());
        while b > tolerance {
            (a, b) = (b, a - b * (a / b + 1e-3).floor());
            b = b.abs();
        }
        if a < smallest {
            return None;
        }
        unit = a;
    }
    // the largest weight holds the unit with the least relative error
    let unit = largest / (largest / unit).round();
    let on_grid = |&w: &f64| {
        let code = real::round_i64(w / unit) as i32;
        format.admits(code) && (w - unit * f64::from(code)).abs() <= tolerance
    };
    weights.iter().all(on_grid).then_some(unit)
}

#[cfg(test)]
mod tests {
    use super::super::tests::noise;
    use super::*;

    fn bell(n: usize, seed: u64) -> Vec<f64> {
        noise(n, seed).iter().map(|&x| f64::from(x)).collect()
    }

    #[test]
    fn no_factor_of_the_search_errs_less() {
        let w = bell(500, 3);
        for &format in Format::ALL {
            let best = scale(&w, format);
            let whole = whole_range(&w, format);
            for hundredths in smallest_factor(format)..=100 {
                let other = whole * f64::from(hundredths) / 100.0;
                let clips = format == Format::Int8 && hundredths < 100;
                assert!(
                    clips || error(&w, best, format) <= error(&w, other, format),
                    "{format}: {hundredths}"
                );
            }
        }
    }

    #[test]
    fn the_search_finds_what_all_factors_give() {
        let mut channels: Vec<Vec<f64>> = (0..40)
            .map(|i| bell([1, 2, 9, 27, 64, 576, 1500][i % 7], i as u64))
            .collect();
        channels.extend([1e-30, 1e-9, 1e30].map(|size| {
            let noise = bell(90, 77);
            noise.iter().map(|x| x * size).collect()
        }));
        // nearly on a grid, and a few far out
        let near = bell(300, 78);
        channels.push(
            (0..300)
                .map(|i| f64::from(i % 15 - 7) + 1e-4 * near[i as usize])
                .collect(),
        );
        channels.push(
            (0..300)
                .map(|i| if i % 50 == 0 { 9.0 } else { near[i] })
                .collect(),
        );
        for w in &channels {
            for &format in Format::ALL.iter().filter(|&&f| f != Format::Int8) {
                if common_unit(w, format).is_some() {
                    continue;
                }
                let whole = whole_range(w, format);
                let mut best = (f64::INFINITY, whole);
                for hundredths in (smallest_factor(format)..=100).rev() {
                    let scale = whole * f64::from(hundredths) / 100.0;
                    let error = error(w, scale, format);
                    if error < best.0 {
                        best = (error, scale);
                    }
                }
                assert_eq!(scale(w, format), best.1, "{format}: {w:?}");
            }
        }
    }

    #[test]
    fn the_error_is_that_of_the_codes() {
        let w = bell(300, 4);
        for &format in Format::ALL {
            let s = scale(&w, format);
            let found = error(&w, s, format);
            let expected: f64 = w
                .iter()
                .zip(codes(&w, s, format))
                .map(|(w, q)| (w - s * f64::from(q)).abs().powf(2.375))
                .sum();
            assert!((found - expected).abs() <= 1e-9 * expected, "{format}");
        }
    }

    #[test]
    fn fewer_bits_err_more() {
        let w = bell(2000, 5);
        let errors: Vec<f64> = [Format::Int8, Format::Int6, Format::Int5, Format::Int4]
            .into_iter()
            .chain([Format::Int3, Format::Int2, Format::Binary])
            .map(|f| error(&w, scale(&w, f), f))
            .collect();
        assert!(errors.windows(2).all(|e| e[0] < e[1]), "{errors:?}");
    }

    #[test]
    fn weights_on_a_grid_keep_their_values() {
        for &format in Format::ALL {
            let all: Vec<i32> = format.codes().collect();
            let kept: Vec<i32> = all.iter().copied().filter(|c| c.abs() != 4).collect();
            for (unit, levels) in [(0.1f32, &all), (0.037, &kept), (1.0, &all)] {
                let w: Vec<f64> = (0..90)
                    .map(|i| f64::from(unit * levels[i * 7 % levels.len()] as f32))
                    .collect();
                let s = scale(&w, format);
                for (w, q) in w.iter().zip(codes(&w, s, format)) {
                    assert!((w - s * f64::from(q)).abs() < 1e-6, "{format} {unit}: {w}");
                }
            }
        }
    }

    #[test]
    fn few_bits_take_the_grid_that_errs_less() {
        // most weights around zero, some far out on one side
        let skewed: Vec<f64> = (0..64)
            .map(|i| if i % 9 == 0 { -1.97 } else { 0.01 })
            .collect();
        assert_eq!(resolve(&skewed, 64, Format::Int2), Format::Int2);
        let even: Vec<f64> = (0..64).map(|i| f64::from(i) / 31.5 - 1.0).collect();
        assert_eq!(resolve(&even, 64, Format::Int2), Format::Odd2);
        assert_eq!(resolve(&even, 64, Format::Int3), Format::Odd3);
        assert_eq!(resolve(&skewed, 64, Format::Int3), Format::Int3);
        assert_eq!(resolve(&even, 64, Format::Int4), Format::Int4);
    }
}
