//! How a network is tuned, and the names of its choices on the command line and in reports.

use lowbit_passes::calibrate::Method;
use lowbit_passes::finetune::Estimator;
use lowbit_passes::quantize::Solver;
use lowbit_report::Report;

/// How the network is made to lose as little as its formats allow.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tuning {
    /// 0 takes seconds: nearest codes and corrected biases. 1 adds error feedback. 2 chooses ranges by what the network
    /// loses and trains it for a short time, as a whole and block by block, whichever loses less; 3 for a long one. Where
    /// it is not given, 2 where weights average fewer than 5.5 bits or layers read 4, else 1.
    pub effort: Option<u8>,
    /// How ranges are chosen; by the effort where it is not given.
    pub ranges: Option<Method>,
    /// Steps of training; by the effort where it is not given.
    pub finetune: Option<usize>,
    /// How weights are rounded before any training; by the effort where it is not given.
    pub rounding: Option<RoundingMethod>,
    /// Bits of residual streams, 8 or 16; by what the network loses where it is not given, 8 where a budget bounds time or
    /// memory.
    pub residual_bits: Option<u32>,
    /// What stands for the derivative of rounding while training.
    pub estimator: Estimator,
    /// Order of samples while training.
    pub seed: u64,
}

/// Ways to round weights, from the plainest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoundingMethod {
    /// Each weight to its nearest code, biases as they are.
    Nearest,
    /// The same, and biases make up for what that does to the mean of each channel.
    Corrected,
    /// With error feedback, biases corrected.
    Feedback,
    /// Up or down by gradient descent (AdaRound), biases corrected.
    AdaRound,
    /// With error feedback, then stretches of the network trained one after another (BRECQ with QDrop).
    Blocks,
}

impl RoundingMethod {
    /// Every method.
    pub const ALL: &'static [Self] = &[
        Self::Nearest,
        Self::Corrected,
        Self::Feedback,
        Self::AdaRound,
        Self::Blocks,
    ];

    /// The name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nearest => "nearest",
            Self::Corrected => "corrected",
            Self::Feedback => "feedback",
            Self::AdaRound => "adaround",
            Self::Blocks => "blocks",
        }
    }

    /// The method of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|m| m.name() == name)
    }

    pub(crate) fn solver(self) -> Solver {
        match self {
            Self::Nearest | Self::Corrected => Solver::Nearest,
            Self::Feedback | Self::Blocks => Solver::Feedback,
            Self::AdaRound => Solver::AdaRound,
        }
    }
}

impl Tuning {
    /// What a report was made with; residual streams as they came out, whatever budget kept them narrow.
    pub(crate) fn from_report(report: &Report) -> Self {
        let r = &report.reproduce;
        Self {
            effort: r.effort,
            ranges: ranges_from_name(&r.ranges),
            finetune: r.finetune,
            rounding: RoundingMethod::from_name(&r.rounding),
            residual_bits: report.totals.residual_bits,
            estimator: Estimator::from_name(&r.estimator).unwrap_or_default(),
            seed: r.seed,
        }
    }
}

/// The name of a method on the command line and in reports.
pub fn ranges_name(method: Method) -> String {
    match method {
        Method::MinMax => "minmax".into(),
        Method::Percentile(p) => format!("percentile:{p}"),
        Method::Mse => "mse".into(),
        Method::Kl => "kl".into(),
    }
}

/// The method of a name, see [`ranges_name`].
pub fn ranges_from_name(name: &str) -> Option<Method> {
    match name {
        "minmax" => Some(Method::MinMax),
        "mse" => Some(Method::Mse),
        "kl" => Some(Method::Kl),
        _ => {
            let p: f64 = name.strip_prefix("percentile:")?.parse().ok()?;
            (p > 50.0 && p <= 100.0).then_some(Method::Percentile(p))
        }
    }
}
