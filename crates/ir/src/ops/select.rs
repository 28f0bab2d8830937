use serde::{Deserialize, Serialize};

use super::scalar::{Positions, broadcast_strides};
use super::{OpError, Operation, arity, checked, infer_of};
use crate::derive::{Adjoint, Derivatives, Differentiable};
use crate::{DType, Element, Stage, Tensor, Type, broadcast_shapes, with_data};

/// Elementwise choice: operands condition (`bool`), then, else, all broadcast to one shape.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Select;

impl Operation for Select {
    const NAME: &'static str = "select";
    const STAGES: &'static [Stage] = &[Stage::Float];

    fn infer(&self, inputs: &[&Type]) -> Result<Type, OpError> {
        arity(inputs, 3..=3, "3")?;
        if inputs[0].dtype != DType::Bool {
            return Err(OpError::DType {
                operand: 0,
                expected: "bool",
                found: inputs[0].dtype,
            });
        }
        if inputs[1].dtype != inputs[2].dtype {
            return Err(OpError::shape(format!(
                "choices of one element type, found {} and {}",
                inputs[1], inputs[2]
            )));
        }
        let joined = broadcast_shapes(&inputs[0].shape, &inputs[1].shape);
        let shape = joined
            .and_then(|s| broadcast_shapes(&s, &inputs[2].shape))
            .ok_or_else(|| {
                OpError::shape(format!(
                    "{}, {} and {} do not broadcast",
                    inputs[0], inputs[1], inputs[2]
                ))
            })?;
        checked(inputs[1].dtype, shape)
    }

    fn eval(&self, inputs: &[&Tensor]) -> Result<Tensor, OpError> {
        let shape = infer_of(self, inputs)?.shape;
        let strides: Vec<_> = inputs
            .iter()
            .map(|t| broadcast_strides(t.shape(), &shape))
            .collect();
        let positions = |i: usize| Positions::new(&shape, &strides[i], 0);
        let condition = inputs[0].as_slice::<bool>();
        Ok(with_data!(inputs[1].data(), a => {
            let b = same(a, inputs[2]);
            let picked = positions(0).zip(positions(1).zip(positions(2)));
            let elements = picked.map(|(c, (i, j))| if condition[c] { a[i] } else { b[j] }).collect();
            Tensor::new(shape.clone(), elements)
        }))
    }
}

/// The elements of `b`, of the type that `x` has.
fn same<'a, T: Element>(_: &[T], b: &'a Tensor) -> &'a [T] {
    b.as_slice()
}

impl Differentiable for Select {
    fn gradient(&self, at: &mut Adjoint<'_>) -> Derivatives {
        let (condition, g) = (at.inputs[0], at.seed);
        Ok(vec![
            None,
            at.broadcast_to(1, |at| at.emit.keep_where(condition, g))?,
            at.broadcast_to(2, |at| at.emit.keep_unless(condition, g))?,
        ])
    }

    fn relevance(&self, at: &mut Adjoint<'_>) -> Derivatives {
        self.gradient(at)
    }
}
