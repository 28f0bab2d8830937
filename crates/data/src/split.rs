//! Which samples calibrate, which evaluate, which tune.

use std::ops::Range;

use crate::descriptor::SplitText;
use crate::error::{DataError, Result};

/// Half-open sample ranges, none of them empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// Samples that ranges, rounding, metrics and plans may be decided on.
    pub calibrate: Range<usize>,
    /// Samples that accuracy is claimed on, which no decision reads; `None` where no split is given.
    pub evaluate: Option<Range<usize>>,
    /// Samples that decisions are scored on in place of `calibrate`. They do not overlap `evaluate`.
    pub tune: Option<Range<usize>>,
}

impl Split {
    /// All samples calibrate, and none evaluate.
    pub(crate) fn whole(samples: usize) -> Self {
        Self {
            calibrate: 0..samples,
            evaluate: None,
            tune: None,
        }
    }

    pub(crate) fn parse(text: &SplitText, samples: usize) -> Result<Self> {
        let optional = |key, text: &Option<String>| {
            let text = text.as_ref();
            text.map(|text| span(key, text, samples)).transpose()
        };
        let split = Self {
            calibrate: span("calibrate", &text.calibrate, samples)?,
            evaluate: optional("evaluate", &text.evaluate)?,
            tune: optional("tune", &text.tune)?,
        };
        split.check(text, samples)?;
        Ok(split)
    }

    fn check(&self, text: &SplitText, samples: usize) -> Result<()> {
        let pair = self.tune.as_ref().zip(self.evaluate.as_ref());
        if pair.is_some_and(|(tune, evaluate)| !common(tune, evaluate).is_empty()) {
            return Err(DataError::Span {
                key: "tune",
                text: text.tune.clone().unwrap_or_default(),
                why: "overlaps `evaluate`, which no decision may read".into(),
                samples,
            });
        }
        Ok(())
    }

    /// The samples that both calibrate and evaluate; empty where the two are apart, as they should be for accuracy to mean what it says.
    #[must_use]
    pub fn overlap(&self) -> Range<usize> {
        match &self.evaluate {
            Some(evaluate) => common(&self.calibrate, evaluate),
            None => 0..0,
        }
    }
}

/// At most `most` samples, evenly spread: neighbours are often alike, as windows of one recording or pictures of one
/// class.
#[must_use]
pub fn spread(samples: &[usize], most: usize) -> Vec<usize> {
    let n = samples.len().min(most);
    (0..n).map(|i| samples[i * samples.len() / n]).collect()
}

fn common(a: &Range<usize>, b: &Range<usize>) -> Range<usize> {
    a.start.max(b.start)..a.end.min(b.end)
}

/// Reads `a..b`, either end left out; `b` beyond the last sample means the last.
fn span(key: &'static str, text: &str, samples: usize) -> Result<Range<usize>> {
    let fault = |why: &str| DataError::Span {
        key,
        text: text.into(),
        why: why.into(),
        samples,
    };
    let (start, end) = text.split_once("..").ok_or_else(|| fault("is no range"))?;
    let bound = |text: &str, default| match text.trim() {
        "" => Ok(default),
        digits => digits
            .parse()
            .map_err(|_| fault("has a bound that is no whole number")),
    };
    let range = bound(start, 0)?..bound(end, samples)?.min(samples);
    if range.is_empty() {
        return Err(fault("holds no sample"));
    }
    Ok(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_half_open_and_end_at_the_last_sample() {
        assert_eq!(span("calibrate", "2..5", 10).unwrap(), 2..5);
        assert_eq!(span("calibrate", " .. 5 ", 10).unwrap(), 0..5);
        assert_eq!(span("calibrate", "7..", 10).unwrap(), 7..10);
        assert_eq!(span("calibrate", "..", 10).unwrap(), 0..10);
        assert_eq!(span("calibrate", "7..99", 10).unwrap(), 7..10);
    }

    #[test]
    fn fewer_samples_are_spread_over_all() {
        let of = [3, 4, 5, 6, 7, 8, 9];
        assert_eq!(spread(&of, 3), [3, 5, 7]);
        assert_eq!(spread(&of, 7), of);
        assert_eq!(spread(&of, 9), of);
        assert!(spread(&of, 0).is_empty() && spread(&[], 3).is_empty());
    }

    #[test]
    fn bad_ranges_are_refused_by_key() {
        for text in [
            "", "5", "5..5", "6..2", "10..", "-1..4", "a..b", "0...4", "0..=4",
        ] {
            let error = span("evaluate", text, 10).unwrap_err().to_string();
            assert!(
                error.contains("evaluate") && error.contains("10 samples"),
                "{error}"
            );
        }
    }

    fn text(calibrate: &str, evaluate: &str, tune: Option<&str>) -> SplitText {
        SplitText {
            calibrate: calibrate.into(),
            evaluate: Some(evaluate.into()),
            tune: tune.map(Into::into),
        }
    }

    #[test]
    fn tuning_on_the_evaluation_split_is_refused() {
        assert!(Split::parse(&text("0..4", "4..", Some("3..5")), 10).is_err());
        let split = Split::parse(&text("0..4", "4..", Some("2..4")), 10).unwrap();
        assert_eq!(split.tune, Some(2..4));
        assert!(split.overlap().is_empty());
        let shared = Split::parse(&text("0..6", "4..", None), 10).unwrap();
        assert_eq!(shared.overlap(), 4..6);
    }
}
