//! What rounding makes of each layer at many formats, all others at 8 bits: the weights that a study of the layers wants.

use std::collections::HashMap;

use lowbit_ir::{Graph, ValueId};
use lowbit_num::Format;

use super::super::{Builder, Formats, Ranges};
use super::{Fit, FitError};

/// Most weights of a channel that are rounded as a fit rounds them; the nearest codes are taken beyond, where factors of
/// covariances take minutes.
pub(super) const WIDEST: usize = 2048;

/// Weights by layer and format.
pub(crate) struct Alone<'a> {
    pub(super) formats: &'a [Format],
    /// By result of the layer: what the codes stand for at each format, in the order of the weights.
    pub(super) found: HashMap<ValueId, Vec<Vec<f64>>>,
}

/// Rounds every layer at each of some formats as [`super::super::quantize_fitted`] does in a network of 8 bits; real
/// weights by result of the layer and format.
///
/// # Errors
/// Nodes that cannot be quantised; a sample that the integer graph cannot be run on.
pub fn round_alone(
    float: &Graph,
    ranges: &dyn Ranges,
    formats: &[Format],
    fit: &Fit,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<HashMap<ValueId, Vec<Vec<f64>>>, FitError> {
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
