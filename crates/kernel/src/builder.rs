//! Writing kernels in Rust.
//!
//! ```
//! use lowbit_kernel::{Builder, Role, Type};
//!
//! let mut b = Builder::new("relu6_bytes");
//! let x = b.buffer("x", Role::In, 640);
//! let y = b.buffer("y", Role::Out, 640);
//! let top = b.constant(Type::I8.x(64), 6);
//! b.for_(10, &[], |b, i, _| {
//!     let v = b.load(Type::I8.x(64), x.at(0).step(i, 64));
//!     let v = b.umin(v, top);
//!     b.store(v, y.at(0).step(i, 64));
//!     vec![]
//! });
//! let kernel = b.finish();
//! lowbit_kernel::verify(&kernel).unwrap();
//! ```

use crate::ops::Signature;
use crate::{
    Addr, Attr, Block, BufId, Buffer, For, Kernel, LoopVar, Op, OpCode, Role, Scalar, Stmt, Type,
    Val,
};

/// Builds one kernel. Types are checked as operations are written: a wrong one is a bug of the kernel's author and panics with the rule it broke.
#[derive(Debug)]
pub struct Builder {
    name: String,
    buffers: Vec<Buffer>,
    types: Vec<Type>,
    loops: u32,
    blocks: Vec<Block>,
}

