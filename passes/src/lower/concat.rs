use lowbit_ir::ops::Concat;
use lowbit_kernel::{Builder, Role};

use super::view::{View, copy};
use super::{Arg, Machine, Operand, Step, Storage};

/// One step an operand.
pub(crate) fn lower(
    op: &Concat,
    operands: &[Operand<'_>],
    result: &Storage,
    machine: &Machine,
) -> Vec<Step> {
    let mut b = Builder::new("concat");
    let inputs: Vec<_> = operands
        .iter()
        .enumerate()
        .map(|(i, o)| b.buffer(format!("x{i}"), Role::In, o.storage.bytes))
        .collect();
    let y = b.buffer("y", Role::Out, result.bytes);
    let mut first = 0;
    for (operand, &x) in operands.iter().zip(&inputs) {
        let from = View::of(operand.storage);
        let len = from.shape[op.axis];
        copy(
            &mut b,
            (&View::of(result).range(op.axis, first, len), y),
            (&from, x),
            machine,
        );
        first += len;
    }
    let args = (0..operands.len())
        .map(Arg::Operand)
        .chain([Arg::Result])
        .collect();
    vec![Step {
        kernel: b.finish(),
        args,
    }]
}

#[cfg(test)]
mod tests {
    use lowbit_ir::DType;

    use super::super::testing::{check, tensor};
    use super::*;

    #[test]
    fn equals_the_definition() {
        let [a, c] = [3, 20].map(|n| tensor(DType::U8, &[2, 3, 5, n], n as u64));
        check(&Concat { axis: 3 }.into(), &[&a, &c, &a]);
        let [a, c] = [1, 2].map(|n| tensor(DType::I16, &[2, n, 7], n as u64));
        check(&Concat { axis: 1 }.into(), &[&a, &c]);
    }
}
