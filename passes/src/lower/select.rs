//! Which file lowers which operation.

use lowbit_ir::Op;
use lowbit_ir::ops::{BinaryFn, PoolKind};

use super::{
    Machine, Operand, Step, Storage, broadcast, concat, conv, extremum, gather, lookup, matmul,
    normalize, pad, pool, product, slice, softmax, sum, transpose,
};

/// The kernels of a node, or `None` where the operation has none. A `Reshape` of dense tensors has no kernel: the
/// driver lets both share their memory.
pub(crate) fn lower(
    op: &Op,
    operands: &[Operand<'_>],
    result: &Storage,
    machine: &Machine,
) -> Option<Vec<Step>> {
    Some(match op {
        Op::IntConv(op) => conv::lower(op, operands, result, machine),
        Op::IntSum(op) => sum::lower(op, operands, result, machine),
        Op::IntProduct(op) => product::lower(op, operands, result, machine),
        Op::IntLookup(_) => lookup::lower(operands, result, machine),
        Op::IntMean(op) => pool::mean(op, operands, result, machine),
        Op::IntMatMul(op) => matmul::lower(op, operands, result, machine),
        Op::IntSoftmax(op) => softmax::lower(op, operands, result, machine),
        Op::IntNormalize(op) => normalize::lower(op, operands, result, machine),
        Op::Pool(op) if op.kind == PoolKind::Max => pool::max(op, operands, result, machine),
        Op::Binary(op) if matches!(op.0, BinaryFn::Max | BinaryFn::Min) => {
            extremum::lower(op, operands, result, machine)
        }
        Op::Transpose(op) => transpose::lower(op, operands, result, machine),
        Op::Concat(op) => concat::lower(op, operands, result, machine),
        Op::Slice(op) => slice::lower(op, operands, result, machine),
        Op::Pad(op) => pad::lower(op, operands, result, machine),
        Op::Gather(op) => gather::lower(op, operands, result, machine),
        Op::Broadcast(_) => broadcast::lower(operands, result, machine),
        _ => return None,
    })
}
