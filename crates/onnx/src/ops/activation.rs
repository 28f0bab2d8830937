//! Activation functions, from the graph's elementwise operations.

use lowbit_ir::ops::{Binary, BinaryFn, Select, Softmax, UnaryFn};
use lowbit_ir::{DType, ValueId};

use super::Import;
use crate::node::{Node, Result};

pub(crate) const OPERATORS: &[(&str, Import)] = &[
    ("Relu", |n| simple(n, |n, x| n.unary(UnaryFn::Relu, x))),
    ("Sigmoid", |n| {
        simple(n, |n, x| n.unary(UnaryFn::Sigmoid, x))
    }),
    ("LeakyRelu", |n| {
        let alpha = n.float("alpha", 0.01);
        simple(n, |n, x| leaky(n, x, alpha))
    }),
    ("PRelu", |n| {
        let (x, slope) = (n.input(0)?, n.input(1)?);
        Ok(vec![sloped(n, x, slope)?])
    }),
    ("Elu", |n| {
        let alpha = n.float("alpha", 1.0);
        simple(n, |n, x| elu(n, x, alpha, 1.0, 1.0))
    }),
    ("Selu", |n| {
        let (alpha, gamma) = (n.float("alpha", 1.673_263_2), n.float("gamma", 1.050_701));
        simple(n, |n, x| elu(n, x, alpha, gamma, 1.0))
    }),
    ("Celu", |n| {
        let alpha = n.float("alpha", 1.0);
        simple(n, |n, x| elu(n, x, alpha, 1.0, 1.0 / alpha))
    }),
    ("HardSigmoid", |n| {
        let (alpha, beta) = (n.float("alpha", 0.2), n.float("beta", 0.5));
        simple(n, |n, x| hard_sigmoid(n, x, alpha, beta))
    }),
    ("HardSwish", |n| {
        simple(n, |n, x| {
            let gate = hard_sigmoid(n, x, 1.0 / 6.0, 0.5)?;
            n.binary(BinaryFn::Mul, x, gate)
        })
    }),
    ("Softplus", |n| simple(n, softplus)),
    ("Softsign", |n| {
        simple(n, |n, x| {
            let size = n.unary(UnaryFn::Abs, x)?;
            let divisor = n.with(BinaryFn::Add, size, 1.0)?;
            n.binary(BinaryFn::Div, x, divisor)
        })
    }),
    ("Mish", |n| {
        simple(n, |n, x| {
            let inner = softplus(n, x)?;
            let gate = n.unary(UnaryFn::Tanh, inner)?;
            n.binary(BinaryFn::Mul, x, gate)
        })
    }),
    ("Gelu", |n| {
        let approximate = n.string("approximate", "none");
        simple(n, |n, x| gelu(n, x, approximate == "tanh"))
    }),
    ("ThresholdedRelu", |n| {
        let alpha = n.float("alpha", 1.0);
        simple(n, |n, x| {
            let limit = n.number(alpha, x);
            let above = n.binary(BinaryFn::Greater, x, limit)?;
            let zero = n.number(0.0, x);
            n.push(Select, &[above, x, zero])
        })
    }),
    ("Clip", clip),
    ("Softmax", |n| softmax(n, false)),
    ("LogSoftmax", |n| softmax(n, true)),
];

