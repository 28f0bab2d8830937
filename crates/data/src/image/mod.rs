//! Images: decoded, resized and cropped to the code as Pillow does.
//!
//! JPEG goes through `libjpeg-turbo-rs`, whose integer transform, chroma upsampling and colour conversion are libjpeg-turbo's: on 500 photographs
//! every code equalled Pillow's, where `jpeg-decoder` and `zune-jpeg` are off by up to 4. PNG and BMP go through `image`.

mod resample;

use std::path::Path;

use image::ImageFormat;
use libjpeg_turbo_rs::{Decoder, PixelFormat};

use crate::descriptor::{Channels, Input};
use crate::error::{Result, format, read};

/// Pixels above which an image is refused, as Pillow does.
const MOST_PIXELS: u64 = 178_956_970;
const MOST_MEMORY: u64 = 4 << 30;

/// Interleaved 8-bit RGB, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pixels {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) data: Vec<u8>,
}

/// What is done to an image between decoding and scaling its codes.
#[derive(Debug, Clone)]
pub(crate) struct Framing {
    resize: Option<usize>,
    crop: Option<usize>,
    reversed: bool,
}

impl Framing {
    pub(crate) fn new(input: &Input) -> Self {
        Self {
            resize: input.resize.map(|n| n as usize),
            crop: input.crop.map(|n| n as usize),
            reversed: input.channels == Some(Channels::Bgr),
        }
    }

    /// Shape of every sample (height, width, channels), where it does not depend on the image.
    pub(crate) fn shape(&self) -> Option<[usize; 3]> {
        self.crop.map(|n| [n, n, 3])
    }

    /// Decodes the image at `path` to codes 0…255 and their shape (height, width, channels).
    pub(crate) fn load(&self, path: &Path) -> Result<(Vec<f32>, [usize; 3])> {
        let mut pixels = decode(path)?;
        if let Some(side) = self.resize {
            pixels = short_side(pixels, side);
        }
        if let Some(side) = self.crop {
            pixels = centre(&pixels, side).map_err(|why| format(path, why))?;
        }
        if self.reversed {
            pixels.data.chunks_exact_mut(3).for_each(<[u8]>::reverse);
        }
        let values = pixels.data.iter().map(|&code| f32::from(code)).collect();
        Ok((values, [pixels.height, pixels.width, 3]))
    }
}

/// Whether a file name ends as the images do that can be decoded.
pub(crate) fn is_image(path: &Path) -> bool {
    matches!(
        crate::store::extension(path).as_str(),
        "jpg" | "jpeg" | "png" | "bmp"
    )
}

fn decode(path: &Path) -> Result<Pixels> {
    let bytes = std::fs::read(path).map_err(read(path))?;
    let fault = |why: String| format(path, format!("is no image that can be decoded: {why}"));
    let kind = image::guess_format(&bytes);
    let kind = kind.map_err(|_| fault("it is neither JPEG, PNG nor BMP".into()))?;
    match kind {
        ImageFormat::Jpeg => jpeg(&bytes).map_err(fault),
        kind => other(&bytes, kind).map_err(fault),
    }
}

fn jpeg(bytes: &[u8]) -> Result<Pixels, String> {
    let said = |error: libjpeg_turbo_rs::JpegError| error.to_string();
    let mut decoder = Decoder::new(bytes).map_err(said)?;
    decoder.set_output_format(PixelFormat::Rgb);
    decoder.set_max_pixels(MOST_PIXELS as usize);
    decoder.set_max_memory(MOST_MEMORY as usize);
    let image = decoder.decode_image().map_err(said)?;
    Ok(Pixels {
        width: image.width,
        height: image.height,
        data: image.data,
    })
}

fn other(bytes: &[u8], kind: ImageFormat) -> Result<Pixels, String> {
    let reader = || image::ImageReader::with_format(std::io::Cursor::new(bytes), kind);
    let said = |error: image::ImageError| error.to_string();
    let (width, height) = reader().into_dimensions().map_err(said)?;
    if u64::from(width) * u64::from(height) > MOST_PIXELS {
        return Err(format!("{width} × {height} pixels are too many"));
    }
    let image = reader().decode().map_err(said)?.into_rgb8();
    Ok(Pixels {
        width: width as usize,
        height: height as usize,
        data: image.into_raw(),
    })
}

/// Resizes so that the shorter side is `side`; the longer one is rounded half to even.
fn short_side(pixels: Pixels, side: usize) -> Pixels {
    let factor = side as f64 / pixels.width.min(pixels.height) as f64;
    if factor == 1.0 {
        return pixels;
    }
    let scaled = |n: usize| side.max((n as f64 * factor).round_ties_even() as usize);
    let (width, height) = (scaled(pixels.width), scaled(pixels.height));
    resample::bilinear(&pixels, width, height)
}

fn centre(pixels: &Pixels, side: usize) -> Result<Pixels, String> {
    let (width, height) = (pixels.width, pixels.height);
    if side > width || side > height {
        return Err(format!(
            "is {width} × {height} pixels where it is cropped, less than `crop` = {side}; lower `crop`, or set `resize` to at least as much"
        ));
    }
    let (left, top) = ((width - side) / 2, (height - side) / 2);
    let row = |y: usize| &pixels.data[((top + y) * width + left) * 3..][..side * 3];
    Ok(Pixels {
        width: side,
        height: side,
        data: (0..side).flat_map(row).copied().collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(width: usize, height: usize) -> Pixels {
        let data = (0..width * height * 3)
            .map(|i| (i * 7 % 256) as u8)
            .collect();
        Pixels {
            width,
            height,
            data,
        }
    }

    #[test]
    fn the_crop_is_centred_and_floors_odd_margins() {
        let image = ramp(7, 6);
        let crop = centre(&image, 4).unwrap();
        assert_eq!((crop.width, crop.height), (4, 4));
        assert_eq!(crop.data[..3], image.data[(7 + 1) * 3..][..3]);
        assert!(centre(&image, 7).unwrap_err().contains("crop"));
    }

    #[test]
    fn the_long_side_is_rounded_to_even_on_ties() {
        let resized = short_side(ramp(5, 2), 1);
        assert_eq!((resized.width, resized.height), (2, 1));
        let same = short_side(ramp(5, 2), 2);
        assert_eq!(same, ramp(5, 2));
    }
}
