//! The interpreter: the definition of what a kernel does.

use crate::ops::{Call as OpCall, Signature, to_bytes};
use crate::{
    Addr, Attr, Block, Buffer, For, Kernel, LoopVar, Op, OpCode, Place, Program, Stmt, Type, Val,
};
use std::borrow::Cow;
use thiserror::Error;

/// Why a kernel cannot run on.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RunError {
    /// An operand is outside an operation's domain, or an address outside its buffer.
    #[error("kernel {kernel}: {at}: {why}")]
    Fault {
        /// The kernel.
        kernel: String,
        /// The statement, in the text form's words.
        at: String,
        /// What was found.
        why: String,
    },
    /// The memory handed in has the wrong size.
    #[error("{what}: {found} bytes, expected {expected}")]
    Size {
        /// Which memory.
        what: String,
        /// Its size.
        found: usize,
        /// What the kernel or program declares.
        expected: usize,
    },
}

/// Runs a verified kernel on one byte slice for each buffer, `len` (or `len + slack`) bytes long. Slack that is not handed in reads as zero.
///
/// # Errors
/// A wrong size, an operand outside an operation's domain, a dynamic address outside its buffer.
pub fn run_kernel(kernel: &Kernel, memory: &mut [Vec<u8>]) -> Result<(), RunError> {
    let given = memory.iter().map(Vec::len).chain(std::iter::repeat(0));
    for (buffer, found) in kernel.buffers.iter().zip(given) {
        if found != buffer.len && found != buffer.len + buffer.slack {
            return Err(RunError::Size {
                what: format!("@{}", buffer.name),
                found,
                expected: buffer.len,
            });
        }
    }
    let mut machine = Machine {
        kernel,
        memory,
        values: Vec::new(),
        counters: Vec::new(),
    };
    machine.block(&kernel.body)
}

struct Machine<'a> {
    kernel: &'a Kernel,
    memory: &'a mut [Vec<u8>],
    values: Vec<Option<(Type, Vec<i64>)>>,
    counters: Vec<i64>,
}

impl Machine<'_> {
    fn block(&mut self, block: &Block) -> Result<(), RunError> {
        block.stmts.iter().try_for_each(|stmt| self.stmt(stmt))
    }

    fn stmt(&mut self, stmt: &Stmt) -> Result<(), RunError> {
        match stmt {
            Stmt::Let(v, op) => {
                let lanes = self
                    .operation(op)
                    .map_err(|why| self.fault(format!("{v}"), why))?;
                self.set(*v, op.ty, lanes);
                Ok(())
            }
            Stmt::Store(v, at) => self
                .store(*v, at)
                .map_err(|why| self.fault(format!("store {v}"), why)),
            Stmt::For(f) => self.looped(f),
            Stmt::Prefetch(..) => Ok(()),
        }
    }

    fn fault(&self, at: String, why: String) -> RunError {
        RunError::Fault {
            kernel: self.kernel.name.clone(),
            at,
            why,
        }
    }

    fn set(&mut self, v: Val, ty: Type, lanes: Vec<i64>) {
        if self.values.len() <= v.index() {
            self.values.resize(v.index() + 1, None);
        }
        self.values[v.index()] = Some((ty, lanes));
    }

    fn get(&self, v: Val) -> (Type, &[i64]) {
        let (ty, lanes) = self.values[v.index()]
            .as_ref()
            .expect("verified: defined before use");
        (*ty, lanes)
    }

    fn operation(&self, op: &Op) -> Result<Vec<i64>, String> {
        if let (OpCode::Index, Attr::Var(var)) = (op.code, &op.attr) {
            return Ok(vec![self.counters[var.index()]]);
        }
        let (types, args): (Vec<_>, Vec<_>) = op.args.iter().map(|&a| self.get(a)).unzip();
        let memory = match &op.attr {
            Attr::At(at) => self.read(at, (op.code.def().reads)(op.ty))?,
            Attr::Rows { at, rows, pitch } => {
                let bytes = op.ty.bytes() / *rows as usize;
                let row = |k| self.read(&at.clone().plus(i64::from(k) * pitch), bytes);
                let rows = (0..*rows).map(row).collect::<Result<Vec<_>, _>>()?;
                Cow::Owned(rows.concat())
            }
            _ => Cow::Borrowed(&[][..]),
        };
        op.code.eval(OpCall {
            sig: Signature {
                ty: op.ty,
                args: &types,
                attr: &op.attr,
            },
            args: &args,
            memory: &memory,
        })
    }

    fn position(&self, at: &Addr) -> i128 {
        let bytes = |count: i64, size: i64| i128::from(count) * i128::from(size);
        let affine = at
            .terms
            .iter()
            .map(|(var, stride)| bytes(self.counters[var.index()], *stride));
        let dynamic = at.index.map(|(v, scale)| bytes(self.get(v).1[0], scale));
        i128::from(at.offset) + affine.chain(dynamic).sum::<i128>()
    }

    fn range(
        &self,
        at: &Addr,
        bytes: usize,
        slack: usize,
    ) -> Result<std::ops::Range<usize>, String> {
        let buffer: &Buffer = &self.kernel.buffers[at.buffer.index()];
        let (start, end) = (self.position(at), buffer.len + slack);
        match usize::try_from(start) {
            Ok(start) if start + bytes <= end => Ok(start..start + bytes),
            _ => Err(format!(
                "bytes {start}..{} of @{}, which ends at {end}",
                start + bytes as i128,
                buffer.name
            )),
        }
    }

    fn read(&self, at: &Addr, bytes: usize) -> Result<Cow<'_, [u8]>, String> {
        let slack = self.kernel.buffers[at.buffer.index()].slack;
        let range = self.range(at, bytes, slack)?;
        let memory = &self.memory[at.buffer.index()];
        if range.end <= memory.len() {
            return Ok(Cow::Borrowed(&memory[range]));
        }
        let mut padded = memory.get(range.start..).unwrap_or_default().to_vec();
        padded.resize(bytes, 0);
        Ok(Cow::Owned(padded))
    }

    fn store(&mut self, v: Val, at: &Addr) -> Result<(), String> {
        let (ty, lanes) = self.get(v);
        let bytes = to_bytes(ty, lanes);
        let range = self.range(at, bytes.len(), 0)?;
        self.memory[at.buffer.index()][range].copy_from_slice(&bytes);
        Ok(())
    }

    fn count(&mut self, var: LoopVar, x: i64) {
        if self.counters.len() <= var.index() {
            self.counters.resize(var.index() + 1, 0);
        }
        self.counters[var.index()] = x;
    }

    fn carry(&mut self, to: impl Iterator<Item = Val>, from: &[Val]) {
        let values: Vec<_> = from
            .iter()
            .map(|&v| self.values[v.index()].clone())
            .collect();
        for (v, value) in to.zip(values) {
            let (ty, lanes) = value.expect("verified: defined before use");
            self.set(v, ty, lanes);
        }
    }

    fn looped(&mut self, f: &For) -> Result<(), RunError> {
        let inits: Vec<_> = f.carried.iter().map(|c| c.1).collect();
        self.carry(f.carried.iter().map(|c| c.0), &inits);
        for trip in 0..f.trips {
            self.count(f.var, trip.into());
            self.block(&f.body)?;
            self.carry(f.carried.iter().map(|c| c.0), &f.yields);
        }
        self.carry(
            f.results.iter().copied(),
            &f.carried.iter().map(|c| c.0).collect::<Vec<_>>(),
        );
        Ok(())
    }
}

