use lowbit_ir::ops::Slice;

use super::view::{Run, View, copy_step};
use super::{Machine, Operand, Step, Storage};

pub(crate) fn lower(
    op: &Slice,
    operands: &[Operand<'_>],
    result: &Storage,
    machine: &Machine,
) -> Vec<Step> {
    let mut from = View::of(operands[0].storage);
    for axis in 0..op.start.len() {
        let run = Run {
            first: op.start[axis],
            step: op.step[axis],
            len: op.len[axis],
        };
        from = from.along(axis, run);
    }
    vec![copy_step(
        "slice",
        &operands[0],
        result,
        &[(View::of(result), from)],
        machine,
    )]
}

#[cfg(test)]
mod tests {
    use lowbit_ir::DType;

    use super::super::testing::{check, tensor};
    use super::*;

    #[test]
    fn equals_the_definition() {
        let x = tensor(DType::U8, &[2, 9, 8, 33], 1);
        let op = Slice {
            start: vec![0, 8, 1, 2],
            len: vec![2, 5, 4, 31],
            step: vec![1, -2, 2, 1],
        };
        check(&op.into(), &[&x]);
        let op = Slice {
            start: vec![1, 0, 0, 32],
            len: vec![1, 9, 8, 33],
            step: vec![1, 1, 1, -1],
        };
        check(&op.into(), &[&x]);
    }
}
