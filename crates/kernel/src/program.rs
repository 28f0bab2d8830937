//! A program: kernels, constants and the calls of one inference.

use crate::verify::is_name;
use crate::{Buffer, Kernel, Role, VerifyError, verify};
use std::fmt;
use thiserror::Error;

/// Where a call's buffer lies. Offsets are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// In the caller's arena, from this offset on.
    Arena(usize),
    /// In the program's constants, from this offset on.
    Const(usize),
    /// All of the input of this number.
    Input(usize),
    /// All of the output of this number.
    Output(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arena(at) => write!(f, "arena+{at}"),
            Self::Const(at) => write!(f, "const+{at}"),
            Self::Input(k) => write!(f, "input{k}"),
            Self::Output(k) => write!(f, "output{k}"),
        }
    }
}

/// One call of a kernel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Call {
    /// Position in [`Program::kernels`].
    pub kernel: usize,
    /// Name for reports, of the layer it computes; no line breaks or quotes.
    pub label: String,
    /// One place for each buffer of the kernel.
    pub args: Vec<Place>,
    /// Whether it may run at the same time as the call before it, and as those that this one may run beside: they write
    /// different parts of one result.
    pub beside: bool,
}

/// Everything that becomes one object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Program {
    /// Prefix of the exported names.
    pub name: String,
    /// Kernels, each once, with distinct names.
    pub kernels: Vec<Kernel>,
    /// Constant bytes, aligned to 64.
    pub consts: Vec<u8>,
    /// Calls in order.
    pub calls: Vec<Call>,
    /// Size of the arena in bytes; it is aligned to 64.
    pub arena_bytes: usize,
    /// Size of each input in bytes; inputs may be unaligned and are never written.
    pub inputs: Vec<usize>,
    /// Size of each output in bytes; outputs may be unaligned.
    pub outputs: Vec<usize>,
}

/// Why a program is malformed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProgramError {
    /// A kernel is.
    #[error(transparent)]
    Kernel(#[from] VerifyError),
    /// A name is no identifier or stands twice.
    #[error("`{0}` is no identifier or names two kernels")]
    Name(String),
    /// A call is.
    #[error("call {index} ({label}): {why}")]
    Call {
        /// Position of the call.
        index: usize,
        /// Its label.
        label: String,
        /// What was found.
        why: String,
    },
}

impl Program {
    /// Checks every kernel, and that every call's places lie within the program's memory, are aligned and writable as their buffers ask,
    /// and never overlap where one of them is written.
    ///
    /// # Errors
    /// The first violation.
    pub fn verify(&self) -> Result<(), ProgramError> {
        let mut names = std::collections::HashSet::new();
        if !is_name(&self.name) {
            return Err(ProgramError::Name(self.name.clone()));
        }
        for kernel in &self.kernels {
            verify(kernel)?;
            if !names.insert(&kernel.name) {
                return Err(ProgramError::Name(kernel.name.clone()));
            }
        }
        for (index, call) in self.calls.iter().enumerate() {
            let fail = |why| ProgramError::Call {
                index,
                label: call.label.clone(),
                why,
            };
            self.check_call(call).map_err(fail)?;
            self.check_beside(index).map_err(fail)?;
        }
        Ok(())
    }

    /// Positions of the calls that may run at the same time, in order.
    pub fn groups(&self) -> Vec<std::ops::Range<usize>> {
        let mut groups: Vec<std::ops::Range<usize>> = Vec::new();
        for (k, call) in self.calls.iter().enumerate() {
            match groups.last_mut() {
                Some(group) if call.beside => group.end = k + 1,
                _ => groups.push(k..k + 1),
            }
        }
        groups
    }

    /// What a call writes, only parts of a result may share with what another call at the same time uses.
    fn check_beside(&self, index: usize) -> Result<(), String> {
        if !self.calls[index].beside {
            return Ok(());
        }
        if index == 0 {
            return Err("there is no call before it".to_owned());
        }
        let uses = |k: usize| {
            let call = &self.calls[k];
            let buffers = &self.kernels[call.kernel].buffers;
            buffers.iter().zip(call.args.iter().copied())
        };
        let first = (0..index).rev().find(|&k| !self.calls[k].beside);
        for other in first.unwrap_or(0)..index {
            for (a, p) in uses(index) {
                for (b, q) in uses(other) {
                    let written = a.role.writable() || b.role.writable();
                    let parts = a.role == Role::Out && b.role == Role::Out;
                    if written && !parts && overlap((a, p), (b, q)) {
                        return Err(format!(
                            "@{} and @{} of call {other} overlap and one is written",
                            a.name, b.name
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    fn check_call(&self, call: &Call) -> Result<(), String> {
        let kernel = self
            .kernels
            .get(call.kernel)
            .ok_or("there is no such kernel")?;
        if call.label.contains(['"', '\n', '\r']) {
            return Err("the label has a quote or a line break".to_owned());
        }
        if kernel.buffers.len() != call.args.len() {
            return Err(format!(
                "{} places for the {} buffers of {}",
                call.args.len(),
                kernel.buffers.len(),
                kernel.name
            ));
        }
        let pairs = || kernel.buffers.iter().zip(&call.args);
        for (buffer, place) in pairs() {
            self.check_place(buffer, *place)
                .map_err(|why| format!("@{} = {place}: {why}", buffer.name))?;
        }
        for (k, (a, &p)) in pairs().enumerate() {
            for (b, &q) in pairs().skip(k + 1) {
                if (a.role.writable() || b.role.writable()) && overlap((a, p), (b, q)) {
                    return Err(format!(
                        "@{} and @{} overlap and one is written",
                        a.name, b.name
                    ));
                }
            }
        }
        Ok(())
    }

    fn check_place(&self, buffer: &Buffer, place: Place) -> Result<(), String> {
        let lookup = |sizes: &[usize], k| sizes.get(k).copied().ok_or("there is no such argument");
        let (start, size, writable, align) = match place {
            Place::Arena(at) => (at, self.arena_bytes, true, 64),
            Place::Const(at) => (at, self.consts.len(), false, 64),
            Place::Input(k) => (0, lookup(&self.inputs, k)?, false, 1),
            Place::Output(k) => (0, lookup(&self.outputs, k)?, true, 1),
        };
        let end = start.saturating_add(buffer.len + buffer.slack);
        if end > size {
            return Err(format!("it ends at byte {end} of {size}"));
        }
        if buffer.role.writable() && !writable {
            return Err("it is written".to_owned());
        }
        if buffer.role == Role::Const && !matches!(place, Place::Const(_)) {
            return Err("a constant is wanted".to_owned());
        }
        if buffer.align as usize > align || !start.is_multiple_of(buffer.align as usize) {
            return Err(format!("it is not aligned to {}", buffer.align));
        }
        Ok(())
    }
}

fn overlap((a, p): (&Buffer, Place), (b, q): (&Buffer, Place)) -> bool {
    match (p, q) {
        (Place::Arena(x), Place::Arena(y)) => x < y + b.len && y < x + a.len,
        _ => p == q && matches!(p, Place::Output(_)),
    }
}
