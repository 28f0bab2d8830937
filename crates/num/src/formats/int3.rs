use super::Spec;

/// Two's complement of 3 bits, −4…3.
pub(super) const INT3: Spec = Spec {
    name: "int3",
    bits: 3,
    lo: -4,
    step: 1,
    levels: 8,
    knee: None,
};
