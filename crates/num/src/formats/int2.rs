use super::Spec;

/// Two's complement of 2 bits, −2…1.
pub(super) const INT2: Spec = Spec {
    name: "int2",
    bits: 2,
    lo: -2,
    step: 1,
    levels: 4,
    knee: None,
};
