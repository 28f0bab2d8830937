//! Which of the eight tile registers of x86 holds which value of a kernel.
//!
//! The registers are numbered here and not by LLVM, whose allocation of typed tiles moves them through memory at the edges
//! of loops. A product leaves its sum in the register of its accumulator, so a sum keeps one register around a loop.

use std::collections::HashMap;

use lowbit_kernel::{Attr, Block, For, Kernel, Op, OpCode, Stmt, Val};

const REGISTERS: usize = 8;
/// The only palette that there is.
const PALETTE: u8 = 1;
/// Where `ldtilecfg` reads bytes of a row, as 16-bit numbers, and rows, as bytes.
const ROW_BYTES: usize = 16;
const ROWS: usize = 48;

/// Rows, and bytes of a row.
type Shape = [usize; 2];

/// Registers by value, and the shape that each register has all through a kernel.
#[derive(Debug, Default)]
pub(crate) struct Tiles {
    numbers: HashMap<Val, u8>,
    shapes: [Option<Shape>; REGISTERS],
}

impl Tiles {
    /// Numbers the values of a kernel; `None` where it has no tiles, where more live at a time than there are registers, or
    /// where something else than a tile's operation uses one.
    pub(crate) fn assign(kernel: &Kernel) -> Option<Self> {
        let mut walk = Walk {
            uses: HashMap::new(),
            tiles: Self::default(),
            defined: HashMap::new(),
            free: (0..REGISTERS as u8).collect(),
            depth: 0,
        };
        count(&kernel.body, &mut walk.uses);
        walk.block(&kernel.body)?;
        Some(walk.tiles).filter(|t| !t.numbers.is_empty())
    }

    /// The register of a value.
    pub(crate) fn number(&self, v: Val) -> Option<u8> {
        self.numbers.get(&v).copied()
    }

    /// Bytes of a row of a value.
    pub(crate) fn row_bytes(&self, v: Val) -> Option<usize> {
        let number = self.number(v)?;
        self.shapes[usize::from(number)].map(|s| s[1])
    }

    /// What `ldtilecfg` reads.
    pub(crate) fn config(&self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[0] = PALETTE;
        for (k, shape) in self.shapes.iter().enumerate() {
            let [rows, row] = shape.unwrap_or_default();
            bytes[ROW_BYTES + 2 * k] = row as u8;
            bytes[ROWS + k] = rows as u8;
        }
        bytes
    }
}

fn count(block: &Block, uses: &mut HashMap<Val, usize>) {
    let mut add = |v: &Val| *uses.entry(*v).or_default() += 1;
    for stmt in &block.stmts {
        match stmt {
            Stmt::Let(_, op) => op.args.iter().for_each(&mut add),
            Stmt::Store(v, _) => add(v),
            Stmt::Prefetch(..) => {}
            Stmt::For(f) => {
                f.carried.iter().map(|c| &c.1).for_each(&mut add);
                f.yields.iter().for_each(&mut add);
            }
        }
    }
    for stmt in &block.stmts {
        if let Stmt::For(f) = stmt {
            count(&f.body, uses);
        }
    }
}

struct Walk {
    /// Uses of each value that are still to come.
    uses: HashMap<Val, usize>,
    tiles: Tiles,
    /// How many loops surround the definition of a tile.
    defined: HashMap<Val, usize>,
    /// Registers that hold nothing, the one that is free for longest first.
    free: Vec<u8>,
    depth: usize,
}

impl Walk {
    fn block(&mut self, block: &Block) -> Option<()> {
        for stmt in &block.stmts {
            match stmt {
                Stmt::Let(v, op) => self.operation(*v, op)?,
                Stmt::Store(v, _) if self.holds(*v) => self.release(*v)?,
                Stmt::For(f) => self.looped(f)?,
                Stmt::Store(..) | Stmt::Prefetch(..) => {}
            }
        }
        Some(())
    }

    fn holds(&self, v: Val) -> bool {
        self.tiles.numbers.contains_key(&v)
    }

    fn operation(&mut self, v: Val, op: &Op) -> Option<()> {
        match (op.code, &op.attr) {
            (OpCode::LoadRows, Attr::Rows { rows, .. }) => {
                let rows = *rows as usize;
                let number = self.take([rows, op.ty.bytes() / rows])?;
                self.define(v, number);
            }
            (OpCode::Dot4Tile, _) => {
                self.fit(op)?;
                let number = self.hand_over(op.args[0])?;
                self.release(op.args[1])?;
                self.release(op.args[2])?;
                self.define(v, number);
            }
            _ if op.args.iter().any(|&a| self.holds(a)) => return None,
            _ => {}
        }
        Some(())
    }

    /// The registers of a product are different, and have the shapes of a sum and its factors.
    fn fit(&self, op: &Op) -> Option<()> {
        let &[sum, a, w] = &op.args[..] else {
            return None;
        };
        let shape = |v: Val| self.tiles.shapes[usize::from(*self.tiles.numbers.get(&v)?)];
        let ([rows, row], a_shape, [steps, w_row]) = (shape(sum)?, shape(a)?, shape(w)?);
        let fits = row == 64 && w_row == 64 && a_shape == [rows, 4 * steps];
        (fits && a != w && sum != a && sum != w).then_some(())
    }

    fn looped(&mut self, f: &For) -> Option<()> {
        let mut carried = Vec::new();
        for &(inside, init) in &f.carried {
            let number = match self.holds(init) {
                true => Some(self.hand_over(init)?),
                false => None,
            };
            carried.push((inside, number));
        }
        self.depth += 1;
        for &(inside, number) in &carried {
            if let Some(number) = number {
                self.define(inside, number);
            }
        }
        self.block(&f.body)?;
        for (&y, &(_, number)) in f.yields.iter().zip(&carried) {
            match number {
                Some(number) if self.hand_over(y)? == number => {}
                None if !self.holds(y) => {}
                _ => return None,
            }
        }
        self.depth -= 1;
        for (&result, &(_, number)) in f.results.iter().zip(&carried) {
            if let Some(number) = number {
                self.define(result, number);
            }
        }
        Some(())
    }

    fn define(&mut self, v: Val, number: u8) {
        self.tiles.numbers.insert(v, number);
        self.defined.insert(v, self.depth);
        if self.uses.get(&v).is_none_or(|&n| n == 0) {
            self.free.push(number);
        }
    }

    /// A register of a shape: one that was never used, else the one that is free for longest.
    fn take(&mut self, shape: Shape) -> Option<u8> {
        let bound = |&n: &u8| self.tiles.shapes[usize::from(n)];
        let unused = self.free.iter().position(|n| bound(n).is_none());
        let at = unused.or_else(|| self.free.iter().position(|n| bound(n) == Some(shape)))?;
        let number = self.free.remove(at);
        self.tiles.shapes[usize::from(number)] = Some(shape);
        Some(number)
    }

    /// One use of a tile in the loop that defines it; whether it was the last.
    fn used(&mut self, v: Val) -> Option<bool> {
        if *self.defined.get(&v)? != self.depth {
            return None;
        }
        let left = self.uses.get_mut(&v)?;
        *left -= 1;
        Some(*left == 0)
    }

    fn release(&mut self, v: Val) -> Option<()> {
        if self.used(v)? {
            self.free.push(self.tiles.numbers[&v]);
        }
        Some(())
    }

    /// The register of a value whose last use this is, for another value.
    fn hand_over(&mut self, v: Val) -> Option<u8> {
        self.used(v)?.then(|| self.tiles.numbers[&v])
    }
}
