use crate::Dyadic;

/// `x` limited to `lo..=hi`.
pub fn clamp(x: i64, lo: i32, hi: i32) -> i32 {
    x.clamp(lo.into(), hi.into()) as i32
}

/// The high half of a 32-bit product, `(a · b) >> 32`: `vpmuldq`, `SMMUL`, `SMULL`.
pub fn high_product(a: i32, b: i32) -> i32 {
    ((i64::from(a) * i64::from(b)) >> 32) as i32
}

/// `x / 2^c`, rounded half up. `c` in `0..=62`; the rounding constant must not overflow: `|x| < 2^63 − 2^(c−1)`.
pub fn rounding_shift(x: i64, c: u8) -> i64 {
    if c == 0 { x } else { (x + (1 << (c - 1))) >> c }
}

/// Requantises an accumulator with one rounding, half up:
/// `clamp(((acc · m + 2^(c−1)) >> c) + zp, lo, hi)`, `|acc| < 2^31`.
pub fn requantize(acc: i64, scale: Dyadic, zp: i32, lo: i32, hi: i32) -> i32 {
    debug_assert!(
        acc.unsigned_abs() < 1 << 31,
        "accumulator {acc} needs more than 32 bits"
    );
    clamp(
        rounding_shift(acc * i64::from(scale.m()), scale.c()) + i64::from(zp),
        lo,
        hi,
    )
}

/// Requantises by the high half of one product: `clamp(((acc + b) · m) >> 32, lo, hi)`.
///
/// `m = round(scale · 2^32)` with `2^-16 ≤ scale < ½`; `b` folds bias, zero-point and rounding. The caller has
/// proved that `acc + b` fits 32 bits.
pub fn requantize_hi(acc: i32, b: i32, m: i32, lo: i32, hi: i32) -> i32 {
    high_product(acc + b, m).clamp(lo, hi)
}

/// Requantises an accumulator and adds a residual, both rounded once:
/// `clamp((t · 2^(p−f) + r · m2) >> p, lo, hi)`, `t = ((acc + b) · m) >> 32`.
///
/// `m` carries `f` fraction bits, `m2 = round(s_r/s_y · 2^p)`, `f ≤ p ≤ 14`; `b` folds bias, both zero-points and
/// rounding. The caller has proved that no step leaves 32 bits.
pub fn add_residual(t: i32, r: i32, sum: SumShift, lo: i32, hi: i32) -> i32 {
    ((t << (sum.p - sum.f)) + r * sum.m2)
        .wrapping_shr(sum.p.into())
        .clamp(lo, hi)
}

/// How a fused residual is scaled; see [`add_residual`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SumShift {
    /// Fraction bits of the convolution's term, `0..=p`.
    pub f: u8,
    /// Fraction bits of the sum, `0..=14`.
    pub p: u8,
    /// The residual's multiplier, in `0..2^15`.
    pub m2: i32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requantize_rounds_half_up_by_the_published_vector() {
        let scale = Dyadic::new(1_696_777_188, 37).unwrap();
        let cases = [
            (-100_000, -1235),
            (-12_345, -152),
            (-41, -1),
            (-40, 0),
            (0, 0),
            (40, 0),
            (41, 1),
            (12_345, 152),
            (100_000, 1235),
        ];
        for (acc, expected) in cases {
            assert_eq!(
                requantize(acc, scale, 0, -100_000, 100_000),
                expected,
                "{acc}"
            );
        }
    }

    #[test]
    fn requantize_hi_is_within_one_step_of_exact_rounding() {
        let scale = 0.0123_f64;
        let m = crate::real::fixed32(scale).unwrap();
        let b = crate::real::round_i64((7.0 + 0.5) / scale) as i32;
        let exact = crate::real::dyadic(scale).unwrap();
        for acc in (-20_000..20_000).step_by(7) {
            let hi = requantize_hi(acc, b, m, 0, 255);
            let reference = requantize(acc.into(), exact, 7, 0, 255);
            assert!(
                (hi - reference).abs() <= 1,
                "{acc}: {hi} against {reference}"
            );
        }
    }

    #[test]
    fn rounding_shift_rounds_half_up() {
        assert_eq!(rounding_shift(3, 1), 2);
        assert_eq!(rounding_shift(-3, 1), -1);
        assert_eq!(rounding_shift(-5, 0), -5);
    }
}