impl Program {
    /// Runs a verified program: reads the inputs, returns the outputs. The arena starts as zeros.
    ///
    /// # Errors
    /// A wrong input size, or a fault in a kernel.
    pub fn run(&self, inputs: &[&[u8]]) -> Result<Vec<Vec<u8>>, RunError> {
        let mut state = State::new(self, inputs)?;
        (0..self.calls.len()).try_for_each(|k| state.step(k))?;
        Ok(state.outputs)
    }
}

/// A program between two calls.
#[derive(Debug)]
pub struct State<'a> {
    program: &'a Program,
    inputs: Vec<Vec<u8>>,
    /// The arena's bytes.
    pub arena: Vec<u8>,
    /// The outputs' bytes.
    pub outputs: Vec<Vec<u8>>,
}

impl<'a> State<'a> {
    /// Before the first call.
    ///
    /// # Errors
    /// A wrong number or size of inputs.
    pub fn new(program: &'a Program, inputs: &[&[u8]]) -> Result<Self, RunError> {
        let found = inputs.iter().map(|x| x.len()).chain(std::iter::repeat(0));
        for (k, (&expected, found)) in program.inputs.iter().zip(found).enumerate() {
            if found != expected {
                return Err(RunError::Size {
                    what: format!("input{k}"),
                    found,
                    expected,
                });
            }
        }
        Ok(Self {
            program,
            inputs: inputs.iter().map(|x| x.to_vec()).collect(),
            arena: vec![0; program.arena_bytes],
            outputs: program.outputs.iter().map(|&n| vec![0; n]).collect(),
        })
    }

    /// Makes call number `k`.
    ///
    /// # Errors
    /// A fault in its kernel.
    pub fn step(&mut self, k: usize) -> Result<(), RunError> {
        let call = &self.program.calls[k];
        let kernel = &self.program.kernels[call.kernel];
        let pairs = || kernel.buffers.iter().zip(&call.args);
        let mut memory: Vec<_> = pairs().map(|(b, &p)| self.bytes(b, p).to_vec()).collect();
        run_kernel(kernel, &mut memory)?;
        let written = pairs().zip(memory).filter(|((b, _), _)| b.role.writable());
        for ((buffer, &place), bytes) in written {
            let target = match place {
                Place::Arena(at) => &mut self.arena[at..],
                Place::Output(k) => &mut self.outputs[k][..],
                Place::Const(_) | Place::Input(_) => unreachable!("verified: never written"),
            };
            target[..buffer.len].copy_from_slice(&bytes[..buffer.len]);
        }
        Ok(())
    }

    fn bytes(&self, buffer: &Buffer, place: Place) -> &[u8] {
        let (memory, start) = match place {
            Place::Arena(at) => (&self.arena, at),
            Place::Const(at) => (&self.program.consts, at),
            Place::Input(k) => (&self.inputs[k], 0),
            Place::Output(k) => (&self.outputs[k], 0),
        };
        &memory[start..start + buffer.len + buffer.slack]
    }
}
