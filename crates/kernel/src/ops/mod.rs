//! The operations: one table row each, with its name, type rule and exact integer meaning.

mod arith;
mod cast;
mod constant;
mod dot;
mod memory;
mod narrow;
mod reduce;
mod select;
mod tile;

use crate::{Attr, Type};

pub(crate) use memory::to_bytes;

/// Kind of [`Attr`] an operation takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttrKind {
    /// [`Attr::None`].
    None,
    /// [`Attr::Int`].
    Int,
    /// [`Attr::List`].
    List,
    /// [`Attr::At`].
    At,
    /// [`Attr::Var`].
    Var,
    /// [`Attr::Rows`].
    Rows,
}

impl AttrKind {
    /// Whether `attr` is of this kind.
    pub fn admits(self, attr: &Attr) -> bool {
        matches!(
            (self, attr),
            (Self::None, Attr::None)
                | (Self::Int, Attr::Int(_))
                | (Self::List, Attr::List(_))
                | (Self::At, Attr::At(_))
                | (Self::Var, Attr::Var(_))
                | (Self::Rows, Attr::Rows { .. })
        )
    }
}

/// Types of one use of an operation, for the type rule.
#[derive(Clone, Copy, Debug)]
pub struct Signature<'a> {
    /// Result.
    pub ty: Type,
    /// Operands.
    pub args: &'a [Type],
    /// Attribute, of the operation's kind.
    pub attr: &'a Attr,
}

/// Values of one use of an operation, for its meaning.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Types.
    pub sig: Signature<'a>,
    /// Lanes of each operand, canonical (wrapped and sign-extended).
    pub args: &'a [&'a [i64]],
    /// Bytes at the address, for operations that read memory, rows one after the other; else empty.
    pub memory: &'a [u8],
}

