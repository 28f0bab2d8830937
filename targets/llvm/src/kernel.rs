//! One kernel becomes one internal function of its buffers' pointers.

use crate::generate::{Generator, V};
use crate::ops::{Use, lower};
use crate::tiles::Tiles;
use inkwell::IntPredicate;
use inkwell::attributes::AttributeLoc;
use inkwell::basic_block::BasicBlock;
use inkwell::module::Linkage;
use inkwell::values::{FunctionValue, IntValue, PhiValue, PointerValue};
use lowbit_kernel::{Addr, Attr, Block, Buffer, For, Kernel, LoopVar, Op, OpCode, Stmt, Type, Val};
use lowbit_targets::{Feature, ResolvedTarget};
use std::collections::HashMap;

const BUILT: &str = "the builder stands in a block";

/// Value of a loop's counter: known in unrolled loops.
#[derive(Clone, Copy)]
enum Counter<'c> {
    Known(i64),
    Running(IntValue<'c>),
}

struct Lowering<'a, 'c> {
    g: &'a Generator<'c>,
    target: &'a ResolvedTarget,
    kernel: &'a Kernel,
    function: FunctionValue<'c>,
    values: HashMap<Val, (Type, V<'c>)>,
    counters: HashMap<LoopVar, Counter<'c>>,
    /// Registers of tiles, whose values stand for by their numbers.
    tiles: Option<Tiles>,
}

/// What the name of a kernel's function starts with.
pub(crate) const KERNEL_PREFIX: &str = "kernel.";

/// Name of a kernel's function; the dot keeps it apart from every exported name.
pub(crate) fn symbol(kernel: &Kernel) -> String {
    format!("{KERNEL_PREFIX}{}", kernel.name)
}

/// Declares and defines the kernel's function.
pub(crate) fn define<'c>(
    g: &Generator<'c>,
    target: &ResolvedTarget,
    kernel: &Kernel,
) -> FunctionValue<'c> {
    let pointer = g.context.ptr_type(Default::default()).into();
    let function = g.function(
        &symbol(kernel),
        &vec![pointer; kernel.buffers.len()],
        None,
        Linkage::Internal,
    );
    function.add_attribute(AttributeLoc::Function, g.flag("noinline", 0));
    for (k, buffer) in kernel.buffers.iter().enumerate() {
        describe(g, function, k as u32, buffer);
    }
    g.builder
        .position_at_end(g.context.append_basic_block(function, ""));
    let has_tiles = target.features.contains(&Feature::AmxInt8);
    let mut lowering = Lowering {
        g,
        target,
        kernel,
        function,
        values: HashMap::new(),
        counters: HashMap::new(),
        tiles: has_tiles.then(|| Tiles::assign(kernel)).flatten(),
    };
    lowering.configure();
    lowering.block(&kernel.body);
    if lowering.tiles.is_some() {
        g.instruction("llvm.x86.tilerelease", &[]);
    }
    g.builder.build_return(None).expect(BUILT);
    function
}

fn describe(g: &Generator<'_>, function: FunctionValue<'_>, k: u32, buffer: &Buffer) {
    let at = AttributeLoc::Param(k);
    for name in ["noalias", "nocapture", "nonnull"] {
        function.add_attribute(at, g.flag(name, 0));
    }
    if !buffer.role.writable() {
        function.add_attribute(at, g.flag("readonly", 0));
    }
    function.add_attribute(at, g.flag("align", buffer.align.into()));
    if buffer.len > 0 {
        function.add_attribute(
            at,
            g.flag("dereferenceable", (buffer.len + buffer.slack) as u64),
        );
    }
}