impl Builder {
    /// An empty kernel.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            buffers: Vec::new(),
            types: Vec::new(),
            loops: 0,
            blocks: vec![Block::default()],
        }
    }

    /// Declares a buffer of `len` bytes without slack or alignment.
    pub fn buffer(&mut self, name: impl Into<String>, role: Role, len: usize) -> BufId {
        self.declare(Buffer {
            name: name.into(),
            role,
            len,
            slack: 0,
            align: 1,
        })
    }

    /// Declares a buffer.
    pub fn declare(&mut self, buffer: Buffer) -> BufId {
        self.buffers.push(buffer);
        BufId(self.buffers.len() as u32 - 1)
    }

    /// Type of a value.
    pub fn ty(&self, v: Val) -> Type {
        self.types[v.index()]
    }

    fn fresh(&mut self, ty: Type) -> Val {
        self.types.push(ty);
        Val(self.types.len() as u32 - 1)
    }

    fn push(&mut self, stmt: Stmt) {
        self.blocks
            .last_mut()
            .expect("finish takes the builder")
            .stmts
            .push(stmt);
    }

    /// Writes any operation; the named methods are shorter.
    pub fn op(&mut self, code: OpCode, ty: Type, args: &[Val], attr: Attr) -> Val {
        let types: Vec<_> = args.iter().map(|&v| self.ty(v)).collect();
        if let Err(why) = code.check(Signature {
            ty,
            args: &types,
            attr: &attr,
        }) {
            panic!("kernel {}: {why}", self.name);
        }
        let v = self.fresh(ty);
        self.push(Stmt::Let(
            v,
            Op {
                code,
                ty,
                args: args.to_vec(),
                attr,
            },
        ));
        v
    }

    /// Finishes the kernel.
    pub fn finish(mut self) -> Kernel {
        let body = self.blocks.pop().expect("the outermost block is there");
        assert!(
            self.blocks.is_empty(),
            "kernel {} finished inside a loop",
            self.name
        );
        Kernel {
            name: self.name,
            buffers: self.buffers,
            body,
        }
    }

    /// A loop of `trips` trips; `body(b, counter, carried)` returns the carried values of the next trip. Returns those after the last.
    pub fn for_(
        &mut self,
        trips: u32,
        inits: &[Val],
        body: impl FnOnce(&mut Self, LoopVar, &[Val]) -> Vec<Val>,
    ) -> Vec<Val> {
        self.looped(trips, false, inits, body)
    }

    /// As [`Builder::for_`], with the body repeated in the machine code.
    pub fn for_unrolled(
        &mut self,
        trips: u32,
        inits: &[Val],
        body: impl FnOnce(&mut Self, LoopVar, &[Val]) -> Vec<Val>,
    ) -> Vec<Val> {
        self.looped(trips, true, inits, body)
    }

    fn looped(
        &mut self,
        trips: u32,
        unroll: bool,
        inits: &[Val],
        body: impl FnOnce(&mut Self, LoopVar, &[Val]) -> Vec<Val>,
    ) -> Vec<Val> {
        let var = LoopVar(self.loops);
        self.loops += 1;
        let inside: Vec<_> = inits.iter().map(|&v| self.fresh(self.ty(v))).collect();
        self.blocks.push(Block::default());
        let yields = body(self, var, &inside);
        let block = self.blocks.pop().expect("pushed above");
        let types = |vs: &[Val]| vs.iter().map(|&v| self.ty(v)).collect::<Vec<_>>();
        assert_eq!(
            types(inits),
            types(&yields),
            "kernel {}: loop {var} yields other types than it carries",
            self.name
        );
        let results: Vec<_> = inits.iter().map(|&v| self.fresh(self.ty(v))).collect();
        let carried = inside.into_iter().zip(inits.iter().copied()).collect();
        self.push(Stmt::For(Box::new(For {
            var,
            trips,
            unroll,
            carried,
            body: block,
            yields,
            results: results.clone(),
        })));
        results
    }

    /// Writes a value to memory.
    pub fn store(&mut self, v: Val, at: Addr) {
        self.push(Stmt::Store(v, at));
    }

    /// Hints that an address is read soon; `locality` 3 (keep close) to 0 (no reuse).
    pub fn prefetch(&mut self, at: Addr, locality: u8) {
        self.push(Stmt::Prefetch(at, locality));
    }

    /// Reads a value from memory.
    pub fn load(&mut self, ty: Type, at: Addr) -> Val {
        self.op(OpCode::Load, ty, &[], Attr::At(at))
    }

    /// Reads a tile: `rows` rows, `pitch` bytes from one to the next.
    pub fn load_rows(&mut self, ty: Type, at: Addr, rows: usize, pitch: i64) -> Val {
        let rows = rows as u32;
        let attr = Attr::Rows { at, rows, pitch };
        self.op(OpCode::LoadRows, ty, &[], attr)
    }

    /// Reads a scalar and puts it into every lane of `ty`.
    pub fn load_splat(&mut self, ty: Type, at: Addr) -> Val {
        let scalar = self.load(ty.lane(), at);
        self.splat(ty, scalar)
    }

    /// The same 4 bytes of memory in every dword of an `i8x{lanes}`: the broadcast operand of `dot4`.
    pub fn load_dword_splat(&mut self, lanes: u16, at: Addr) -> Val {
        let dwords = self.load_splat(Type::I32.x(lanes / 4), at);
        self.bitcast(Type::I8.x(lanes), dwords)
    }

    /// `x` in every lane.
    pub fn constant(&mut self, ty: Type, x: i64) -> Val {
        self.op(OpCode::Const, ty, &[], Attr::Int(ty.scalar.wrap(x)))
    }

    /// One number for each lane.
    pub fn constant_lanes(&mut self, ty: Type, lanes: &[i64]) -> Val {
        let lanes = lanes.iter().map(|&x| ty.scalar.wrap(x)).collect();
        self.op(OpCode::ConstVec, ty, &[], Attr::List(lanes))
    }

    /// A loop's counter as an `i32`.
    pub fn counter(&mut self, var: LoopVar) -> Val {
        self.op(OpCode::Index, Type::I32, &[], Attr::Var(var))
    }

    /// A scalar in every lane of `ty`; a scalar `ty` gives the value itself.
    pub fn splat(&mut self, ty: Type, v: Val) -> Val {
        if ty.is_vector() {
            self.op(OpCode::Splat, ty, &[v], Attr::None)
        } else {
            v
        }
    }

    /// The same bits as another type.
    pub fn bitcast(&mut self, ty: Type, v: Val) -> Val {
        self.op(OpCode::Bitcast, ty, &[v], Attr::None)
    }

    /// Zero extension to `scalar`.
    pub fn zext(&mut self, scalar: Scalar, v: Val) -> Val {
        self.op(OpCode::Zext, self.ty(v).with(scalar), &[v], Attr::None)
    }

    /// Sign extension to `scalar`.
    pub fn sext(&mut self, scalar: Scalar, v: Val) -> Val {
        self.op(OpCode::Sext, self.ty(v).with(scalar), &[v], Attr::None)
    }

    /// The low bits, as `scalar`.
    pub fn trunc(&mut self, scalar: Scalar, v: Val) -> Val {
        self.op(OpCode::Trunc, self.ty(v).with(scalar), &[v], Attr::None)
    }

    /// One lane as a scalar.
    pub fn extract(&mut self, v: Val, lane: u16) -> Val {
        self.op(
            OpCode::Extract,
            self.ty(v).lane(),
            &[v],
            Attr::Int(lane.into()),
        )
    }

    /// Lanes of `a` followed by `b`, picked by number.
    pub fn shuffle(&mut self, a: Val, b: Val, lanes: &[u16]) -> Val {
        let list = lanes.iter().map(|&k| k.into()).collect();
        self.op(
            OpCode::Shuffle,
            self.ty(a).x(lanes.len() as u16),
            &[a, b],
            Attr::List(list),
        )
    }

    /// `len` lanes from `start`.
    pub fn slice(&mut self, v: Val, start: u16, len: u16) -> Val {
        let lanes: Vec<_> = (start..start + len).collect();
        self.shuffle(v, v, &lanes)
    }

    /// All lanes of `a`, then all of `b`.
    pub fn concat(&mut self, a: Val, b: Val) -> Val {
        let lanes: Vec<_> = (0..2 * self.ty(a).lanes).collect();
        self.shuffle(a, b, &lanes)
    }

    /// `idx[k]`-th byte of a table of 256, for each lane.
    pub fn lut256(&mut self, idx: Val, table: Addr) -> Val {
        self.op(OpCode::Lut256, self.ty(idx), &[idx], Attr::At(table))
    }

    /// `a = b ? x : y` by lane.
    pub fn select_eq(&mut self, a: Val, b: Val, x: Val, y: Val) -> Val {
        self.op(OpCode::SelectEq, self.ty(x), &[a, b, x, y], Attr::None)
    }

    /// `a < b ? x : y` by lane, signed comparison.
    pub fn select_slt(&mut self, a: Val, b: Val, x: Val, y: Val) -> Val {
        self.op(OpCode::SelectSlt, self.ty(x), &[a, b, x, y], Attr::None)
    }

    /// `a < b ? x : y` by lane, unsigned comparison.
    pub fn select_ult(&mut self, a: Val, b: Val, x: Val, y: Val) -> Val {
        self.op(OpCode::SelectUlt, self.ty(x), &[a, b, x, y], Attr::None)
    }

    /// `acc + Σ a·w` over groups of 4 bytes, a unsigned, w signed.
    pub fn dot4(&mut self, acc: Val, a: Val, w: Val) -> Val {
        self.op(OpCode::Dot4, self.ty(acc), &[acc, a, w], Attr::None)
    }

    /// `acc + Σ a·w` over pairs of bytes, a unsigned, w signed, where sums are proved to fit 16 bits.
    pub fn dot2_narrow(&mut self, acc: Val, a: Val, w: Val) -> Val {
        self.op(OpCode::Dot2Narrow, self.ty(acc), &[acc, a, w], Attr::None)
    }

    /// Products of tiles: see [`OpCode::Dot4Tile`].
    pub fn dot4_tile(&mut self, acc: Val, a: Val, w: Val) -> Val {
        self.op(OpCode::Dot4Tile, self.ty(acc), &[acc, a, w], Attr::None)
    }

    /// `acc + Σ a·w` over groups of 4 bytes, both signed.
    pub fn dot4s(&mut self, acc: Val, a: Val, w: Val) -> Val {
        self.op(OpCode::Dot4s, self.ty(acc), &[acc, a, w], Attr::None)
    }

    /// `acc + Σ a·b` over pairs of signed 16-bit lanes.
    pub fn dot2(&mut self, acc: Val, a: Val, b: Val) -> Val {
        self.op(OpCode::Dot2, self.ty(acc), &[acc, a, b], Attr::None)
    }

    /// `(acc·m + 2^(c−1)) >> c` in 64 bits.
    pub fn requant(&mut self, acc: Val, m: Val, c: Val) -> Val {
        self.op(OpCode::Requant, self.ty(acc), &[acc, m, c], Attr::None)
    }

    /// Clamp to 0..=255, as bytes.
    pub fn sat_u8(&mut self, v: Val) -> Val {
        self.op(OpCode::SatU8, self.ty(v).with(Scalar::I8), &[v], Attr::None)
    }

    /// Clamp to −32768..=32767, as 16 bits.
    pub fn sat_i16(&mut self, v: Val) -> Val {
        self.op(
            OpCode::SatI16,
            self.ty(v).with(Scalar::I16),
            &[v],
            Attr::None,
        )
    }

    /// Four vectors of i32 clamped to bytes, interleaved by 128-bit lanes.
    pub fn pack4_u8(&mut self, parts: [Val; 4]) -> Val {
        let ty = Type::I8.x(4 * self.ty(parts[0]).lanes);
        self.op(OpCode::Pack4U8, ty, &parts, Attr::None)
    }

    /// Part `part` of four rows of bytes, transposed to dwords by 128-bit lanes.
    pub fn zip4(&mut self, rows: [Val; 4], part: u8) -> Val {
        self.op(
            OpCode::Zip4,
            self.ty(rows[0]),
            &rows,
            Attr::Int(part.into()),
        )
    }

    /// Sum of all lanes; a scalar is its own sum.
    pub fn reduce_add(&mut self, v: Val) -> Val {
        let ty = self.ty(v);
        if ty.is_vector() {
            self.op(OpCode::ReduceAdd, ty.lane(), &[v], Attr::None)
        } else {
            v
        }
    }

    /// Largest of all signed lanes; a scalar is its own maximum.
    pub fn reduce_smax(&mut self, v: Val) -> Val {
        let ty = self.ty(v);
        if ty.is_vector() {
            self.op(OpCode::ReduceSmax, ty.lane(), &[v], Attr::None)
        } else {
            v
        }
    }
}

