use super::Spec;

/// Signed 8 bits, −127…127: −128 is left out so that the range is symmetric.
pub(super) const INT8: Spec = Spec {
    name: "int8",
    bits: 8,
    lo: -127,
    step: 1,
    levels: 255,
    knee: None,
};
