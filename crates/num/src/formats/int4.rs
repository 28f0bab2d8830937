use super::Spec;

/// Two's complement of 4 bits, −8…7.
pub(super) const INT4: Spec = Spec {
    name: "int4",
    bits: 4,
    lo: -8,
    step: 1,
    levels: 16,
    knee: None,
};
