//! What a well-formed kernel is.

use crate::ops::Signature;
use crate::{Addr, Attr, Block, Buffer, For, Kernel, LoopVar, Op, OpCode, Stmt, Type, Val};
use std::collections::{HashMap, HashSet};
use thiserror::Error;

/// Why a kernel is malformed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("kernel {kernel}: {why}")]
pub struct VerifyError {
    /// The kernel.
    pub kernel: String,
    /// What was found, in the words of the text form.
    pub why: String,
}

/// Checks names, types, single definition before use, loop shapes, and that every address without a dynamic index stays in its buffer
/// (loads may use the slack) for all values of its loop variables.
///
/// # Errors
/// The first violation.
pub fn verify(kernel: &Kernel) -> Result<(), VerifyError> {
    let mut checker = Checker {
        kernel,
        types: HashMap::new(),
        visible: HashSet::new(),
        trips: HashMap::new(),
        vars: HashSet::new(),
    };
    checker.run().map_err(|why| VerifyError {
        kernel: kernel.name.clone(),
        why,
    })
}

/// Whether `name` can be a symbol: a letter or `_`, then letters, digits, `_`.
pub(crate) fn is_name(name: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !name.is_empty() && name.chars().all(word) && !name.starts_with(|c: char| c.is_ascii_digit())
}

/// No buffer or stride is larger than this many bytes.
const LARGEST: usize = 1 << 40;

/// Values and loops are numbered below this, so that tables by number stay small.
const MOST: u32 = 1 << 20;

struct Checker<'a> {
    kernel: &'a Kernel,
    types: HashMap<Val, Type>,
    visible: HashSet<Val>,
    trips: HashMap<LoopVar, u32>,
    vars: HashSet<LoopVar>,
}

type Checked<T = ()> = Result<T, String>;

