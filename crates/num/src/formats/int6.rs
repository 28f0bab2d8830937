use super::Spec;

/// Two's complement of 6 bits, −32…31.
pub(super) const INT6: Spec = Spec {
    name: "int6",
    bits: 6,
    lo: -32,
    step: 1,
    levels: 64,
    knee: None,
};
