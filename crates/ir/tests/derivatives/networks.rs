//! Whole networks, and the ways to ask.

use lowbit_ir::derive::{Emit, Rules, gradient, gradient_with, hessian_vector};
use lowbit_ir::eval::run;
use lowbit_ir::ops::{Cast, Conv, Pool, PoolKind, Softmax, Unary, UnaryFn};
use lowbit_ir::{DType, Graph, Op, Stage, Tensor, Type, ValueId};

use crate::check::{Function, close, input, noise};

/// A residual block, a pool and a classifier, all weights inputs.
fn network() -> Function {
    let mut graph = Graph::new("network");
    let shapes: [&[usize]; 6] = [
        &[1, 6, 6, 2],
        &[4, 3, 3, 2],
        &[4],
        &[4, 3, 3, 4],
        &[4],
        &[4, 3],
    ];
    let v: Vec<ValueId> = shapes.iter().map(|s| input(&mut graph, s)).collect();
    let conv = Conv {
        stride: [1, 1],
        dilation: [1, 1],
        pad: [[1, 1], [1, 1]],
        groups: 1,
    };
    let pool = Pool {
        kind: PoolKind::Mean,
        kernel: [6, 6],
        stride: [1, 1],
        dilation: [1, 1],
        pad: [[0, 0], [0, 0]],
    };
    let first = graph
        .push("first", conv.clone(), &[v[0], v[1], v[2]])
        .unwrap();
    let relu = graph.push("relu", Unary(UnaryFn::Relu), &[first]).unwrap();
    let second = graph.push("second", conv, &[relu, v[3], v[4]]).unwrap();
    let mut e = Emit::new(&mut graph, "rest");
    let sum = e.add(relu, second).unwrap();
    let smooth = e.unary(UnaryFn::Tanh, sum).unwrap();
    let mean = e.push(pool, &[smooth]).unwrap();
    let flat = e.reshape(mean, &[1, 4]).unwrap();
    let logits = e.matmul(flat, v[5]).unwrap();
    let y = e.push(Softmax { axis: 1 }, &[logits]).unwrap();
    let at = shapes
        .iter()
        .enumerate()
        .map(|(k, s)| Tensor::new(*s, noise(s.iter().product(), k)))
        .collect();
    Function::new(graph, at, y)
}

#[test]
fn a_network_equals_differences() {
    network().check("network");
}

/// Multiply-accumulates of all convolutions.
fn work(graph: &Graph) -> usize {
    let nodes = graph.without_dead();
    let own = nodes.nodes().filter(|(_, n)| matches!(n.op, Op::Conv(_)));
    own.map(|(_, n)| {
        nodes.ty(n.output).elements() * nodes.shape(n.inputs[1])[1..].iter().product::<usize>()
    })
    .sum()
}

#[test]
fn second_derivatives_of_convolutions_cost_a_few_times_the_network() {
    for groups in [1, 8] {
        let mut graph = Graph::new("g");
        let mut v = input(&mut graph, &[1, 24, 24, 8]);
        let mut by = Vec::new();
        for _ in 0..3 {
            by.push(input(&mut graph, &[8, 3, 3, 8 / groups]));
            let op = Conv {
                stride: [1, 1],
                dilation: [1, 1],
                pad: [[1, 1], [1, 1]],
                groups,
            };
            let y = graph.push("conv", op, &[v, *by.last().unwrap()]).unwrap();
            v = graph.push("tanh", Unary(UnaryFn::Tanh), &[y]).unwrap();
        }
        let forward = 3 * 24 * 24 * 8 * 9 * 8 / groups;
        let directions: Vec<ValueId> = by
            .iter()
            .map(|_| input(&mut graph, &[8, 3, 3, 8 / groups]))
            .collect();
        let products = hessian_vector(&mut graph, v, &by, &directions).unwrap();
        products.iter().for_each(|&p| graph.output("hv", p));
        // a gradient costs three times the network; its product with a vector costs that, and its derivative twice that
        assert!(
            work(&graph) <= 9 * forward,
            "{groups}: {} of {forward}",
            work(&graph)
        );
    }
}

#[test]
fn derivatives_by_results_and_constants_are_there() {
    let mut graph = Graph::new("g");
    let x = input(&mut graph, &[3]);
    let c = graph.constant("c", Tensor::new([3], vec![2.0, 3.0, 4.0]));
    let mut e = Emit::new(&mut graph, "y");
    let inner = e.mul(x, c).unwrap();
    let y = e.mul(inner, inner).unwrap();
    let d = gradient(&mut graph, y, &[inner, c, x]).unwrap();
    d.iter().for_each(|&v| graph.output("d", v));
    graph.verify(Stage::Float).unwrap();
    let found = run(&graph, &[Tensor::new([3], vec![1.0, 10.0, 100.0])]).unwrap();
    assert_eq!(found[0].to_f64(), [4.0, 60.0, 800.0]);
    assert_eq!(found[1].to_f64(), [4.0, 600.0, 80_000.0]);
    assert_eq!(found[2].to_f64(), [8.0, 180.0, 3200.0]);
}

#[test]
fn what_the_loss_does_not_read_has_derivative_zero() {
    let mut graph = Graph::new("g");
    let (x, other) = (input(&mut graph, &[2]), input(&mut graph, &[2, 2]));
    let y = graph.push("y", Unary(UnaryFn::Sin), &[x]).unwrap();
    let d = gradient(&mut graph, y, &[other]).unwrap();
    graph.output("d", d[0]);
    let zeros = [
        Tensor::new([2], vec![0.0; 2]),
        Tensor::new([2, 2], vec![0.0; 4]),
    ];
    assert_eq!(run(&graph, &zeros).unwrap()[0].to_f64(), [0.0; 4]);
}

#[test]
fn rounding_is_passed_straight_through_where_that_is_asked_for() {
    let slope = |straight_through| {
        let mut graph = Graph::new("g");
        let x = input(&mut graph, &[1]);
        let y = graph.push("y", Unary(UnaryFn::Round), &[x]).unwrap();
        let d = gradient_with(&mut graph, y, &[x], Rules { straight_through }).unwrap();
        graph.output("d", d[0]);
        run(&graph, &[Tensor::new([1], vec![0.3])]).unwrap()[0].to_f64()[0]
    };
    assert_eq!((slope(false), slope(true)), (0.0, 1.0));
}

#[test]
fn codes_are_constant_between_jumps() {
    let mut graph = Graph::new("g");
    let x = input(&mut graph, &[1]);
    let codes = graph.push("codes", Cast { to: DType::I32 }, &[x]).unwrap();
    let y = graph.push("y", Cast { to: DType::F64 }, &[codes]).unwrap();
    let d = gradient(&mut graph, y, &[x]).unwrap();
    graph.output("d", d[0]);
    let found = run(&graph, &[Tensor::new([1], vec![3.3])]).unwrap();
    assert_eq!(found[0].to_f64(), [0.0]);
}

#[test]
fn single_precision_graphs_have_single_precision_derivatives() {
    let mut graph = Graph::new("g");
    let x = graph.input("x", Type::new(DType::F32, [2]));
    let y = graph.push("y", Unary(UnaryFn::Exp), &[x]).unwrap();
    let d = gradient(&mut graph, y, &[x]).unwrap();
    graph.output("d", d[0]);
    let found = run(&graph, &[Tensor::new([2], vec![0.0f32, 1.0])]).unwrap();
    close(found[0].to_f64()[1], std::f64::consts::E, 1e-6, "exp");
}
