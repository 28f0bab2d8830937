use std::convert::Infallible;

use lowbit_ir::ops::{Conv, Op, PadMode};
use lowbit_ir::{Graph, Node, Rewrite, Stage, ValueId};

use crate::Pass;

/// Zeros around height and width in front of a convolution become its padding.
pub(super) const PASS: Pass = Pass {
    name: "fold-pad",
    enters: Stage::Float,
    required: false,
    run,
};

fn run(graph: &Graph) -> Graph {
    let new: Result<Graph, Infallible> = graph.rewrite(|new, _, node, operands| {
        let folded = match &node.op {
            Op::Conv(op) => folded(new, node, op, operands),
            _ => None,
        };
        Ok(folded.unwrap_or_else(|| new.copy(node, operands)))
    });
    new.unwrap_or_else(|e| match e {})
}

fn folded(new: &mut Rewrite<'_>, node: &Node, op: &Conv, operands: &[ValueId]) -> Option<ValueId> {
    let producer = new.producer(operands[0])?.clone();
    let Op::Pad(pad) = &producer.op else {
        return None;
    };
    let zero = producer
        .inputs
        .get(1)
        .and_then(|&v| new.as_const(v))?
        .to_f64()
        == [0.0];
    let spatial = [0, 3].iter().all(|&a| pad.low[a] == 0 && pad.high[a] == 0);
    let grows = pad.low.iter().chain(&pad.high).all(|&p| p >= 0);
    if pad.mode != PadMode::Constant
        || !zero
        || !spatial
        || !grows
        || pad.interior.iter().any(|&i| i > 0)
    {
        return None;
    }
    let mut op = op.clone();
    for axis in 0..2 {
        op.pad[axis][0] += pad.low[axis + 1] as usize;
        op.pad[axis][1] += pad.high[axis + 1] as usize;
    }
    let operands: Vec<ValueId> = [&producer.inputs[..1], &operands[1..]].concat();
    let name = new.old().value(node.output).name.clone();
    new.push(name, op, &operands).ok()
}

#[cfg(test)]
mod tests {
    use lowbit_ir::ops::Pad;
    use lowbit_ir::{DType, Tensor, Type};

    use super::super::testing::{check, constant, count};
    use super::*;

    fn padded(low: [isize; 4], high: [isize; 4], value: f32) -> Graph {
        let mut g = Graph::new("g");
        let x = g.input("x", Type::new(DType::F32, [1, 5, 6, 4]));
        let value = g.constant("value", Tensor::scalar(value));
        let pad = Pad {
            low: low.to_vec(),
            high: high.to_vec(),
            interior: vec![0; 4],
            mode: PadMode::Constant,
        };
        let p = g.push("p", pad, &[x, value]).unwrap();
        let channels = g.shape(p)[3];
        let w = constant(&mut g, &[8, 3, 3, channels]);
        let conv = Conv {
            stride: [2, 1],
            dilation: [1, 1],
            pad: [[0, 1], [1, 0]],
            groups: 1,
        };
        let y = g.push("y", conv, &[p, w]).unwrap();
        g.output("y", y);
        g
    }

    #[test]
    fn zeros_become_padding() {
        let g = padded([0, 1, 0, 0], [0, 2, 1, 0], 0.0);
        assert_eq!(count(&check(&g, &PASS), "pad"), 0);
    }

    #[test]
    fn other_numbers_crops_and_channels_stay() {
        for g in [
            padded([0, 1, 0, 0], [0, 2, 1, 0], 0.5),
            padded([0, -1, 0, 0], [0, 2, 1, 0], 0.0),
            padded([0, 0, 0, 1], [0, 0, 1, 2], 0.0),
        ] {
            assert_eq!(count(&check(&g, &PASS), "pad"), 1);
        }
    }
}
