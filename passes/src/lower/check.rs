//! Checks a memory plan by following every byte of the arena through the calls. It knows nothing of how the plan was made.

use lowbit_ir::{Graph, ValueId};
use lowbit_kernel::{Place, Role};

use super::Lowered;

/// A byte that does not hold what a call reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("call {call} ({label}) reads byte {byte} of the arena for {expected}; it holds {found}")]
pub struct MemoryError {
    /// Index of the call.
    pub call: usize,
    /// Its label.
    pub label: String,
    /// The byte.
    pub byte: usize,
    /// What the call needs there.
    pub expected: String,
    /// What lies there.
    pub found: String,
}

/// Checks that whatever a call reads from the arena was last written by the calls that compute it.
///
/// # Errors
/// The first byte that holds something else.
pub fn check_memory(graph: &Graph, lowered: &Lowered) -> Result<(), MemoryError> {
    let program = &lowered.program;
    let mut owner: Vec<Option<ValueId>> = vec![None; program.arena_bytes];
    for (index, call) in program.calls.iter().enumerate() {
        let computes = lowered.computes[index];
        let buffers = &program.kernels[call.kernel].buffers;
        for (buffer, place) in buffers.iter().zip(&call.args) {
            let Place::Arena(at) = *place else { continue };
            let bytes = at..at + buffer.len;
            if matches!(buffer.role, Role::In | Role::InOut) {
                let expected = source(graph, lowered, computes, at, buffer.role);
                let wrong = bytes
                    .clone()
                    .find(|&b| owner[b] != expected || expected.is_none());
                if let Some(byte) = wrong {
                    return Err(MemoryError {
                        call: index,
                        label: call.label.clone(),
                        byte,
                        expected: expected
                            .map_or("no operand of the node".into(), |v| v.to_string()),
                        found: owner[byte].map_or("nothing".into(), |v| v.to_string()),
                    });
                }
            }
            match buffer.role {
                Role::Out | Role::InOut => owner[bytes].fill(Some(computes)),
                Role::Scratch => owner[bytes].fill(None),
                Role::In | Role::Const => {}
            }
        }
    }
    Ok(())
}

/// The value that a call which computes `v` can mean by memory that starts at `at`.
fn source(graph: &Graph, lowered: &Lowered, v: ValueId, at: usize, role: Role) -> Option<ValueId> {
    let here = |u: ValueId| {
        let located = lowered.located.get(&u);
        located.is_some_and(|l| match l.place {
            Place::Arena(start) => (start..start + l.storage.bytes.max(1)).contains(&at),
            _ => false,
        })
    };
    if role == Role::InOut {
        return Some(v);
    }
    let operands = graph.producer(v).map_or(&[][..], |n| &n.inputs);
    let read = operands.iter().copied().chain([v]).find(|&u| here(u))?;
    Some(writer(graph, lowered, read))
}

/// The value whose calls write the memory that a value shares.
fn writer(graph: &Graph, lowered: &Lowered, v: ValueId) -> ValueId {
    if lowered.computes.contains(&v) {
        return v;
    }
    match graph.producer(v) {
        Some(node) => writer(graph, lowered, node.inputs[0]),
        None => v,
    }
}