/// One row: all that an operation means.
#[derive(Debug)]
pub struct Def {
    /// Word of the text form.
    pub name: &'static str,
    /// Number of operands.
    pub arity: usize,
    /// Attribute it takes.
    pub attr: AttrKind,
    /// Type rule; the number of operands and the kind of attribute are checked before.
    pub check: fn(Signature<'_>) -> Result<(), String>,
    /// The definition: lanes of the result (wrapped by the caller), or why these operands are outside the domain.
    pub eval: fn(Call<'_>) -> Result<Vec<i64>, String>,
    /// Bytes it reads at its address, given the result's type.
    pub reads: fn(Type) -> usize,
}

fn reads_nothing(_: Type) -> usize {
    0
}

fn ensure(ok: bool, why: &str) -> Result<(), String> {
    if ok { Ok(()) } else { Err(why.to_owned()) }
}

macro_rules! ops {
    ($($(#[$meta:meta])* $code:ident = $row:path,)*) => {
        /// What an operation computes. All arithmetic wraps modulo 2^bits of the result's lane.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum OpCode {
            $($(#[$meta])* $code,)*
        }

        impl OpCode {
            /// Every operation.
            pub const ALL: &[Self] = &[$(Self::$code,)*];

            /// The operation's row.
            pub fn def(self) -> &'static Def {
                match self {
                    $(Self::$code => &$row,)*
                }
            }
        }
    };
}

ops! {
    /// Every lane is the attribute.
    Const = constant::CONST,
    /// Lane k is the k-th number of the attribute.
    ConstVec = constant::CONST_VEC,
    /// The counter of a surrounding loop, as an `i32`.
    Index = constant::INDEX,
    /// Lanes from memory, little-endian, in order.
    Load = memory::LOAD,
    /// `lut256 idx, @table`: lane k is byte `idx[k]` (unsigned) of the 256 bytes at the address.
    Lut256 = memory::LUT256,
    /// A scalar in every lane.
    Splat = cast::SPLAT,
    /// The same bits, little-endian, as another type of the same size.
    Bitcast = cast::BITCAST,
    /// Zero extension of each lane to a wider scalar.
    Zext = cast::ZEXT,
    /// Sign extension of each lane to a wider scalar.
    Sext = cast::SEXT,
    /// The low bits of each lane, as a narrower scalar.
    Trunc = cast::TRUNC,
    /// Lane number `attr` as a scalar.
    Extract = cast::EXTRACT,
    /// Lane k is lane `attr[k]` of the two operands laid one after the other.
    Shuffle = cast::SHUFFLE,
    /// a + b.
    Add = arith::ADD,
    /// a − b.
    Sub = arith::SUB,
    /// a · b.
    Mul = arith::MUL,
    /// Bitwise and.
    And = arith::AND,
    /// Bitwise or.
    Or = arith::OR,
    /// Bitwise exclusive or.
    Xor = arith::XOR,
    /// a · 2^b, 0 ≤ b < bits.
    Shl = arith::SHL,
    /// Floor of a / 2^b, a signed, 0 ≤ b < bits.
    Ashr = arith::ASHR,
    /// Floor of a / 2^b, a unsigned, 0 ≤ b < bits.
    Lshr = arith::LSHR,
    /// Smaller of two signed lanes.
    Smin = arith::SMIN,
    /// Larger of two signed lanes.
    Smax = arith::SMAX,
    /// Smaller of two unsigned lanes.
    Umin = arith::UMIN,
    /// Larger of two unsigned lanes.
    Umax = arith::UMAX,
    /// Floor of a / b of unsigned `i32` scalars, b ≠ 0.
    Udiv = arith::UDIV,
    /// Number of one bits in each lane.
    Popcount = arith::POPCOUNT,
    /// Number of leading zero bits in each lane, bits for 0.
    Clz = arith::CLZ,
    /// `a = b ? x : y` by lane; operands a, b, x, y. The lanes of x, y may have another width.
    SelectEq = select::EQ,
    /// `a < b ? x : y` by lane, a and b signed.
    SelectSlt = select::SLT,
    /// `a < b ? x : y` by lane, a and b unsigned.
    SelectUlt = select::ULT,
    /// `dot4 acc i32xL, a i8x4L, w i8x4L`: `acc + Σ a[4l+k]·w[4l+k]` over k in 0..4, a unsigned, w signed, modulo 2^32.
    Dot4 = dot::DOT4,
    /// As `dot4` with a signed.
    Dot4s = dot::DOT4S,
    /// `dot2_narrow acc i16xL, a i8x2L, w i8x2L`: `acc + a[2l]·w[2l] + a[2l+1]·w[2l+1]`, a unsigned, w signed, where both the products'
    /// sum and the result are proved to fit 16 bits; others are outside its domain.
    Dot2Narrow = dot::DOT2_NARROW,
    /// `dot2 acc i32xL, a i16x2L, b i16x2L`: `acc + a[2l]·b[2l] + a[2l+1]·b[2l+1]`, signed, modulo 2^32.
    Dot2 = dot::DOT2,
    /// Rows from memory, each in order, `attr` bytes from one to the next: a tile of 1 to 16 rows of 4 to 64 bytes, a multiple of
    /// 4. Targets without tiles load row after row.
    LoadRows = tile::LOAD_ROWS,
    /// `dot4_tile acc i32x16R, a i8x4SR, w i8x64S`: lane n of row r is `acc + Σ a[r][4s+k]·w[s][4n+k]` over s in 0..S and k in
    /// 0..4, a unsigned, w signed, modulo 2^32; `acc` and `w` have rows of 64 bytes.
    Dot4Tile = tile::DOT4_TILE,
    /// High 32 bits of the signed product: floor of a·b / 2^32.
    Mulhi = dot::MULHI,
    /// `requant acc, m, c`, all i32xL: (acc·m + 2^(c−1)) >> c in 64 bits, 1 ≤ c ≤ 62, then the low 32 bits.
    Requant = narrow::REQUANT,
    /// `i32xL → i8xL`: clamp to 0..=255.
    SatU8 = narrow::SAT_U8,
    /// `i32xL → i16xL`: clamp to −32768..=32767.
    SatI16 = narrow::SAT_I16,
    /// `pack4_u8 a, b, c, d: i32xL → i8x4L`: clamps to 0..=255; dword q of 128-bit lane l of input j becomes byte 16l + 4j + q.
    /// L is a multiple of 4. For L = 4 that is a, b, c, d one after the other.
    Pack4U8 = narrow::PACK4_U8,
    /// `zip4 r0, r1, r2, r3: i8x4L → i8x4L`, attribute j in 0..4: dword q of 128-bit lane l holds byte 16l + 4j + q of r0, r1, r2, r3.
    /// L is a multiple of 4. `pack4_u8` of four results, in order of j, is back in the order of the rows.
    Zip4 = narrow::ZIP4,
    /// Sum of all lanes, modulo 2^bits.
    ReduceAdd = reduce::ADD,
    /// Largest of all signed lanes.
    ReduceSmax = reduce::SMAX,
}

impl OpCode {
    /// The operation of a text form's word.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|c| c.def().name == name)
    }

    /// Checks operand count, attribute and types of one use.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn check(self, sig: Signature<'_>) -> Result<(), String> {
        let def = self.def();
        if sig.args.len() != def.arity {
            return Err(format!(
                "{} takes {} operands, found {}",
                def.name,
                def.arity,
                sig.args.len()
            ));
        }
        if !def.attr.admits(sig.attr) {
            return Err(format!(
                "{} takes an attribute of kind {:?}, found {:?}",
                def.name, def.attr, sig.attr
            ));
        }
        (def.check)(sig).map_err(|why| {
            let args: Vec<_> = sig.args.iter().map(ToString::to_string).collect();
            format!("{} ({}) -> {}: {why}", def.name, args.join(", "), sig.ty)
        })
    }

    /// Evaluates one use whose types were checked; lanes come back canonical.
    ///
    /// # Errors
    /// Why the operands are outside the operation's domain.
    pub fn eval(self, call: Call<'_>) -> Result<Vec<i64>, String> {
        let mut lanes =
            (self.def().eval)(call).map_err(|why| format!("{}: {why}", self.def().name))?;
        for x in &mut lanes {
            *x = call.sig.ty.scalar.wrap(*x);
        }
        Ok(lanes)
    }
}
