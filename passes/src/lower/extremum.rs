use lowbit_ir::DType;
use lowbit_ir::ops::{Binary, BinaryFn};
use lowbit_kernel::{Builder, Role};

use super::elementwise::Nest;
use super::view::View;
use super::{Arg, Machine, Operand, Step, Storage};

/// The larger or smaller of two tensors in the same codes.
pub(crate) fn lower(
    op: &Binary,
    operands: &[Operand<'_>],
    result: &Storage,
    machine: &Machine,
) -> Vec<Step> {
    let mut b = Builder::new("extremum");
    let inputs = [0, 1].map(|i| b.buffer(format!("x{i}"), Role::In, operands[i].storage.bytes));
    let y = b.buffer("y", Role::Out, result.bytes);
    let views: Vec<View> = operands.iter().map(|o| View::of(o.storage)).collect();
    let lanes = machine.vector_bytes() / result.dtype.bytes();
    let signed = result.dtype != DType::U8;
    Nest::new(&View::of(result), &views).emit(&mut b, lanes as u16, |b, at| {
        let [left, right] = [0, 1].map(|i| at.load(b, i + 1, inputs[i]));
        let v = match (op.0 == BinaryFn::Max, signed) {
            (true, false) => b.umax(left, right),
            (true, true) => b.smax(left, right),
            (false, false) => b.umin(left, right),
            (false, true) => b.smin(left, right),
        };
        b.store(v, at.addr(0, y));
    });
    let args = vec![Arg::Operand(0), Arg::Operand(1), Arg::Result];
    vec![Step {
        kernel: b.finish(),
        args,
    }]
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check, tensor};
    use super::*;

    #[test]
    fn equals_the_definition() {
        for f in [BinaryFn::Max, BinaryFn::Min] {
            let x = tensor(DType::U8, &[3, 4, 71], 1);
            check(&Binary(f).into(), &[&x, &tensor(DType::U8, &[3, 4, 71], 2)]);
        }
    }
}
