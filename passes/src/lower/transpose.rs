use lowbit_ir::ops::Transpose;
use lowbit_kernel::{Addr, Builder, Role, Scalar, Val};

use super::elementwise::Nest;
use super::view::{View, copy_step};
use super::{Arg, Machine, Operand, Step, Storage};

pub(crate) fn lower(
    op: &Transpose,
    operands: &[Operand<'_>],
    result: &Storage,
    machine: &Machine,
) -> Vec<Step> {
    let from = View::of(operands[0].storage).permuted(&op.perm);
    let to = View::of(result);
    if let Some(step) = interleave(&operands[0], &from, result, &to, machine) {
        return vec![step];
    }
    vec![copy_step(
        "transpose",
        &operands[0],
        result,
        &[(to, from)],
        machine,
    )]
}

/// Planes to pixels: bytes whose result has a short last axis, and whose operand is contiguous along the axis before it.
fn interleave(
    operand: &Operand<'_>,
    from: &View,
    result: &Storage,
    to: &View,
    machine: &Machine,
) -> Option<Step> {
    let rank = to.shape.len();
    let planes = *to.shape.last()?;
    let fits = rank >= 2
        && to.dtype.bytes() == 1
        && (2..=4).contains(&planes)
        && from.strides[rank - 2] == 1
        && to.strides[rank - 1] == 1
        && to.strides[rank - 2] == planes as isize;
    if !fits {
        return None;
    }
    let mut b = Builder::new("interleave");
    let x = b.buffer("x", Role::In, operand.storage.bytes);
    let y = b.buffer("y", Role::Out, result.bytes);
    // loops over all axes but the planes, on the operand's side: there the innermost axis is contiguous
    let drop = |v: &View| View {
        shape: v.shape[..rank - 1].to_vec(),
        strides: v.strides[..rank - 1].to_vec(),
        ..v.clone()
    };
    let mut pixels = drop(to);
    // the result's pixels are walked by whole pixels: one byte stands for one, addresses are scaled below
    pixels
        .strides
        .iter_mut()
        .for_each(|s| *s /= planes as isize);
    if !to.strides[..rank - 1]
        .iter()
        .all(|s| s % planes as isize == 0)
        || to.offset % planes as isize != 0
    {
        return None;
    }
    pixels.offset /= planes as isize;
    let lanes = (machine.vector_bytes() / 4).max(16) as u16;
    Nest::new(&pixels, &[drop(from)]).emit(&mut b, lanes, |b, at| {
        let source = at.addr(1, x);
        let parts: Vec<Val> = (0..planes)
            .map(|c| {
                b.load(
                    at.ty(Scalar::I8),
                    source
                        .clone()
                        .plus((c as isize * from.strides[rank - 1]) as i64),
                )
            })
            .collect();
        let target = scaled(at.addr(0, y), planes as i64);
        if at.lanes == 1 {
            for (c, part) in parts.into_iter().enumerate() {
                b.store(part, target.clone().plus(c as i64));
            }
        } else {
            let v = interleaved(b, &parts, at.lanes);
            b.store(v, target);
        }
    });
    Some(Step {
        kernel: b.finish(),
        args: vec![Arg::Operand(0), Arg::Result],
    })
}

/// Lane `i` of part `c` becomes lane `i · parts + c`.
fn interleaved(b: &mut Builder, parts: &[Val], lanes: u16) -> Val {
    let n = parts.len() as u16;
    let total = n * lanes;
    let mut v = widened(b, parts[0], lanes, total);
    let spread: Vec<u16> = (0..total).map(|k| k / n).collect();
    v = b.shuffle(v, v, &spread);
    for (c, &part) in parts.iter().enumerate().skip(1) {
        let part = widened(b, part, lanes, total);
        let pick: Vec<u16> = (0..total)
            .map(|k| {
                if usize::from(k % n) == c {
                    total + k / n
                } else {
                    k
                }
            })
            .collect();
        v = b.shuffle(v, part, &pick);
    }
    v
}

fn scaled(mut addr: Addr, by: i64) -> Addr {
    addr.offset *= by;
    addr.terms.iter_mut().for_each(|(_, stride)| *stride *= by);
    addr
}

fn widened(b: &mut Builder, v: Val, lanes: u16, total: u16) -> Val {
    let list: Vec<u16> = (0..total).map(|k| k % lanes).collect();
    b.shuffle(v, v, &list)
}

#[cfg(test)]
mod tests {
    use lowbit_ir::DType;

    use super::super::testing::{check, tensor};
    use super::*;

    #[test]
    fn equals_the_definition() {
        for c in [1, 2, 3, 4, 7] {
            let x = tensor(DType::U8, &[1, c, 5, 37], c as u64);
            check(
                &Transpose {
                    perm: vec![0, 2, 3, 1],
                }
                .into(),
                &[&x],
            );
            check(
                &Transpose {
                    perm: vec![3, 0, 2, 1],
                }
                .into(),
                &[&x],
            );
        }
        let x = tensor(DType::I16, &[3, 4, 5], 9);
        check(
            &Transpose {
                perm: vec![0, 2, 1],
            }
            .into(),
            &[&x],
        );
    }
}