impl<'c> Lowering<'_, 'c> {
    fn block(&mut self, block: &Block) {
        for stmt in &block.stmts {
            match stmt {
                Stmt::Let(v, op) => {
                    let tile = self.tile(*v);
                    let value = match tile {
                        Some(tile) => self.tile_operation(op, tile),
                        None => self.operation(op),
                    };
                    self.values.insert(*v, (op.ty, value));
                }
                Stmt::Store(v, at) if self.tile(*v).is_some() => self.store_tile(*v, at),
                Stmt::Store(v, at) => {
                    self.g
                        .store(self.values[v].1, self.address(at), self.alignment(at))
                }
                Stmt::For(f) if f.unroll || f.trips == 1 => self.unrolled(f),
                Stmt::For(f) => self.looped(f),
                Stmt::Prefetch(at, locality) => self.g.prefetch(self.address(at), *locality),
            }
        }
    }

    /// Gives the tile registers their shapes.
    fn configure(&self) {
        let Some(tiles) = &self.tiles else { return };
        let (g, ty) = (self.g, Type::I8.x(64));
        let config = tiles.config().map(i64::from);
        let room = g.builder.build_alloca(g.ty(ty), "").expect(BUILT);
        g.store(g.constant_lanes(ty, &config), room, 1);
        g.instruction("llvm.x86.ldtilecfg", &[room.into()]);
    }

    /// The number of a value's tile register.
    fn tile(&self, v: Val) -> Option<V<'c>> {
        let number = self.tiles.as_ref()?.number(v)?;
        Some(self.g.constant(Type::I8, number.into()))
    }

    fn tile_operation(&self, op: &Op, tile: V<'c>) -> V<'c> {
        match &op.attr {
            Attr::Rows { at, pitch, .. } => {
                let pitch = self.g.constant(Type::I64, *pitch);
                let args = [tile, self.address(at).into(), pitch];
                self.g.instruction("llvm.x86.tileloadd64", &args);
            }
            _ => {
                let factor = |k: usize| self.values[&op.args[k]].1;
                let args = [tile, factor(1), factor(2)];
                self.g.instruction("llvm.x86.tdpbusd", &args);
            }
        }
        tile
    }

    fn store_tile(&self, v: Val, at: &Addr) {
        let row = self.tiles.as_ref().and_then(|t| t.row_bytes(v));
        let row = row.expect("the value has a register") as i64;
        let args = [
            self.values[&v].1,
            self.address(at).into(),
            self.g.constant(Type::I64, row),
        ];
        self.g.instruction("llvm.x86.tilestored64", &args);
    }

    fn operation(&self, op: &Op) -> V<'c> {
        if let (OpCode::Index, Attr::Var(var)) = (op.code, &op.attr) {
            return match self.counters[var] {
                Counter::Known(k) => self.g.constant(Type::I32, k),
                Counter::Running(i) => self.g.trunc(i.into(), Type::I32),
            };
        }
        let (types, args) = op.args.iter().map(|a| self.values[a]).unzip();
        let (pointer, align) = match &op.attr {
            Attr::At(at) | Attr::Rows { at, .. } => (Some(self.address(at)), self.alignment(at)),
            _ => (None, 1),
        };
        lower(
            self.g,
            self.target,
            &Use {
                code: op.code,
                ty: op.ty,
                args,
                types,
                attr: &op.attr,
                pointer,
                align,
            },
        )
    }

    /// Outer counters first and the constant last: invariant parts leave their loops, the constant goes into the instruction.
    fn address(&self, at: &Addr) -> PointerValue<'c> {
        let mut pointer = self
            .function
            .get_nth_param(at.buffer.0)
            .expect("verified")
            .into_pointer_value();
        let mut known = at.offset;
        let mut terms = at.terms.clone();
        terms.sort();
        for (var, stride) in terms {
            match self.counters[&var] {
                Counter::Known(k) => known += k * stride,
                Counter::Running(i) => {
                    let bytes = self.g.mul(i.into(), self.g.constant(Type::I64, stride));
                    pointer = self.g.advance(pointer, bytes);
                }
            }
        }
        if let Some((v, scale)) = at.index {
            let index = self.g.sext(self.values[&v].1, Type::I64);
            pointer = self.g.advance(
                pointer,
                self.g.mul(index, self.g.constant(Type::I64, scale)),
            );
        }
        self.g.offset(pointer, known)
    }

    fn alignment(&self, at: &Addr) -> u32 {
        let parts = at
            .terms
            .iter()
            .map(|t| t.1)
            .chain(at.index.map(|i| i.1))
            .chain([at.offset]);
        let low = parts.fold(0, |bits, x| bits | x).trailing_zeros().min(6);
        self.kernel.buffers[at.buffer.index()].align.min(1 << low)
    }

    fn carry(&mut self, to: impl Iterator<Item = Val>, from: Vec<(Type, V<'c>)>) {
        self.values.extend(to.zip(from));
    }

    fn current(&self, vals: impl Iterator<Item = Val>) -> Vec<(Type, V<'c>)> {
        vals.map(|v| self.values[&v]).collect()
    }

    fn unrolled(&mut self, f: &For) {
        let mut state = self.current(f.carried.iter().map(|c| c.1));
        for trip in 0..f.trips {
            self.counters.insert(f.var, Counter::Known(trip.into()));
            self.carry(f.carried.iter().map(|c| c.0), state);
            self.block(&f.body);
            state = self.current(f.yields.iter().copied());
        }
        self.carry(f.results.iter().copied(), state);
    }

    /// Bottom-tested, since every loop makes at least one trip.
    fn looped(&mut self, f: &For) {
        let (b, long) = (&self.g.builder, self.g.context.i64_type());
        let before = b.get_insert_block().expect(BUILT);
        let inits = self.current(f.carried.iter().map(|c| c.1));
        let body = self.g.context.append_basic_block(self.function, "");
        b.build_unconditional_branch(body).expect(BUILT);
        b.position_at_end(body);
        let counter = b.build_phi(long, "").expect(BUILT);
        counter.add_incoming(&[(&long.const_zero(), before)]);
        let phi = |(&(ty, init), &(_, from)): (&(Type, V<'c>), &(Val, Val))| {
            let register = self.tile(from).is_some();
            (!register).then(|| self.phi(ty, init, before))
        };
        let phis: Vec<_> = inits.iter().zip(&f.carried).map(phi).collect();
        let value = |(&(ty, init), phi): (&(Type, V<'c>), &Option<PhiValue<'c>>)| {
            (ty, phi.map_or(init, |phi| phi.as_basic_value()))
        };
        let inside = inits.iter().zip(&phis).map(value).collect();
        self.carry(f.carried.iter().map(|c| c.0), inside);
        self.counters.insert(
            f.var,
            Counter::Running(counter.as_basic_value().into_int_value()),
        );
        self.block(&f.body);
        self.close(f, body, counter, &phis);
    }

    fn phi(&self, ty: Type, init: V<'c>, before: BasicBlock<'c>) -> PhiValue<'c> {
        let phi = self.g.builder.build_phi(self.g.ty(ty), "").expect(BUILT);
        phi.add_incoming(&[(&init, before)]);
        phi
    }

    fn close(
        &mut self,
        f: &For,
        body: BasicBlock<'c>,
        counter: PhiValue<'c>,
        phis: &[Option<PhiValue<'c>>],
    ) {
        let (b, long) = (&self.g.builder, self.g.context.i64_type());
        let latch = b.get_insert_block().expect(BUILT);
        let yields = self.current(f.yields.iter().copied());
        let this = counter.as_basic_value().into_int_value();
        let next = b
            .build_int_nuw_add(this, long.const_int(1, false), "")
            .expect(BUILT);
        let last = long.const_int(f.trips.into(), false);
        let more = b
            .build_int_compare(IntPredicate::ULT, next, last, "")
            .expect(BUILT);
        let after = self.g.context.append_basic_block(self.function, "");
        b.build_conditional_branch(more, body, after).expect(BUILT);
        counter.add_incoming(&[(&next, latch)]);
        for (phi, (_, y)) in phis.iter().zip(&yields) {
            if let Some(phi) = phi {
                phi.add_incoming(&[(y, latch)]);
            }
        }
        b.position_at_end(after);
        self.carry(f.results.iter().copied(), yields);
    }
}
