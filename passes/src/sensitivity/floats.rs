//! Floats with two bits of exponent: what layers lose with them, from what they lose with integers of as many bits.

use lowbit_ir::Graph;
use lowbit_num::Format;

use super::Layer;
use super::layers::rounded;

/// Float formats of weights, each with the integers of as many bits, widest first.
pub const FLOATS: &[(Format, Format)] = &[
    (Format::E2M3, Format::Int6),
    (Format::E2M2, Format::Int5),
    (Format::E2M1, Format::Int4),
];

/// Squared error of a layer's weights at the nearest codes of a float, in shares of that of the integers of as many bits; 1
/// where the integers err in nothing.
pub(super) fn float_share(graph: &Graph, layer: &Layer, (float, integer): (Format, Format)) -> f64 {
    let w = graph.as_const(layer.weight).expect("weights are constant");
    let real = w.to_f64();
    let error = |format: Format| -> f64 {
        let rounded = rounded(w, layer.channels, format).to_f64();
        let both = rounded.iter().zip(&real);
        both.map(|(r, w)| (r - w) * (r - w)).sum()
    };
    let integer = error(integer);
    if integer > 0.0 {
        error(float) / integer
    } else {
        1.0
    }
}
