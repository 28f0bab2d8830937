//! How long kernels take on a target, from their texts and the target's cost numbers.
//!
//! A block takes as long as the busier of its arithmetic and its memory accesses, a loop at least as long as the chain of
//! sums from one trip to the next. What a kernel touches is read or written at least once at the speed of the level of memory
//! that holds it.

use std::collections::{HashMap, HashSet};

use lowbit_kernel::{
    Addr, Attr, Block, Buffer, For, Kernel, Op, OpCode, Program, Role, Stmt, Type, Val,
};
use lowbit_targets::{Costs, ResolvedTarget, Rule, Sequence, TileCosts};

/// Predicted microseconds of one run of a kernel between whose runs `resident` bytes are touched.
pub fn kernel_us(kernel: &Kernel, resident: usize, target: &ResolvedTarget) -> f64 {
    let costs = &target.level.costs;
    let mut walk = Walk {
        target,
        costs,
        types: HashMap::new(),
        loaded: HashSet::new(),
        trips: 1,
        touched: vec![0; kernel.buffers.len()],
        lengths: kernel.buffers.iter().map(|b| b.len).collect(),
        roles: kernel.buffers.iter().map(|b| b.role).collect(),
        beside: false,
        resident,
        sums: HashSet::new(),
        pairs: HashSet::new(),
    };
    let mut busy = walk.block(&kernel.body).time();
    if let (Some(tile), false) = (costs.tile, walk.sums.is_empty()) {
        busy += tile.configure;
    }
    let buffers = kernel.buffers.iter().zip(&walk.touched);
    let bytes = |(b, &touched): (&Buffer, &u64)| touched.min(b.len as u64);
    let lines = buffers.map(bytes).sum::<u64>() / 64 * costs.line(resident);
    (busy.max(lines) + costs.call) as f64 / 10.0 / f64::from(costs.mhz)
}

/// Microseconds that handing out the parts of a layer to threads and waiting for all of them takes.
const HANDING_OUT_US: f64 = 2.0;

/// Whether kernels that threads share are predicted to save twice what handing them out takes.
pub(crate) fn gains_from_threads(
    kernels: &[&Kernel],
    threads: usize,
    target: &ResolvedTarget,
) -> bool {
    let alone: f64 = kernels.iter().map(|k| kernel_us(k, 0, target)).sum();
    alone - alone / threads.max(1) as f64 >= 2.0 * HANDING_OUT_US
}

/// Predicted microseconds of each call of a program.
pub fn call_us(program: &Program, target: &ResolvedTarget) -> Vec<f64> {
    let resident = program.consts.len() + program.arena_bytes;
    let us: Vec<f64> = program
        .kernels
        .iter()
        .map(|k| kernel_us(k, resident, target))
        .collect();
    program.calls.iter().map(|c| us[c.kernel]).collect()
}

/// The least time that a kernel could take, and what sets it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Ceiling {
    /// Microseconds.
    pub us: f64,
    /// `compute`, or the level of memory that holds its buffers: `L1`, `L2`, `L3`.
    pub bound: &'static str,
}

/// Products of bytes in a product of whole tiles.
const TILE_MACS: u64 = 16 * 16 * 64;

/// The ceiling of a kernel that does `macs` multiply-accumulates: all of them at the rate of the target's fastest dot
/// product, or all its buffers read or written once.
pub fn ceiling(kernel: &Kernel, macs: u64, resident: usize, target: &ResolvedTarget) -> Ceiling {
    let costs = &target.level.costs;
    let cycles = |tenths: f64| tenths / 10.0 / f64::from(costs.mhz);
    let dots = macs as f64 / target.level.vector_bytes as f64;
    let vectors = dots * costs.dot.min(costs.narrow) as f64;
    let tiles = |t: TileCosts| macs as f64 / TILE_MACS as f64 * t.product as f64;
    let compute = cycles(costs.tile.map_or(vectors, |t| vectors.min(tiles(t))));
    let bytes: usize = kernel.buffers.iter().map(|b| b.len).sum();
    let memory = cycles(bytes as f64 / 64.0 * costs.line(resident) as f64);
    let level = ["L1", "L2", "L3"][costs.level(resident)];
    match compute >= memory {
        true => Ceiling {
            us: compute,
            bound: "compute",
        },
        false => Ceiling {
            us: memory,
            bound: level,
        },
    }
}

/// The largest divisor of 64 that divides where all rows start, in a buffer that starts a line.
fn unit(at: &Addr, pitch: i64) -> u64 {
    let strides = at.terms.iter().map(|t| t.1);
    let bits = strides.fold(64 | at.offset | pitch, |bits, x| bits | x);
    1 << bits.trailing_zeros()
}

/// What a block keeps busy, in tenths of a cycle.
#[derive(Clone, Copy, Default)]
struct Work {
    arithmetic: u64,
    /// Products of tiles and what reads their sums.
    tiles: u64,
    memory: u64,
    /// Loops inside, which nothing overlaps.
    inner: u64,
    /// Loops of vectors beside products of tiles.
    beside: u64,
}

