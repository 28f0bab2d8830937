use serde::{Deserialize, Serialize};

use crate::Sensitivity;

/// What `lowbit sensitivity` writes: the table, and what speaks for it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// The table, as `allocate` reads it.
    #[serde(flatten)]
    pub table: Sensitivity,
    /// How well each metric orders random mixed plans, where that was measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranks: Vec<RankCorrelation>,
    /// Groups of layers with metrics of their own, where they were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<MetricGroup>,
    /// Second derivatives of the loss by the weights of each layer, where they were taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traces: Option<HessianTraces>,
    /// What scores are divided by before distributions of classes are compared, where that is not 1: the network is so sure of
    /// its calibration samples that their distributions tell little.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
}

/// How losses were predicted, and what speaks for it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Predictor {
    /// The metric.
    pub metric: String,
    /// How well each metric orders random mixed plans; empty where the metric was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranks: Vec<RankCorrelation>,
    /// Second derivatives of the loss by the weights of each layer, where they were taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traces: Option<HessianTraces>,
    /// What scores are divided by before distributions of classes are compared, where that is not 1: the network is so sure of
    /// its calibration samples that their distributions tell little.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
}

impl From<&Evidence> for Predictor {
    fn from(found: &Evidence) -> Self {
        Self {
            metric: found.table.metric.clone().unwrap_or_default(),
            ranks: found.ranks.clone(),
            traces: found.traces.clone(),
            temperature: found.temperature,
        }
    }
}

/// What a temperature says of the losses beside it.
pub fn temperature_sentence(temperature: f64) -> String {
    format!(
        "The network is nearly certain of its calibration samples, so losses are those of scores divided by {temperature:.2}: \
         divergence at that temperature."
    )
}

/// Traces of the Hessian, and how exact they are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HessianTraces {
    /// Relative standard error that was asked for.
    pub asked_error: f64,
    /// Largest relative standard error of a layer's trace by squared gradients, which losses are predicted by.
    pub error: f64,
    /// Gradients taken.
    pub gradients: usize,
    /// Largest relative standard error of a layer's trace by probes, where they were taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probes_error: Option<f64>,
    /// Hessian-vector products taken, where they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probes: Option<usize>,
    /// Layers in execution order.
    pub layers: Vec<LayerTrace>,
}

/// Layers that are predicted by one metric.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MetricGroup {
    /// The kind of layer, or the name that was given.
    pub name: String,
    /// The metric.
    pub metric: String,
    /// What the metric's losses were multiplied by, so that they are of the size that was measured.
    pub scale: f64,
    /// Names of the layers.
    pub layers: Vec<String>,
    /// How well each metric orders random plans of these layers, all others at 8 bits.
    pub ranks: Vec<RankCorrelation>,
}

/// Spearman's correlation of predicted with measured loss over random mixed plans.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RankCorrelation {
    /// The metric that predicts.
    pub metric: String,
    /// What the plans have in common.
    pub plans: String,
    /// How many plans.
    pub count: usize,
    /// The correlation.
    pub value: f64,
    /// 5 % quantile over resampled plans.
    pub low: f64,
    /// 95 % quantile.
    pub high: f64,
}

/// Trace of the Hessian by the weights of a layer, for the loss of one sample, by two estimates.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LayerTrace {
    /// Name of the layer.
    pub name: String,
    /// From squared gradients along random directions of the outputs (Gauss-Newton).
    pub gradients: f64,
    /// Standard error of `gradients`.
    pub gradients_error: f64,
    /// From Hutchinson's probes with exact Hessian-vector products, where they were taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probes: Option<f64>,
    /// Standard error of `probes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probes_error: Option<f64>,
}
