use super::Spec;

/// Floats of 6 bits with 2 bits of exponent (OCP Microscaling v1.0, FP6) in units of ⅛: 0…16, then 18…32 by 2 and 36…60 by 4, with a sign.
pub(super) const E2M3: Spec = Spec {
    name: "e2m3",
    bits: 6,
    lo: -31,
    step: 1,
    levels: 63,
    knee: Some(16),
};
