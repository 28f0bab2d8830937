//! Seeded samples for models that come without data.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::array::{Array, Dtype, InputSpec, count};

/// One input of one random sample.
///
/// ChaCha8 with the seed, on a stream of its own for each sample and input, so that samples may be drawn in any order. Floating-point inputs are
/// standard normal (Box–Muller, elementary functions of `libm`); `u8` is uniform over 0…255, `i8` over −128…127; other integers and booleans, which are indices or masks more often
/// than quantities, are 0 or 1.
pub(crate) fn sample(spec: &InputSpec, seed: u64, index: usize, input: usize) -> Array {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(((input as u64) << 48) | index as u64);
    let n = count(&spec.shape).expect("a model's input fits the address space");
    let data = match spec.dtype {
        Dtype::F16 | Dtype::F32 | Dtype::F64 => normal(&mut rng, n),
        Dtype::U8 => codes(&mut rng, n, |word| f32::from(word as u8)),
        Dtype::I8 => codes(&mut rng, n, |word| f32::from(word as i8)),
        _ => codes(&mut rng, n, |word| (word & 1) as f32),
    };
    Array {
        shape: spec.shape.clone(),
        data,
    }
}

fn codes(rng: &mut ChaCha8Rng, n: usize, code: impl Fn(u32) -> f32) -> Vec<f32> {
    (0..n).map(|_| code(rng.next_u32())).collect()
}

fn normal(rng: &mut ChaCha8Rng, n: usize) -> Vec<f32> {
    let mut uniform = || (f64::from(rng.next_u32()) + 0.5) / 4_294_967_296.0;
    let pairs = (0..n.div_ceil(2)).flat_map(|_| {
        let radius = libm::sqrt(-2.0 * libm::log(uniform()));
        let angle = std::f64::consts::TAU * uniform();
        [radius * libm::cos(angle), radius * libm::sin(angle)]
    });
    pairs.take(n).map(|value| value as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(dtype: Dtype) -> InputSpec {
        InputSpec {
            name: "x".into(),
            shape: vec![1, 101, 100],
            dtype,
        }
    }

    #[test]
    fn floats_are_standard_normal() {
        let data = sample(&spec(Dtype::F32), 1, 0, 0).data;
        let n = data.len() as f32;
        let mean = data.iter().sum::<f32>() / n;
        let variance = data.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / n;
        assert_eq!(data.len(), 10_100);
        assert!(
            mean.abs() < 0.05 && (variance - 1.0).abs() < 0.05,
            "{mean} {variance}"
        );
    }

    #[test]
    fn a_sample_depends_on_seed_index_and_input_alone() {
        let spec = spec(Dtype::U8);
        let first = sample(&spec, 7, 3, 0);
        assert_eq!(first, sample(&spec, 7, 3, 0));
        for other in [
            sample(&spec, 8, 3, 0),
            sample(&spec, 7, 4, 0),
            sample(&spec, 7, 3, 1),
        ] {
            assert_ne!(first, other);
        }
        assert!(first.data.contains(&0.0) && first.data.contains(&255.0));
    }
}
