//! How each tensor of a graph lies in memory.

use std::collections::HashMap;

use lowbit_ir::{DType, Def, Graph, Node, Op, ValueId};

use super::{Machine, Storage};

/// Bytes behind a tensor that any kernel may read at most.
pub(crate) const SLACK: usize = 64;

/// Bytes behind a tensor that the convolutions which read it may read: where a run of taps is no multiple of four bytes,
/// where channels are read in vectors that end beyond the last one, where tiles read rows of up to 64 bytes.
pub(crate) fn slack(graph: &Graph, v: ValueId, machine: &Machine) -> usize {
    let need = |node: &Node| {
        if matches!(node.op, Op::Reshape(_)) && node.inputs[0] == v {
            return slack(graph, node.output, machine);
        }
        let Op::IntConv(op) = &node.op else { return 0 };
        let kernel = graph.shape(node.inputs[1]);
        let residual = node.inputs.get(4) == Some(&v) && graph.shape(v).len() == 4;
        let incomplete = !(kernel[0] / op.groups).is_multiple_of(usize::from(machine.lanes));
        let main = match (node.inputs[0] == v, kernel[3] == 1 && op.groups > 1) {
            (false, _) => 0,
            (true, true) => SLACK,
            (true, false) if machine.tile.is_some() => SLACK,
            (true, false) if kernel[3].is_multiple_of(4) => 0,
            (true, false) => 4,
        };
        main.max(if residual && incomplete { SLACK } else { 0 })
    };
    let convolutions = graph.nodes().map(|(_, node)| need(node)).max();
    convolutions.unwrap_or(0).max(product_slack(graph, v))
}

/// Bytes behind a tensor that products of two activations may read, of the tensor itself or of a part of it: they sum
/// groups of four.
fn product_slack(graph: &Graph, v: ValueId) -> usize {
    let need = |node: &Node| match node.op {
        _ if !node.inputs.contains(&v) => 0,
        Op::Reshape(_) | Op::Transpose(_) | Op::Slice(_) => product_slack(graph, node.output),
        Op::IntMatMul(_) if graph.shape(v).last().is_some_and(|k| k % 4 != 0) => 4,
        _ => 0,
    };
    graph.nodes().map(|(_, node)| need(node)).max().unwrap_or(0)
}

/// Rows and columns around height and width, and the code they hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Border {
    /// Above, below, left, right.
    pub(crate) size: [usize; 4],
    pub(crate) code: u8,
}

/// The border that each tensor needs: the widest of the convolutions that read it.
pub(crate) fn borders(graph: &Graph) -> HashMap<ValueId, Border> {
    let mut borders: HashMap<ValueId, Border> = HashMap::new();
    for (_, node) in graph.nodes() {
        let Op::IntConv(op) = &node.op else { continue };
        let [rows, columns] = op.pad;
        let own = [rows[0], rows[1], columns[0], columns[1]];
        if own == [0; 4] {
            continue;
        }
        let border = borders.entry(node.inputs[0]).or_insert(Border {
            size: [0; 4],
            code: op.pad_code,
        });
        assert_eq!(
            border.code, op.pad_code,
            "readers of a tensor agree on its zero-point"
        );
        border
            .size
            .iter_mut()
            .zip(own)
            .for_each(|(a, b)| *a = (*a).max(b));
    }
    borders
}

/// The storage of a tensor in the arena.
pub(crate) fn arena(
    dtype: DType,
    shape: &[usize],
    border: Option<&Border>,
    slack: usize,
) -> Storage {
    let mut s = Storage::dense(dtype, shape);
    s.slack = slack;
    if let (Some(border), &[n, h, w, c]) = (border, shape) {
        let [top, bottom, left, right] = border.size;
        let (pixel, row) = (c, (w + left + right) * c);
        let image = (h + top + bottom) * row;
        s.strides = vec![image, row, pixel, 1];
        s.offset = top * row + left * pixel;
        s.bytes = n * image;
    }
    s
}

/// Whether kernels can read an operand where the caller put it: nothing around or behind it is read.
pub(crate) fn reads_exactly(graph: &Graph, v: ValueId) -> bool {
    let convolutions = graph.nodes().all(|(_, node)| {
        let Op::IntConv(op) = &node.op else {
            return true;
        };
        if node.inputs.iter().skip(2).any(|&r| r == v) {
            return false;
        }
        let kernel = graph.shape(node.inputs[1]);
        let run = kernel[2] * kernel[3];
        node.inputs[0] != v
            || (op.groups == 1
                && op.dilation[1] == 1
                && run.is_multiple_of(4)
                && op.pad == [[0, 0]; 2])
    });
    convolutions && product_slack(graph, v) == 0
}

/// The value whose memory a value shares: the operand of a reshape that keeps it.
pub(crate) fn is_constant(graph: &Graph, v: ValueId) -> bool {
    matches!(graph.value(v).def, Def::Const(_))
}
