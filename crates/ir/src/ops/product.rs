use pulp::{Simd, WithSimd, bytemuck};

/// Products that are summed before they are added to what the blocks before gave: the order of sums is that of
/// `matrixmultiply`, whatever the vectors of the processor.
const DEPTH: usize = 256;
/// Rows whose part of a block stays in the second-level cache while all columns pass.
const ROWS: usize = 96;
/// Columns that are turned together.
const TURNED: usize = 4;

/// `c[m, n] = a[m, k] · b[k, n]` with a and c row-major and element `(i, j)` of b at `i · steps[0] + j · steps[1]`, one of
/// which is 1. Every element of c is a sum of fused multiply-adds in the order of k, block by block.
///
/// Weights are packed, activations are read where they are: matrices of networks have many rows and few columns.
pub(crate) fn product(a: &[f32], b: &[f32], steps: [usize; 2], c: &mut [f32], extents: [usize; 3]) {
    let arch = pulp::Arch::new();
    if matches!(arch, pulp::Arch::Scalar) {
        return library(a, b, steps, c, extents);
    }
    arch.dispatch(Product {
        a,
        b,
        steps,
        c,
        extents,
    });
}

/// As [`product`], by `ndarray`, for processors without fused multiply-adds and for other types.
pub(crate) fn library<S: ndarray::LinalgScalar>(
    a: &[S],
    b: &[S],
    steps: [usize; 2],
    c: &mut [S],
    [m, n, k]: [usize; 3],
) {
    use ndarray::{ArrayView2, ArrayViewMut2, ShapeBuilder};
    let fits = "the slices have the extents that were given";
    let a = ArrayView2::from_shape((m, k), a).expect(fits);
    let b = ArrayView2::from_shape((k, n).strides((steps[0], steps[1])), b).expect(fits);
    let mut c = ArrayViewMut2::from_shape((m, n), c).expect(fits);
    ndarray::linalg::general_mat_mul(S::one(), &a, &b, S::zero(), &mut c);
}

struct Product<'a> {
    a: &'a [f32],
    b: &'a [f32],
    steps: [usize; 2],
    c: &'a mut [f32],
    extents: [usize; 3],
}

impl WithSimd for Product<'_> {
    type Output = ();

    // what is not inlined is not compiled for the widest vectors
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let [m, n, k] = self.extents;
        if k == 0 {
            self.c.fill(0.0);
        }
        let width = 2 * S::F32_LANES;
        let panel = 2 * DEPTH.min(k);
        let mut packed = vec![simd.splat_f32s(0.0); n.div_ceil(width) * panel];
        for start in (0..k).step_by(DEPTH) {
            let depth = DEPTH.min(k - start);
            for (first, panel) in (0..n).step_by(width).zip(packed.chunks_exact_mut(panel)) {
                self.pack(simd, [start, depth], first, panel);
            }
            for row in (0..m).step_by(ROWS) {
                let rows = ROWS.min(m - row);
                let (a, c) = (&self.a[row * k..], &mut self.c[row * n..][..rows * n]);
                for (first, panel) in (0..n).step_by(width).zip(packed.chunks_exact(panel)) {
                    let (a, place) = ((a, [k, start, depth]), [first, n]);
                    if n - first > S::F32_LANES {
                        band::<S, 6, 2>(simd, a, &panel[..2 * depth], c, place);
                    } else {
                        band::<S, 12, 1>(simd, a, &panel[..depth], c, place);
                    }
                }
            }
        }
    }
}

impl Product<'_> {
    /// Columns from the `first` on, as many as two vectors have or one has, row by row; what lies beyond the last one
    /// is whatever was there.
    #[inline(always)]
    fn pack<S: Simd>(&self, _: S, [start, depth]: [usize; 2], first: usize, to: &mut [S::f32s]) {
        let left = self.extents[1] - first;
        let vectors = if left > S::F32_LANES { 2 } else { 1 };
        let width = vectors * S::F32_LANES;
        let to: &mut [f32] = bytemuck::cast_slice_mut(&mut to[..vectors * depth]);
        let [down, right] = self.steps;
        let columns = width.min(left);
        if right == 1 {
            for (to, i) in to.chunks_exact_mut(width).zip(start..) {
                to[..columns].copy_from_slice(&self.b[i * down + first..][..columns]);
            }
            return;
        }
        for j in (0..columns).step_by(TURNED) {
            let of = |t: usize| {
                let column = first + (j + t).min(columns - 1);
                &self.b[column * right + start..][..depth]
            };
            let from: [&[f32]; TURNED] = std::array::from_fn(of);
            for (i, to) in to.chunks_exact_mut(width).enumerate() {
                let turned: [f32; TURNED] = std::array::from_fn(|t| from[t][i]);
                to[j..][..TURNED].copy_from_slice(&turned);
            }
        }
    }
}

