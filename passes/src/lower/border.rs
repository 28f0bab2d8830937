use lowbit_kernel::{Builder, Role, Scalar};

use super::elementwise::Nest;
use super::storage::Border;
use super::view::View;
use super::{Arg, Machine, Step, Storage};

/// Fills the border of a tensor with its zero-point.
pub(crate) fn fill(border: &Border, storage: &Storage, machine: &Machine) -> Step {
    let [top, bottom, left, right] = border.size;
    let whole = View::of(storage);
    let (h, w) = (storage.shape[1], storage.shape[2]);
    let mut padded = whole.clone();
    padded.offset = 0;
    padded.shape[1] = h + top + bottom;
    padded.shape[2] = w + left + right;
    let regions = [
        padded.clone().range(1, 0, top),
        padded.clone().range(1, top + h, bottom),
        padded.clone().range(1, top, h).range(2, 0, left),
        padded.range(1, top, h).range(2, left + w, right),
    ];
    let mut b = Builder::new("border");
    let y = b.buffer("y", Role::InOut, storage.bytes);
    for region in &regions {
        Nest::new(region, &[]).emit(&mut b, machine.vector_bytes() as u16, |b, at| {
            let code = b.constant(at.ty(Scalar::I8), border.code.into());
            b.store(code, at.addr(0, y));
        });
    }
    Step {
        kernel: b.finish(),
        args: vec![Arg::Result],
    }
}
