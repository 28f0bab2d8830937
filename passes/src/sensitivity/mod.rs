//! How much a network loses when the weights or the input of one layer get fewer bits.
//!
//! One file a metric; each predicts the same thing, the loss of [`Objective`](crate::loss::Objective) that a layer adds
//! at each format, so that they can be compared and exchanged. All of them stream samples: what is in memory is what one
//! sample a thread needs. Only [`Study::fit`] holds the samples that it is given, as fits do.

mod draws;
mod fisher;
mod floats;
mod gradients;
mod groups;
mod hessian;
mod joint;
mod layers;
mod lrp;
mod measured;
mod plans;
mod random;
mod rank;
mod residual;
mod stream;
#[cfg(test)]
mod tests;

pub use draws::{Curvature, Effort};
pub use fisher::{Draws, fisher};
pub use floats::FLOATS;
pub use gradients::{GaussNewton, gauss_newton};
pub use groups::{Group, OTHERS, by_kind, by_pattern};
pub use hessian::{Trace, Traces, hessian_losses, hutchinson, worst_error};
pub use joint::{Joint, unseen};
pub use layers::{COLUMNS, Layer, Study, WEIGHTS, layers};
pub use lrp::lrp;
pub use measured::{Measured, measure};
pub use plans::{Kind as PlanKind, plan_loss, random_plan, random_plan_of};
pub use rank::{Interval, bootstrap, gain, spearman};
pub use residual::residual;

use lowbit_ir::eval::EvalError;

/// The metrics of a sensitivity table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Metric {
    /// Mean eigenvalue of the Hessian times the squared error of the weights.
    Hessian,
    /// Squared gradients times squared errors, weight by weight.
    Fisher,
    /// Relevance of the layer times the relative error of its result.
    Lrp,
    /// Noise-to-signal ratio of the outputs with the layer quantised alone.
    Sqnr,
    /// Loss with the layer quantised alone.
    Kl,
    /// The same, weighted so that sums are what random mixed plans lose.
    Joint,
}

impl Metric {
    /// Every metric.
    pub const ALL: &'static [Self] = &[
        Self::Hessian,
        Self::Fisher,
        Self::Lrp,
        Self::Sqnr,
        Self::Kl,
        Self::Joint,
    ];

    /// The name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hessian => "hessian",
            Self::Fisher => "fisher",
            Self::Lrp => "lrp",
            Self::Sqnr => "sqnr",
            Self::Kl => "kl",
            Self::Joint => "joint",
        }
    }

    /// The metric with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|m| m.name() == name)
    }
}

/// Why a sensitivity could not be found.
#[derive(Debug, thiserror::Error)]
pub enum SensitivityError<E: std::error::Error + 'static> {
    /// A sample cannot be read.
    #[error(transparent)]
    Sample(E),
    /// The graph fails on a sample.
    #[error("sample {sample}: {error}")]
    Eval {
        /// The sample.
        sample: usize,
        /// What failed.
        error: EvalError,
    },
    /// A loss is NaN or infinite.
    #[error(
        "layer '{layer}', sample {sample}: the {what} is {found}; check the model, or the scaling of the data"
    )]
    NotFinite {
        /// The layer.
        layer: String,
        /// The sample.
        sample: usize,
        /// What was measured.
        what: &'static str,
        /// The number.
        found: f64,
    },
    /// The network has no derivative.
    #[error(transparent)]
    Derive(#[from] lowbit_ir::derive::DeriveError),
}
