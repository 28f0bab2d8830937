use super::product;
use crate::{Element, Tensor};

/// The float types that reference bodies are written over.
pub(crate) trait Scalar:
    Element
    + std::ops::Add<Output = Self>
    + std::ops::Sub<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::Div<Output = Self>
    + std::ops::Neg<Output = Self>
    + std::ops::AddAssign
    + std::iter::Sum
    + ndarray::LinalgScalar
{
    const ZERO: Self;
    const ONE: Self;
    const LOWEST: Self;
    fn real(x: f64) -> Self;
    fn wide(self) -> f64;
    fn exp(self) -> Self;
    fn sqrt(self) -> Self;
    /// The larger one; NaN wins.
    fn largest(self, y: Self) -> Self;
    /// The smaller one; NaN wins.
    fn smallest(self, y: Self) -> Self;
    fn unary(self, f: fn(f32) -> f32, g: fn(f64) -> f64) -> Self;
    fn binary(self, y: Self, f: fn(f32, f32) -> f32, g: fn(f64, f64) -> f64) -> Self;
    /// See [`super::product::product`].
    fn product(a: &[Self], b: &[Self], steps: [usize; 2], c: &mut [Self], extents: [usize; 3]);
}

macro_rules! scalar {
    ($t:ty, $exp:path, $sqrt:path, $pick:ident, $product:path) => {
        impl Scalar for $t {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const LOWEST: Self = <$t>::NEG_INFINITY;
            #[inline(always)]
            fn largest(self, y: Self) -> Self {
                if self > y || self.is_nan() { self } else { y }
            }
            #[inline(always)]
            fn smallest(self, y: Self) -> Self {
                if self < y || self.is_nan() { self } else { y }
            }
            #[inline(always)]
            fn real(x: f64) -> Self {
                x as $t
            }
            #[inline(always)]
            fn wide(self) -> f64 {
                self.into()
            }
            fn exp(self) -> Self {
                $exp(self)
            }
            fn sqrt(self) -> Self {
                $sqrt(self)
            }
            #[inline(always)]
            fn unary(self, f: fn(f32) -> f32, g: fn(f64) -> f64) -> Self {
                $pick!(f, g)(self)
            }
            #[inline(always)]
            fn binary(self, y: Self, f: fn(f32, f32) -> f32, g: fn(f64, f64) -> f64) -> Self {
                $pick!(f, g)(self, y)
            }
            fn product(a: &[$t], b: &[$t], steps: [usize; 2], c: &mut [$t], extents: [usize; 3]) {
                $product(a, b, steps, c, extents);
            }
        }
    };
}

macro_rules! first {
    ($f:ident, $g:ident) => {{
        let _ = $g;
        $f
    }};
}

macro_rules! second {
    ($f:ident, $g:ident) => {{
        let _ = $f;
        $g
    }};
}

scalar!(f32, libm::expf, libm::sqrtf, first, product::product);
scalar!(f64, libm::exp, libm::sqrt, second, product::library);

/// Runs a loop that was compiled for this processor's widest vectors. Each element goes through the same operations on
/// every processor: nothing is contracted or reordered.
pub(crate) fn vectorized<W: pulp::NullaryFnOnce>(work: W) -> W::Output {
    pulp::Arch::new().dispatch(work)
}

/// `c[m, n] = a[m, k] · b[n, k]ᵀ`, all row-major; sums do not depend on threads.
pub(crate) fn product_transposed<S: Scalar>(a: &[S], b: &[S], c: &mut [S], extents: [usize; 3]) {
    S::product(a, b, [1, extents[2]], c, extents);
}

/// `c[m, n] = a[m, k] · b[k, n]`, as [`product_transposed`].
pub(crate) fn product<S: Scalar>(a: &[S], b: &[S], c: &mut [S], extents: [usize; 3]) {
    S::product(a, b, [extents[1], 1], c, extents);
}

/// Calls the body with `$s` as the float type of a tensor.
macro_rules! with_float {
    ($tensor:expr, $s:ident => $body:expr, else $other:expr) => {
        match $tensor.dtype() {
            $crate::DType::F32 => {
                type $s = f32;
                $body
            }
            $crate::DType::F64 => {
                type $s = f64;
                $body
            }
            _ => $other,
        }
    };
}
pub(crate) use with_float;

/// Row-major strides in elements.
pub(crate) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for a in (1..shape.len()).rev() {
        strides[a - 1] = strides[a] * shape[a];
    }
    strides
}

