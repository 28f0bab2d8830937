use lowbit_num::real::power_of_two;

/// Bins of a histogram.
pub const BINS: usize = 2048;

/// A histogram of fixed size over `−2^e ..= 2^e`, whose span doubles when it is exceeded: neighbouring bins are joined,
/// so that merging in any order gives the same counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    pub(super) bins: Vec<u64>,
    pub(super) exponent: i32,
    pub(super) min: f64,
    pub(super) max: f64,
    pub(super) zeros: u64,
}

/// The smallest span: values below are zero to any 8-bit range.
const SMALLEST: i32 = -60;

/// Elements whose bins are found before they are counted.
const PART: usize = 512;

/// The bin of an element in bin widths from the middle, within the span.
#[inline(always)]
fn place_of(x: f64) -> u32 {
    // a whole number below 2^52 is the low half of what 2^52 more than it looks like
    const WHOLE: f64 = (1u64 << 52) as f64;
    let at = (x + (BINS / 2) as f64).floor().min((BINS - 1) as f64);
    (at + WHOLE).to_bits() as u32
}

/// Lowest and highest element, at most and at least 0; NaN where an element is.
#[inline(always)]
fn extremes<T: Copy + Into<f64>>(x: &[T]) -> (f64, f64) {
    let (mut min, mut max, mut odd) = ([0.0f64; 8], [0.0f64; 8], [0.0f64; 8]);
    let mut parts = x.chunks_exact(8);
    let mut see = |lane: usize, v: T| {
        let v: f64 = v.into();
        min[lane] = if v < min[lane] { v } else { min[lane] };
        max[lane] = if v > max[lane] { v } else { max[lane] };
        // zero but for what is not finite
        odd[lane] += v * 0.0;
    };
    for part in parts.by_ref() {
        (0..8).for_each(|lane| see(lane, part[lane]));
    }
    for &v in parts.remainder() {
        see(0, v);
    }
    let odd: f64 = odd.iter().sum();
    let lowest = min.iter().fold(0.0, |a: f64, &b| a.min(b));
    let highest = max.iter().fold(0.0, |a: f64, &b| a.max(b));
    (lowest + odd, highest + odd)
}

/// Counting in code for this processor's widest vectors, into which everything is inlined.
struct Count<'a, T>(&'a [T]);

impl<T: Copy + Into<f64>> pulp::NullaryFnOnce for Count<'_, T> {
    type Output = Histogram;

    #[inline(always)]
    fn call(self) -> Histogram {
        Histogram::of(self.0)
    }
}

impl Histogram {
    /// Of elements; those that are exactly zero are counted apart.
    pub fn new<T: Copy + Into<f64>>(x: &[T]) -> Self {
        pulp::Arch::new().dispatch(Count(x))
    }

    #[inline(always)]
    fn of<T: Copy + Into<f64>>(x: &[T]) -> Self {
        let (min, max) = extremes(x);
        let largest = max.max(-min);
        let mut histogram = Self {
            bins: vec![0; BINS],
            exponent: SMALLEST,
            min,
            max,
            zeros: 0,
        };
        if !largest.is_finite() {
            histogram.max = f64::NAN;
            return histogram;
        }
        while power_of_two(histogram.exponent) < largest {
            histogram.exponent += 1;
        }
        let unit = (BINS / 2) as f64 / power_of_two(histogram.exponent);
        // neighbours are counted in two tables: runs of equal elements need not wait for each other
        let mut counts = [[0u64; BINS]; 2];
        for part in x.chunks(PART) {
            let mut places = [0u32; PART];
            for (place, &v) in places.iter_mut().zip(part) {
                *place = place_of(v.into() * unit);
                histogram.zeros += u64::from(v.into() == 0.0);
            }
            for (i, &place) in places[..part.len()].iter().enumerate() {
                counts[i % 2][place as usize % BINS] += 1;
            }
        }
        let both = counts[0].iter().zip(&counts[1]);
        histogram.bins = both.map(|(a, b)| a + b).collect();
        histogram.bins[BINS / 2] -= histogram.zeros;
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
