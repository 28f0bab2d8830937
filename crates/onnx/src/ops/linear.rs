//! Matrix products.

use lowbit_ir::ValueId;
use lowbit_ir::ops::{BinaryFn, MatMul};

use super::Import;
use crate::node::{Node, Result};

pub(crate) const OPERATORS: &[(&str, Import)] = &[("MatMul", matmul), ("Gemm", gemm)];

/// Vectors become matrices of one row or column.
fn matmul(n: &mut Node<'_>) -> Result<Vec<ValueId>> {
    let (mut a, mut b) = (n.input(0)?, n.input(1)?);
    let (row, column) = (n.rank(a) == 1, n.rank(b) == 1);
    if row {
        let shape = [vec![1], n.shape(a)].concat();
        a = n.reshape(a, shape)?;
    }
    if column {
        let shape = [n.shape(b), vec![1]].concat();
        b = n.reshape(b, shape)?;
    }
    let mut y = n.push(MatMul, &[a, b])?;
    if row || column {
        let mut shape = n.shape(y);
        if column {
            shape.pop();
        }
        if row {
            shape.remove(shape.len() - usize::from(!column) - 1);
        }
        y = n.reshape(y, shape)?;
    }
    Ok(vec![y])
}

/// `alpha · A · B + beta · C`.
fn gemm(n: &mut Node<'_>) -> Result<Vec<ValueId>> {
    let (mut a, mut b) = (n.input(0)?, n.input(1)?);
    if n.rank(a) != 2 || n.rank(b) != 2 {
        return Err(format!(
            "its operands have {} and {} axes, expected two each",
            n.rank(a),
            n.rank(b)
        ));
    }
    if n.int("transA", 0) != 0 {
        a = n.transpose(a, vec![1, 0])?;
    }
    if n.int("transB", 0) != 0 {
        b = n.transpose(b, vec![1, 0])?;
    }
    let (alpha, beta) = (n.float("alpha", 1.0), n.float("beta", 1.0));
    if alpha != 1.0 {
        b = n.with(BinaryFn::Mul, b, alpha)?;
    }
    let mut y = n.push(MatMul, &[a, b])?;
    if let Some(mut c) = n.optional(2) {
        if beta != 1.0 {
            c = n.with(BinaryFn::Mul, c, beta)?;
        }
        y = n.binary(BinaryFn::Add, y, c)?;
    }
    Ok(vec![y])
}
