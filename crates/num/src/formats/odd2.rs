use super::Spec;

/// Four codes around zero, −3, −1, 1, 3: the 2-bit grid that errs less where weights are symmetric.
pub(super) const ODD2: Spec = Spec {
    name: "odd2",
    bits: 2,
    lo: -3,
    step: 2,
    levels: 4,
    knee: None,
};
