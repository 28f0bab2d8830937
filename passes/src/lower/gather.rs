use lowbit_ir::ops::Gather;

use super::view::{View, copy_step, runs};
use super::{Machine, Operand, Step, Storage};

/// Picks slices by constant indices: one copy for each run of evenly spaced ones.
pub(crate) fn lower(
    op: &Gather,
    operands: &[Operand<'_>],
    result: &Storage,
    machine: &Machine,
) -> Vec<Step> {
    let indices = operands[1].constant.expect("indices are constant");
    let extent = operands[0].storage.shape[op.axis] as i64;
    let wide = indices.to_i64().expect("indices are integers");
    let indices: Vec<usize> = wide
        .iter()
        .map(|&i| if i < 0 { i + extent } else { i } as usize)
        .collect();
    let index_rank = operands[1].storage.shape.len();
    let to = flattened(result, op.axis, index_rank);
    let parts: Vec<(View, View)> = runs(&indices)
        .into_iter()
        .map(|(at, run)| {
            let from = View::of(operands[0].storage).along(op.axis, run);
            (to.clone().range(op.axis, at, run.len), from)
        })
        .collect();
    vec![copy_step("gather", &operands[0], result, &parts, machine)]
}

/// The result with the axes of the indices as one.
fn flattened(result: &Storage, axis: usize, rank: usize) -> View {
    let mut view = View::of(result);
    let extent = view.shape[axis..axis + rank].iter().product();
    let inner = if rank == 0 {
        0
    } else {
        view.strides[axis + rank - 1]
    };
    view.shape.splice(axis..axis + rank, [extent]);
    view.strides.splice(axis..axis + rank, [inner]);
    view
}

#[cfg(test)]
mod tests {
    use lowbit_ir::{DType, Tensor};

    use super::super::testing::{check, tensor};
    use super::*;

    #[test]
    fn equals_the_definition() {
        let x = tensor(DType::U8, &[2, 6, 5, 9], 1);
        let op = Gather { axis: 1 }.into();
        check(&op, &[&x, &Tensor::new([7], vec![0i64, 0, 1, 1, -1, 3, 2])]);
        check(&op, &[&x, &Tensor::new([2, 2], vec![5i64, 4, 3, 3])]);
        check(&op, &[&x, &Tensor::scalar(2i64)]);
        check(
            &Gather { axis: 3 }.into(),
            &[&x, &Tensor::new([3], vec![8i64, 0, 1])],
        );
    }
}
