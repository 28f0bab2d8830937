//! What lies in the arena during each call.

use lowbit_ir::Graph;
use lowbit_passes::lower::Lowered;
use lowbit_report::{Buffer, Memory, Step};

/// Memory over time, by names of the model.
pub(crate) fn memory(graph: &Graph, lowered: &Lowered) -> Memory {
    let buffers: Vec<Buffer> = lowered
        .rooms
        .iter()
        .map(|room| Buffer {
            name: graph.value(room.value).name.clone(),
            scratch: room.scratch,
            bytes: room.lifetime.bytes as u64,
            offset: room.offset as u64,
            first: room.lifetime.first,
            last: room.lifetime.last,
        })
        .collect();
    let live = |call: usize| {
        let living = buffers.iter().filter(|b| b.first <= call && call <= b.last);
        living.map(|b| b.bytes).sum()
    };
    let program = &lowered.program;
    let steps = program
        .calls
        .iter()
        .enumerate()
        .map(|(i, call)| Step {
            name: call.label.clone(),
            kernel: program.kernels[call.kernel].name.clone(),
            live_bytes: live(i),
        })
        .collect();
    Memory { steps, buffers }
}
