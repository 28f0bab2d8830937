use serde::{Deserialize, Serialize};

use super::scalar::pick;
use super::{BinaryFn, Cast, OpError, Operation, Select, arity, checked, infer_of};
use crate::derive::{Adjoint, Derivatives, Differentiable, Emit};
use crate::{DType, Stage, Tensor, Type, ValueId};

/// Picks slices along an axis. Operands: x, indices (`i32` or `i64`; a negative one counts from the end). The axis is
/// replaced by the shape of the indices.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Gather {
    /// The axis.
    pub axis: usize,
}

impl Operation for Gather {
    const NAME: &'static str = "gather";
    const STAGES: &'static [Stage] = &[Stage::Float, Stage::Integer];

    fn infer(&self, inputs: &[&Type]) -> Result<Type, OpError> {
        arity(inputs, 2..=2, "2")?;
        if !matches!(inputs[1].dtype, DType::I32 | DType::I64) {
            return Err(OpError::DType {
                operand: 1,
                expected: "i32 or i64",
                found: inputs[1].dtype,
            });
        }
        if self.axis >= inputs[0].rank() {
            return Err(OpError::shape(format!(
                "{} has no axis {}",
                inputs[0], self.axis
            )));
        }
        let mut shape = inputs[0].shape.clone();
        shape.splice(self.axis..=self.axis, inputs[1].shape.iter().copied());
        checked(inputs[0].dtype, shape)
    }

    fn eval(&self, inputs: &[&Tensor]) -> Result<Tensor, OpError> {
        let shape = infer_of(self, inputs)?.shape;
        let own = inputs[0].shape();
        let (extent, inner) = (
            own[self.axis],
            own[self.axis + 1..].iter().product::<usize>(),
        );
        let outer: usize = own[..self.axis].iter().product();
        let indices = inputs[1].to_i64().expect("infer has checked the type");
        let indices: Result<Vec<usize>, OpError> =
            indices.iter().map(|&i| index(i, extent)).collect();
        let indices = indices?;
        let positions = (0..outer).flat_map(|o| {
            indices
                .iter()
                .flat_map(move |i| (0..inner).map(move |k| (o * extent + i) * inner + k))
        });
        Ok(pick(inputs[0], &shape, positions))
    }
}

fn index(i: i64, extent: usize) -> Result<usize, OpError> {
    let at = if i < 0 { i + extent as i64 } else { i };
    usize::try_from(at)
        .ok()
        .filter(|&a| a < extent)
        .ok_or_else(|| OpError::Value(format!("index {i} is out of bounds for {extent} elements")))
}

impl Differentiable for Gather {
    fn gradient(&self, at: &mut Adjoint<'_>) -> Derivatives {
        let (x, indices, g) = (at.inputs[0], at.inputs[1], at.seed);
        let e = &mut at.emit;
        let shape = e.shape(x);
        let picked = e.graph.ty(indices).elements();
        let chosen = one_hot(e, x, indices, shape[self.axis])?;
        let mut flat = shape.clone();
        flat[self.axis] = picked;
        let g = e.reshape(g, &flat)?;
        Ok(vec![Some(e.along(chosen, g, self.axis)?), None])
    }

    fn relevance(&self, at: &mut Adjoint<'_>) -> Derivatives {
        self.gradient(at)
    }
}

/// `[extent, indices]`: 1 where a row's number is the column's index, of the float type of `like`.
fn one_hot(
    e: &mut Emit<'_>,
    like: ValueId,
    indices: ValueId,
    extent: usize,
) -> Result<ValueId, OpError> {
    let (dtype, n) = (e.dtype(indices), e.graph.ty(indices).elements());
    let mut integers =
        |shape: &[usize], v| e.graph.constant("index", Tensor::from_i64(dtype, shape, v));
    let rows = integers(&[extent, 1], (0..extent as i64).collect());
    let zero = integers(&[], vec![0]);
    let whole = integers(&[], vec![extent as i64]);
    let flat = e.reshape(indices, &[1, n])?;
    let negative = e.binary(BinaryFn::Greater, zero, flat)?;
    let wrapped = e.add(flat, whole)?;
    let index = e.push(Select, &[negative, wrapped, flat])?;
    let found = e.binary(BinaryFn::Equal, rows, index)?;
    let to = e.dtype(like);
    e.push(Cast { to }, &[found])
}
