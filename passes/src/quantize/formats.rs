//! Which formats each layer gets.

use std::collections::HashMap;

use lowbit_num::Format;

/// Formats of a weighted layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LayerFormats {
    /// Format of the weights. [`Format::Int2`] stands for the better of the two grids of 2 bits.
    pub weight: Format,
    /// Bits of the tensor that the layer reads, unsigned codes: [`Format::Int8`] or [`Format::Int4`].
    pub activation: Format,
}

/// Formats by the name of the layer, see [`super::Layer::name`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Formats {
    /// What layers get that are not named.
    pub default: LayerFormats,
    /// What layers get by name.
    pub layers: HashMap<String, LayerFormats>,
    /// Whether residual streams, the tensors that are added to what layers make of them, have 16 bits. What layers read of them is
    /// a copy in as many bits as they want.
    pub wide_streams: bool,
}

impl Formats {
    /// The same formats for every layer.
    pub fn uniform(weight: Format, activation: Format) -> Self {
        Self {
            default: LayerFormats { weight, activation },
            layers: HashMap::new(),
            wide_streams: false,
        }
    }

    /// The formats of a layer.
    pub fn of(&self, layer: &str) -> LayerFormats {
        self.layers.get(layer).copied().unwrap_or(self.default)
    }
}

impl Default for Formats {
    /// 8 bits everywhere.
    fn default() -> Self {
        Self::uniform(Format::Int8, Format::Int8)
    }
}
