//! The text form, written. `parse` reads it back.

use crate::{Addr, Attr, Block, Buffer, For, Kernel, Op, Program, Stmt, Val};
use std::fmt::{self, Display, Formatter, Write as _};

const INDENT: usize = 2;
const HEX_LINE: usize = 32;

/// Items with commas between.
fn list<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    let words: Vec<_> = items.into_iter().map(|x| x.to_string()).collect();
    words.join(", ")
}

impl Display for Buffer {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "@{}: {} {}", self.name, self.role.name(), self.len)?;
        if self.slack > 0 {
            write!(f, " slack {}", self.slack)?;
        }
        if self.align > 1 {
            write!(f, " align {}", self.align)?;
        }
        Ok(())
    }
}

impl Display for Kernel {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "kernel {}({}) {{", self.name, list(&self.buffers))?;
        Printer {
            kernel: self,
            out: f,
        }
        .block(&self.body, 1)?;
        f.write_str("}\n")
    }
}

struct Printer<'a, 'b, 'c> {
    kernel: &'a Kernel,
    out: &'b mut Formatter<'c>,
}

impl Printer<'_, '_, '_> {
    fn block(&mut self, block: &Block, depth: usize) -> fmt::Result {
        block
            .stmts
            .iter()
            .try_for_each(|stmt| self.stmt(stmt, depth))
    }

    fn stmt(&mut self, stmt: &Stmt, depth: usize) -> fmt::Result {
        write!(self.out, "{:1$}", "", depth * INDENT)?;
        match stmt {
            Stmt::Let(v, op) => {
                let text = self.operation(op);
                writeln!(self.out, "{v} = {text}")
            }
            Stmt::Store(v, at) => {
                let at = self.address(at);
                writeln!(self.out, "store {v}, {at}")
            }
            Stmt::Prefetch(at, locality) => {
                let at = self.address(at);
                writeln!(self.out, "prefetch {at}, {locality}")
            }
            Stmt::For(f) => self.looped(f, depth),
        }
    }

    fn operation(&self, op: &Op) -> String {
        let attr = match &op.attr {
            Attr::None => None,
            Attr::Int(x) => Some(x.to_string()),
            Attr::List(xs) => Some(format!("[{}]", list(xs))),
            Attr::At(at) => Some(self.address(at)),
            Attr::Var(var) => Some(var.to_string()),
            Attr::Rows { at, rows, pitch } => {
                Some(format!("{} rows {rows} by {pitch}", self.address(at)))
            }
        };
        let items = op.args.iter().map(Val::to_string).chain(attr);
        format!("{} {} {}", op.code.def().name, op.ty, list(items))
    }

    fn address(&self, at: &Addr) -> String {
        let name = self
            .kernel
            .buffers
            .get(at.buffer.index())
            .map_or("?", |b| &b.name);
        let terms = at
            .terms
            .iter()
            .map(|(var, stride)| format!(" + {var}*{stride}"));
        let index = at.index.map(|(v, scale)| format!(" + {v}*{scale}"));
        format!(
            "@{name}[{}{}]",
            at.offset,
            terms.chain(index).collect::<String>()
        )
    }

    fn looped(&mut self, f: &For, depth: usize) -> fmt::Result {
        let unroll = if f.unroll { " unroll" } else { "" };
        write!(self.out, "for {} in {}{unroll} ", f.var, f.trips)?;
        if !f.carried.is_empty() {
            let carried = f
                .carried
                .iter()
                .map(|(inside, init)| format!("{inside} = {init}"));
            write!(self.out, "({}) -> ({}) ", list(carried), list(&f.results))?;
        }
        self.out.write_str("{\n")?;
        self.block(&f.body, depth + 1)?;
        if !f.yields.is_empty() {
            writeln!(
                self.out,
                "{:2$}yield {}",
                "",
                list(&f.yields),
                (depth + 1) * INDENT
            )?;
        }
        writeln!(self.out, "{:1$}}}", "", depth * INDENT)
    }
}

impl Display for Program {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "program {} arena {}", self.name, self.arena_bytes)?;
        writeln!(
            f,
            "inputs [{}]\noutputs [{}]",
            list(&self.inputs),
            list(&self.outputs)
        )?;
        writeln!(f, "consts {} {{", self.consts.len())?;
        for line in self.consts.chunks(HEX_LINE) {
            let hex = line.iter().fold(String::new(), |mut hex, byte| {
                write!(hex, "{byte:02x}").expect("writing to a string");
                hex
            });
            writeln!(f, "  {hex}")?;
        }
        f.write_str("}\n")?;
        self.kernels.iter().try_for_each(|kernel| kernel.fmt(f))?;
        for call in &self.calls {
            let name = self.kernels.get(call.kernel).map_or("?", |k| &k.name);
            let beside = if call.beside { " beside" } else { "" };
            let args = list(&call.args);
            writeln!(f, "call {name} \"{}\" ({args}){beside}", call.label)?;
        }
        Ok(())
    }
}
