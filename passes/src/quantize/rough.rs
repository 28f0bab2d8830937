//! Which shrink factors of a search can be the best one: most are ruled out at single precision, many lanes at a time.

use lowbit_num::Format;

/// Share of an error that single precision may hide; with it go [`CUSHION`]s.
const SHARE: f64 = 5e-4;
/// What a distance may be off by, over the largest code: a score of roundings to 24 bits.
const BLUR: f32 = 1.0 / 524_288.0;
/// Distances d off by b make the error of a weight off by `2⅜ · d^1⅜ · b`, which is nowhere more than nine tenths of
/// [`SHARE`] of it and so many times b^2⅜.
const CUSHION: f64 = 7e4;
/// Weights that are summed before the sum is looked at.
const BLOCK: usize = 512;
const LANES: usize = 8;

/// The power of the error.
fn power(distance: f32) -> f32 {
    let quarter = distance.sqrt().sqrt();
    distance * distance * quarter * quarter.sqrt()
}

/// Those of some factors in hundredths, in their order, among which is the first of least exact error. `whole` is the
/// scale that factors shrink.
pub(super) fn promising(
    weights: &[f64],
    whole: f64,
    format: Format,
    factors: impl Iterator<Item = u32>,
) -> impl Iterator<Item = u32> {
    let units: Vec<f32> = weights.iter().map(|w| (w / whole) as f32).collect();
    let largest = format.range().1.max(-format.range().0) as f32;
    let slack = CUSHION * f64::from(power(BLUR * largest)) * weights.len() as f64;
    // nothing that errs more is the best
    let mut bar = f64::INFINITY;
    let mut bounds = Vec::new();
    for factor in factors {
        let most = bar * (1.0 + SHARE) + slack;
        if let Some(rough) = error(&units, factor as f32 / 100.0, format, most) {
            bar = bar.min((rough + slack) / (1.0 - SHARE));
            bounds.push((factor, (rough - slack) / (1.0 + SHARE)));
        }
    }
    let near = bounds.into_iter().filter(move |b| b.1 <= bar);
    near.map(|b| b.0)
}

/// The error in units of the whole range; nothing where it is more than `most`.
fn error(units: &[f32], scale: f32, format: Format, most: f64) -> Option<f64> {
    let ((lo, hi), step) = (format.range(), format.step() as f32);
    if let Some(knee) = format.knee() {
        let (knee, last, inverse) = (knee as f32, hi as f32, 1.0 / scale);
        return sum(units, most, |w| {
            let size = (w * inverse).abs().min(last);
            let step = match size {
                _ if size >= 2.0 * knee => 4.0,
                _ if size >= knee => 2.0,
                _ => 1.0,
            };
            power((w.abs() - scale * step * round(size / step)).abs())
        });
    }
    let (first, last) = (lo as f32 / step, (hi - lo) as f32 / step);
    let (inverse, unit, start) = (1.0 / (scale * step), scale * step, scale * lo as f32);
    sum(units, most, |w| {
        let field = round((w * inverse - first).clamp(0.0, last));
        power((w - (start + unit * field)).abs())
    })
}

/// The nearest whole number: a sum with this number has no fraction left.
fn round(x: f32) -> f32 {
    (x + 8_388_608.0) - 8_388_608.0
}

/// The sum of `one` over the weights; nothing where it is more than `most`.
fn sum(units: &[f32], most: f64, one: impl Fn(f32) -> f32) -> Option<f64> {
    let mut sum = 0.0;
    for block in units.chunks(BLOCK) {
        let mut sums = [0.0f32; LANES];
        let mut lanes = block.chunks_exact(LANES);
        for chunk in &mut lanes {
            sums.iter_mut().zip(chunk).for_each(|(s, &w)| *s += one(w));
        }
        let rest = lanes.remainder().iter().map(|&w| one(w));
        sum += sums.into_iter().chain(rest).map(f64::from).sum::<f64>();
        if sum > most {
            return None;
        }
    }
    Some(sum)
}
