use lowbit_num::real::power_of_two;

/// Bins of a histogram.
pub const BINS: usize = 2048;

/// A histogram of fixed size over `−2^e ..= 2^e`, whose span doubles when it is exceeded: neighbouring bins are joined,
/// so that merging in any order gives the same counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    bins: Vec<u64>,
    exponent: i32,
    min: f64,
    max: f64,
    zeros: u64,
}

/// The smallest span: values below are zero to any 8-bit range.
const SMALLEST: i32 = -60;

impl Histogram {
    /// Of elements; those that are exactly zero are counted apart.
    pub fn new(x: &[f64]) -> Self {
        let (mut min, mut max, mut odd) = (0.0f64, 0.0f64, false);
        for &v in x {
            min = min.min(v);
            max = max.max(v);
            odd |= !v.is_finite();
        }
        let largest = max.max(-min);
        let mut histogram = Self {
            bins: vec![0; BINS],
            exponent: SMALLEST,
            min,
            max,
            zeros: 0,
        };
        if odd {
            histogram.max = f64::NAN;
            return histogram;
        }
        while power_of_two(histogram.exponent) < largest {
            histogram.exponent += 1;
        }
        let unit = (BINS / 2) as f64 / power_of_two(histogram.exponent);
        for &v in x {
            if v == 0.0 {
                histogram.zeros += 1;
            } else {
                let at = (v * unit + (BINS / 2) as f64) as usize;
                histogram.bins[at.min(BINS - 1)] += 1;
            }
        }
        histogram
    }

    /// Whether all elements were finite.
    pub fn is_finite(&self) -> bool {
        self.min.is_finite() && self.max.is_finite()
    }

    /// Adds another histogram's elements.
    pub fn merge(&mut self, other: &Self) {
        let exponent = self.exponent.max(other.exponent);
        self.widen(exponent);
        let mut other = other.clone();
        other.widen(exponent);
        self.bins
            .iter_mut()
            .zip(&other.bins)
            .for_each(|(a, b)| *a += b);
        self.zeros += other.zeros;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    fn widen(&mut self, exponent: i32) {
        while self.exponent < exponent {
            let mut wide = vec![0; BINS];
            for (i, &count) in self.bins.iter().enumerate() {
                wide[BINS / 4 + i / 2] += count;
            }
            self.bins = wide;
            self.exponent += 1;
        }
    }

    /// Lowest element, at most 0.
    pub fn min(&self) -> f64 {
        self.min
    }

    /// Highest element, at least 0.
    pub fn max(&self) -> f64 {
        self.max
    }

    /// Counts by bin; zeros are not among them.
    pub fn bins(&self) -> &Vec<u64> {
        &self.bins
    }

    /// Elements that are exactly zero.
    pub fn zeros(&self) -> u64 {
        self.zeros
    }

    /// Width of a bin.
    pub fn width(&self) -> f64 {
        power_of_two(self.exponent) * 2.0 / BINS as f64
    }

    /// Middle and count of each bin that is not empty, ascending.
    pub fn points(&self) -> impl DoubleEndedIterator<Item = (f64, u64)> {
        let (width, span) = (self.width(), power_of_two(self.exponent));
        let middle = move |i: usize| (i as f64 + 0.5) * width - span;
        self.bins
            .iter()
            .enumerate()
            .filter(|(_, c)| **c > 0)
            .map(move |(i, &c)| (middle(i), c))
    }

    /// Number of elements.
    pub fn count(&self) -> u64 {
        self.zeros + self.bins.iter().sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_in_any_order_gives_the_same() {
        let parts =
            [vec![0.1, -0.2, 0.0], vec![5.0, -7.5], vec![1e-9, 900.0]].map(|x| Histogram::new(&x));
        let merged = |order: [usize; 3]| {
            let mut h = parts[order[0]].clone();
            h.merge(&parts[order[1]]);
            h.merge(&parts[order[2]]);
            h
        };
        assert_eq!(merged([0, 1, 2]), merged([2, 1, 0]));
        assert_eq!(merged([0, 1, 2]).count(), 7);
        assert_eq!(
            (merged([1, 0, 2]).min(), merged([1, 0, 2]).max()),
            (-7.5, 900.0)
        );
    }
}
