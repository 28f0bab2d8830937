use std::convert::Infallible;

use lowbit_ir::ops::{BinaryFn, Op, Reshape};
use lowbit_ir::{Graph, Node, Rewrite, Stage, Tensor, ValueId};

use super::{by_channel, used_once, with_constant};
use crate::Pass;

/// Products and sums by channel behind a convolution go into its weights and bias, in `f64`: batch normalisation, the
/// bias of linear layers. So do products in front of it, and sums where nothing is padded.
pub(super) const PASS: Pass = Pass {
    name: "fold-scale",
    enters: Stage::Float,
    required: true,
    run,
};

fn run(graph: &Graph) -> Graph {
    let new = folded_once(graph);
    if new.nodes().len() == graph.nodes().len() {
        new
    } else {
        run(&new)
    }
}

/// Folds one node into each convolution from the front, and all from behind.
fn folded_once(graph: &Graph) -> Graph {
    let users = graph.users();
    // a reshape between is looked through, so what it reshapes must have no other reader either
    let sole = |v: ValueId| {
        let behind = graph.producer(v).filter(|n| matches!(n.op, Op::Reshape(_)));
        let own = used_once(graph, &users, v);
        own && behind.is_none_or(|n| used_once(graph, &users, n.inputs[0]))
    };
    let new: Result<Graph, Infallible> = graph.rewrite(|new, _, node, operands| {
        let once = node
            .inputs
            .iter()
            .all(|&v| graph.as_const(v).is_some() || sole(v));
        let folded = match &node.op {
            Op::Binary(_) if once => behind(new, node, operands),
            Op::Conv(_) if used_once(graph, &users, node.inputs[0]) => before(new, node, operands),
            _ => None,
        };
        Ok(folded.unwrap_or_else(|| new.copy(node, operands)))
    });
    new.unwrap_or_else(|e| match e {})
}

/// What a node does to each channel: `x · scale + shift`.
struct Affine {
    x: ValueId,
    scale: Vec<f64>,
    shift: Vec<f64>,
}

fn affine(graph: &Graph, node: &Node, rank: usize, channels: usize) -> Option<Affine> {
    let ones = || vec![1.0; channels];
    let zeros = || vec![0.0; channels];
    let constant = |f| {
        let (x, c, first) = with_constant(graph, node, f)?;
        Some((x, by_channel(c, rank, channels)?, first))
    };
    if let Some((x, scale, _)) = constant(BinaryFn::Mul) {
        return Some(Affine {
            x,
            scale,
            shift: zeros(),
        });
    }
    if let Some((x, shift, _)) = constant(BinaryFn::Add) {
        return Some(Affine {
            x,
            scale: ones(),
            shift,
        });
    }
    if let Some((x, divisor, false)) = constant(BinaryFn::Div) {
        let scale = divisor.iter().map(|d| 1.0 / d).collect();
        return Some(Affine {
            x,
            scale,
            shift: zeros(),
        });
    }
    let (x, c, first) = constant(BinaryFn::Sub)?;
    let sign = if first { -1.0 } else { 1.0 };
    let shift = c.iter().map(|c| -sign * c).collect();
    Some(Affine {
        x,
        scale: vec![sign; channels],
        shift,
    })
}

/// `conv(x) · scale + shift`, with reshapes that keep the channels last between.
fn behind(new: &mut Rewrite<'_>, node: &Node, operands: &[ValueId]) -> Option<ValueId> {
    let node_here = Node {
        inputs: operands.to_vec(),
        ..node.clone()
    };
    let shape = new.old().shape(node.output).to_vec();
    let channels = *shape.last()?;
    let affine = affine(new, &node_here, shape.len(), channels)?;
    if new.shape(affine.x) != shape {
        return None;
    }
    let (conv, reshaped) = conv_behind(new, affine.x)?;
    let Op::Conv(op) = &conv.op else { return None };
    let (w, b) = parameters(new, &conv)?;
    if w.shape()[0] != channels {
        return None;
    }
    let per_channel = w.len() / channels.max(1);
    let weights = w
        .to_f64()
        .iter()
        .enumerate()
        .map(|(i, w)| w * affine.scale[i / per_channel])
        .collect();
    let bias = b
        .iter()
        .zip(&affine.scale)
        .zip(&affine.shift)
        .map(|((b, s), t)| b * s + t)
        .collect();
    let name = new.value(conv.output).name.clone();
    let y = rebuilt(
        new,
        &name,
        op.clone().into(),
        conv.inputs[0],
        &w,
        weights,
        bias,
    )?;
    if reshaped {
        new.push(name, Reshape { shape }, &[y]).ok()
    } else {
        Some(y)
    }
}

/// The convolution that a value comes from, directly or through a reshape that keeps its channels last.
fn conv_behind(new: &Rewrite<'_>, v: ValueId) -> Option<(Node, bool)> {
    let node = new.producer(v)?;
    match &node.op {
        Op::Conv(_) => Some((node.clone(), false)),
        Op::Reshape(_) if new.shape(v).last() == new.shape(node.inputs[0]).last() => {
            let conv = new.producer(node.inputs[0])?;
            matches!(conv.op, Op::Conv(_)).then(|| (conv.clone(), true))
        }
        _ => None,
    }
}