impl Work {
    fn time(self) -> u64 {
        let vectors = self.arithmetic.max(self.memory) + self.beside;
        vectors.max(self.tiles) + self.inner
    }
}

struct Walk<'a> {
    target: &'a ResolvedTarget,
    costs: &'a Costs,
    types: HashMap<Val, Type>,
    /// Scalars that come from memory: a load puts them into every lane for nothing.
    loaded: HashSet<Val>,
    /// Trips of all loops around, and bytes that were read or written in each buffer.
    trips: u64,
    touched: Vec<u64>,
    /// Bytes of each buffer.
    lengths: Vec<usize>,
    /// What each buffer is for.
    roles: Vec<Role>,
    /// Whether this is a loop beside products of tiles.
    beside: bool,
    /// Bytes that are touched between two runs.
    resident: usize,
    /// Tiles of sums.
    sums: HashSet<Val>,
    /// Sums of pairs of products.
    pairs: HashSet<Val>,
}

fn is_product(stmt: &Stmt) -> bool {
    matches!(stmt, Stmt::Let(_, op) if op.code == OpCode::Dot4Tile)
}

fn has_tiles(block: &Block) -> bool {
    let inside = |stmt: &Stmt| matches!(stmt, Stmt::For(f) if has_tiles(&f.body));
    block.stmts.iter().any(|s| is_product(s) || inside(s))
}

