//! Per-tensor rescaling inside kernels.

use lowbit_ir::ops::{Codes, Rescale};
use lowbit_kernel::{Addr, Builder, Val};

use super::elementwise::store_codes;

/// Rescales accumulators and stores the codes.
pub(crate) fn store(b: &mut Builder, acc: Val, rescale: Rescale, out: Codes, addr: Addr) {
    let codes = codes(b, acc, rescale);
    store_codes(b, codes, out, addr);
}

/// Rescaled accumulators, before they are clamped.
pub(crate) fn codes(b: &mut Builder, acc: Val, rescale: Rescale) -> Val {
    let ty = b.ty(acc);
    match rescale {
        Rescale::High { m, b: bias } => {
            let [m, bias] = [m, bias].map(|x| b.constant(ty, x.into()));
            let sum = b.add(acc, bias);
            b.mulhi(sum, m)
        }
        Rescale::Exact { m, c, zero_point } => {
            let m = b.constant(ty, m.into());
            let c = b.constant(ty, c.into());
            let scaled = b.requant(acc, m, c);
            let zero = b.constant(ty, zero_point.into());
            b.add(scaled, zero)
        }
    }
}