fn parameters(new: &Rewrite<'_>, conv: &Node) -> Option<(Tensor, Vec<f64>)> {
    let w = new.as_const(conv.inputs[1])?.as_ref().clone();
    let b = match conv.inputs.get(2) {
        Some(&b) => new.as_const(b)?.to_f64(),
        None => vec![0.0; w.shape()[0]],
    };
    Some((w, b))
}

fn rebuilt(
    new: &mut Rewrite<'_>,
    name: &str,
    op: Op,
    x: ValueId,
    old: &Tensor,
    weights: Vec<f64>,
    bias: Vec<f64>,
) -> Option<ValueId> {
    let w = new.constant(
        format!("{name}.weight"),
        Tensor::from_f64(old.dtype(), old.shape(), weights),
    );
    let b = new.constant(
        format!("{name}.bias"),
        Tensor::from_f64(old.dtype(), [bias.len()], bias),
    );
    new.push(name, op, &[x, w, b]).ok()
}

/// `conv(x · scale + shift)`.
fn before(new: &mut Rewrite<'_>, node: &Node, operands: &[ValueId]) -> Option<ValueId> {
    let Op::Conv(op) = &node.op else { return None };
    let producer = new.producer(operands[0])?.clone();
    let shape = new.shape(operands[0]).to_vec();
    let affine = affine(new, &producer, shape.len(), shape[3])?;
    if new.shape(affine.x) != shape
        || (op.pad != [[0, 0]; 2] && affine.shift.iter().any(|&t| t != 0.0))
    {
        return None;
    }
    let here = Node {
        inputs: operands.to_vec(),
        ..node.clone()
    };
    let (w, mut bias) = parameters(new, &here)?;
    let &[o, _, _, cg] = w.shape() else {
        return None;
    };
    let per_channel = w.len() / o.max(1);
    let mut weights = w.to_f64();
    for (i, weight) in weights.iter_mut().enumerate() {
        let channel = i / per_channel / (o / op.groups) * cg + i % cg;
        bias[i / per_channel] += *weight * affine.shift[channel];
        *weight *= affine.scale[channel];
    }
    let name = new.old().value(node.output).name.clone();
    rebuilt(new, &name, node.op.clone(), affine.x, &w, weights, bias)
}

#[cfg(test)]
mod tests {
    use lowbit_ir::ops::{Binary, Conv};
    use lowbit_ir::{DType, Type};

    use super::super::testing::{check, constant, count};
    use super::*;

    #[test]
    fn a_scale_and_a_shift_in_front_go_in_together() {
        let mut g = Graph::new("g");
        let x = g.input("x", Type::new(DType::F32, [1, 5, 5, 4]));
        let (m, s) = (constant(&mut g, &[4]), constant(&mut g, &[1, 4]));
        let v = g.push("m", Binary(BinaryFn::Sub), &[x, m]).unwrap();
        let v = g.push("s", Binary(BinaryFn::Mul), &[v, s]).unwrap();
        let w = constant(&mut g, &[8, 3, 3, 4]);
        let conv = Conv {
            stride: [1, 1],
            dilation: [1, 1],
            pad: [[0, 0]; 2],
            groups: 1,
        };
        let v = g.push("conv", conv, &[v, w]).unwrap();
        g.output("y", v);
        assert_eq!(count(&check(&g, &PASS), "binary"), 0);
    }

    #[test]
    fn a_convolution_with_another_reader_stays() {
        let mut g = Graph::new("g");
        let x = g.input("x", Type::new(DType::F32, [1, 1, 6, 4]));
        let w = constant(&mut g, &[8, 1, 1, 4]);
        let conv = Conv {
            stride: [1, 1],
            dilation: [1, 1],
            pad: [[0, 0]; 2],
            groups: 1,
        };
        let v = g.push("conv", conv, &[x, w]).unwrap();
        let r = g.push("r", Reshape { shape: vec![6, 8] }, &[v]).unwrap();
        let c = constant(&mut g, &[8]);
        let r = g.push("c", Binary(BinaryFn::Add), &[r, c]).unwrap();
        g.output("conv", v);
        g.output("y", r);
        assert_eq!(count(&check(&g, &PASS), "conv"), 1);
    }

    #[test]
    fn scales_and_shifts_go_into_the_convolution() {
        for groups in [1, 2, 4] {
            let mut g = Graph::new("g");
            let x = g.input("x", Type::new(DType::F32, [1, 5, 5, 4]));
            let c = constant(&mut g, &[4]);
            let v = g.push("before", Binary(BinaryFn::Mul), &[c, x]).unwrap();
            let w = constant(&mut g, &[8, 3, 3, 4 / groups]);
            let conv = Conv {
                stride: [1, 1],
                dilation: [1, 1],
                pad: [[1, 1]; 2],
                groups,
            };
            let v = g.push("conv", conv, &[v, w]).unwrap();
            let mut v = v;
            for f in [BinaryFn::Mul, BinaryFn::Add, BinaryFn::Sub, BinaryFn::Div] {
                let two = Tensor::new([8], (0..8).map(|i| 2.0 + i as f32).collect());
                let c = g.constant("c", two);
                v = g.push("v", Binary(f), &[v, c]).unwrap();
            }
            let c = constant(&mut g, &[1, 1, 8]);
            let v = g.push("a", Binary(BinaryFn::Add), &[v, c]).unwrap();
            g.output("y", v);
            let g = (super::super::fold_constants::PASS.run)(&g);
            let new = check(&check(&g, &PASS), &PASS);
            assert_eq!(count(&new, "binary"), 0);
        }
    }
}
