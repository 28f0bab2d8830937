use lowbit_kernel::{OpCode, Scalar, Type};
use lowbit_targets::{DotSigns, Feature, ResolvedTarget, Row, Rule, TileCosts};

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
    /// Whether `dot2_narrow` and `dot2` of its sums are cheaper than `dot4`.
    pub narrow_dot: bool,
    /// Whether `dot2` is one instruction.
    pub native_dot2: bool,
    /// What products of tiles cost, where the target has them.
    pub tile: Option<TileCosts>,
    /// Whether a table of 256 bytes is looked up by a few vector instructions.
    pub fast_tables: bool,
}

impl Machine {
    /// The numbers of a target.
    pub fn of(target: &ResolvedTarget) -> Self {
        let lanes = target.level.lanes(Scalar::I32);
        let signed_dot = target.level.dot == DotSigns::S8S8;
        let code = if signed_dot {
            OpCode::Dot4s
        } else {
            OpCode::Dot4
        };
        let is_one = |row: &Row| matches!(row.rule, Rule::Intrinsic { .. });
        let row = target.row(code, Type::I32.x(lanes));
        let native_dot4 = row.is_some_and(is_one);
        let narrow = target.row(OpCode::Dot2Narrow, Type::I16.x(2 * lanes));
        Self {
            lanes,
            registers: target.level.registers as u16,
            native_dot4,
            signed_dot,
            narrow_dot: narrow.is_some() && !native_dot4 && !signed_dot,
            native_dot2: (target.row(OpCode::Dot2, Type::I32.x(lanes))).is_some_and(is_one),
            tile: (target.level.costs.tile).filter(|_| target.features.contains(&Feature::AmxInt8)),
            fast_tables: target.row(OpCode::Lut256, Type::I8.x(4 * lanes)).is_some(),
        }
    }

    /// Bytes in a vector.
    pub fn vector_bytes(&self) -> usize {
        usize::from(self.lanes) * 4
    }
}
