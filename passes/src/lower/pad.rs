use lowbit_ir::Tensor;
use lowbit_ir::ops::{Pad, PadMode};
use lowbit_kernel::{Builder, Role};

use super::elementwise::{Nest, scalar_of};
use super::view::{Run, View, copy, copy_step, runs};
use super::{Arg, Machine, Operand, Step, Storage};

pub(crate) fn lower(
    op: &Pad,
    operands: &[Operand<'_>],
    result: &Storage,
    machine: &Machine,
) -> Vec<Step> {
    match op.mode {
        PadMode::Constant => vec![constant(op, operands, result, machine)],
        PadMode::Edge | PadMode::Reflect | PadMode::Wrap => {
            vec![mirrored(op, &operands[0], result, machine)]
        }
    }
}

/// Fills the result, then copies what is kept of the operand.
fn constant(op: &Pad, operands: &[Operand<'_>], result: &Storage, machine: &Machine) -> Step {
    let value = operands[1].constant.map_or(0, code);
    let mut b = Builder::new("pad");
    let x = b.buffer("x", Role::In, operands[0].storage.bytes);
    let y = b.buffer("y", Role::Out, result.bytes);
    let lanes = machine.vector_bytes() / result.dtype.bytes();
    Nest::new(&View::of(result), &[]).emit(&mut b, lanes as u16, |b, at| {
        let v = b.constant(at.ty(scalar_of(result.dtype)), value);
        b.store(v, at.addr(0, y));
    });
    let (mut to, mut from) = (View::of(result), View::of(operands[0].storage));
    for axis in 0..op.low.len() {
        let step = op.interior[axis] as isize + 1;
        let extent = operands[0].storage.shape[axis] as isize;
        let skip = (-op.low[axis]).max(0).divided_up(step).max(0);
        let first = op.low[axis] + skip * step;
        let room = (result.shape[axis] as isize - first).max(0);
        let len = (extent - skip).min((room + step - 1) / step).max(0) as usize;
        from = from.range(axis, skip as usize, len);
        to = to.along(
            axis,
            Run {
                first: first as usize,
                step,
                len,
            },
        );
    }
    copy(&mut b, (&to, y), (&from, x), machine);
    Step {
        kernel: b.finish(),
        args: vec![Arg::Operand(0), Arg::Result],
    }
}

/// Copies runs of the operand that walk forwards, backwards or stand still.
fn mirrored(op: &Pad, operand: &Operand<'_>, result: &Storage, machine: &Machine) -> Step {
    let mut parts = vec![(View::of(result), View::of(operand.storage))];
    for axis in 0..op.low.len() {
        let extent = operand.storage.shape[axis] as isize;
        let indices: Vec<usize> = (0..result.shape[axis] as isize)
            .map(|i| source(op.mode, i - op.low[axis], extent))
            .collect();
        let runs = runs(&indices);
        parts = parts
            .iter()
            .flat_map(|(to, from)| {
                runs.iter().map(|&(at, run)| {
                    (
                        to.clone().range(axis, at, run.len),
                        from.clone().along(axis, run),
                    )
                })
            })
            .collect();
    }
    copy_step("pad", operand, result, &parts, machine)
}

fn source(mode: PadMode, i: isize, extent: isize) -> usize {
    let at = match mode {
        PadMode::Edge | PadMode::Constant => i.clamp(0, extent - 1),
        PadMode::Wrap => i.rem_euclid(extent),
        PadMode::Reflect if extent == 1 => 0,
        PadMode::Reflect => {
            let period = 2 * (extent - 1);
            let k = i.rem_euclid(period);
            k.min(period - k)
        }
    };
    at as usize
}

fn code(tensor: &Tensor) -> i64 {
    tensor.to_i64().expect("codes are integers")[0]
}

trait RoundUp {
    fn divided_up(self, by: Self) -> Self;
}

impl RoundUp for isize {
    fn divided_up(self, by: Self) -> Self {
        (self + by - 1) / by
    }
}

#[cfg(test)]
mod tests {
    use lowbit_ir::DType;

    use super::super::testing::{check, tensor};
    use super::*;

    #[test]
    fn equals_the_definition() {
        let x = tensor(DType::U8, &[2, 4, 5, 17], 1);
        let value = Tensor::scalar(77u8);
        let op = |low: [isize; 4], high: [isize; 4], interior: [usize; 4], mode| Pad {
            low: low.to_vec(),
            high: high.to_vec(),
            interior: interior.to_vec(),
            mode,
        };
        check(
            &op([0, 1, 2, 0], [0, 0, 1, 3], [0; 4], PadMode::Constant).into(),
            &[&x, &value],
        );
        check(
            &op([0, 1, 2, 0], [0, 0, 1, 0], [0, 1, 2, 0], PadMode::Constant).into(),
            &[&x, &value],
        );
        check(
            &op([0, -1, 2, 0], [0, 0, -2, 0], [0; 4], PadMode::Constant).into(),
            &[&x, &value],
        );
        for mode in [PadMode::Edge, PadMode::Reflect, PadMode::Wrap] {
            check(&op([0, 2, 3, 0], [0, 1, 2, 4], [0; 4], mode).into(), &[&x]);
        }
    }
}