impl Checker<'_> {
    fn run(&mut self) -> Checked {
        let mut names = HashSet::new();
        if !is_name(&self.kernel.name) {
            return Err("the kernel's name is no identifier".to_owned());
        }
        for b in &self.kernel.buffers {
            check_buffer(b)?;
            if !names.insert(&b.name) {
                return Err(format!("two buffers are named @{}", b.name));
            }
        }
        self.block(&self.kernel.body)
    }

    fn block(&mut self, block: &Block) -> Checked {
        block.stmts.iter().try_for_each(|stmt| self.stmt(stmt))
    }

    fn stmt(&mut self, stmt: &Stmt) -> Checked {
        match stmt {
            Stmt::Let(v, op) => self.operation(*v, op),
            Stmt::Store(v, at) => self.store(*v, at),
            Stmt::For(f) => self.looped(f),
            Stmt::Prefetch(at, locality) => {
                self.address(at)?;
                if *locality > 3 {
                    Err(format!("prefetch locality {locality} is above 3"))
                } else {
                    Ok(())
                }
            }
        }
    }

    fn operation(&mut self, v: Val, op: &Op) -> Checked {
        let args = op
            .args
            .iter()
            .map(|&a| self.used(a))
            .collect::<Checked<Vec<_>>>()?;
        op.code
            .check(Signature {
                ty: op.ty,
                args: &args,
                attr: &op.attr,
            })
            .map_err(|why| format!("{v}: {why}"))?;
        match &op.attr {
            Attr::At(at) => self
                .access(at, (op.code.def().reads)(op.ty), true)
                .map_err(|why| format!("{v}: {why}"))?,
            Attr::Rows { at, rows, pitch } => self
                .rows(at, (*rows, *pitch), op.ty)
                .map_err(|why| format!("{v}: {why}"))?,
            Attr::Var(var) if !self.trips.contains_key(var) => {
                return Err(format!("{v}: {var} is no surrounding loop"));
            }
            _ => {}
        }
        debug_assert!(op.code != OpCode::Load || op.args.is_empty());
        self.define(v, op.ty)
    }

    /// The first and the last row, between which the others lie.
    fn rows(&self, at: &Addr, (rows, pitch): (u32, i64), ty: Type) -> Checked {
        if pitch.unsigned_abs() > LARGEST as u64 {
            return Err(format!("{pitch} is no sensible number of bytes"));
        }
        let bytes = ty.bytes() / rows as usize;
        self.access(at, bytes, true)?;
        let last = at.clone().plus(i64::from(rows - 1) * pitch);
        self.access(&last, bytes, true)
    }

    fn store(&mut self, v: Val, at: &Addr) -> Checked {
        let ty = self.used(v)?;
        self.access(at, ty.bytes(), false)
            .map_err(|why| format!("store {v}: {why}"))?;
        let buffer = &self.kernel.buffers[at.buffer.index()];
        if buffer.role.writable() {
            Ok(())
        } else {
            Err(format!("store {v}: @{} is read only", buffer.name))
        }
    }

    fn looped(&mut self, f: &For) -> Checked {
        if f.trips == 0 || f.var.0 >= MOST || !self.vars.insert(f.var) {
            return Err(format!(
                "loop {} has no trips or is not the only loop of its name",
                f.var
            ));
        }
        if f.carried.len() != f.yields.len() || f.carried.len() != f.results.len() {
            return Err(format!(
                "loop {} carries, yields and returns different numbers of values",
                f.var
            ));
        }
        let types = f
            .carried
            .iter()
            .map(|&(_, init)| self.used(init))
            .collect::<Checked<Vec<_>>>()?;
        let before = self.visible.clone();
        for (&(inside, _), &ty) in f.carried.iter().zip(&types) {
            self.define(inside, ty)?;
        }
        self.trips.insert(f.var, f.trips);
        self.block(&f.body)?;
        for (&y, &ty) in f.yields.iter().zip(&types) {
            if self.used(y)? != ty {
                return Err(format!(
                    "loop {} yields {y} of another type than it carries",
                    f.var
                ));
            }
        }
        self.trips.remove(&f.var);
        self.visible = before;
        f.results
            .iter()
            .zip(types)
            .try_for_each(|(&r, ty)| self.define(r, ty))
    }

    fn define(&mut self, v: Val, ty: Type) -> Checked {
        if v.0 >= MOST {
            return Err(format!("{v} is numbered higher than {MOST}"));
        }
        self.visible.insert(v);
        match self.types.insert(v, ty) {
            None => Ok(()),
            Some(_) => Err(format!("{v} is defined twice")),
        }
    }

    fn used(&self, v: Val) -> Checked<Type> {
        match self.visible.contains(&v) {
            true => Ok(self.types[&v]),
            false => Err(format!("{v} is used where it is not defined")),
        }
    }

    fn address(&self, at: &Addr) -> Checked {
        if at.buffer.index() >= self.kernel.buffers.len() {
            return Err(format!("there is no buffer {}", at.buffer));
        }
        let numbers = at
            .terms
            .iter()
            .map(|t| t.1)
            .chain(at.index.map(|i| i.1))
            .chain([at.offset]);
        if let Some(n) = numbers
            .into_iter()
            .find(|n| n.unsigned_abs() > LARGEST as u64)
        {
            return Err(format!("{n} is no sensible number of bytes"));
        }
        let mut seen = HashSet::new();
        for (var, _) in &at.terms {
            if !self.trips.contains_key(var) || !seen.insert(var) {
                return Err(format!(
                    "{var} is no surrounding loop or stands twice in one address"
                ));
            }
        }
        match at.index {
            Some((v, _)) if self.used(v)? != Type::I32 => Err(format!("index {v} is no i32")),
            _ => Ok(()),
        }
    }

    fn access(&self, at: &Addr, bytes: usize, load: bool) -> Checked {
        self.address(at)?;
        if at.index.is_some() {
            return Ok(());
        }
        let (lo, hi) = self.span(at);
        let buffer = &self.kernel.buffers[at.buffer.index()];
        let end = (buffer.len + if load { buffer.slack } else { 0 }) as i128;
        let last = hi + bytes as i128;
        if lo < 0 || last > end {
            return Err(format!(
                "bytes {lo}..{last} of @{}, which ends at {end}",
                buffer.name
            ));
        }
        Ok(())
    }

    /// Smallest and largest first byte over all loop values.
    fn span(&self, at: &Addr) -> (i128, i128) {
        let offset = i128::from(at.offset);
        at.terms
            .iter()
            .fold((offset, offset), |(lo, hi), (var, stride)| {
                let reach = i128::from(self.trips[var] - 1) * i128::from(*stride);
                (lo + reach.min(0), hi + reach.max(0))
            })
    }
}

fn check_buffer(b: &Buffer) -> Checked {
    if !is_name(&b.name) {
        return Err(format!("buffer name `{}` is no identifier", b.name));
    }
    if b.len > LARGEST || b.slack > LARGEST {
        return Err(format!("@{} is larger than {LARGEST} bytes", b.name));
    }
    if !b.align.is_power_of_two() || b.align > 64 {
        return Err(format!(
            "alignment {} of @{} is no power of two up to 64",
            b.align, b.name
        ));
    }
    Ok(())
}