macro_rules! unary {
    ($($(#[$meta:meta])* $name:ident $code:ident,)*) => {
        impl Builder {
            $($(#[$meta])* pub fn $name(&mut self, a: Val) -> Val {
                self.op(OpCode::$code, self.ty(a), &[a], Attr::None)
            })*
        }
    };
}

macro_rules! binary {
    ($($(#[$meta:meta])* $name:ident $code:ident,)*) => {
        impl Builder {
            $($(#[$meta])* pub fn $name(&mut self, a: Val, b: Val) -> Val {
                self.op(OpCode::$code, self.ty(a), &[a, b], Attr::None)
            })*
        }
    };
}

unary! {
    /// Number of one bits.
    popcount Popcount,
    /// Number of leading zero bits.
    clz Clz,
}

binary! {
    /// a + b.
    add Add,
    /// a − b.
    sub Sub,
    /// a · b.
    mul Mul,
    /// Bitwise and.
    and And,
    /// Bitwise or.
    or Or,
    /// Bitwise exclusive or.
    xor Xor,
    /// a · 2^b.
    shl Shl,
    /// Signed a / 2^b, floor.
    ashr Ashr,
    /// Unsigned a / 2^b, floor.
    lshr Lshr,
    /// Signed minimum.
    smin Smin,
    /// Signed maximum.
    smax Smax,
    /// Unsigned minimum.
    umin Umin,
    /// Unsigned maximum.
    umax Umax,
    /// Unsigned quotient of `i32` scalars.
    udiv Udiv,
    /// High half of the signed 32-bit product.
    mulhi Mulhi,
}
