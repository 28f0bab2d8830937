use lowbit_ir::ops::IntProduct;
use lowbit_kernel::{Builder, Role};

use super::elementwise::Nest;
use super::view::View;
use super::{Arg, Machine, Operand, Step, Storage, rescale};

pub(crate) fn lower(
    op: &IntProduct,
    operands: &[Operand<'_>],
    result: &Storage,
    machine: &Machine,
) -> Vec<Step> {
    let mut b = Builder::new("product");
    let inputs = [0, 1].map(|i| b.buffer(format!("x{i}"), Role::In, operands[i].storage.bytes));
    let y = b.buffer("y", Role::Out, result.bytes);
    let views: Vec<View> = operands.iter().map(|o| View::of(o.storage)).collect();
    Nest::new(&View::of(result), &views).emit(&mut b, machine.lanes, |b, at| {
        let [left, right] = [0, 1].map(|i| {
            let codes = at.load_wide(b, i + 1, inputs[i]);
            let ty = b.ty(codes);
            let zero = b.constant(ty, op.zero_points[i].into());
            b.sub(codes, zero)
        });
        let acc = b.mul(left, right);
        rescale::store(b, acc, op.rescale, op.out, at.addr(0, y));
    });
    let args = vec![Arg::Operand(0), Arg::Operand(1), Arg::Result];
    vec![Step {
        kernel: b.finish(),
        args,
    }]
}

#[cfg(test)]
mod tests {
    use lowbit_ir::DType;
    use lowbit_ir::ops::{Codes, Rescale};

    use super::super::testing::{check, tensor};
    use super::*;

    #[test]
    fn equals_the_definition() {
        for rescale in [
            Rescale::Exact {
                m: 1 << 30,
                c: 38,
                zero_point: 100,
            },
            Rescale::High {
                m: 1 << 24,
                b: 5000,
            },
        ] {
            let op = IntProduct {
                zero_points: [3, 130],
                rescale,
                out: Codes::U8,
            };
            let x = tensor(DType::U8, &[3, 4, 21], 1);
            check(
                &op.clone().into(),
                &[&x, &tensor(DType::U8, &[3, 4, 21], 2)],
            );
            check(&op.clone().into(), &[&x, &tensor(DType::U8, &[3, 1, 1], 3)]);
        }
    }
}
