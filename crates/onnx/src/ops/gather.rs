//! Picking by index.

use lowbit_ir::ops::Gather;
use lowbit_ir::{DType, ValueId};

use super::Import;
use crate::node::{Node, Result};

pub(crate) const OPERATORS: &[(&str, Import)] = &[("Gather", gather)];

fn gather(n: &mut Node<'_>) -> Result<Vec<ValueId>> {
    let (x, mut indices) = (n.input(0)?, n.input(1)?);
    if !matches!(n.ty(indices).dtype, DType::I32 | DType::I64) {
        return Err(format!("its indices are {}", n.ty(indices)));
    }
    if n.ty(indices).dtype == DType::I32 {
        indices = n.cast(indices, DType::I64)?;
    }
    let axis = n.axis(n.int("axis", 0), n.rank(x))?;
    Ok(vec![n.push(Gather { axis }, &[x, indices])?])
}
