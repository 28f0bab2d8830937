//! Every operation alone.

use std::collections::BTreeSet;

use lowbit_ir::ops::*;
use lowbit_ir::{DType, Graph, Op, Tensor};

use crate::check::{Function, close, input, noise};

/// An operation on float operands of some shapes, followed by constants.
fn case(op: impl Into<Op>, shapes: &[&[usize]], constants: &[Tensor]) -> (Op, Function) {
    shifted(op, shapes, constants, 0.0)
}

/// The same with operands moved by an offset.
fn shifted(
    op: impl Into<Op>,
    shapes: &[&[usize]],
    constants: &[Tensor],
    offset: f64,
) -> (Op, Function) {
    let op = op.into();
    let mut graph = Graph::new("case");
    let mut operands: Vec<_> = shapes.iter().map(|s| input(&mut graph, s)).collect();
    for t in constants {
        operands.push(graph.constant("c", t.clone()));
    }
    if op.name() == "select" {
        operands.rotate_right(1);
    }
    let y = graph.push("y", op.clone(), &operands).unwrap();
    let at = shapes.iter().enumerate().map(|(k, s)| {
        let x = noise(s.iter().product(), 3 + k);
        Tensor::new(*s, x.into_iter().map(|x| x + offset).collect::<Vec<f64>>())
    });
    let at = at.collect();
    (op, Function::new(graph, at, y))
}

fn conv(
    [stride, dilation]: [[usize; 2]; 2],
    pad: [[usize; 2]; 2],
    groups: usize,
    shapes: [&[usize]; 2],
) -> (Op, Function) {
    let op = Conv {
        stride,
        dilation,
        pad,
        groups,
    };
    let bias = [shapes[1][0]];
    case(op, &[shapes[0], shapes[1], &bias], &[])
}

fn convolutions() -> Vec<(Op, Function)> {
    vec![
        conv(
            [[1, 1], [1, 1]],
            [[1, 1], [1, 1]],
            1,
            [&[1, 4, 5, 2], &[3, 3, 3, 2]],
        ),
        conv(
            [[2, 2], [1, 1]],
            [[0, 1], [0, 1]],
            1,
            [&[2, 6, 5, 2], &[2, 3, 3, 2]],
        ),
        conv(
            [[2, 1], [1, 2]],
            [[0, 0], [2, 1]],
            2,
            [&[1, 5, 5, 4], &[4, 2, 3, 2]],
        ),
        conv(
            [[1, 2], [1, 1]],
            [[1, 1], [1, 0]],
            4,
            [&[2, 4, 5, 4], &[4, 3, 3, 1]],
        ),
        conv(
            [[3, 3], [1, 1]],
            [[0, 0], [0, 0]],
            1,
            [&[1, 5, 8, 2], &[3, 1, 1, 2]],
        ),
        conv(
            [[1, 1], [1, 1]],
            [[2, 2], [2, 2]],
            1,
            [&[1, 2, 2, 1], &[2, 1, 1, 1]],
        ),
    ]
}

fn pools() -> Vec<(Op, Function)> {
    let pool = |kind, kernel, stride, pad| Pool {
        kind,
        kernel,
        stride,
        dilation: [1, 1],
        pad,
    };
    let padded = PoolKind::PaddedMean { declared: [1, 0] };
    [
        pool(PoolKind::Max, [2, 2], [2, 2], [[0, 0], [0, 0]]),
        pool(PoolKind::Max, [3, 3], [2, 1], [[1, 1], [1, 0]]),
        pool(PoolKind::Mean, [2, 3], [1, 2], [[0, 0], [1, 1]]),
        pool(padded, [3, 3], [2, 2], [[1, 1], [1, 1]]),
        pool(PoolKind::Mean, [5, 6], [1, 1], [[0, 0], [0, 0]]),
    ]
    .into_iter()
    .map(|op| case(op, &[&[2, 5, 6, 2]], &[]))
    .collect()
}

fn elementwise() -> Vec<(Op, Function)> {
    use {BinaryFn as B, UnaryFn as U};
    let everywhere = [
        U::Abs,
        U::Ceil,
        U::Cos,
        U::Erf,
        U::Exp,
        U::Floor,
        U::Neg,
        U::Reciprocal,
        U::Relu,
        U::Round,
        U::Sigmoid,
        U::Sign,
        U::Sin,
        U::Tanh,
    ];
    let both = [B::Add, B::Sub, B::Mul, B::Div, B::Max, B::Min];
    let condition = Tensor::new([2, 1, 3], vec![true, false, true, true, false, false]);
    let mut cases: Vec<_> = everywhere
        .iter()
        .map(|&f| case(Unary(f), &[&[3, 4]], &[]))
        .collect();
    cases.extend([U::Log, U::Sqrt].map(|f| shifted(Unary(f), &[&[3, 4]], &[], 1.5)));
    cases.extend(both.map(|f| case(Binary(f), &[&[2, 1, 3], &[4, 1]], &[])));
    cases.push(case(Binary(B::Sub), &[&[], &[2, 3]], &[]));
    cases.push(shifted(Binary(B::Pow), &[&[2, 3], &[3]], &[], 1.5));
    cases.push(case(Binary(B::Pow), &[&[2, 3]], &[Tensor::scalar(2.0f64)]));
    cases.push(case(Select, &[&[3], &[2, 4, 1]], &[condition]));
    cases.push(case(Cast { to: DType::F64 }, &[&[3]], &[]));
    cases
}

