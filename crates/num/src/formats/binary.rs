use super::Spec;

/// −1, 1, stored in 1 bit.
pub(super) const BINARY: Spec = Spec {
    name: "binary",
    bits: 1,
    lo: -1,
    step: 2,
    levels: 2,
    knee: None,
};