impl Walk<'_> {
    fn block(&mut self, block: &Block) -> Work {
        let mut work = Work::default();
        let mut prepared = HashSet::new();
        let tiles = block.stmts.iter().any(is_product);
        for stmt in &block.stmts {
            match stmt {
                Stmt::Let(v, op) => self.operation(*v, op, &mut work, &mut prepared),
                Stmt::Store(v, at) => {
                    self.touch(at, self.types[v]);
                    let tile = self.costs.tile.filter(|_| self.sums.contains(v));
                    match tile {
                        Some(tile) => work.tiles += tile.store,
                        None => work.memory += self.vectors(self.types[v]) * self.costs.store,
                    }
                }
                Stmt::Prefetch(..) => work.memory += self.costs.load,
                Stmt::For(f) if tiles && !has_tiles(&f.body) => {
                    self.beside = true;
                    work.beside += self.repeated(f);
                    self.beside = false;
                }
                Stmt::For(f) => work.inner += self.repeated(f),
            }
        }
        work
    }

    fn repeated(&mut self, f: &For) -> u64 {
        for &(inside, before) in &f.carried {
            self.types.insert(inside, self.types[&before]);
        }
        self.trips *= u64::from(f.trips);
        let body = self.block(&f.body);
        self.trips /= u64::from(f.trips);
        let trip = match f.unroll {
            true => body.time(),
            false => body.time().max(self.chain(f)) + self.costs.trip,
        };
        for (result, y) in f.results.iter().zip(&f.yields) {
            self.types.insert(*result, self.types[y]);
            if self.sums.contains(y) {
                self.sums.insert(*result);
            }
        }
        trip * u64::from(f.trips)
    }

    /// The longest chain of sums from a carried value to what is carried on.
    fn chain(&self, f: &For) -> u64 {
        let mut depth: HashMap<Val, u64> = f.carried.iter().map(|c| (c.0, 0)).collect();
        for stmt in &f.body.stmts {
            let Stmt::Let(v, op) = stmt else { continue };
            let before = op.args.iter().filter_map(|a| depth.get(a)).max();
            if let Some(&before) = before {
                depth.insert(*v, before + self.latency(op));
            }
        }
        let ends = f.yields.iter().filter_map(|y| depth.get(y));
        ends.max().copied().unwrap_or(0)
    }

    /// One cycle for an addition; a fused dot product takes as long as it takes, one of tiles no longer than the unit is busy.
    fn latency(&self, op: &Op) -> u64 {
        if op.code == OpCode::Dot4Tile {
            return self.tile_product(op);
        }
        match self.rule(op.code, op.ty) {
            Some(Rule::Intrinsic { .. }) => 50,
            _ => 10,
        }
    }

    fn operation(&mut self, v: Val, op: &Op, work: &mut Work, prepared: &mut HashSet<Val>) {
        self.types.insert(v, op.ty);
        let c = self.costs;
        let result = self.vectors(op.ty);
        let widest = op.args.iter().map(|a| self.vectors(self.types[a]));
        let vectors = widest.max().unwrap_or(0).max(result);
        match op.code {
            OpCode::Const | OpCode::ConstVec | OpCode::Index | OpCode::Bitcast => {}
            OpCode::Load => {
                self.loaded.insert(v);
                let mut load = result * c.load;
                if let Attr::At(at) = &op.attr {
                    self.touch(at, op.ty);
                    load = load.max(self.stream(at, op.ty));
                }
                work.memory += load;
            }
            OpCode::LoadRows => {
                if let Attr::Rows { at, rows, pitch } = &op.attr {
                    work.memory += match c.tile {
                        Some(tile) => {
                            let bytes = op.ty.bytes() as u64 / u64::from(*rows);
                            let near = tile.loading((*rows).into(), bytes, unit(at, *pitch));
                            // what was unpacked shares the cache with what is read beside it
                            let share = match self.roles[at.buffer.index()] == Role::Scratch {
                                true => c.cache[0] / 4,
                                false => c.cache[0],
                            };
                            match self.lengths[at.buffer.index()] > share {
                                true => near.max(tile.far),
                                false => near,
                            }
                        }
                        None => u64::from(*rows) * c.load,
                    };
                    self.touch(at, op.ty);
                }
            }
            OpCode::Dot4Tile => {
                work.tiles += self.tile_product(op);
                self.sums.insert(v);
            }
            OpCode::Splat if self.loaded.contains(&op.args[0]) => {}
            OpCode::Dot2Narrow => {
                // the first of a chain of sums starts from zero
                let more = self.pairs.contains(&op.args[0]);
                work.arithmetic += result * (c.narrow + if more { c.simple } else { 0 });
                self.pairs.insert(v);
            }
            OpCode::Dot2 => work.arithmetic += result * c.pair,
            OpCode::Dot4 | OpCode::Dot4s => {
                work.arithmetic += result * c.dot + self.prepare(op, prepared);
            }
            OpCode::Mulhi | OpCode::Requant => work.arithmetic += result * c.requant,
            OpCode::Mul => work.arithmetic += result * c.product,
            OpCode::Pack4U8 | OpCode::Zip4 => work.arithmetic += 3 * result * c.shuffle,
            OpCode::Shuffle | OpCode::Extract | OpCode::SatU8 | OpCode::SatI16 => {
                work.arithmetic += vectors * c.shuffle;
            }
            OpCode::Lut256 => work.arithmetic += self.lookup(op.ty),
            OpCode::Udiv => work.arithmetic += 60,
            OpCode::ReduceAdd | OpCode::ReduceSmax => work.arithmetic += 6 * c.shuffle,
            OpCode::Popcount | OpCode::Clz => work.arithmetic += 4 * result * c.simple,
            _ => work.arithmetic += vectors * c.simple,
        }
        if let Attr::At(at) = &op.attr
            && at.index.is_some()
        {
            work.arithmetic += c.simple;
        }
    }

    /// A product of tiles: of vectors where there are none.
    fn tile_product(&self, op: &Op) -> u64 {
        let rows = u64::from(op.ty.lanes / 16);
        let steps = self.types[&op.args[2]].bytes() as u64 / 64;
        let c = self.costs;
        c.tile.map_or(rows * steps * c.dot, |t| t.rows(rows))
    }

    fn touch(&mut self, at: &Addr, ty: Type) {
        self.touched[at.buffer.index()] += self.trips * ty.bytes() as u64;
    }

    /// What a load of constants takes that are read once: where loops follow each other, each waits for its own part of a large
    /// buffer. What stands beside products of tiles was brought near before.
    fn stream(&self, at: &Addr, ty: Type) -> u64 {
        let (len, bytes) = (self.lengths[at.buffer.index()], ty.bytes() as u64);
        let once = self.trips * bytes <= len as u64 && len > self.costs.cache[0];
        if once && self.roles[at.buffer.index()] == Role::Const && !self.beside {
            bytes * self.costs.line(self.resident) / 64
        } else {
            0
        }
    }

    /// Vectors of the target that hold a value.
    fn vectors(&self, ty: Type) -> u64 {
        ty.bytes().div_ceil(self.target.level.vector_bytes) as u64
    }

    fn rule(&self, code: OpCode, ty: Type) -> Option<Rule> {
        let row = self.target.row(code, ty);
        row.or_else(|| self.target.split_row(code, ty))
            .map(|r| r.rule)
    }

    /// Factors that a sequence widens first, once for all products in a block.
    fn prepare(&self, op: &Op, prepared: &mut HashSet<Val>) -> u64 {
        let widened = matches!(
            self.rule(op.code, op.ty),
            Some(Rule::Sequence(Sequence::MaddEvenOdd))
        );
        let fresh = |k: usize, steps: u64, prepared: &mut HashSet<Val>| {
            steps * u64::from(widened && prepared.insert(op.args[k]))
        };
        let steps = fresh(1, 2, prepared) + fresh(2, 3, prepared);
        steps * self.costs.simple * self.vectors(op.ty)
    }

    /// A lookup without a row goes byte by byte.
    fn lookup(&self, ty: Type) -> u64 {
        match self.rule(OpCode::Lut256, ty) {
            Some(_) => self.vectors(ty) * self.costs.lut,
            None => u64::from(ty.lanes) * (self.costs.load + self.costs.shuffle),
        }
    }
}
