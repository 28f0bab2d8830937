use super::view::relayout;
use super::{Machine, Operand, Step, Storage};

pub(crate) fn lower(operands: &[Operand<'_>], result: &Storage, machine: &Machine) -> Vec<Step> {
    vec![relayout(&operands[0], result, machine)]
}

#[cfg(test)]
mod tests {
    use lowbit_ir::DType;
    use lowbit_ir::ops::Broadcast;

    use super::super::testing::{check, tensor};

    #[test]
    fn equals_the_definition() {
        let op = Broadcast {
            shape: vec![2, 3, 5, 17],
        }
        .into();
        check(&op, &[&tensor(DType::U8, &[3, 1, 17], 1)]);
        check(&op, &[&tensor(DType::U8, &[2, 3, 5, 1], 2)]);
    }
}
