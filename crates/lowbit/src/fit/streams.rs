//! Whether residual streams get 16 bits.

use lowbit_passes::finetune::Loss;

use super::{Candidate, How, Judge, Run, judged};
use crate::Error;

/// Multiply-accumulates of a fit up to which it is done once more with residual streams of 16 bits.
const WIDENING: usize = 64_000_000_000;
/// The share of the output's squared error that may be left for 16 bits to be worth their time and memory in residual streams.
const WORTH: f64 = 2.0 / 3.0;

impl Run<'_> {
    /// What residual streams of 16 bits make of a candidate, where the squared error of what is compared is a third smaller on the
    /// judges, by more than the standard error: they cost time and memory. A divergence is mostly that of a few samples, which
    /// change with every rounding. Ranges are chosen anew then.
    pub(super) fn widened(
        &self,
        best: &Candidate,
        judge: &Judge,
    ) -> Result<Option<Candidate>, Error> {
        let q = self.quantizer;
        let asks = q.tuning.residual_bits.is_none() && best.quantized.stream_bits.is_some();
        if !asks || self.judges.is_empty() || q.work(self.formats, self.effort) > WIDENING {
            return Ok(None);
        }
        let how = How {
            wide_streams: true,
            ..best.how
        };
        let found = self.fit(how)?;
        let square = Judge::of(self, Loss::Square)?;
        let (narrow, wide) = (square.losses(&best.quantized)?, square.losses(&found)?);
        let error = judged::standard_error(&narrow, &wide);
        let share = judged::mean(&wide) / judged::mean(&narrow).max(f64::MIN_POSITIVE);
        if share > WORTH || judged::mean(&wide) + error > judged::mean(&narrow) {
            return Ok(None);
        }
        self.progress.note(&format!(
            "residual streams have 16 bits: on held-out samples the squared error of the scores is {share:.2} times that with 8 bits"
        ));
        self.choose(true, judge).map(Some)
    }
}
