use super::Spec;

/// Floats of 5 bits with 2 bits of exponent in units of ¼: 0…8, 10, 12, 14, 16, 20, 24, 28 with a sign.
pub(super) const E2M2: Spec = Spec {
    name: "e2m2",
    bits: 5,
    lo: -15,
    step: 1,
    levels: 31,
    knee: Some(8),
};
