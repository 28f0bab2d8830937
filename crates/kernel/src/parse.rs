//! The text form, read.

use crate::{
    Addr, Attr, Block, BufId, Buffer, Call, For, Kernel, LoopVar, Op, OpCode, Place, Program, Role,
    Stmt, Val,
};
use std::collections::HashMap;
use std::str::FromStr;
use thiserror::Error;

/// Why a text is no kernel or program.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}: {why}")]
pub struct ParseError {
    /// Line, from 1.
    pub line: usize,
    /// What was found and what was expected.
    pub why: String,
}

/// Loops nested deeper than this are refused.
const DEEPEST: usize = 64;

type Parsed<T> = Result<T, ParseError>;

impl FromStr for Kernel {
    type Err = ParseError;

    fn from_str(text: &str) -> Parsed<Self> {
        let mut p = Parser::new(text);
        let kernel = p.kernel()?;
        p.end()?;
        Ok(kernel)
    }
}

impl FromStr for Program {
    type Err = ParseError;

    fn from_str(text: &str) -> Parsed<Self> {
        let mut p = Parser::new(text);
        let program = p.program()?;
        p.end()?;
        Ok(program)
    }
}

/// Words, signs and quoted strings with their lines. `//` starts a comment.
fn tokens(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (k, line) in text.lines().enumerate() {
        let mut rest = line.trim_start();
        while !rest.is_empty() && !rest.starts_with("//") {
            let (token, tail) = rest.split_at(token_length(rest));
            found.push((k + 1, token));
            rest = tail.trim_start();
        }
    }
    found
}

fn token_length(text: &str) -> usize {
    let word = |s: &str| {
        s.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(s.len())
    };
    let first = text.chars().next().expect("the text is not empty");
    match first {
        '"' => text[1..].find('"').map_or(text.len(), |n| n + 2),
        '%' | '@' | '-' => 1 + word(&text[1..]),
        c if c.is_ascii_alphanumeric() || c == '_' => word(text),
        c => c.len_utf8(),
    }
}

