use serde::{Deserialize, Serialize};

use super::{OpError, Operation, arity};
use crate::{DType, Stage, Tensor, Type};

/// A unary function of an 8-bit tensor: `y = table[x]`. Operands: x `u8`, table `u8` or `i16` `[256]`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct IntLookup;

impl Operation for IntLookup {
    const NAME: &'static str = "int_lookup";
    const STAGES: &'static [Stage] = &[Stage::Integer];

    fn infer(&self, inputs: &[&Type]) -> Result<Type, OpError> {
        arity(inputs, 2..=2, "2")?;
        if inputs[0].dtype != DType::U8 {
            return Err(OpError::DType {
                operand: 0,
                expected: "u8",
                found: inputs[0].dtype,
            });
        }
        if !matches!(inputs[1].dtype, DType::U8 | DType::I16) {
            return Err(OpError::DType {
                operand: 1,
                expected: "u8 or i16",
                found: inputs[1].dtype,
            });
        }
        if inputs[1].shape != [256] {
            return Err(OpError::shape(format!(
                "the table is {}, expected 256 entries",
                inputs[1]
            )));
        }
        Ok(Type::new(inputs[1].dtype, inputs[0].shape.clone()))
    }

    fn eval(&self, inputs: &[&Tensor]) -> Result<Tensor, OpError> {
        let (x, shape) = (inputs[0].as_slice::<u8>(), inputs[0].shape());
        Ok(if inputs[1].dtype() == DType::U8 {
            let table = inputs[1].as_slice::<u8>();
            Tensor::new(shape, x.iter().map(|&i| table[usize::from(i)]).collect())
        } else {
            let table = inputs[1].as_slice::<i16>();
            Tensor::new(shape, x.iter().map(|&i| table[usize::from(i)]).collect())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_up() {
        let table = Tensor::new([256], (0..256).map(|i| (255 - i) as u8).collect());
        let x = Tensor::new([2], vec![0u8, 200]);
        assert_eq!(
            IntLookup.eval(&[&x, &table]).unwrap().as_slice::<u8>(),
            [255, 55]
        );
    }
}
