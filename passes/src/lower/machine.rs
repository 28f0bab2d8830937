/// The few numbers of a target that kernel texts depend on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Machine {
    /// Lanes of `i32` in a vector: 4, 8 or 16.
    pub lanes: u16,
    /// Vector registers.
    pub registers: u16,
    /// Whether `dot4` is one instruction.
    pub native_dot4: bool,
    /// Whether that instruction takes two signed operands, so that activations are stored or loaded less 128.
    pub signed_dot: bool,
    /// Whether a table of 256 bytes is looked up by a few vector instructions.
    pub fast_tables: bool,
}

impl Machine {
    /// Bytes in a vector.
    pub fn vector_bytes(&self) -> usize {
        usize::from(self.lanes) * 4
    }
}