struct Parser<'a> {
    tokens: Vec<(usize, &'a str)>,
    next: usize,
    depth: usize,
    buffers: HashMap<String, BufId>,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            tokens: tokens(text),
            next: 0,
            depth: 0,
            buffers: HashMap::new(),
        }
    }

    fn peek(&self) -> &'a str {
        self.tokens.get(self.next).map_or("", |t| t.1)
    }

    fn take(&mut self) -> &'a str {
        let token = self.peek();
        self.next += 1;
        token
    }

    /// An error at the token taken last.
    fn fail<T>(&self, why: impl Into<String>) -> Parsed<T> {
        let at = self
            .next
            .saturating_sub(1)
            .min(self.tokens.len().saturating_sub(1));
        let line = self.tokens.get(at).map_or(1, |t| t.0);
        Err(ParseError {
            line,
            why: why.into(),
        })
    }

    fn accept(&mut self, token: &str) -> bool {
        let there = self.peek() == token;
        self.next += usize::from(there);
        there
    }

    fn expect(&mut self, token: &str) -> Parsed<()> {
        match self.take() {
            found if found == token => Ok(()),
            found => self.fail(format!("found `{found}`, expected `{token}`")),
        }
    }

    fn end(&mut self) -> Parsed<()> {
        match self.take() {
            "" => Ok(()),
            found => self.fail(format!("found `{found}` after the end")),
        }
    }

    fn read<T: FromStr>(&mut self, what: &str) -> Parsed<T> {
        let token = self.take();
        token
            .parse()
            .or_else(|_| self.fail(format!("found `{token}`, expected {what}")))
    }

    /// The number behind a prefix, such as 3 of `%3`.
    fn numbered(&mut self, prefix: &str, what: &str) -> Parsed<u32> {
        let token = self.take();
        match token.strip_prefix(prefix).and_then(|n| n.parse().ok()) {
            Some(n) => Ok(n),
            None => self.fail(format!("found `{token}`, expected {what}")),
        }
    }

    fn val(&mut self) -> Parsed<Val> {
        self.numbered("%", "a value such as %3").map(Val)
    }

    fn var(&mut self) -> Parsed<LoopVar> {
        self.numbered("i", "a counter such as i0").map(LoopVar)
    }

    /// Items with commas between, up to and with the closing token.
    fn list<T>(&mut self, close: &str, item: impl Fn(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        let mut items = Vec::new();
        if self.accept(close) {
            return Ok(items);
        }
        loop {
            items.push(item(self)?);
            if !self.accept(",") {
                self.expect(close)?;
                return Ok(items);
            }
        }
    }

    fn kernel(&mut self) -> Parsed<Kernel> {
        self.expect("kernel")?;
        let name = self.take().to_owned();
        self.expect("(")?;
        let buffers = self.list(")", Self::buffer)?;
        self.buffers = buffers
            .iter()
            .enumerate()
            .map(|(k, b)| (b.name.clone(), BufId(k as u32)))
            .collect();
        self.expect("{")?;
        let (body, yields) = self.block()?;
        if !yields.is_empty() {
            return self.fail("a kernel yields nothing");
        }
        Ok(Kernel {
            name,
            buffers,
            body,
        })
    }

    fn buffer(&mut self) -> Parsed<Buffer> {
        let token = self.take();
        let Some(name) = token.strip_prefix('@') else {
            return self.fail(format!("found `{token}`, expected a buffer such as @x"));
        };
        self.expect(":")?;
        let word = self.take();
        let Some(role) = Role::ALL.into_iter().find(|r| r.name() == word) else {
            return self.fail(format!(
                "found `{word}`, expected in, out, inout, const or scratch"
            ));
        };
        let len = self.read("a size")?;
        let slack = if self.accept("slack") {
            self.read("a size")?
        } else {
            0
        };
        let align = if self.accept("align") {
            self.read("an alignment")?
        } else {
            1
        };
        Ok(Buffer {
            name: name.to_owned(),
            role,
            len,
            slack,
            align,
        })
    }

    /// Statements up to the closing brace, and what they yield.
    fn block(&mut self) -> Parsed<(Block, Vec<Val>)> {
        let mut stmts = Vec::new();
        loop {
            match self.peek() {
                "}" => {
                    self.next += 1;
                    return Ok((Block { stmts }, Vec::new()));
                }
                "yield" => {
                    self.next += 1;
                    let yields = self.list("}", Self::val)?;
                    return Ok((Block { stmts }, yields));
                }
                _ => stmts.push(self.stmt()?),
            }
        }
    }

    fn stmt(&mut self) -> Parsed<Stmt> {
        if self.accept("for") {
            return Ok(Stmt::For(Box::new(self.looped()?)));
        }
        if self.accept("store") {
            let v = self.val()?;
            self.expect(",")?;
            return Ok(Stmt::Store(v, self.address()?));
        }
        if self.accept("prefetch") {
            let at = self.address()?;
            self.expect(",")?;
            return Ok(Stmt::Prefetch(at, self.read("a locality")?));
        }
        let v = self.val()?;
        self.expect("=")?;
        Ok(Stmt::Let(v, self.operation()?))
    }

    fn looped(&mut self) -> Parsed<For> {
        let var = self.var()?;
        self.expect("in")?;
        let trips = self.read("a number of trips")?;
        let unroll = self.accept("unroll");
        let (mut carried, mut results) = (Vec::new(), Vec::new());
        if self.accept("(") {
            carried = self.list(")", |p| {
                let inside = p.val()?;
                p.expect("=")?;
                Ok((inside, p.val()?))
            })?;
            self.expect("-")?;
            self.expect(">")?;
            self.expect("(")?;
            results = self.list(")", Self::val)?;
        }
        self.expect("{")?;
        self.depth += 1;
        if self.depth > DEEPEST {
            return self.fail(format!("loops are nested deeper than {DEEPEST}"));
        }
        let (body, yields) = self.block()?;
        self.depth -= 1;
        Ok(For {
            var,
            trips,
            unroll,
            carried,
            body,
            yields,
            results,
        })
    }

    fn operation(&mut self) -> Parsed<Op> {
        let word = self.take();
        let Some(code) = OpCode::from_name(word) else {
            return self.fail(format!("`{word}` is no operation"));
        };
        let token = self.take();
        let ty = token.parse().or_else(|why: String| self.fail(why))?;
        let (mut args, mut attr) = (Vec::new(), Attr::None);
        loop {
            match self.peek().chars().next() {
                Some('%') => args.push(self.val()?),
                Some('@') => attr = self.memory()?,
                Some('[') => {
                    self.next += 1;
                    attr = Attr::List(self.list("]", |p| p.read("a number"))?);
                }
                Some('i') => attr = Attr::Var(self.var()?),
                _ => attr = Attr::Int(self.read("an operand")?),
            }
            if !self.accept(",") {
                return Ok(Op {
                    code,
                    ty,
                    args,
                    attr,
                });
            }
        }
    }

    /// An address, of one value or of rows.
    fn memory(&mut self) -> Parsed<Attr> {
        let at = self.address()?;
        if !self.accept("rows") {
            return Ok(Attr::At(at));
        }
        let rows = self.read("a number of rows")?;
        self.expect("by")?;
        let pitch = self.read("bytes between rows")?;
        Ok(Attr::Rows { at, rows, pitch })
    }

    fn address(&mut self) -> Parsed<Addr> {
        let token = self.take();
        let buffer = token
            .strip_prefix('@')
            .and_then(|name| self.buffers.get(name));
        let Some(&buffer) = buffer else {
            return self.fail(format!("found `{token}`, expected a buffer of the kernel"));
        };
        self.expect("[")?;
        let mut at = buffer.at(self.read("an offset in bytes")?);
        while self.accept("+") {
            if self.peek().starts_with('%') {
                let v = self.val()?;
                self.expect("*")?;
                at.index = Some((v, self.read("a scale")?));
            } else {
                let var = self.var()?;
                self.expect("*")?;
                at.terms.push((var, self.read("a stride")?));
            }
        }
        self.expect("]")?;
        Ok(at)
    }

    fn program(&mut self) -> Parsed<Program> {
        self.expect("program")?;
        let mut program = Program {
            name: self.take().to_owned(),
            ..Program::default()
        };
        self.expect("arena")?;
        program.arena_bytes = self.read("a size")?;
        self.expect("inputs")?;
        program.inputs = self.sizes()?;
        self.expect("outputs")?;
        program.outputs = self.sizes()?;
        program.consts = self.consts()?;
        while self.peek() == "kernel" {
            program.kernels.push(self.kernel()?);
        }
        while self.accept("call") {
            let call = self.call(&program.kernels)?;
            program.calls.push(call);
        }
        Ok(program)
    }

    fn sizes(&mut self) -> Parsed<Vec<usize>> {
        self.expect("[")?;
        self.list("]", |p| p.read("a size"))
    }

    fn consts(&mut self) -> Parsed<Vec<u8>> {
        self.expect("consts")?;
        let len: usize = self.read("a size")?;
        self.expect("{")?;
        let mut bytes = Vec::new();
        while !self.accept("}") {
            let token = self.take();
            match unhex(token) {
                Some(more) => bytes.extend(more),
                None => {
                    return self.fail(format!(
                        "found `{token}`, expected pairs of hexadecimal digits"
                    ));
                }
            }
        }
        if bytes.len() == len {
            Ok(bytes)
        } else {
            self.fail(format!("{} bytes, {len} announced", bytes.len()))
        }
    }

    fn call(&mut self, kernels: &[Kernel]) -> Parsed<Call> {
        let name = self.take();
        let Some(kernel) = kernels.iter().position(|k| k.name == name) else {
            return self.fail(format!("there is no kernel {name}"));
        };
        let token = self.take();
        let Some(label) = token.strip_prefix('"').and_then(|t| t.strip_suffix('"')) else {
            return self.fail(format!("found `{token}`, expected a quoted label"));
        };
        self.expect("(")?;
        Ok(Call {
            kernel,
            label: label.to_owned(),
            args: self.list(")", Self::place)?,
            beside: self.accept("beside"),
        })
    }

    fn place(&mut self) -> Parsed<Place> {
        let token = self.take();
        if token == "arena" || token == "const" {
            self.expect("+")?;
            let at = self.read("an offset")?;
            return Ok(if token == "arena" {
                Place::Arena(at)
            } else {
                Place::Const(at)
            });
        }
        let number = |prefix| token.strip_prefix(prefix).and_then(|n| n.parse().ok());
        match (number("input"), number("output")) {
            (Some(k), _) => Ok(Place::Input(k)),
            (_, Some(k)) => Ok(Place::Output(k)),
            _ => self.fail(format!(
                "found `{token}`, expected arena+N, const+N, inputK or outputK"
            )),
        }
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pair = |k| u8::from_str_radix(text.get(k..k + 2)?, 16).ok();
    (0..text.len())
        .step_by(2)
        .map(pair)
        .collect::<Option<Vec<_>>>()
        .filter(|b| !b.is_empty())
}
