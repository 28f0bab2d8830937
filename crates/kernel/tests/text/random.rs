//! Random well-formed kernels.

use lowbit_kernel::{
    Addr, Attr, BufId, Buffer, Builder, Kernel, LoopVar, OpCode, Role, Scalar, Type, Val,
};

/// A small generator of repeatable random numbers.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub(crate) fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    pub(crate) fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }
}

/// Sizes of the buffers of every random kernel: in, const, inout, scratch.
pub(crate) const SIZES: [usize; 4] = [512, 512, 1024, 512];
const TYPES: [Type; 10] = [
    Type::I8,
    Type::I32,
    Type::I64,
    Type::I8.x(16),
    Type::I8.x(32),
    Type::I16.x(8),
    Type::I32.x(4),
    Type::I32.x(8),
    Type::I64.x(2),
    Type::I16.x(3),
];

struct Author {
    b: Builder,
    random: Random,
    buffers: [BufId; 4],
    loops: Vec<(LoopVar, u32)>,
    visible: Vec<Val>,
}

/// A kernel that every seed gives anew.
pub(crate) fn kernel(seed: u64) -> Kernel {
    let mut random = Random(seed);
    let mut b = Builder::new("random");
    let roles = [
        ("x", Role::In),
        ("c", Role::Const),
        ("y", Role::InOut),
        ("s", Role::Scratch),
    ];
    let buffers = std::array::from_fn(|k| {
        let align = random.pick(&[1, 16, 64]);
        b.declare(Buffer {
            name: roles[k].0.into(),
            role: roles[k].1,
            len: SIZES[k],
            slack: random.pick(&[0, 64]),
            align,
        })
    });
    let mut author = Author {
        b,
        random,
        buffers,
        loops: Vec::new(),
        visible: Vec::new(),
    };
    author.statements(12);
    author.b.finish()
}

impl Author {
    fn statements(&mut self, n: usize) {
        for _ in 0..n {
            match self.random.below(12) {
                0 if self.loops.len() < 3 => self.looped(),
                0..3 => self.store(),
                3 => {
                    let at = self.address(0, false);
                    self.b.prefetch(at, 3);
                }
                _ => {
                    let code = self.random.pick(OpCode::ALL);
                    self.operation(code);
                }
            }
        }
        self.store();
    }

    fn looped(&mut self) {
        let trips = 1 + self.random.below(4) as u32;
        let types: Vec<_> = (0..self.random.below(3))
            .map(|_| self.random.pick(&TYPES))
            .collect();
        let inits: Vec<_> = types.iter().map(|&t| self.value(t)).collect();
        let before = self.visible.len();
        let unroll = self.random.below(3) == 0;
        let mut this = std::mem::replace(self, Self::placeholder());
        let mut b = std::mem::replace(&mut this.b, Builder::new(""));
        let body = |b: &mut Builder, var: LoopVar, inside: &[Val]| {
            std::mem::swap(b, &mut this.b);
            this.loops.push((var, trips));
            this.visible.extend(inside);
            this.statements(5);
            let yields = types.iter().map(|&t| this.value(t)).collect();
            this.loops.pop();
            std::mem::swap(b, &mut this.b);
            yields
        };
        let results = if unroll {
            b.for_unrolled(trips, &inits, body)
        } else {
            b.for_(trips, &inits, body)
        };
        this.b = b;
        *self = this;
        self.visible.truncate(before);
        self.visible.extend(results);
    }

    fn placeholder() -> Self {
        let buffers = [BufId(0); 4];
        Self {
            b: Builder::new(""),
            random: Random(0),
            buffers,
            loops: Vec::new(),
            visible: Vec::new(),
        }
    }

