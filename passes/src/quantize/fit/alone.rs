//! What rounding makes of each layer at many formats, all others at 8 bits: the weights that a study of the layers wants.

use std::collections::HashMap;

use lowbit_ir::{Graph, ValueId};
use lowbit_num::Format;

use super::super::{Builder, Formats, Ranges};
use super::{Fit, FitError};

/// Most weights of a channel that are rounded as a fit rounds them; the nearest codes are taken beyond, where factors of
/// covariances take minutes.
pub(super) const WIDEST: usize = 2048;

/// Weights of a layer at a format.
pub struct Rounded {
    /// What the codes stand for, in the order of the weights.
    pub weights: Vec<f64>,
    /// Squared error of the layer's output on every fourth sample of the fit, less that of its mean, in steps of what it
    /// reads; nothing where that is not known.
    pub error: Option<f64>,
}

/// Weights by layer and format.
pub(crate) struct Alone<'a> {
    pub(super) formats: &'a [Format],
    /// By result of the layer, at each format.
    pub(super) found: HashMap<ValueId, Vec<Rounded>>,
}

/// Rounds every layer at each of some formats as [`super::super::quantize_fitted`] does in a network of 8 bits; by
/// result of the layer, at each format.
///
/// # Errors
/// Nodes that cannot be quantised; a sample that the integer graph cannot be run on.
pub fn round_alone(
    float: &Graph,
    ranges: &dyn Ranges,
    formats: &[Format],
    fit: &Fit,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<HashMap<ValueId, Vec<Rounded>>, FitError> {
    let eight = Formats::default();
    let mut builder = Builder::new(float, ranges, &eight, Some(fit));
    builder.alone = Some(Alone {
        formats,
        found: HashMap::new(),
    });
    builder.build(progress)?;
    if !builder.problems.is_empty() {
        return Err(FitError::Problems(builder.problems));
    }
    let found = builder.alone.map(|a| a.found);
    Ok(found.unwrap_or_default())
}