/// Joins axes into the last one while every operand's elements stay evenly spaced: extents and strides of an equal view
/// whose rows are as long as can be.
pub(crate) fn long_rows<const N: usize>(
    shape: &[usize],
    strides: [Vec<isize>; N],
) -> (Vec<usize>, [Vec<isize>; N]) {
    let (mut shape, mut strides) = (shape.to_vec(), strides);
    while let [.., outer, inner] = shape[..] {
        let rank = shape.len();
        let even = |s: &Vec<isize>| outer == 1 || s[rank - 2] == s[rank - 1] * inner as isize;
        let single = inner == 1;
        if !single && !strides.iter().all(even) {
            break;
        }
        shape.truncate(rank - 2);
        shape.push(outer * inner);
        for s in &mut strides {
            s.remove(if single { rank - 1 } else { rank - 2 });
        }
    }
    (shape, strides)
}

/// The elements of a strided view of a tensor of any type, row-major.
pub(crate) fn view(x: &Tensor, shape: &[usize], strides: Vec<isize>, start: isize) -> Tensor {
    let (extents, [strides]) = long_rows(shape, [strides]);
    let (Some((&n, outer)), Some((&step, steps))) = (extents.split_last(), strides.split_last())
    else {
        return pick(x, shape, std::iter::once(start as usize));
    };
    crate::with_data!(x.data(), v => {
        let mut y = Vec::with_capacity(shape.iter().product());
        if let (Some((&m, outer)), Some((&1, steps))) = (outer.split_last(), steps.split_last()) {
            for p in Positions::new(outer, steps, start) {
                turned(v, p, [m, n], step, &mut y);
            }
            return Tensor::new(shape, y);
        }
        if n > 0 {
            for p in Positions::new(outer, steps, start) {
                match step {
                    1 => y.extend_from_slice(&v[p..][..n]),
                    0 => y.resize(y.len() + n, v[p]),
                    _ => y.extend((0..n as isize).map(move |i| v[p.wrapping_add_signed(i * step)])),
                }
            }
        }
        Tensor::new(shape, y)
    })
}

/// Extents of a tile whose rows and columns fit the first-level cache.
const TILE: usize = 16;

/// Appends `m` rows of `n` elements of a view whose columns lie side by side: tile by tile, so that no line of the cache
/// is fetched for one element.
pub(crate) fn turned<T: Element>(
    v: &[T],
    start: usize,
    [m, n]: [usize; 2],
    step: isize,
    y: &mut Vec<T>,
) {
    let first = y.len();
    y.resize(first + m * n, T::default());
    let y = &mut y[first..];
    let mut tile = [[T::default(); TILE]; TILE];
    for row in (0..m).step_by(TILE) {
        let rows = TILE.min(m - row);
        for column in (0..n).step_by(TILE) {
            let columns = TILE.min(n - column);
            for i in 0..columns {
                let from = start.wrapping_add_signed((column + i) as isize * step) + row;
                let line = v[from..][..rows].iter();
                tile.iter_mut().zip(line).for_each(|(t, &x)| t[i] = x);
            }
            let lines = y[row * n..][..rows * n].chunks_exact_mut(n);
            for (line, tile) in lines.zip(&tile) {
                line[column..][..columns].copy_from_slice(&tile[..columns]);
            }
        }
    }
}

/// Elements picked by their positions in the operand, of any type.
pub(crate) fn pick(x: &Tensor, shape: &[usize], positions: impl Iterator<Item = usize>) -> Tensor {
    crate::with_data!(x.data(), v => Tensor::new(shape, positions.map(|p| v[p]).collect()))
}

/// Appends `n` elements, or the first one `n` times.
pub(crate) fn extend<T: Copy>(result: &mut Vec<T>, x: &[T], n: usize, long: bool) {
    if long {
        result.extend_from_slice(&x[..n]);
    } else {
        result.resize(result.len() + n, x[0]);
    }
}

/// Positions in an operand of all elements of a strided view, row-major.
pub(crate) struct Positions<'a> {
    shape: &'a [usize],
    strides: &'a [isize],
    index: Vec<usize>,
    at: isize,
    left: usize,
}

impl<'a> Positions<'a> {
    pub(crate) fn new(shape: &'a [usize], strides: &'a [isize], start: isize) -> Self {
        Self {
            shape,
            strides,
            index: vec![0; shape.len()],
            at: start,
            left: shape.iter().product(),
        }
    }
}

impl Iterator for Positions<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        let here = self.at as usize;
        for a in (0..self.shape.len()).rev() {
            self.index[a] += 1;
            self.at += self.strides[a];
            if self.index[a] < self.shape[a] {
                break;
            }
            self.at -= self.strides[a] * self.shape[a] as isize;
            self.index[a] = 0;
        }
        Some(here)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

/// Strides of an operand that is broadcast to a shape; 0 along repeated axes.
pub(crate) fn broadcast_strides(operand: &[usize], result: &[usize]) -> Vec<isize> {
    let own = strides(operand);
    let missing = result.len() - operand.len();
    (0..result.len())
        .map(|a| match a.checked_sub(missing) {
            Some(k) if operand[k] != 1 => own[k] as isize,
            _ => 0,
        })
        .collect()
}
