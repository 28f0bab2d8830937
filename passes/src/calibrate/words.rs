//! What was seen as 64-bit words, to be kept between runs.

use lowbit_ir::ValueId;

use super::{BINS, Histogram, Observed, Stats};

impl Stats {
    /// All of it, tensors in the order of their numbers in the graph.
    pub fn to_words(&self) -> Vec<u64> {
        let mut all: Vec<(&ValueId, &Observed)> = self.observed.iter().collect();
        all.sort_by_key(|(v, _)| v.as_u32());
        let words = all.into_iter().flat_map(|(v, o)| {
            let head = [
                u64::from(v.as_u32()),
                o.sums.len() as u64,
                o.count.to_bits(),
            ];
            let sums = o.sums.iter().chain(&o.peaks).map(|x| x.to_bits());
            let own = head.into_iter().chain(sums).collect::<Vec<u64>>();
            own.into_iter().chain(o.histogram.to_words())
        });
        words.collect()
    }

    /// What [`Stats::to_words`] gave; nothing where the words are no such thing.
    pub fn from_words(mut words: &[u64]) -> Option<Self> {
        let mut stats = Self::default();
        while !words.is_empty() {
            let (&[value, channels, count], rest) = words.split_first_chunk()?;
            let channels = usize::try_from(channels).ok()?;
            let (sums, rest) = rest.split_at_checked(channels)?;
            let (peaks, rest) = rest.split_at_checked(channels)?;
            let (histogram, rest) = rest.split_at_checked(Histogram::WORDS)?;
            let real = |words: &[u64]| words.iter().copied().map(f64::from_bits).collect();
            let observed = Observed {
                histogram: Histogram::from_words(histogram)?,
                sums: real(sums),
                peaks: real(peaks),
                count: f64::from_bits(count),
            };
            let value = ValueId::from_u32(u32::try_from(value).ok()?);
            stats.observed.insert(value, observed);
            words = rest;
        }
        Some(stats)
    }
}

impl Histogram {
    /// Words of a histogram.
    const WORDS: usize = 4 + BINS;

    fn to_words(&self) -> impl Iterator<Item = u64> {
        let (min, max) = (self.min.to_bits(), self.max.to_bits());
        let head = [i64::from(self.exponent) as u64, min, max, self.zeros];
        head.into_iter().chain(self.bins.clone())
    }

    fn from_words(words: &[u64]) -> Option<Self> {
        let (&[exponent, min, max, zeros], bins) = words.split_first_chunk()?;
        Some(Self {
            bins: bins.to_vec(),
            exponent: i32::try_from(exponent as i64).ok()?,
            min: f64::from_bits(min),
            max: f64::from_bits(max),
            zeros,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_what_was_seen() {
        let mut stats = Stats::default();
        for (id, scale) in [(7, 0.25f32), (3, 1e4), (12, 0.0)] {
            let x: Vec<f32> = (0..60).map(|i| scale * (i as f32 - 20.0)).collect();
            let tensor = lowbit_ir::Tensor::new([20, 3], x);
            stats
                .observed
                .insert(ValueId::from_u32(id), Observed::new(&tensor));
        }
        let words = stats.to_words();
        assert_eq!(Stats::from_words(&words).unwrap().observed, stats.observed);
        assert!(Stats::from_words(&words[..words.len() - 1]).is_none());
        assert!(Stats::from_words(&words[1..]).is_none());
    }
}
