//! What plans lose on samples that they are not fitted on. It is kept: the next budget is often held against plans of
//! the last one.

use std::collections::BTreeMap;

use lowbit_passes::quantize::Formats;

use crate::fit::Quantizer;
use crate::network::key;
use crate::{Error, Key, Progress};

impl Quantizer<'_> {
    /// What the network loses at formats on samples that it is not fitted on, without training.
    ///
    /// # Errors
    /// As [`Quantizer::quantize`].
    pub(crate) fn judged(&self, formats: &Formats, progress: &dyn Progress) -> Result<f64, Error> {
        let Some(losses) = self.losses()? else {
            return self.judge(formats, progress);
        };
        let layers: BTreeMap<_, _> = formats.layers.iter().collect();
        let of = format!("{:?} {layers:?}", formats.default);
        let bytes = self.cache.get_or(&losses.clone().with(of), progress, || {
            let loss = self.judge(formats, progress)?;
            Ok(loss.to_le_bytes().to_vec())
        })?;
        let loss = bytes.try_into().map(f64::from_le_bytes);
        loss.map_err(|_| {
            Error::Other("an entry of the cache does not fit; --no-cache makes it anew".into())
        })
    }

    /// What losses depend on beside formats; nothing for random samples.
    fn losses(&self) -> Result<Option<&Key>, Error> {
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
