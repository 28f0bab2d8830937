use super::Histogram;

/// Steps of the search: factors 1.00, 0.99, … 0.21 of the whole range.
const STEPS: u32 = 80;

/// The range, both ends shrunk by one factor, with the least error of codes of `bits` bits in the norm of power 2.4.
///
/// Source: BRECQ (Li et al. 2021), `quant_layer.py`.
pub(crate) fn range(h: &Histogram, bits: u32) -> (f64, f64) {
    let steps = f64::from((1u32 << bits) - 1);
    let points: Vec<(f64, f64)> = h.points().map(|(x, c)| (x, c as f64)).collect();
    let mut best = (f64::INFINITY, (h.min(), h.max()));
    for step in 0..STEPS {
        let factor = 1.0 - f64::from(step) * 0.01;
        let (lo, hi) = (h.min() * factor, h.max() * factor);
        let error = error(&points, lo, hi, (hi - lo) / steps, h.width());
        if error < best.0 {
            best = (error, (lo, hi));
        }
    }
    best.1
}

fn error(points: &[(f64, f64)], lo: f64, hi: f64, step: f64, width: f64) -> f64 {
    if step <= 0.0 {
        return 0.0;
    }
    // inside, the error is spread evenly over a step and over the bin; outside, it is the distance to the end
    let rounding = (step.max(width * 1e-3) / 2.0).powf(2.4) / 3.4;
    points
        .iter()
        .map(|&(x, count)| {
            let beyond = (lo - x).max(x - hi).max(0.0);
            count
                * if beyond > 0.0 {
                    beyond.powf(2.4)
                } else {
                    rounding
                }
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clips_a_lonely_outlier_and_keeps_an_even_spread() {
        let even: Vec<f64> = (0..4096).map(|i| f64::from(i) / 4096.0).collect();
        let (_, hi) = range(&Histogram::new(&even), 8);
        assert!(hi > 0.97, "{hi}");
        let mut many = Histogram::new(&even);
        for _ in 0..10 {
            many.merge(&many.clone());
        }
        many.merge(&Histogram::new(&[4.0]));
        let (_, hi) = range(&many, 8);
        // the same search over the elements themselves, rounded to the codes of each range
        let loss = |hi: f64| {
            let step = hi / 255.0;
            let error = |x: f64| ((x / step).round().min(255.0) * step - x).abs().powf(2.4);
            1024.0 * even.iter().map(|&x| error(x)).sum::<f64>() + error(4.0)
        };
        let best = (0..STEPS)
            .map(|step| loss(4.0 * (1.0 - f64::from(step) * 0.01)))
            .fold(f64::INFINITY, f64::min);
        assert!(hi < 3.0 && loss(hi) < 1.02 * best, "{hi}");
    }
}
