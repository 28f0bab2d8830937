use super::Spec;

/// Floats of 4 bits with 2 bits of exponent (OCP Microscaling v1.0, FP4) in units of ½: 0, 1, 2, 3, 4, 6, 8, 12 with a sign.
pub(super) const E2M1: Spec = Spec {
    name: "e2m1",
    bits: 4,
    lo: -7,
    step: 1,
    levels: 15,
    knee: Some(4),
};
