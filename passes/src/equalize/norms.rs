//! What layer normalisations write: their scale and shift take the factors (SmoothQuant, RepQ-ViT).

use lowbit_ir::ops::BinaryFn;
use lowbit_ir::{Graph, Op, ValueId};

use super::{Peaks, Users, divide_reader, factors, is_own, multiply, readers};

pub(super) fn run(graph: &mut Graph, peaks: &Peaks<'_>) -> bool {
    let users = graph.users();
    let norms = graph
        .nodes()
        .filter(|(_, n)| matches!(n.op, Op::Normalize(_)));
    let norms: Vec<ValueId> = norms.map(|(_, n)| n.output).collect();
    let mut changed = false;
    for norm in norms {
        let channels = graph.shape(norm).last().copied().unwrap_or(0);
        let by_channel = |graph: &Graph, v, f| with_own(graph, &users, v, f, channels);
        let Some((scale, scaled)) = by_channel(graph, norm, BinaryFn::Mul) else {
            continue;
        };
        let shift = by_channel(graph, scaled, BinaryFn::Add);
        let end = shift.map_or(scaled, |(_, end)| end);
        let Some(readers) = readers(graph, &users, end, channels) else {
            continue;
        };
        let Some(factors) = peaks(end).and_then(|p| factors(&p)) else {
            continue;
        };
        for (v, _) in [Some((scale, scaled)), shift].into_iter().flatten() {
            multiply(graph, v, |i| factors[i]);
        }
        for reader in readers {
            divide_reader(graph, reader, &factors);
        }
        changed = true;
    }
    changed
}

/// The constant of one element a channel that the only reader of a value combines it with, and the result.
fn with_own(
    graph: &Graph,
    users: &Users,
    v: ValueId,
    f: BinaryFn,
    channels: usize,
) -> Option<(ValueId, ValueId)> {
    let [id] = users[v][..] else { return None };
    let node = graph.node(id);
    let Op::Binary(op) = &node.op else {
        return None;
    };
    let other = node.inputs.iter().copied().find(|&x| x != v)?;
    let fits = op.0 == f && is_own(graph, users, other) && !graph.is_output(v);
    (fits && graph.ty(other).elements() == channels).then_some((other, node.output))
}
