use super::Histogram;

/// The range that keeps `percent` of all elements, the rest left out in equal parts at both ends where there are any.
pub(crate) fn range(h: &Histogram, percent: f64) -> (f64, f64) {
    let outside = (h.count() as f64 * (1.0 - percent / 100.0) / 2.0) as u64;
    let half = h.width() / 2.0;
    let mut left = outside;
    let low = h.points().find(|&(_, count)| {
        let found = count > left;
        left = left.saturating_sub(count);
        found
    });
    let mut left = outside;
    let high = h.points().rev().find(|&(_, count)| {
        let found = count > left;
        left = left.saturating_sub(count);
        found
    });
    let low = low.map_or(0.0, |(x, _)| (x - half).max(h.min()));
    let high = high.map_or(0.0, |(x, _)| (x + half).min(h.max()));
    (low.min(0.0), high.max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_the_outliers_out() {
        let mut x: Vec<f64> = (0..10_000).map(|i| f64::from(i) / 10_000.0).collect();
        x.push(1000.0);
        let (lo, hi) = range(&Histogram::new(&x), 99.9);
        assert_eq!(lo, 0.0);
        assert!(hi < 2.0, "{hi}");
    }
}