fn reductions() -> Vec<(Op, Function)> {
    let reduce = |f, axes: &[usize], keep| {
        let axes = axes.to_vec();
        case(Reduce { f, axes, keep }, &[&[2, 3, 4]], &[])
    };
    let normalize = |axes: &[usize]| {
        let (axes, epsilon) = (axes.to_vec(), 1e-3.into());
        case(Normalize { axes, epsilon }, &[&[2, 3, 4]], &[])
    };
    vec![
        reduce(ReduceFn::Sum, &[0, 2], false),
        reduce(ReduceFn::Mean, &[1], true),
        reduce(ReduceFn::Max, &[1, 2], false),
        reduce(ReduceFn::Min, &[0], true),
        normalize(&[2]),
        normalize(&[0, 2]),
        case(Softmax { axis: 1 }, &[&[2, 3, 2]], &[]),
        case(Softmax { axis: 2 }, &[&[2, 3, 4]], &[]),
        case(MatMul, &[&[3, 4], &[4, 2]], &[]),
        case(MatMul, &[&[2, 1, 3, 4], &[5, 4, 2]], &[]),
    ]
}

fn views() -> Vec<(Op, Function)> {
    let pad = |low: &[isize], high: &[isize], interior: &[usize], mode| Pad {
        low: low.to_vec(),
        high: high.to_vec(),
        interior: interior.to_vec(),
        mode,
    };
    let slice = |start: &[usize], len: &[usize], step: &[isize]| Slice {
        start: start.to_vec(),
        len: len.to_vec(),
        step: step.to_vec(),
    };
    let filler: &[usize] = &[];
    let indices = [Tensor::new([2, 2], vec![1i64, -1, 0, 1])];
    let mut cases = vec![
        case(Reshape { shape: vec![3, 4] }, &[&[2, 6]], &[]),
        case(
            Transpose {
                perm: vec![2, 0, 1],
            },
            &[&[2, 3, 4]],
            &[],
        ),
        case(
            Broadcast {
                shape: vec![2, 3, 4],
            },
            &[&[3, 1]],
            &[],
        ),
        case(
            Concat { axis: 1 },
            &[&[2, 1, 2], &[2, 3, 2], &[2, 2, 2]],
            &[],
        ),
        case(slice(&[0, 4], &[2, 2], &[1, -3]), &[&[3, 5]], &[]),
        case(slice(&[1, 1], &[1, 2], &[5, 2]), &[&[3, 5]], &[]),
        case(slice(&[0, 0], &[0, 2], &[1, 1]), &[&[3, 5]], &[]),
        case(
            pad(&[1, -1], &[0, 2], &[0, 0], PadMode::Constant),
            &[&[3, 4], filler],
            &[],
        ),
        case(
            pad(&[-1, 2], &[1, -2], &[2, 1], PadMode::Constant),
            &[&[3, 4], filler],
            &[],
        ),
        case(Gather { axis: 1 }, &[&[2, 3, 2]], &indices),
        case(Gather { axis: 0 }, &[&[4]], &indices),
    ];
    for mode in [PadMode::Edge, PadMode::Reflect, PadMode::Wrap] {
        cases.push(case(pad(&[2, 0], &[1, 1], &[0, 0], mode), &[&[3, 4]], &[]));
    }
    cases
}

fn all() -> Vec<(Op, Function)> {
    let groups = [
        convolutions(),
        pools(),
        elementwise(),
        reductions(),
        views(),
    ];
    groups.into_iter().flatten().collect()
}

#[test]
fn every_rule_equals_differences_of_its_operation() {
    for (op, function) in all() {
        function.check(&format!("{op:?}"));
    }
}

#[test]
fn every_operation_has_a_case() {
    let seen: BTreeSet<&str> = all().iter().map(|(op, _)| op.name()).collect();
    let expected: BTreeSet<&str> = Op::DIFFERENTIABLE.iter().copied().collect();
    assert_eq!(seen, expected);
}

/// What a rule does not promise to keep: what a constant border got, and what stands wholly in it.
fn loses(op: &Op) -> bool {
    match op {
        Op::Pad(p) => p.mode == PadMode::Constant,
        Op::Slice(s) => s.len.contains(&0),
        Op::Conv(c) => c.pad == [[2, 2], [2, 2]],
        _ => false,
    }
}

#[test]
fn relevance_is_kept_where_the_rules_promise_it() {
    for (op, mut function) in all() {
        // a convolution keeps what positive contributions reach
        if matches!(op, Op::Conv(_)) {
            let positive = |t: &Tensor| t.to_f64().into_iter().map(f64::abs).collect::<Vec<f64>>();
            let at = function
                .at
                .iter()
                .map(|t| Tensor::new(t.shape(), positive(t)));
            function.at = at.collect();
        }
        let (put, got) = function.relevance();
        let sum: f64 = got.iter().flatten().sum();
        if !loses(&op) {
            close(put, sum, 1e-6, &format!("{op:?}"));
        }
    }
}

#[test]
fn relevance_of_a_linear_layer_follows_positive_contributions() {
    let mut graph = Graph::new("g");
    let x = input(&mut graph, &[1, 1, 1, 3]);
    let w = graph.constant("w", Tensor::new([1, 1, 1, 3], vec![2.0, -1.0, 3.0]));
    let op = Conv {
        stride: [1, 1],
        dilation: [1, 1],
        pad: [[0, 0], [0, 0]],
        groups: 1,
    };
    let y = graph.push("y", op, &[x, w]).unwrap();
    let at = vec![Tensor::new([1, 1, 1, 3], vec![1.0, -2.0, -1.0])];
    let (put, got) = Function::new(graph, at, y).relevance();
    // contributions 2 and 2; the third is negative
    let expected = [put / 2.0, put / 2.0, 0.0];
    got[0]
        .iter()
        .zip(expected)
        .for_each(|(&a, b)| close(a, b, 1e-8, "share"));
}
