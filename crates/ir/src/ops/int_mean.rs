use lowbit_num::{Dyadic, requantize};
use serde::{Deserialize, Serialize};

use super::int_rescale::Codes;
use super::{OpError, Operation, Pool, arity};
use crate::{DType, Stage, Tensor, Type};

/// Mean over windows of an 8-bit channels-last tensor: the sum of `x − zero_point` over the taps inside the tensor, and
/// one rounding for each divisor.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct IntMean {
    /// The windows and what is counted; never a maximum.
    pub pool: Pool,
    /// Zero-point of x.
    pub zero_point_in: u8,
    /// For each number of counted taps that occurs, ascending: `s_x / (s_y · taps)` as numerator and shift of a
    /// [`Dyadic`].
    pub scales: Vec<(u32, i32, u8)>,
    /// The code of zero in the result.
    pub zero_point: i32,
    /// The codes of the result.
    pub out: Codes,
}

impl IntMean {
    /// The scale for a number of counted taps.
    pub fn scale(&self, taps: u32) -> Option<Dyadic> {
        let at = self.scales.binary_search_by_key(&taps, |s| s.0).ok()?;
        Dyadic::new(self.scales[at].1, self.scales[at].2).ok()
    }
}

impl Operation for IntMean {
    const NAME: &'static str = "int_mean";
    const STAGES: &'static [Stage] = &[Stage::Integer];

    fn infer(&self, inputs: &[&Type]) -> Result<Type, OpError> {
        arity(inputs, 1..=1, "1")?;
        self.out.check()?;
        if inputs[0].dtype != DType::U8 {
            return Err(OpError::DType {
                operand: 0,
                expected: "u8",
                found: inputs[0].dtype,
            });
        }
        let shape = self.pool.result_shape(&inputs[0].shape)?;
        for y in 0..shape[1] {
            for x in 0..shape[2] {
                let taps = self
                    .pool
                    .counted([inputs[0].shape[1], inputs[0].shape[2]], [y, x]);
                if self.scale(taps).is_none() {
                    return Err(OpError::Value(format!(
                        "no scale for a window of {taps} taps"
                    )));
                }
            }
        }
        Ok(Type::new(self.out.dtype, shape))
    }

    fn eval(&self, inputs: &[&Tensor]) -> Result<Tensor, OpError> {
        let ty = self.infer(&[&inputs[0].ty()])?;
        let (codes, size) = (
            inputs[0].as_slice::<u8>(),
            [inputs[0].shape()[1], inputs[0].shape()[2]],
        );
        let channels = ty.shape[3];
        let mut result = Vec::with_capacity(ty.elements());
        let mut sums = vec![0i32; channels];
        for pixel in 0..ty.elements() / channels.max(1) {
            let (n, y, x) = (
                pixel / (ty.shape[1] * ty.shape[2]),
                pixel / ty.shape[2] % ty.shape[1],
                pixel % ty.shape[2],
            );
            sums.fill(0);
            for [row, column] in self.pool.taps_inside(size, [y, x]) {
                let source =
                    &codes[((n * size[0] + row) * size[1] + column) * channels..][..channels];
                for (sum, &code) in sums.iter_mut().zip(source) {
                    *sum += i32::from(code) - i32::from(self.zero_point_in);
                }
            }
            let scale = self
                .scale(self.pool.counted(size, [y, x]))
                .expect("infer has checked it");
            let Codes { lo, hi, .. } = self.out;
            result.extend(
                sums.iter()
                    .map(|&s| requantize(s.into(), scale, self.zero_point, lo, hi)),
            );
        }
        Ok(self.out.tensor(&ty.shape, result))
    }
}
