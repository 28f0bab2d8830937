//! Packed weights of a depthwise convolution: unpacked tap by tap, then put in the order of use.

use lowbit_kernel::{Addr, BufId, Builder, Role, Type, Val};

use super::depthwise::{Cell, Depthwise};
use super::{Arg, unpack};

/// Declares the packed weights and the work spaces, and unpacks; the buffer that holds `quads` bytes of weights as
/// [`Depthwise::quad_bytes`] orders them, and what the declared buffers are bound to.
pub(super) fn unpacked(
    b: &mut Builder,
    d: &Depthwise<'_>,
    cells: &[Cell],
    quads: usize,
) -> (BufId, [Arg; 3]) {
    let (codes, width) = (by_tap(d), d.machine.vector_bytes());
    let bytes = unpack::pack(d.op.weights, &codes, width);
    // a vector of channels may reach behind the last code
    let dense_bytes = codes.len() + width;
    let packed = b.buffer("packed", Role::Const, bytes.len());
    let dense = b.buffer("dense", Role::Scratch, dense_bytes);
    let w = b.buffer("w", Role::Scratch, quads);
    let places = [&packed.at(0), &dense.at(0)];
    unpack::unpack(b, d.op.weights, codes.len(), width, places, None);
    let zero = b.constant(Type::I8.x(width as u16), 0);
    b.store(zero, dense.at(codes.len() as i64));
    for cell in cells {
        b.for_(cell.chunks as u32, &[], |b, chunk, _| {
            let from = dense.at(cell.channel as i64).step(chunk, cell.width as i64);
            let to = w.at(cell.quads as i64);
            let to = to.step(chunk, d.quad_bytes(cell) as i64);
            order(b, d, cell, &from, &to);
            Vec::new()
        });
    }
    let args = [
        Arg::Const(bytes),
        Arg::Scratch(0, dense_bytes),
        Arg::Scratch(1, quads),
    ];
    (w, args)
}

/// Codes `[kernel row][kernel column][channel]`.
fn by_tap(d: &Depthwise<'_>) -> Vec<i8> {
    let taps = d.kernel[0] * d.kernel[1];
    (0..taps)
        .flat_map(|tap| (0..d.channels()).map(move |c| d.weights[c * taps + tap]))
        .collect()
}

/// Writes the weights of one chunk: dwords of four vertical taps.
fn order(b: &mut Builder, d: &Depthwise<'_>, cell: &Cell, from: &Addr, to: &Addr) {
    let taps: Vec<Vec<Val>> = (0..d.kernel[0])
        .map(|ky| {
            (0..d.kernel[1])
                .map(|kx| tap(b, d, cell, from, ky * d.kernel[1] + kx))
                .collect()
        })
        .collect();
    let nothing = b.constant(Type::I8.x(cell.width as u16), 0);
    let mut index = 0;
    for quad in 0..d.quads() {
        for kx in 0..d.kernel[1] {
            for variant in 0..d.variants() {
                let row = |row: usize| {
                    let ky = (quad * 4 + row).checked_sub(variant)?;
                    taps.get(ky).map(|columns| columns[kx])
                };
                let rows = [0, 1, 2, 3].map(|r| row(r).unwrap_or(nothing));
                for part in 0..4 {
                    let dwords = b.zip4(rows, part);
                    b.store(dwords, to.clone().plus((index * cell.width) as i64));
                    index += 1;
                }
            }
        }
    }
}

/// The codes of one tap for every byte of a vector; where it holds several pixels, all channels again for each.
fn tap(b: &mut Builder, d: &Depthwise<'_>, cell: &Cell, from: &Addr, tap: usize) -> Val {
    let c = d.channels();
    let at = from.clone().plus((tap * c) as i64);
    if !cell.repeats(c) {
        return b.load(Type::I8.x(cell.width as u16), at);
    }
    let one = b.load(Type::I8.x(c as u16), at);
    let lanes: Vec<u16> = (0..cell.width).map(|i| (i % c) as u16).collect();
    b.shuffle(one, one, &lanes)
}
