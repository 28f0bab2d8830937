use std::hint::select_unpredictable;

use serde::{Deserialize, Serialize};

use super::scalar::{Positions, broadcast_strides, extend, long_rows, vectorized};
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
        let [by_c, by_a, by_b] = [0, 1, 2].map(|i| strides[i].clone());
        let (extents, strides) = long_rows(&shape, [by_c, by_a, by_b]);
        let (n, outer) = extents.split_last().map_or((1, &[][..]), |(&n, o)| (n, o));
        let [long_c, long_a, long_b] =
            [0, 1, 2].map(|i| strides[i].last().is_some_and(|&s| s != 0));
        let [starts_c, starts_a, starts_b] =
            [0, 1, 2].map(|i| Positions::new(outer, &strides[i], 0));
        let condition = inputs[0].as_slice::<bool>();
        Ok(with_data!(inputs[1].data(), a => {
            let b = same(a, inputs[2]);
            let mut elements = Vec::with_capacity(shape.iter().product());
            for (c, (i, j)) in starts_c.zip(starts_a.zip(starts_b)).take_while(|_| n > 0) {
                if long_c {
                    let sides = [(&a[i..], long_a), (&b[j..], long_b)];
                    choose(&mut elements, &condition[c..][..n], sides);
                } else if condition[c] {
                    extend(&mut elements, &a[i..], n, long_a);
                } else {
                    extend(&mut elements, &b[j..], n, long_b);
                }
            }
            Tensor::new(shape.clone(), elements)
        }))
    }
}

/// Appends the elements of the first side where the condition holds, else those of the second; a side that is not long
/// gives its first one always.
fn choose<T: Element>(result: &mut Vec<T>, condition: &[bool], sides: [(&[T], bool); 2]) {
    let [(a, long_a), (b, long_b)] = sides;
    let (c, first_a, first_b) = (condition.iter(), a[0], b[0]);
    vectorized(
        #[inline(always)]
        || match (long_a, long_b) {
            (true, true) => result.extend(
                c.zip(a.iter().zip(b))
                    .map(|(&c, (&a, &b))| select_unpredictable(c, a, b)),
            ),
            (true, false) => {
                result.extend(c.zip(a).map(|(&c, &a)| select_unpredictable(c, a, first_b)))
            }
            (false, true) => {
                result.extend(c.zip(b).map(|(&c, &b)| select_unpredictable(c, first_a, b)))
            }
            (false, false) => result.extend(c.map(|&c| select_unpredictable(c, first_a, first_b))),
        },
    );
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operands_broadcast() {
        let shapes: [[&[usize]; 3]; 5] = [
            [&[2, 3, 4], &[2, 3, 4], &[]],
            [&[2, 3, 4], &[4], &[2, 1, 4]],
            [&[3, 1], &[2, 3, 4], &[1]],
            [&[], &[2, 3, 4], &[3, 4]],
            [&[2, 1, 1], &[3, 1], &[4]],
        ];
        for operands in shapes {
            let of = |shape: &[usize], first: f32| {
                let n: usize = shape.iter().product();
                let x: Vec<f32> = (0..n).map(|i| first + i as f32).collect();
                Tensor::new(shape, x)
            };
            let n: usize = operands[0].iter().product();
            let condition: Vec<bool> = (0..n).map(|i| i % 3 != 1).collect();
            let condition = Tensor::new(operands[0], condition);
            let (a, b) = (of(operands[1], 100.0), of(operands[2], 500.0));
            let found = Select.eval(&[&condition, &a, &b]).unwrap();
            assert_eq!(found.shape(), [2, 3, 4]);
            let at = |shape: &[usize], i: usize| {
                let strides = broadcast_strides(shape, &[2, 3, 4]);
                let index = [i / 12, i / 4 % 3, i % 4];
                let terms = index.iter().zip(strides);
                terms.map(|(&i, s)| i * s as usize).sum::<usize>()
            };
            for (i, &x) in found.as_slice::<f32>().iter().enumerate() {
                let picked = condition.as_slice::<bool>()[at(operands[0], i)];
                let source = if picked { &a } else { &b };
                let shape = operands[if picked { 1 } else { 2 }];
                assert_eq!(
                    x,
                    source.as_slice::<f32>()[at(shape, i)],
                    "{operands:?} {i}"
                );
            }
        }
    }
}
