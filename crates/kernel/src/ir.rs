//! The data of a kernel: ids, buffers, addresses, statements.

use crate::{OpCode, Type};
use std::fmt;

macro_rules! id {
    ($(#[$meta:meta])* $name:ident, $prefix:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u32);

        impl $name {
            /// The id as a position in a list.
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

id!(
    /// An SSA value, defined once. Text: `%3`.
    Val,
    "%"
);
id!(
    /// Counter of one loop, from 0 in steps of 1. Text: `i0`.
    LoopVar,
    "i"
);
id!(
    /// A buffer of the kernel by position. Text uses the buffer's name, `@x`.
    BufId,
    "@"
);

impl BufId {
    /// The address `offset` bytes into the buffer.
    pub fn at(self, offset: i64) -> Addr {
        Addr {
            buffer: self,
            offset,
            terms: Vec::new(),
            index: None,
        }
    }
}

/// How a kernel uses a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Read only.
    In,
    /// Written; may be read back after it was written.
    Out,
    /// Read and written.
    InOut,
    /// Read only, lies in the program's constants.
    Const,
    /// Work space whose contents mean nothing before and after.
    Scratch,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 5] = [Self::In, Self::Out, Self::InOut, Self::Const, Self::Scratch];

    /// Word of the text form.
    pub fn name(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
            Self::InOut => "inout",
            Self::Const => "const",
            Self::Scratch => "scratch",
        }
    }

    /// Whether stores are allowed.
    pub fn writable(self) -> bool {
        matches!(self, Self::Out | Self::InOut | Self::Scratch)
    }
}

/// Memory that a kernel is handed. Distinct buffers of one call never overlap where either is written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Buffer {
    /// Name without `@`: letters, digits, `_`; unique in the kernel.
    pub name: String,
    /// Use.
    pub role: Role,
    /// Size in bytes.
    pub len: usize,
    /// Bytes after `len` that loads may touch (their values must not matter) and stores may not.
    pub slack: usize,
    /// Alignment of its first byte that the caller guarantees: a power of two, 1 to 64. An optimisation only.
    pub align: u32,
}

/// `buffer + offset + Σ var·stride + index·scale`, in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Addr {
    /// Base.
    pub buffer: BufId,
    /// Constant part in bytes.
    pub offset: i64,
    /// Loop variables with their strides in bytes; each variable at most once.
    pub terms: Vec<(LoopVar, i64)>,
    /// One dynamic `i32` scalar (read as signed) with its scale in bytes, for tables and gathers.
    pub index: Option<(Val, i64)>,
}

impl Addr {
    /// The address `bytes` further on.
    pub fn plus(mut self, bytes: i64) -> Self {
        self.offset += bytes;
        self
    }

    /// Adds `var · stride` bytes; repeated variables add up.
    pub fn step(mut self, var: LoopVar, stride: i64) -> Self {
        match self.terms.iter_mut().find(|(v, _)| *v == var) {
            Some((_, s)) => *s += stride,
            None => self.terms.push((var, stride)),
        }
        self
    }

    /// Adds `index · scale` bytes, `index` a signed `i32` scalar.
    ///
    /// # Panics
    /// When the address already has a dynamic index.
    pub fn indexed(mut self, index: Val, scale: i64) -> Self {
        assert!(self.index.is_none(), "an address takes one dynamic index");
        self.index = Some((index, scale));
        self
    }
}

/// What an operation takes besides values.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Attr {
    /// Nothing.
    None,
    /// One integer.
    Int(i64),
    /// A list of integers.
    List(Vec<i64>),
    /// A memory address.
    At(Addr),
    /// A loop's counter.
    Var(LoopVar),
    /// Rows of memory.
    Rows {
        /// Where the first one starts.
        at: Addr,
        /// How many.
        rows: u32,
        /// Bytes from one to the next; 0 reads the same bytes for every row.
        pitch: i64,
    },
}

/// One operation; [`OpCode`] documents what each computes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Op {
    /// What it computes.
    pub code: OpCode,
    /// Type of the result.
    pub ty: Type,
    /// Operands.
    pub args: Vec<Val>,
    /// Everything else.
    pub attr: Attr,
}

/// A loop of a static number of trips. After the last trip `results` hold the last `yields`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct For {
    /// Counter, 0 to `trips` − 1; unique in the kernel.
    pub var: LoopVar,
    /// Number of trips, at least 1.
    pub trips: u32,
    /// Whether the target repeats the body `trips` times instead of looping.
    pub unroll: bool,
    /// (value inside the body, value before the first trip).
    pub carried: Vec<(Val, Val)>,
    /// What a trip does.
    pub body: Block,
    /// Values carried to the next trip, one for each `carried`.
    pub yields: Vec<Val>,
    /// Names of the carried values after the loop.
    pub results: Vec<Val>,
}

/// One statement.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Stmt {
    /// Defines a value.
    Let(Val, Op),
    /// Writes a value to memory, little-endian, lanes in order.
    Store(Val, Addr),
    /// A loop.
    For(Box<For>),
    /// A hint that the cache line at an address is read soon; 3 = keep close … 0 = no reuse. It may leave the buffer.
    Prefetch(Addr, u8),
}

/// Statements in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Block {
    /// The statements.
    pub stmts: Vec<Stmt>,
}

/// A kernel: straight loops over buffers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Kernel {
    /// Letters, digits, `_`.
    pub name: String,
    /// Parameters in order.
    pub buffers: Vec<Buffer>,
    /// What it does.
    pub body: Block,
}
