use super::Spec;

/// −1, 0, 1, stored in 2 bits (Li & Liu 2016).
pub(super) const TERNARY: Spec = Spec {
    name: "ternary",
    bits: 2,
    lo: -1,
    step: 1,
    levels: 3,
    knee: None,
};
