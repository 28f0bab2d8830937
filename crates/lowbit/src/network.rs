//! A float network with what was seen of it on calibration samples.

use std::sync::{Arc, Mutex, PoisonError};

use lowbit_data::Dataset;
use lowbit_ir::Graph;
use lowbit_passes::calibrate::{Stats, calibrate};

use crate::fit::unseen;
use crate::model::Model;
use crate::{Cache, Error, Key, Progress};

/// The network and what was seen.
pub(crate) struct Network {
    pub(crate) graph: Graph,
    pub(crate) stats: Stats,
    /// What was seen of fewer samples, by their indices.
    parts: Mutex<Vec<(Vec<usize>, Arc<Stats>)>>,
    /// Where what is seen is kept; nowhere for random samples, which are made anew as fast as they are read.
    kept: Option<(Cache, Key)>,
}

impl Network {
    /// Runs the samples, or takes what an earlier run saw; `which` tells the graphs of one model apart.
    ///
    /// # Errors
    /// A sample cannot be read or run.
    pub(crate) fn new(
        model: &Model,
        data: &Dataset,
        indices: &[usize],
        (graph, which): (Graph, &str),
        (cache, progress): (&Cache, &dyn Progress),
    ) -> Result<Self, Error> {
        let see = || {
            let sample = |i: usize| model.sample(data, indices[i]);
            let step = |done, total| progress.step("calibrate", done, total);
            calibrate(&graph, indices.len(), sample, |_| true, step).map_err(unseen)
        };
        let key = key("ranges", model, data, indices)?.map(|key| key.with(which));
        let stats = match &key {
            None => see()?,
            Some(key) => kept(cache, key, progress, see)?,
        };
        Ok(Self {
            graph,
            stats,
            parts: Mutex::default(),
            kept: key.map(|key| (cache.clone(), key)),
        })
    }

    /// The means that are seen of some of the samples, seen once.
    ///
    /// # Errors
    /// Those of `see`.
    pub(crate) fn part(
        &self,
        indices: &[usize],
        progress: &dyn Progress,
        see: impl FnOnce() -> Result<Stats, Error>,
    ) -> Result<Arc<Stats>, Error> {
        let parts = || self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let known = parts().iter().find(|p| p.0 == indices).map(|p| p.1.clone());
        if let Some(known) = known {
            return Ok(known);
        }
        // nothing is locked meanwhile: it runs on all threads
        let seen = Arc::new(match &self.kept {
            None => see()?,
            Some((cache, key)) => {
                let key = key.clone().with("means").with(format!("{indices:?}"));
                kept(cache, &key, progress, see)?
            }
        });
        parts().push((indices.to_vec(), seen.clone()));
        Ok(seen)
    }
}

/// The key of what depends on a model and some samples; nothing for random samples.
///
/// # Errors
/// A file of the data cannot be read.
pub(crate) fn key(
    kind: &'static str,
    model: &Model,
    data: &Dataset,
    indices: &[usize],
) -> Result<Option<Key>, Error> {
    let shapes: Vec<_> = model.inputs().into_iter().map(|i| i.shape).collect();
    let with = |digest: String| {
        Key::new(kind)
            .with(&model.sha256)
            .with(format!("{shapes:?}"))
            .with(digest)
            .with(format!("{indices:?}"))
    };
    Ok(data.sha256()?.map(with))
}

/// What the cache has, or what is seen now.
fn kept(
    cache: &Cache,
    key: &Key,
    progress: &dyn Progress,
    see: impl FnOnce() -> Result<Stats, Error>,
) -> Result<Stats, Error> {
    if let Some(stats) = cache.get(key).and_then(|bytes| from_bytes(&bytes)) {
        return Ok(stats);
    }
    let stats = see()?;
    let words = stats.to_words();
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    cache.keep(key, &bytes, progress);
    Ok(stats)
}

fn from_bytes(bytes: &[u8]) -> Option<Stats> {
    let words = bytes.chunks_exact(8);
    let words: Vec<u64> = words
        .map(|b| u64::from_le_bytes(b.try_into().expect("eight bytes")))
        .collect();
    Stats::from_words(&words)
}
