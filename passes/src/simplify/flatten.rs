use std::convert::Infallible;

use lowbit_ir::ops::{Reshape, Transpose};
use lowbit_ir::{Graph, Op, Rewrite, Stage, Tensor, ValueId};

use crate::Pass;

/// A tensor that is turned to channels first and then flattened in front of a linear layer: the layer's weights are
/// permuted instead.
pub(super) const PASS: Pass = Pass {
    name: "flatten",
    enters: Stage::Float,
    required: false,
    run,
};

fn run(graph: &Graph) -> Graph {
    let new: Result<Graph, Infallible> = graph.rewrite(|new, _, node, operands| {
        let replaced = match &node.op {
            Op::Conv(op) if op.groups == 1 => permuted(new, node, operands),
            _ => None,
        };
        Ok(replaced.unwrap_or_else(|| new.copy(node, operands)))
    });
    new.unwrap_or_else(|e| match e {})
}

/// For a 1×1 convolution over one pixel whose channels are the flattened, turned tensor.
fn permuted(
    new: &mut Rewrite<'_>,
    node: &lowbit_ir::Node,
    operands: &[ValueId],
) -> Option<ValueId> {
    let weights = new.as_const(operands[1])?.clone();
    let &[o, 1, 1, k] = weights.shape() else {
        return None;
    };
    let mut v = operands[0];
    // reshapes between the permutation and the layer
    while let Some(n) = new.producer(v).filter(|n| matches!(n.op, Op::Reshape(_))) {
        v = n.inputs[0];
    }
    let producer = new.producer(v)?.clone();
    let Op::Transpose(Transpose { perm }) = &producer.op else {
        return None;
    };
    let source = producer.inputs[0];
    let shape = new.shape(source).to_vec();
    // every pixel of the layer holds whole images
    let inner =
        (0..=perm.len()).find(|&a| perm[a..].iter().map(|&p| shape[p]).product::<usize>() == k)?;
    let kept = perm[..inner].iter().enumerate().all(|(i, &p)| i == p);
    if !kept || !new.ty(v).elements().is_multiple_of(k) {
        return None;
    }
    let order = positions(
        &shape[inner..],
        &perm[inner..].iter().map(|&p| p - inner).collect::<Vec<_>>(),
    );
    let old = weights.to_f64();
    let mut moved = vec![0.0; old.len()];
    for row in 0..o {
        for (turned, &own) in order.iter().enumerate() {
            moved[row * k + own] = old[row * k + turned];
        }
    }
    let name = new.old().value(node.output).name.clone();
    let w = new.constant(
        format!("{name}.weight"),
        Tensor::from_f64(weights.dtype(), weights.shape(), moved),
    );
    let row_shape = new.shape(operands[0]).to_vec();
    let flat = new
        .push(name.clone(), Reshape { shape: row_shape }, &[source])
        .ok()?;
    let operands: Vec<ValueId> = [&[flat, w], &operands[2..]].concat();
    new.push(name, node.op.clone(), &operands).ok()
}

/// For each element of the permuted tensor in order, its position in the tensor itself.
fn positions(shape: &[usize], perm: &[usize]) -> Vec<usize> {
    let index = Tensor::new(shape, (0..shape.iter().product::<usize>() as i64).collect());
    let turned = Op::from(Transpose {
        perm: perm.to_vec(),
    })
    .eval(&[&index])
    .expect("the permutation fits");
    turned
        .as_slice::<i64>()
        .iter()
        .map(|&i| i as usize)
        .collect()
}

#[cfg(test)]
mod tests {
    use lowbit_ir::ops::MatMul;
    use lowbit_ir::{DType, Type};

    use super::super::testing::{check, constant, count};
    use super::*;

    #[test]
    fn weights_take_the_permutation_over() {
        let mut g = Graph::new("g");
        let x = g.input("x", Type::new(DType::F32, [2, 3, 4, 5]));
        let t = g
            .push(
                "t",
                Transpose {
                    perm: vec![0, 3, 1, 2],
                },
                &[x],
            )
            .unwrap();
        let f = g.push("f", Reshape { shape: vec![2, 60] }, &[t]).unwrap();
        let w = constant(&mut g, &[60, 7]);
        let y = g.push("y", MatMul, &[f, w]).unwrap();
        g.output("y", y);
        let g = (super::super::linear::PASS.run)(&g);
        let new = check(&g, &PASS);
        assert_eq!(count(&new, "transpose"), 0);
    }
}
