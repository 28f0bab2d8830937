//! What convolutions write: each output channel has a weight scale of its own, so that scaling it costs nothing
//! (Nagel et al. 2019 scale weights this way; here it is the tensor between that gains).

use lowbit_ir::ops::UnaryFn;
use lowbit_ir::{Graph, Node, Op, ValueId};

use super::{Peaks, Users, divide_reader, factors, is_own, multiply, readers};

pub(super) fn run(graph: &mut Graph, peaks: &Peaks<'_>) -> bool {
    let users = graph.users();
    let convs = graph.nodes().filter(|(_, n)| matches!(n.op, Op::Conv(_)));
    let convs: Vec<Node> = convs.map(|(_, n)| n.clone()).collect();
    let mut changed = false;
    for conv in convs {
        let own = conv.inputs[1..].iter().all(|&v| is_own(graph, &users, v));
        let channels = graph.shape(conv.output).last().copied().unwrap_or(0);
        let Some(readers) = readers(graph, &users, conv.output, channels).filter(|_| own) else {
            continue;
        };
        let Some(factors) = peaks(stored(graph, &users, conv.output)).and_then(|p| factors(&p))
        else {
            continue;
        };
        let size = graph.ty(conv.inputs[1]).elements() / channels;
        multiply(graph, conv.inputs[1], |i| factors[i / size]);
        if let Some(&bias) = conv.inputs.get(2) {
            multiply(graph, bias, |i| factors[i]);
        }
        for reader in readers {
            divide_reader(graph, reader, &factors);
        }
        changed = true;
    }
    changed
}

/// What is stored of a convolution's result: the result, or what a rectifier leaves of it.
fn stored(graph: &Graph, users: &Users, v: ValueId) -> ValueId {
    match users[v][..] {
        [id] if matches!(&graph.node(id).op, Op::Unary(op) if op.0 == UnaryFn::Relu) => {
            graph.node(id).output
        }
        _ => v,
    }
}
