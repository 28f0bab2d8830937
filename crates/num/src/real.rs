//! The border between real numbers and codes: the one file of this crate that holds floats.

use crate::{Dyadic, DyadicError, Format};

/// The nearest [`Dyadic`] to `x ≥ 0`, its numerator rounded half up. A ratio under 2^-32 or so becomes zero.
///
/// # Errors
/// [`DyadicError::NotPositive`] for negative or non-finite `x`, [`DyadicError::TooLarge`] from 2^30 on.
pub fn dyadic(x: f64) -> Result<Dyadic, DyadicError> {
    if !x.is_finite() || x < 0.0 {
        return Err(DyadicError::NotPositive);
    }
    if x == 0.0 {
        return Ok(Dyadic::ZERO);
    }
    // x = mantissa · 2^(exponent − 52), 2^52 ≤ mantissa < 2^53
    let bits = x.to_bits();
    let exponent = ((bits >> 52) & 0x7ff) as i32 - 1023;
    let mantissa = (bits & ((1 << 52) - 1)) | (1 << 52);
    let mut m = (mantissa + (1 << 21)) >> 22;
    let mut c = 30 - exponent;
    if m == 1 << 31 {
        m >>= 1;
        c -= 1;
    }
    match c {
        ..=0 => Err(DyadicError::TooLarge),
        1..=62 => Dyadic::new(m as i32, c as u8),
        _ => Ok(Dyadic::ZERO),
    }
}

/// The real value of a dyadic number; exact.
pub fn value(d: Dyadic) -> f64 {
    f64::from(d.m()) * power_of_two(-i32::from(d.c()))
}

/// `round(x · 2^32)` where it fits 31 bits: the multiplier of [`crate::requantize_hi`].
pub fn fixed32(x: f64) -> Option<i32> {
    let m = round_i64(x * power_of_two(32));
    i32::try_from(m).ok()
}

/// `2^e` for `-1022 ≤ e ≤ 1023`.
pub fn power_of_two(e: i32) -> f64 {
    assert!((-1022..=1023).contains(&e), "2^{e} is no normal number");
    f64::from_bits(((e + 1023) as u64) << 52)
}

/// `⌊x + ½⌋`, saturating at the bounds of `i64`; zero for NaN.
#[inline]
pub fn round_i64(x: f64) -> i64 {
    let t = x as i64; // towards zero
    let rest = x - t as f64;
    if rest >= 0.5 {
        t.saturating_add(1)
    } else if rest < -0.5 {
        t.saturating_sub(1)
    } else {
        t
    }
}

/// The code of a real value: `clamp(round(x / scale) + zero_point, lo, hi)`.
pub fn quantize(x: f64, scale: f64, zero_point: i32, lo: i32, hi: i32) -> i32 {
    crate::clamp(
        round_i64(x / scale).saturating_add(zero_point.into()),
        lo,
        hi,
    )
}

/// The code of a format that is nearest to `x`, in units of the scale; of two that are equally near the higher one.
#[inline]
pub fn encode(x: f64, format: Format) -> i32 {
    let (lo, hi) = format.range();
    let (step, origin) = match format.knee() {
        // all codes around are multiples of their distance
        Some(_) => (step_at(x, format), 0),
        None => (format.step(), lo),
    };
    let k = round_i64((x - f64::from(origin)) / f64::from(step));
    let code = k.saturating_mul(step.into()).saturating_add(origin.into());
    code.clamp(lo.into(), hi.into()) as i32
}

/// Distance of the codes of a format around `x`, in units of the scale.
#[inline]
pub fn step_at(x: f64, format: Format) -> i32 {
    match format.knee() {
        Some(h) if x.abs() >= f64::from(2 * h) => 4,
        Some(h) if x.abs() >= f64::from(h) => 2,
        _ => format.step(),
    }
}

/// The real value of a code.
pub fn dequantize(code: i64, scale: f64, zero_point: i32) -> f64 {
    scale * (code - i64::from(zero_point)) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_vectors() {
        let cases = [
            (0.012_345_678_9, 1_696_777_188, 37),
            (1.0 / 3.0, 1_431_655_765, 32),
            (0.00098, 1_077_521_395, 40),
            (1.7, 1_825_361_101, 30),
            (1.0 / 1024.0, 1 << 30, 40),
        ];
        for (x, m, c) in cases {
            assert_eq!(dyadic(x), Dyadic::new(m, c), "{x}");
        }
    }

    #[test]
    fn numerator_that_rounds_up_to_a_power_is_renormalised() {
        let x = 1.0 - 1e-12;
        assert_eq!(dyadic(x).unwrap(), Dyadic::ONE);
    }

    #[test]
    fn bounds() {
        assert_eq!(dyadic(-1.0), Err(DyadicError::NotPositive));
        assert_eq!(dyadic(f64::NAN), Err(DyadicError::NotPositive));
        assert_eq!(dyadic(2e9), Err(DyadicError::TooLarge));
        assert_eq!(dyadic(1e-12), Ok(Dyadic::ZERO));
    }

    #[test]
    fn value_inverts_dyadic() {
        for x in [0.5, 0.123_456_7, 1e-6, 3.0, 700.25] {
            let back = value(dyadic(x).unwrap());
            assert!((back - x).abs() <= x * power_of_two(-31), "{x}");
        }
    }

    #[test]
    fn rounds_half_up() {
        assert_eq!(
            [-1.5, -0.5, 0.5, 1.5, 2.4999].map(round_i64),
            [-1, 0, 1, 2, 2]
        );
    }
}
