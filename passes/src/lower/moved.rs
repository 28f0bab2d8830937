//! Operations that only move elements, as other views of their operand's memory.

use lowbit_ir::{Graph, Node, NodeId, Op, SecondaryMap, ValueId};

use super::Storage;

/// How the result of an operation lies in the memory of its operand; `None` where it does not, or computes something.
pub(crate) fn moved(op: &Op, given: &Storage) -> Option<Storage> {
    match op {
        Op::Transpose(op) => {
            let pick = |list: &[usize]| op.perm.iter().map(|&p| list[p]).collect();
            Some(Storage {
                shape: pick(&given.shape),
                strides: pick(&given.strides),
                ..given.clone()
            })
        }
        Op::Slice(op) => {
            let axes = 0..given.shape.len();
            let step = |a: usize| usize::try_from(op.step[a]).ok();
            let strides: Option<Vec<usize>> = axes
                .clone()
                .map(|a| Some(given.strides[a] * step(a)?))
                .collect();
            Some(Storage {
                shape: op.len.clone(),
                strides: strides?,
                offset: given.offset + axes.map(|a| op.start[a] * given.strides[a]).sum::<usize>(),
                ..given.clone()
            })
        }
        Op::Reshape(op) => {
            let strides = reshaped(&given.shape, &given.strides, &op.shape)?;
            Some(Storage {
                shape: op.shape.clone(),
                strides,
                ..given.clone()
            })
        }
        _ => None,
    }
}

/// Whether all that read a value take it where it lies: products of activations, whose left operand has no gaps along the
/// summed axis, and what moves its elements again for such products.
pub(crate) fn read_anywhere(
    graph: &Graph,
    users: &SecondaryMap<ValueId, Vec<NodeId>>,
    v: ValueId,
    storage: &Storage,
) -> bool {
    let contiguous = storage.shape.last() == Some(&1) || storage.strides.last() == Some(&1);
    let reads = |node: &Node| match &node.op {
        Op::IntMatMul(_) => node.inputs[0] != v || contiguous,
        op => {
            moved(op, storage).is_some_and(|next| read_anywhere(graph, users, node.output, &next))
        }
    };
    graph.outputs().iter().all(|o| o.value != v)
        && !users[v].is_empty()
        && users[v].iter().all(|&u| reads(graph.node(u)))
}

/// Strides of a reshaped tensor: each group of axes that is cut anew must lie without gaps.
fn reshaped(from: &[usize], strides: &[usize], to: &[usize]) -> Option<Vec<usize>> {
    let axes: Vec<usize> = (0..from.len()).filter(|&a| from[a] != 1).collect();
    let mut result = vec![0; to.len()];
    let (mut next, mut at) = (axes.iter().copied().peekable(), 0);
    while let Some(first) = next.next() {
        // the shortest group of new axes that has as many elements as a group of old ones
        let (mut old, mut last) = (from[first], first);
        let (mut new, begin) = (1, at);
        while at < to.len() && (new < old || to[at] == 1) {
            new *= to[at];
            at += 1;
            while new > old {
                let follows = next.next()?;
                if strides[last] != strides[follows] * from[follows] {
                    return None;
                }
                old *= from[follows];
                last = follows;
            }
        }
        if new != old {
            return None;
        }
        let mut stride = strides[last];
        for a in (begin..at).rev() {
            result[a] = stride;
            stride *= to[a];
        }
    }
    (at == to.len()).then_some(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reshapes_cut_and_join_what_has_no_gaps() {
        // rows of 384 bytes, of which 128 are kept
        assert_eq!(
            reshaped(&[1, 65, 128], &[0, 384, 1], &[65, 4, 32]),
            Some(vec![384, 32, 1])
        );
        assert_eq!(reshaped(&[65, 128], &[384, 1], &[65 * 128]), None);
        assert_eq!(
            reshaped(&[4, 6, 5], &[30, 5, 1], &[1, 24, 5, 1]),
            Some(vec![120, 5, 1, 1])
        );
        assert_eq!(reshaped(&[2, 3], &[3, 1], &[6]), Some(vec![1]));
        assert_eq!(reshaped(&[6], &[2], &[2, 3]), Some(vec![6, 2]));
        assert_eq!(reshaped(&[4, 3], &[3, 1], &[6, 2]), Some(vec![2, 1]));
        assert_eq!(reshaped(&[4, 3], &[4, 1], &[6, 2]), None);
    }
}
