use super::Histogram;

/// The range whose quantised histogram of magnitudes has the least Kullback-Leibler divergence from what was seen, with
/// what lies outside counted at its end.
///
/// Source: Migacz, 8-bit inference with TensorRT, 2017.
pub(crate) fn range(h: &Histogram, bits: u32) -> (f64, f64) {
    let codes = 1 << (bits - 1);
    let width = h.width();
    let mut magnitudes = vec![0.0; super::BINS / 2];
    for (x, count) in h.points() {
        magnitudes[((x.abs() / width) as usize).min(super::BINS / 2 - 1)] += count as f64;
    }
    let used = magnitudes
        .iter()
        .rposition(|&c| c > 0.0)
        .map_or(0, |i| i + 1);
    if used <= codes {
        return (h.min(), h.max());
    }
    let best = (codes..=used)
        .map(|end| (divergence(&magnitudes[..used], end, codes), end))
        .fold((f64::INFINITY, used), |a, b| if b.0 < a.0 { b } else { a });
    let limit = best.1 as f64 * width;
    (h.min().max(-limit), h.max().min(limit))
}

fn divergence(all: &[f64], end: usize, codes: usize) -> f64 {
    let mut seen = all[..end].to_vec();
    seen[end - 1] += all[end..].iter().sum::<f64>();
    let mut quantised = vec![0.0; end];
    for code in 0..codes {
        let (from, to) = (code * end / codes, (code + 1) * end / codes);
        let filled = all[from..to].iter().filter(|&&c| c > 0.0).count();
        let mean = all[from..to].iter().sum::<f64>() / filled.max(1) as f64;
        for i in from..to {
            if all[i] > 0.0 {
                quantised[i] = mean;
            }
        }
    }
    let (p, q): (f64, f64) = (seen.iter().sum(), quantised.iter().sum());
    seen.iter()
        .zip(&quantised)
        .filter(|(s, _)| **s > 0.0)
        .map(|(s, k)| s / p * libm::log((s / p) / (k / q).max(1e-12)))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clips_a_long_tail() {
        let mut x: Vec<f64> = (0..200_000).map(|i| f64::from(i % 1000) / 1000.0).collect();
        x.extend([8.0, -7.0]);
        let (lo, hi) = range(&Histogram::new(&x), 8);
        assert!(hi < 4.0 && lo > -4.0, "{lo} {hi}");
    }
}
