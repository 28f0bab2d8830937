//! Floats of eight bits. Tensors hold them as `f32`.
//!
//! Source: onnx/docs/docsgen/source/technical/float8.md.

use crate::tensor::code;

/// A format: widths, bias, and what the top of the range stands for.
#[derive(Clone, Copy)]
pub(crate) struct Float8 {
    exponent: u32,
    bias: i32,
    /// Whether infinities are encoded.
    infinite: bool,
    /// Whether the code of −0 is the only NaN.
    unsigned_zero: bool,
}

impl Float8 {
    /// The format behind ONNX's number of an element type.
    pub(crate) fn of(onnx: i32) -> Option<Self> {
        let (exponent, bias, infinite, unsigned_zero) = match onnx {
            code::FLOAT8E4M3FN => (4, 7, false, false),
            code::FLOAT8E4M3FNUZ => (4, 8, false, true),
            code::FLOAT8E5M2 => (5, 15, true, false),
            code::FLOAT8E5M2FNUZ => (5, 16, false, true),
            _ => return None,
        };
        Some(Self {
            exponent,
            bias,
            infinite,
            unsigned_zero,
        })
    }

    pub(crate) fn decode(self, x: u8) -> f32 {
        if self.unsigned_zero && x == 0x80 {
            return f32::NAN;
        }
        let size = self.magnitude(x & 0x7f);
        if x & 0x80 == 0 { size } else { -size }
    }

    fn magnitude(self, code: u8) -> f32 {
        let mantissa_bits = 7 - self.exponent;
        let e = i32::from(code >> mantissa_bits);
        let m = code & ((1 << mantissa_bits) - 1);
        if self.infinite && e == (1 << self.exponent) - 1 {
            return if m == 0 { f32::INFINITY } else { f32::NAN };
        }
        if !self.infinite && !self.unsigned_zero && code == 0x7f {
            return f32::NAN;
        }
        let share = f32::from(m) / f32::from(1u8 << mantissa_bits);
        if e == 0 {
            share * 2f32.powi(1 - self.bias)
        } else {
            (1.0 + share) * 2f32.powi(e - self.bias)
        }
    }

    /// The nearest value of the format, ties to the even code. Beyond the largest finite one: that one where
    /// `saturate`, else infinity or NaN.
    pub(crate) fn round(self, x: f32, saturate: bool) -> f32 {
        if x.is_nan() || (x == 0.0 && self.unsigned_zero) {
            return if x == 0.0 { 0.0 } else { x };
        }
        let finite: Vec<f32> = (0..=0x7f)
            .map(|c| self.magnitude(c))
            .take_while(|v| v.is_finite())
            .collect();
        let (size, last) = (x.abs(), finite.len() - 1);
        let over = if self.infinite {
            f32::INFINITY
        } else {
            f32::NAN
        };
        let above = finite.partition_point(|&v| v < size);
        let rounded = match above.checked_sub(1) {
            None => finite[0],
            Some(below) if below == last => {
                let half = (finite[last] - finite[last - 1]) / 2.0;
                // the tie goes to the even code, which is the one beyond where the last is odd
                let limit = finite[last] + half;
                let beyond = size > limit || (size == limit && last % 2 == 1);
                match (saturate, beyond) {
                    (false, true) => over,
                    _ => finite[last],
                }
            }
            Some(below) => {
                let (down, up) = (size - finite[below], finite[above] - size);
                let up_wins = up < down || (up == down && above % 2 == 0);
                finite[if up_wins { above } else { below }]
            }
        };
        let signed = rounded.copysign(x);
        if signed == 0.0 && self.unsigned_zero {
            0.0
        } else {
            signed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [i32; 4] = [
        code::FLOAT8E4M3FN,
        code::FLOAT8E4M3FNUZ,
        code::FLOAT8E5M2,
        code::FLOAT8E5M2FNUZ,
    ];

    #[test]
    fn documented_values() {
        let [fn43, uz43, e52, uz52] = ALL.map(|c| Float8::of(c).unwrap());
        assert_eq!(fn43.decode(0x38), 1.0);
        assert_eq!(fn43.decode(0x7e), 448.0);
        assert_eq!(fn43.decode(0x01), 2f32.powi(-9));
        assert!(fn43.decode(0xff).is_nan());
        assert_eq!(uz43.decode(0x7f), 240.0);
        assert!(uz43.decode(0x80).is_nan());
        assert_eq!(e52.decode(0xbc), -1.0);
        assert_eq!(e52.decode(0xfc), f32::NEG_INFINITY);
        assert_eq!(uz52.decode(0x7f), 57344.0);
    }

    #[test]
    fn rounding_keeps_values_and_finds_the_nearest() {
        for format in ALL.map(|c| Float8::of(c).unwrap()) {
            let all: Vec<f32> = (0..=255).map(|c| format.decode(c)).collect();
            for &v in all.iter().filter(|v| v.is_finite()) {
                assert_eq!(format.round(v, false), v);
                let x = v * 1.03;
                let nearest = all.iter().map(|a| (a - x).abs()).fold(f32::MAX, f32::min);
                assert_eq!((format.round(x, true) - x).abs(), nearest, "{x}");
            }
        }
    }
}