/// The products of all rows with a panel of `V` vectors, into the columns of c from the first on: those of the first block
/// are stored, those of later ones added.
#[inline(always)]
fn band<S: Simd, const R: usize, const V: usize>(
    simd: S,
    (a, [k, start, depth]): (&[f32], [usize; 3]),
    panel: &[S::f32s],
    c: &mut [f32],
    [first, n]: [usize; 2],
) {
    let of = |row: usize| &a[row * k + start..][..depth];
    for (i, c) in c.chunks_mut(R * n).enumerate() {
        let rows = c.len() / n;
        if rows == 1 {
            let sums = tile::<S, 1, V>(simd, [of(i * R)], panel);
            store::<S, 1, V>(simd, sums, c, [first, n, start]);
            continue;
        }
        // rows beyond the last one are that one again
        let a = std::array::from_fn(|r| of(i * R + r.min(rows - 1)));
        let sums = tile::<S, R, V>(simd, a, panel);
        store::<S, R, V>(simd, sums, c, [first, n, start]);
    }
}

#[inline(always)]
fn tile<S: Simd, const R: usize, const V: usize>(
    simd: S,
    a: [&[f32]; R],
    panel: &[S::f32s],
) -> [[S::f32s; V]; R] {
    let mut sums = [[simd.splat_f32s(0.0); V]; R];
    let depth = panel.len() / V;
    let a = a.map(|a| &a[..depth]);
    for i in 0..depth {
        let b = &panel[i * V..][..V];
        for (sums, a) in sums.iter_mut().zip(a) {
            let x = simd.splat_f32s(a[i]);
            for (sum, &b) in sums.iter_mut().zip(b) {
                *sum = simd.mul_add_f32s(x, b, *sum);
            }
        }
    }
    sums
}

#[inline(always)]
fn store<S: Simd, const R: usize, const V: usize>(
    simd: S,
    sums: [[S::f32s; V]; R],
    c: &mut [f32],
    [first, n, start]: [usize; 3],
) {
    for (c, sums) in c.chunks_exact_mut(n).zip(sums) {
        for (c, sum) in c[first..].chunks_mut(S::F32_LANES).zip(sums) {
            let all = match start {
                0 => sum,
                _ => simd.add_f32s(simd.partial_load_f32s(c), sum),
            };
            simd.partial_store_f32s(c, all);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize, seed: u32) -> Vec<f32> {
        let mut x = seed;
        let mut next = || {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (x >> 8) as f32 / 8_388_608.0 - 1.0
        };
        (0..n).map(|_| next()).collect()
    }

    #[test]
    fn sums_go_in_the_order_of_k_block_by_block() {
        let fused = !matches!(pulp::Arch::new(), pulp::Arch::Scalar);
        for m in [1, 2, 5, 6, 12, 13, 97] {
            for n in [1, 7, 8, 16, 17, 31, 33, 70] {
                for k in [1, 3, 255, 256, 257, 530] {
                    let (a, b) = (values(m * k, 1), values(n * k, 2));
                    for steps in [[n, 1], [1, k]] {
                        let mut c = vec![f32::NAN; m * n];
                        product(&a, &b, steps, &mut c, [m, n, k]);
                        for (i, &found) in c.iter().enumerate() {
                            let (row, column) = (&a[i / n * k..][..k], i % n);
                            let mut sum = 0.0f32;
                            for block in (0..k).step_by(DEPTH) {
                                let of = |part: f32, i: usize| {
                                    let b = b[i * steps[0] + column * steps[1]];
                                    match fused {
                                        true => row[i].mul_add(b, part),
                                        false => row[i] * b + part,
                                    }
                                };
                                sum += (block..k.min(block + DEPTH)).fold(0.0, of);
                            }
                            assert_eq!(found, sum, "{m} {n} {k} {steps:?} {i}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn sums_are_those_of_the_library() {
        let [m, n, k] = [50, 40, 600];
        let (a, b) = (values(m * k, 3), values(n * k, 4));
        let mut both = [vec![0.0; m * n], vec![0.0; m * n]];
        product(&a, &b, [1, k], &mut both[0], [m, n, k]);
        library(&a, &b, [1, k], &mut both[1], [m, n, k]);
        assert_eq!(both[0], both[1]);
    }

    #[test]
    fn a_product_over_nothing_is_zero() {
        let mut c = vec![1.0; 6];
        product(&[], &[], [3, 1], &mut c, [2, 3, 0]);
        assert_eq!(c, [0.0; 6]);
    }
}
