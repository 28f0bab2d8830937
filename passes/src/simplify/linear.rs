use std::convert::Infallible;

use lowbit_ir::ops::{Conv, Reshape, Transpose};
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
        let shape = new.old().shape(node.output).to_vec();
        let name = new.old().value(node.output).name.clone();
        let replaced = match &node.op {
            Op::MatMul(_) if new.as_const(operands[1]).is_some() => {
                as_conv(new, &name, operands, shape)
            }
            Op::MatMul(_) => turned(new, &name, operands, shape),
            _ => None,
        };
        Ok(replaced.unwrap_or_else(|| new.copy(node, operands)))
    });
    new.unwrap_or_else(|e| match e {})
}

/// `A · x` as `(xᵀ · Aᵀ)ᵀ`, for a constant matrix A.
fn turned(
    new: &mut Rewrite<'_>,
    name: &str,
    operands: &[ValueId],
    mut shape: Vec<usize>,
) -> Option<ValueId> {
    let (a, x) = (new.as_const(operands[0])?.clone(), operands[1]);
    let rank = shape.len();
    if a.shape().len() != 2 || new.shape(x).len() != rank {
        return None;
    }
    let flip = |rank: usize| Transpose {
        perm: (0..rank - 2).chain([rank - 1, rank - 2]).collect(),
    };
    let a = Op::from(flip(2)).eval(&[&a]).ok()?;
    let a = new.constant(format!("{name}.weight"), a);
    let x = new.push(name, flip(rank), &[x]).ok()?;
    shape.swap(rank - 2, rank - 1);
    let y = as_conv(new, name, &[x, a], shape)?;
    new.push(name, flip(rank), &[y]).ok()
}

/// `[…, M, K] · [K, N]` as a convolution over a row of pixels with K channels.
fn as_conv(
    new: &mut Rewrite<'_>,
    name: &str,
    operands: &[ValueId],
    shape: Vec<usize>,
) -> Option<ValueId> {
    let (x, w) = (operands[0], new.as_const(operands[1])?.clone());
    if new.as_const(x).is_some() || !w.dtype().is_float() {
        return None;
    }
    let &[.., k, n] = w.shape() else { return None };
    if w.len() != k * n {
        return None;
    }
    let elements = w.to_f64();
    let turned = (0..n * k).map(|i| elements[i % k * n + i / k]).collect();
    let weights = Tensor::from_f64(w.dtype(), [n, 1, 1, k], turned);
    let pixels = new.shape(x).iter().product::<usize>() / k.max(1);
    let row = Reshape {
        shape: vec![1, 1, pixels, k],
    };
    let row = new.push(name, row, &[x]).ok()?;
    let weights = new.constant(format!("{name}.weight"), weights);
    let conv = Conv {
        stride: [1, 1],
        dilation: [1, 1],
        pad: [[0, 0]; 2],
        groups: 1,
    };
    let y = new.push(name, conv, &[row, weights]).ok()?;
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

    #[test]
    fn products_with_a_constant_first_are_turned() {
        let mut g = Graph::new("g");
        let x = g.input("x", Type::new(DType::F32, [2, 5, 7]));
        let w = constant(&mut g, &[3, 5]);
        let y = g.push("y", MatMul, &[w, x]).unwrap();
        g.output("y", y);
        let new = check(&g, &PASS);
        assert_eq!((count(&new, "conv"), count(&new, "matmul")), (1, 0));
    }
}
