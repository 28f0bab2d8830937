//! What plans lose on samples that they are not fitted on. It is kept: the next budget is often held against plans of
//! the last one.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use lowbit_passes::quantize::Formats;

use super::{Candidate, ENOUGH, Fitted, How, Judge, Quantizer, Run};
use crate::network::key;
use crate::{Cache, Error, Key, Progress};

/// Fits that are kept of plans that were compared.
const FITS_KEPT: usize = 4;

/// The mean over samples.
pub(crate) fn mean(losses: &[f64]) -> f64 {
    losses.iter().sum::<f64>() / losses.len().max(1) as f64
}

/// The standard error of the mean difference between what two plans lose on the same samples.
pub(crate) fn standard_error(one: &[f64], other: &[f64]) -> f64 {
    let differences: Vec<f64> = one.iter().zip(other).map(|(a, b)| a - b).collect();
    let (n, middle) = (differences.len() as f64, mean(&differences));
    let squares: f64 = differences.iter().map(|d| (d - middle).powi(2)).sum();
    (squares / (n - 1.0).max(1.0) / n.max(1.0)).sqrt()
}

impl Quantizer<'_> {
    /// What the network loses at formats on each sample that it is not fitted on, without training; the samples are the
    /// same whatever the formats.
    ///
    /// # Errors
    /// As [`Quantizer::quantize`].
    pub(crate) fn judged(
        &self,
        formats: &Formats,
        progress: &dyn Progress,
    ) -> Result<Vec<f64>, Error> {
        let Some(key) = self.losses()? else {
            return self.judge(formats, progress);
        };
        let layers: BTreeMap<_, _> = formats.layers.iter().collect();
        let of = format!("{:?} {layers:?}", formats.default);
        let bytes = self.cache.get_or(&key.clone().with(of), progress, || {
            let losses = self.judge(formats, progress)?;
            Ok(losses.iter().flat_map(|l| l.to_le_bytes()).collect())
        })?;
        let words = bytes.as_chunks();
        if !words.1.is_empty() {
            return Err(Cache::damaged());
        }
        Ok(words.0.iter().copied().map(f64::from_le_bytes).collect())
    }

    /// Whether a fit takes seconds and what plans lose can be kept, so that it pays to measure before it is asked for.
    pub(crate) fn is_slow(&self) -> Result<bool, Error> {
        let formats = Formats::default();
        let effort = self.effort(&formats).min(1);
        let kept = self.cache.is_open() && self.losses()?.is_some();
        Ok(kept && effort > 0 && !self.cheap(&formats, effort))
    }

    /// The same measured now, with the ranges that are taken first. Where calibration samples are few, each of them judges
    /// a fit on others (k-fold cross-validation): some tens do not tell plans apart.
    fn judge(&self, formats: &Formats, progress: &dyn Progress) -> Result<Vec<f64>, Error> {
        let effort = self.effort(formats).min(1);
        let mut folds = self.folds();
        if folds[0].len() >= ENOUGH || !self.cheap(formats, effort) {
            folds.truncate(1);
        }
        let mut all = Vec::new();
        for (k, judges) in folds.into_iter().enumerate() {
            let run = Run::new(self, &self.own, formats, effort, judges, progress)?;
            let how = How::new(self.methods()[0], &self.tuning);
            let quantized = run.fit(how)?;
            let judge = Judge::new(&run)?;
            let losses = judge.losses(&quantized)?;
            let loss = mean(&losses);
            all.extend(losses);
            if k == 0 {
                let candidate = Candidate {
                    quantized,
                    loss,
                    how,
                };
                self.keep(Fitted {
                    formats: self.by_layer(formats),
                    samples: run.fitted,
                    candidate,
                });
            }
        }
        Ok(all)
    }

    fn keep(&self, fitted: Fitted) {
        let mut fits = self.fits.lock().unwrap_or_else(PoisonError::into_inner);
        fits.truncate(FITS_KEPT - 1);
        fits.insert(0, fitted);
    }

    /// What losses depend on beside formats; nothing for random samples.
    ///
    /// # Errors
    /// A file of the data cannot be read.
    pub(crate) fn losses(&self) -> Result<Option<&Key>, Error> {
        if self.losses.get().is_none() {
            let key = key("losses", self.model, self.data, &self.indices)?;
            let key = key.map(|k| k.with(format!("{:?}", self.tuning)).with(build()));
            // whoever was first, it is the same
            let _ = self.losses.set(key);
        }
        Ok(self.losses.get().and_then(Option::as_ref))
    }
}

/// What tells builds of one version apart, which need not lose the same.
fn build() -> String {
    let file = std::env::current_exe().and_then(std::fs::metadata);
    let facts = file.and_then(|f| Ok(format!("{} {:?}", f.len(), f.modified()?)));
    facts.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::{JUDGES, folds};
    use super::standard_error;

    #[test]
    fn differences_are_paired() {
        let (a, b) = ([1.0, 10.0, 100.0], [2.0, 11.0, 101.0]);
        assert_eq!(standard_error(&a, &b), 0.0);
        // differences 0 and 2: deviation √2, over √2
        assert!((standard_error(&[3.0, 5.0], &[3.0, 3.0]) - 1.0).abs() < 1e-12);
        assert_eq!(standard_error(&[3.0], &[1.0]), 0.0);
    }

    #[test]
    fn every_sample_judges_in_one_fold() {
        for n in [2, 20, 64, 100, 560, 1024] {
            let all: Vec<usize> = (0..n).collect();
            let folds = folds(&all, JUDGES[1]);
            let mut seen = folds.concat();
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), folds.concat().len(), "{n}");
            assert!(folds.iter().all(|f| 2 * f.len() <= n), "{n}");
            // what an odd number leaves over
            assert!(seen.len() + folds.len() > n, "{n}");
        }
        assert_eq!(folds(&[7], JUDGES[1]), [[0; 0]]);
    }
}
