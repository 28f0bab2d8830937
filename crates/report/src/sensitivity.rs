use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A sensitivity file: what each layer would lose and cost with each of its choices. `sensitivity` writes it and
/// `allocate` reads it; people may write their own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sensitivity {
    /// How the losses were found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<String>,
    /// What every plan costs beside its layers.
    #[serde(default, skip_serializing_if = "Fixed::is_none")]
    pub fixed: Fixed,
    /// The schedule: what lies in the arena at each step, which only a budget of memory needs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<MemoryStep>,
    /// Layers with weights, in execution order.
    pub layers: Vec<SensitiveLayer>,
}

/// What every plan costs beside its layers: pools, sums, the input's copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Fixed {
    /// Bytes of constants.
    pub weight_bytes: f64,
    /// Microseconds of one inference.
    pub latency_us: f64,
    /// Bytes of the object.
    pub object_bytes: f64,
}

impl Fixed {
    fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// A step of the schedule.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MemoryStep {
    /// What it computes, by its name in the model.
    pub name: String,
    /// Bytes that live during the step under every plan; choices add theirs, see [`SensitiveChoice::step_bytes`].
    #[serde(default)]
    pub bytes: f64,
}

/// A layer and its choices.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SensitiveLayer {
    /// Name in the model.
    pub name: String,
    /// Number of weights, bias not counted; only a budget of bits needs it.
    #[serde(default)]
    pub params: Option<f64>,
    /// Layers with the same tie take the choice of the same index.
    #[serde(default)]
    pub tie: Option<Tie>,
    /// Layers that read the same tensor take the same activation format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reads: Option<String>,
    /// At least one.
    pub choices: Vec<SensitiveChoice>,
}

/// What names a group of tied layers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Tie {
    /// A number.
    Number(i64),
    /// A name.
    Name(String),
}

/// Formats that a layer could have. Costs that no budget names may be missing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SensitiveChoice {
    /// Format of the weights.
    pub weight: String,
    /// Format of the layer's input.
    #[serde(default = "int8")]
    pub activation: String,
    /// Loss that the choice is predicted to add, in any unit that adds up over layers.
    pub loss: f64,
    /// Bytes of weights and constants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_bytes: Option<f64>,
    /// Multiply-accumulates times weight bits times activation bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bops: Option<f64>,
    /// Microseconds of one inference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_us: Option<f64>,
    /// Bytes of the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_bytes: Option<f64>,
    /// Bytes that the choice adds to what lives in the arena, by the name of the step; a layer's work space at the layer's
    /// own step, a tensor that is smaller in this format at every step of its life. Steps that are not named get none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub step_bytes: BTreeMap<String, f64>,
}

fn int8() -> String {
    "int8".into()
}

/// Reads a sensitivity file.
///
/// # Errors
/// The text is no such file.
pub fn read_sensitivity(text: &str) -> Result<Sensitivity, serde_json::Error> {
    serde_json::from_str(text)
}