    /// A value of a type: one that is there, or a new one.
    fn value(&mut self, ty: Type) -> Val {
        let there: Vec<_> = self
            .visible
            .iter()
            .copied()
            .filter(|&v| self.b.ty(v) == ty)
            .collect();
        match self.random.below(4) {
            0..2 if !there.is_empty() => self.random.pick(&there),
            2 => {
                let x = self.random.next() as i64;
                self.b.constant(ty, x)
            }
            _ => {
                let at = self.address(ty.bytes(), false);
                let v = self.b.load(ty, at);
                self.visible.push(v);
                v
            }
        }
    }

    /// An address with room for some bytes; loops move it within the buffer.
    fn address(&mut self, bytes: usize, write: bool) -> Addr {
        let k = if write {
            2 + self.random.below(2)
        } else {
            self.random.below(4)
        };
        let room = SIZES[k] - bytes - 256;
        let mut at = self.buffers[k].at(128 + self.random.below(room + 1) as i64);
        for &(var, trips) in &self.loops.clone() {
            let reach = 64 / i64::from(trips.max(2) - 1) / self.loops.len() as i64;
            match self.random.below(3) {
                0 => {}
                1 => at = at.step(var, reach),
                _ => at = at.step(var, -reach),
            }
        }
        if self.random.below(6) == 0 {
            let (any, mask) = (self.value(Type::I32), self.b.constant(Type::I32, 7));
            let index = self.b.and(any, mask);
            at = at.indexed(index, 4);
        }
        at
    }

    fn store(&mut self) {
        let ty = self.random.pick(&TYPES);
        let v = self.value(ty);
        self.keep(v);
    }

    /// Stores a value somewhere.
    fn keep(&mut self, v: Val) {
        let at = self.address(self.b.ty(v).bytes(), true);
        self.b.store(v, at);
    }

    fn operation(&mut self, code: OpCode) {
        if let Some((ty, args, attr)) = self.operands(code) {
            let v = self.b.op(code, ty, &args, attr);
            self.visible.push(v);
            self.keep(v);
        }
    }

    fn operands(&mut self, code: OpCode) -> Option<(Type, Vec<Val>, Attr)> {
        let plain = |ty, args| Some((ty, args, Attr::None));
        let ty = self.random.pick(&TYPES);
        let acc = self.random.pick(&[Type::I32.x(4), Type::I32.x(8)]);
        match code {
            OpCode::Const | OpCode::ConstVec | OpCode::Load | OpCode::Bitcast => {
                self.sources(code, ty)
            }
            OpCode::Index => self
                .loops
                .last()
                .map(|&(var, _)| (Type::I32, Vec::new(), Attr::Var(var))),
            OpCode::Lut256 => {
                let idx = self.value(Type::I8.x(16));
                let k = self.random.below(4);
                Some((Type::I8.x(16), vec![idx], Attr::At(self.buffers[k].at(100))))
            }
            OpCode::Splat => plain(ty, vec![self.value(ty.lane())]),
            OpCode::Zext | OpCode::Sext => plain(Type::I32.x(8), vec![self.value(Type::I16.x(8))]),
            OpCode::Trunc => plain(Type::I16.x(8), vec![self.value(Type::I32.x(8))]),
            OpCode::Extract => Some((
                ty.lane(),
                vec![self.value(ty)],
                Attr::Int(self.random.below(ty.lanes.into()) as i64),
            )),
            OpCode::Shuffle => {
                let list = (0..ty.lanes)
                    .map(|_| self.random.below(2 * usize::from(ty.lanes)) as i64)
                    .collect();
                Some((ty, vec![self.value(ty), self.value(ty)], Attr::List(list)))
            }
            OpCode::Dot4 | OpCode::Dot4s => self.dot(acc, Type::I8.x(4 * acc.lanes)),
            OpCode::Dot2Narrow => {
                let sum = Type::I16.x(2 * acc.lanes);
                let factor = Type::I8.x(4 * acc.lanes);
                let (any, mask) = (self.value(factor), self.b.constant(factor, 31));
                let (sums, few) = (self.value(sum), self.b.constant(sum, 1023));
                plain(
                    sum,
                    vec![
                        self.b.and(sums, few),
                        self.value(factor),
                        self.b.and(any, mask),
                    ],
                )
            }
            OpCode::Dot2 => self.dot(Type::I32.x(4), Type::I16.x(8)),
            OpCode::Mulhi => plain(acc, vec![self.value(acc), self.value(acc)]),
            OpCode::Requant => {
                let c = 1 + self.random.below(62) as i64;
                plain(
                    acc,
                    vec![self.value(acc), self.value(acc), self.b.constant(acc, c)],
                )
            }
            OpCode::SatU8 => plain(acc.with(Scalar::I8), vec![self.value(acc)]),
            OpCode::SatI16 => plain(acc.with(Scalar::I16), vec![self.value(acc)]),
            OpCode::Pack4U8 => plain(
                Type::I8.x(4 * acc.lanes),
                (0..4).map(|_| self.value(acc)).collect(),
            ),
            OpCode::Zip4 => {
                let (ty, part) = (Type::I8.x(16), self.random.below(4) as i64);
                Some((
                    ty,
                    (0..4).map(|_| self.value(ty)).collect(),
                    Attr::Int(part),
                ))
            }
            OpCode::LoadRows => {
                let (rows, pitch) = (1 + self.random.below(4), self.random.below(40));
                let at = self.address(8 + (rows - 1) * pitch, false);
                let (rows, pitch) = (rows as u32, pitch as i64);
                let ty = Type::I8.x(8 * rows as u16);
                Some((ty, Vec::new(), Attr::Rows { at, rows, pitch }))
            }
            OpCode::Dot4Tile => {
                let (acc, a, w) = (Type::I32.x(16), Type::I8.x(4), Type::I8.x(64));
                plain(acc, vec![self.value(acc), self.value(a), self.value(w)])
            }
            OpCode::ReduceAdd | OpCode::ReduceSmax => plain(Type::I32, vec![self.value(acc)]),
            _ => self.lane_wise(code, ty),
        }
    }

