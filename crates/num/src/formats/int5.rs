use super::Spec;

/// Two's complement of 5 bits, −16…15.
pub(super) const INT5: Spec = Spec {
    name: "int5",
    bits: 5,
    lo: -16,
    step: 1,
    levels: 32,
    knee: None,
};
