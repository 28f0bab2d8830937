use lowbit_ir::Quant;
use lowbit_ir::ops::{Codes, Rescale};
use lowbit_num::real;

/// What codes mean: `scale · (code − zero_point)`, and the type that holds them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Affine {
    /// Real value of one step; a number that `f32` represents, so that it crosses into the integer stage unrounded.
    pub scale: f64,
    /// The code of zero.
    pub zero_point: i32,
    /// Bits of a code: 16, 8, or 4 in the low half of a byte.
    bits: u32,
    /// Whether it is a residual stream of 16 bits.
    stream: bool,
}

/// The smallest step that a dyadic scale holds with all its bits.
const SMALLEST: f64 = 1.0 / 2_147_483_648.0;

impl Affine {
    /// Codes 0…255 for `lo..=hi`, with zero between them.
    pub fn u8(lo: f64, hi: f64) -> Self {
        Self::unsigned(lo, hi, 8)
    }

    /// Codes of at most 8 bits, from 0 up, for `lo..=hi`, with zero between them.
    pub fn unsigned(lo: f64, hi: f64, bits: u32) -> Self {
        let (lo, hi) = (lo.min(0.0), hi.max(0.0));
        let most = (1 << bits) - 1;
        let scale = step((hi - lo) / f64::from(most));
        let zero_point = real::round_i64(-lo / scale).clamp(0, most.into()) as i32;
        Self {
            scale,
            zero_point,
            bits,
            stream: false,
        }
    }

    /// Codes of 16 bits around zero that reach a quarter beyond `lo..=hi`.
    pub fn i16(lo: f64, hi: f64) -> Self {
        let reach = hi.abs().max(lo.abs()) * 1.25;
        Self {
            scale: step(reach / 32767.0),
            zero_point: 0,
            bits: 16,
            stream: false,
        }
    }

    /// Codes of 16 bits around zero whose steps are a thirty-second of those of the 8-bit codes for `lo..=hi`: they reach four
    /// times as far at least.
    pub fn stream(lo: f64, hi: f64) -> Self {
        Self {
            scale: step(Self::u8(lo, hi).scale / 32.0),
            zero_point: 0,
            bits: 16,
            stream: true,
        }
    }

    /// 8-bit codes with a given scale and zero-point.
    pub fn with_scale(scale: f64, zero_point: i32) -> Self {
        Self {
            scale: step(scale),
            zero_point,
            bits: 8,
            stream: false,
        }
    }

    /// Unsigned codes of 8 or 16 bits for values from 0 to 1.
    pub fn probability(bits: u32) -> Self {
        Self {
            scale: real::power_of_two(-(bits as i32)),
            zero_point: 0,
            bits,
            stream: false,
        }
    }

    /// The same codes for values `factor > 0` times as large.
    pub fn scaled(self, factor: f64) -> Self {
        Self {
            scale: step(self.scale * factor),
            ..self
        }
    }

    /// The codes of the type.
    pub fn codes(&self) -> Codes {
        if self.is_wide() {
            return Codes::I16;
        }
        Codes {
            hi: (1 << self.bits) - 1,
            ..Codes::U8
        }
    }

    /// Whether the codes take 16 bits.
    pub fn is_wide(&self) -> bool {
        self.bits > 8
    }

    /// Whether it is a residual stream of 16 bits.
    pub fn is_stream(&self) -> bool {
        self.stream
    }

    /// Bits of a code.
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// The code of a real value, limited to the type.
    pub fn encode(&self, x: f64) -> i32 {
        let codes = self.codes();
        real::quantize(x, self.scale, self.zero_point, codes.lo, codes.hi)
    }

    /// The real value of a code.
    pub fn decode(&self, code: i32) -> f64 {
        real::dequantize(code.into(), self.scale, self.zero_point)
    }

    /// The quantisation in the graph's terms.
    pub fn quant(&self) -> Quant {
        let scale = real::dyadic(self.scale).expect("a scale is positive and not large");
        Quant::per_tensor(scale, self.zero_point)
    }
}

fn step(x: f64) -> f64 {
    let rounded = f64::from(x as f32);
    if rounded > SMALLEST {
        rounded.min(1e8)
    } else {
        SMALLEST
    }
}

/// The cheaper rescale that represents `ratio`, for accumulators of at most `bound` in magnitude.
pub(crate) fn rescale(ratio: f64, zero_point: i32, bound: f64) -> Result<Rescale, String> {
    let b = (f64::from(zero_point) + 0.5) / ratio;
    if (1.0 / 65536.0..0.5).contains(&ratio) && bound + b.abs() < 2_147_483_000.0 {
        let m = real::fixed32(ratio).expect("the ratio is below one half");
        return Ok(Rescale::High {
            m,
            b: real::round_i64(b) as i32,
        });
    }
    let d = real::dyadic(ratio).map_err(|e| e.to_string())?;
    Ok(Rescale::Exact {
        m: d.m(),
        c: d.c(),
        zero_point,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_has_a_code_and_the_ends_are_reached() {
        for (lo, hi) in [(-1.0, 3.0), (0.0, 6.0), (-2.0, 0.0), (0.5, 4.0), (0.0, 0.0)] {
            let a = Affine::u8(lo, hi);
            assert_eq!(a.decode(a.zero_point), 0.0);
            assert!((a.decode(a.encode(hi)) - hi).abs() <= a.scale, "{lo} {hi}");
            assert!(
                (a.decode(a.encode(lo.min(0.0))) - lo.min(0.0)).abs() <= a.scale,
                "{lo} {hi}"
            );
        }
    }

    #[test]
    fn four_bits_reach_the_ends_too() {
        for (lo, hi) in [(-1.0, 3.0), (0.0, 6.0), (-2.0, 0.0)] {
            let a = Affine::unsigned(lo, hi, 4);
            assert_eq!(a.codes().hi, 15);
            assert!((a.encode(hi) - a.encode(lo) - 15).abs() <= 1, "{lo} {hi}");
            assert_eq!(a.decode(a.zero_point), 0.0);
        }
    }

    #[test]
    fn bytes_keep_their_codes() {
        let a = Affine::u8(0.0, 255.0);
        assert_eq!((a.scale, a.zero_point), (1.0, 0));
    }

    #[test]
    fn the_graph_holds_the_scale_unrounded() {
        let a = Affine::u8(-0.123, 4.567);
        assert_eq!(real::value(a.quant().scale()), a.scale);
    }
}
