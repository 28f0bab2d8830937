use super::Spec;

/// Eight codes around zero, −7, −5 … 5, 7: the 3-bit grid that errs less where weights are symmetric.
pub(super) const ODD3: Spec = Spec {
    name: "odd3",
    bits: 3,
    lo: -7,
    step: 2,
    levels: 8,
    knee: None,
};
