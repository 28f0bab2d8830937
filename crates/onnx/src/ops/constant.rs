//! Constants and what is known from shapes.

use lowbit_ir::{DType, Tensor, ValueId};

use super::Import;
use crate::node::{Node, Result};
use crate::tensor;

pub(crate) const OPERATORS: &[(&str, Import)] = &[
    ("Constant", constant),
    ("ConstantOfShape", |n| {
        let dims = n
            .constant(0, "shape")?
            .to_i64()
            .ok_or("its shape is no list of integers")?;
        let shape = tensor::extents(&dims)?;
        let value = n
            .tensor("value")?
            .unwrap_or_else(|| Tensor::new([1], vec![0.0f32]));
        if value.len() != 1 {
            return Err("attribute 'value' must hold one element".into());
        }
        let value = n.give(value.reshaped([]));
        Ok(vec![n.broadcast(value, shape)?])
    }),
    ("Shape", |n| {
        let x = n.input(0)?;
        let shape = n.shape(x);
        let rank = shape.len() as i64;
        let clamp = |a: i64| (if a < 0 { a + rank } else { a }).clamp(0, rank) as usize;
        let (start, end) = (clamp(n.int("start", 0)), clamp(n.int("end", rank)));
        let dims: Vec<i64> = shape
            .get(start..end)
            .unwrap_or(&[])
            .iter()
            .map(|&d| d as i64)
            .collect();
        Ok(vec![n.give(Tensor::new([dims.len()], dims))])
    }),
    ("Size", |n| {
        let x = n.input(0)?;
        let count = n.ty(x).elements() as i64;
        Ok(vec![n.give(Tensor::scalar(count))])
    }),
    ("Range", range),
];

fn constant(n: &mut Node<'_>) -> Result<Vec<ValueId>> {
    let tensor = if let Some(t) = n.tensor("value")? {
        t
    } else if n.has("value_float") {
        Tensor::scalar(n.float("value_float", 0.0) as f32)
    } else if n.has("value_int") {
        Tensor::scalar(n.int("value_int", 0))
    } else if let Some(list) = n.floats("value_floats") {
        Tensor::new([list.len()], list)
    } else if let Some(list) = n.ints("value_ints") {
        Tensor::new([list.len()], list)
    } else {
        return Err("only constants of numbers are supported".into());
    };
    Ok(vec![n.give(tensor)])
}

fn range(n: &mut Node<'_>) -> Result<Vec<ValueId>> {
    let parts = [
        n.constant(0, "start")?,
        n.constant(1, "limit")?,
        n.constant(2, "delta")?,
    ];
    let dtype: DType = parts[0].dtype();
    let [start, limit, delta] =
        [0, 1, 2].map(|i| parts[i].to_f64().first().copied().unwrap_or(0.0));
    let count = ((limit - start) / delta).ceil().max(0.0);
    if delta == 0.0 || !count.is_finite() || count > f64::from(1 << 24) {
        return Err(format!(
            "a range from {start} to {limit} in steps of {delta} is endless or too long"
        ));
    }
    let values = (0..count as usize).map(|i| start + i as f64 * delta);
    let shape = [count as usize];
    Ok(vec![n.give(if dtype.is_float() {
        Tensor::from_f64(dtype, shape, values.collect())
    } else {
        Tensor::from_i64(dtype, shape, values.map(|x| x as i64).collect())
    })])
}
