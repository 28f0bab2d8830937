use std::convert::Infallible;

use lowbit_ir::ops::{Conv, Reshape};
use lowbit_ir::{Graph, Op, Rewrite, Stage, Tensor, ValueId};

use crate::Pass;

/// Products with constant matrices become 1×1 convolutions, so that every layer with weights is one.
pub(super) const PASS: Pass = Pass {
    name: "linear",
    enters: Stage::Float,
    required: true,
    run,
};

fn run(graph: &Graph) -> Graph {
    let new: Result<Graph, Infallible> = graph.rewrite(|new, _, node, operands| {
        let replaced = match &node.op {
            Op::MatMul(_) => as_conv(new, node.output, operands),
            _ => None,
        };
        Ok(replaced.unwrap_or_else(|| new.copy(node, operands)))
    });
    new.unwrap_or_else(|e| match e {})
}

/// `[…, M, K] · [K, N]` as a convolution over a row of pixels with K channels.
fn as_conv(new: &mut Rewrite<'_>, output: ValueId, operands: &[ValueId]) -> Option<ValueId> {
    let (x, w) = (operands[0], new.as_const(operands[1])?.clone());
    if new.as_const(x).is_some() || !w.dtype().is_float() {
        return None;
    }
    let matrix: Vec<usize> = w.shape()[w.shape().len() - 2..].to_vec();
    let (k, n) = (matrix[0], matrix[1]);
    if w.len() != k * n {
        return None;
    }
    let elements = w.to_f64();
    let turned = (0..n * k).map(|i| elements[i % k * n + i / k]).collect();
    let weights = Tensor::from_f64(w.dtype(), [n, 1, 1, k], turned);
    let name = new.old().value(output).name.clone();
    let pixels = new.shape(x).iter().product::<usize>() / k.max(1);
    let row = new
        .push(
            name.clone(),
            Reshape {
                shape: vec![1, 1, pixels, k],
            },
            &[x],
        )
        .ok()?;
    let weights = new.constant(format!("{name}.weight"), weights);
    let conv = Conv {
        stride: [1, 1],
        dilation: [1, 1],
        pad: [[0, 0]; 2],
        groups: 1,
    };
    let y = new.push(name.clone(), conv, &[row, weights]).ok()?;
    let shape = new.old().shape(output).to_vec();
    new.push(name, Reshape { shape }, &[y]).ok()
}

#[cfg(test)]
mod tests {
    use lowbit_ir::ops::MatMul;
    use lowbit_ir::{DType, Type};

    use super::super::testing::{check, constant, count};
    use super::*;

    #[test]
    fn products_become_convolutions() {
        let mut g = Graph::new("g");
        let x = g.input("x", Type::new(DType::F32, [2, 5, 7]));
        let w = constant(&mut g, &[7, 3]);
        let y = g.push("y", MatMul, &[x, w]).unwrap();
        g.output("y", y);
        let new = check(&g, &PASS);
        assert_eq!((count(&new, "conv"), count(&new, "matmul")), (1, 0));
    }
}