    fn sources(&mut self, code: OpCode, ty: Type) -> Option<(Type, Vec<Val>, Attr)> {
        let x = |random: &mut Random| ty.scalar.wrap(random.next() as i64);
        match code {
            OpCode::Const => Some((ty, Vec::new(), Attr::Int(x(&mut self.random)))),
            OpCode::ConstVec => {
                let list = (0..ty.lanes).map(|_| x(&mut self.random)).collect();
                Some((ty, Vec::new(), Attr::List(list)))
            }
            OpCode::Load => Some((ty, Vec::new(), Attr::At(self.address(ty.bytes(), false)))),
            _ => Some((Type::I8.x(16), vec![self.value(Type::I32.x(4))], Attr::None)),
        }
    }

    fn dot(&mut self, acc: Type, factor: Type) -> Option<(Type, Vec<Val>, Attr)> {
        Some((
            acc,
            vec![self.value(acc), self.value(factor), self.value(factor)],
            Attr::None,
        ))
    }

    fn lane_wise(&mut self, code: OpCode, ty: Type) -> Option<(Type, Vec<Val>, Attr)> {
        let mut args: Vec<_> = (0..code.def().arity).map(|_| self.value(ty)).collect();
        match code {
            OpCode::Shl | OpCode::Ashr | OpCode::Lshr => {
                let mask = self.b.constant(ty, i64::from(ty.scalar.bits()) - 1);
                args[1] = self.b.and(args[1], mask);
                Some((ty, args, Attr::None))
            }
            OpCode::Udiv => {
                let (a, b, one) = (
                    self.value(Type::I32),
                    self.value(Type::I32),
                    self.b.constant(Type::I32, 1),
                );
                Some((Type::I32, vec![a, self.b.or(b, one)], Attr::None))
            }
            _ => Some((ty, args, Attr::None)),
        }
    }
}
