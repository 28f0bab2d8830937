//! Pillow's antialiased bilinear resize of 8-bit images, code for code.
//!
//! Source: Pillow `src/libImaging/Resample.c`. A triangle filter stretched by the reduction, its weights normalised in f64 and rounded to 22 fractional bits,
//! first along rows, then along columns, each pass rounded half up to 8 bits.

use super::Pixels;

const BITS: u32 = 32 - 8 - 2;

/// The filter of one output position: first input position and the weights from there on.
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

/// Resizes to `width` × `height`, both at least 1.
pub(crate) fn bilinear(pixels: &Pixels, width: usize, height: usize) -> Pixels {
    let across = if width == pixels.width {
        pixels.clone()
    } else {
        horizontal(pixels, width)
    };
    if height == pixels.height {
        return across;
    }
    vertical(&across, height)
}

fn horizontal(pixels: &Pixels, width: usize) -> Pixels {
    let filter = taps(pixels.width, width);
    let mut data = Vec::with_capacity(width * pixels.height * 3);
    for row in pixels.data.chunks_exact(pixels.width * 3) {
        for tap in &filter {
            for channel in 0..3 {
                let codes = row[tap.first * 3 + channel..].iter().step_by(3);
                data.push(weighted(tap, codes));
            }
        }
    }
    Pixels {
        width,
        height: pixels.height,
        data,
    }
}

fn vertical(pixels: &Pixels, height: usize) -> Pixels {
    let stride = pixels.width * 3;
    let mut data = Vec::with_capacity(stride * height);
    for tap in taps(pixels.height, height) {
        for column in 0..stride {
            let codes = pixels.data[tap.first * stride + column..]
                .iter()
                .step_by(stride);
            data.push(weighted(&tap, codes));
        }
    }
    Pixels {
        width: pixels.width,
        height,
        data,
    }
}

fn weighted<'a>(tap: &Taps, codes: impl Iterator<Item = &'a u8>) -> u8 {
    let sum: i32 = tap
        .weights
        .iter()
        .zip(codes)
        .map(|(w, &code)| w * i32::from(code))
        .sum();
    ((sum + (1 << (BITS - 1))) >> BITS).clamp(0, 255) as u8
}

fn taps(input: usize, output: usize) -> Vec<Taps> {
    let scale = input as f64 / output as f64;
    let support = scale.max(1.0);
    let tap = |position: usize| {
        let centre = (position as f64 + 0.5) * scale;
        let first = (centre - support + 0.5).max(0.0) as usize;
        let last = ((centre + support + 0.5) as usize).min(input);
        let triangle =
            |x: usize| (1.0 - ((x as f64 - centre + 0.5) * support.recip()).abs()).max(0.0);
        let weights: Vec<f64> = (first..last).map(triangle).collect();
        let total: f64 = weights.iter().sum();
        Taps {
            first,
            weights: weights.iter().map(|w| fixed(w * total.recip())).collect(),
        }
    };
    (0..output).map(tap).collect()
}

fn fixed(weight: f64) -> i32 {
    (weight * f64::from(1 << BITS) + 0.5) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_sum_to_one_within_rounding() {
        for (input, output) in [(500, 256), (3, 7), (1, 4), (1000, 1), (17, 16)] {
            let filter = taps(input, output);
            assert_eq!(filter.len(), output);
            for tap in filter {
                let sum: i32 = tap.weights.iter().sum();
                assert!((sum - (1 << BITS)).unsigned_abs() as usize <= tap.weights.len());
                assert!(tap.first + tap.weights.len() <= input);
            }
        }
    }

    #[test]
    fn codes_equal_pillows() {
        let data = (0..6 * 5 * 3).map(|i| (i * 37 % 251) as u8).collect();
        let image = Pixels {
            width: 6,
            height: 5,
            data,
        };
        assert_eq!(
            bilinear(&image, 4, 3).data,
            [
                72, 109, 146, 144, 89, 126, 157, 119, 108, 136, 106, 88, 133, 135, 120, 119, 150,
                109, 125, 131, 143, 109, 111, 127, 139, 109, 146, 125, 146, 124, 155, 112, 101,
                135, 172, 80
            ]
        );
        assert_eq!(
            bilinear(&image, 8, 7).data[60..90],
            [
                207, 88, 125, 134, 103, 140, 123, 93, 130, 192, 50, 87, 77, 114, 151, 146, 183, 64,
                136, 173, 53, 62, 99, 136, 145, 182, 219, 72, 109, 146
            ]
        );
    }

    #[test]
    fn a_flat_image_stays_flat() {
        let image = Pixels {
            width: 9,
            height: 4,
            data: vec![200; 9 * 4 * 3],
        };
        for (width, height) in [(3, 2), (20, 11), (9, 2), (1, 1)] {
            let resized = bilinear(&image, width, height);
            assert_eq!(resized.data, vec![200; width * height * 3]);
        }
    }
}