fn simple(
    n: &mut Node<'_>,
    f: impl FnOnce(&mut Node<'_>, ValueId) -> Result<ValueId>,
) -> Result<Vec<ValueId>> {
    let x = n.input(0)?;
    Ok(vec![f(n, x)?])
}

/// `max(x, 0) + alpha · min(x, 0)`.
fn leaky(n: &mut Node<'_>, x: ValueId, alpha: f64) -> Result<ValueId> {
    let slope = n.number(alpha, x);
    sloped(n, x, slope)
}

fn sloped(n: &mut Node<'_>, x: ValueId, slope: ValueId) -> Result<ValueId> {
    let positive = n.unary(UnaryFn::Relu, x)?;
    let negative = n.with(BinaryFn::Min, x, 0.0)?;
    let scaled = n.binary(BinaryFn::Mul, negative, slope)?;
    n.binary(BinaryFn::Add, positive, scaled)
}

/// `gamma · (max(x, 0) + alpha · (exp(min(x, 0) · inner) − 1))`.
fn elu(n: &mut Node<'_>, x: ValueId, alpha: f64, gamma: f64, inner: f64) -> Result<ValueId> {
    let positive = n.unary(UnaryFn::Relu, x)?;
    let negative = n.with(BinaryFn::Min, x, 0.0)?;
    let negative = n.with(BinaryFn::Mul, negative, inner)?;
    let power = n.unary(UnaryFn::Exp, negative)?;
    let power = n.with(BinaryFn::Sub, power, 1.0)?;
    let power = n.with(BinaryFn::Mul, power, alpha)?;
    let sum = n.binary(BinaryFn::Add, positive, power)?;
    if gamma == 1.0 {
        Ok(sum)
    } else {
        n.with(BinaryFn::Mul, sum, gamma)
    }
}

fn hard_sigmoid(n: &mut Node<'_>, x: ValueId, alpha: f64, beta: f64) -> Result<ValueId> {
    let v = n.with(BinaryFn::Mul, x, alpha)?;
    let v = n.with(BinaryFn::Add, v, beta)?;
    let v = n.with(BinaryFn::Max, v, 0.0)?;
    n.with(BinaryFn::Min, v, 1.0)
}

/// `max(x, 0) + log(1 + exp(−|x|))`, which does not overflow.
fn softplus(n: &mut Node<'_>, x: ValueId) -> Result<ValueId> {
    let positive = n.unary(UnaryFn::Relu, x)?;
    let v = n.unary(UnaryFn::Abs, x)?;
    let v = n.unary(UnaryFn::Neg, v)?;
    let v = n.unary(UnaryFn::Exp, v)?;
    let v = n.with(BinaryFn::Add, v, 1.0)?;
    let v = n.unary(UnaryFn::Log, v)?;
    n.binary(BinaryFn::Add, positive, v)
}

fn gelu(n: &mut Node<'_>, x: ValueId, by_tanh: bool) -> Result<ValueId> {
    let gate = if by_tanh {
        let square = n.binary(BinaryFn::Mul, x, x)?;
        let cube = n.binary(BinaryFn::Mul, square, x)?;
        let cube = n.with(BinaryFn::Mul, cube, 0.044_715)?;
        let sum = n.binary(BinaryFn::Add, x, cube)?;
        let sum = n.with(BinaryFn::Mul, sum, (2.0 / std::f64::consts::PI).sqrt())?;
        n.unary(UnaryFn::Tanh, sum)?
    } else {
        let scaled = n.with(BinaryFn::Mul, x, std::f64::consts::FRAC_1_SQRT_2)?;
        n.unary(UnaryFn::Erf, scaled)?
    };
    let gate = n.with(BinaryFn::Add, gate, 1.0)?;
    let half = n.with(BinaryFn::Mul, x, 0.5)?;
    n.binary(BinaryFn::Mul, half, gate)
}

/// Bounds are attributes up to opset 10 and operands from 11 on.
fn clip(n: &mut Node<'_>) -> Result<Vec<ValueId>> {
    let mut x = n.input(0)?;
    if n.opset < 11 {
        for (name, f) in [("min", BinaryFn::Max), ("max", BinaryFn::Min)] {
            if n.has(name) {
                let bound = n.float(name, 0.0);
                x = n.with(f, x, bound)?;
            }
        }
        return Ok(vec![x]);
    }
    for (i, f) in [(1, BinaryFn::Max), (2, BinaryFn::Min)] {
        if let Some(bound) = n.optional(i) {
            x = n.push(Binary(f), &[x, bound])?;
        }
    }
    Ok(vec![x])
}

/// Up to opset 12 all axes from `axis` on count as one.
fn softmax(n: &mut Node<'_>, log: bool) -> Result<Vec<ValueId>> {
    let x = n.input(0)?;
    let shape = n.shape(x);
    let default = if n.opset < 13 { 1 } else { -1 };
    let axis = n.axis(n.int("axis", default), shape.len().max(1))?;
    let (view, axis) = if n.opset < 13 {
        let (outer, inner) = (
            shape[..axis].iter().product(),
            shape[axis..].iter().product(),
        );
        (n.reshape(x, vec![outer, inner])?, 1)
    } else {
        (x, axis)
    };
    let result = if log {
        log_softmax(n, view, axis)?
    } else {
        n.push(Softmax { axis }, &[view])?
    };
    Ok(vec![if n.opset < 13 {
        n.reshape(result, shape)?
    } else {
        result
    }])
}

/// `x − max − log Σ exp(x − max)`.
fn log_softmax(n: &mut Node<'_>, x: ValueId, axis: usize) -> Result<ValueId> {
    let max = n.reduce(lowbit_ir::ops::ReduceFn::Max, x, vec![axis], true)?;
    let v = n.binary(BinaryFn::Sub, x, max)?;
    let e = n.unary(UnaryFn::Exp, v)?;
    let sum = n.reduce(lowbit_ir::ops::ReduceFn::Sum, e, vec![axis], true)?;
    let log = n.unary(UnaryFn::Log, sum)?;
    debug_assert_ne!(n.ty(x).dtype, DType::Bool);
    n.binary(BinaryFn::Sub, v, log)
}
