use std::collections::HashMap;

use lowbit_ir::eval::{Plan, run, run_observed};
use lowbit_ir::ops::{Binary, BinaryFn, Conv, Normalize, Pool, PoolKind, Reshape, Unary};
use lowbit_ir::{DType, Real, Type};

use super::*;
use crate::quantize::tests::noise;

fn constant(g: &mut Graph, shape: &[usize], seed: u64) -> ValueId {
    let n = shape.iter().product();
    // channels of very different size
    let c = *shape.last().unwrap_or(&1);
    let x = noise(n, seed).into_iter().enumerate();
    let x = x.map(|(i, x)| x * (1.0 + (i % c) as f32)).collect();
    g.constant("c", Tensor::new(shape, x))
}

fn conv(g: &mut Graph, x: ValueId, [o, k, groups]: [usize; 3], seed: u64) -> ValueId {
    let c = g.shape(x)[3];
    let w = constant(g, &[o, k, k, c / groups], seed);
    let b = constant(g, &[o], seed + 1);
    let op = Conv {
        stride: [1, 1],
        dilation: [1, 1],
        pad: [[k / 2; 2]; 2],
        groups,
    };
    g.push("conv", op, &[x, w, b]).unwrap()
}

fn relu(g: &mut Graph, x: ValueId) -> ValueId {
    g.push("relu", Unary(UnaryFn::Relu), &[x]).unwrap()
}

/// Convolutions, one of them depthwise, a pool, and a normalisation behind them.
fn network() -> Graph {
    let mut g = Graph::new("net");
    let mut v = g.input("x", Type::new(DType::F32, [1, 6, 6, 3]));
    for (i, shape) in [[8, 3, 1], [8, 3, 8], [12, 1, 2]].into_iter().enumerate() {
        v = conv(&mut g, v, shape, 10 * i as u64 + 1);
        v = relu(&mut g, v);
    }
    let pool = Pool {
        kind: PoolKind::Mean,
        kernel: [6, 6],
        stride: [1, 1],
        dilation: [1, 1],
        pad: [[0, 0]; 2],
    };
    v = g.push("pool", pool, &[v]).unwrap();
    v = conv(&mut g, v, [12, 1, 1], 61);
    let norm = Normalize {
        axes: vec![3],
        epsilon: Real::from(1e-5),
    };
    v = g.push("norm", norm, &[v]).unwrap();
    for (f, seed) in [(BinaryFn::Mul, 71), (BinaryFn::Add, 81)] {
        let c = constant(&mut g, &[12], seed);
        v = g.push("affine", Binary(f), &[v, c]).unwrap();
    }
    let shape = vec![1, 1, 1, 12];
    v = g.push("view", Reshape { shape }, &[v]).unwrap();
    v = conv(&mut g, v, [5, 1, 1], 91);
    g.output("y", v);
    g
}

fn observed(graph: &Graph) -> HashMap<ValueId, Vec<f64>> {
    let mut peaks: HashMap<ValueId, Vec<f64>> = HashMap::new();
    for seed in 0..4 {
        let x = Tensor::new([1, 6, 6, 3], noise(108, 500 + seed));
        run_observed(graph, &Plan::new(graph), &[x], |_, v, t| {
            let c = *t.shape().last().unwrap();
            let own = peaks.entry(v).or_insert_with(|| vec![0.0; c]);
            for (i, x) in t.to_f64().into_iter().enumerate() {
                own[i % c] = own[i % c].max(x.abs());
            }
        })
        .unwrap();
    }
    peaks
}

#[test]
fn the_function_stays_and_channels_come_nearer() {
    let graph = network();
    let before = observed(&graph);
    let new = equalize(&graph, &|v| before.get(&v).cloned()).expect("there is something to do");
    for seed in 0..8 {
        let x = Tensor::new([1, 6, 6, 3], noise(108, 900 + seed));
        let results = [&graph, &new].map(|g| run(g, std::slice::from_ref(&x)).unwrap()[0].to_f64());
        let size = results[0].iter().fold(0.0f64, |m, x| m.max(x.abs()));
        for (a, b) in results[0].iter().zip(&results[1]) {
            assert!((a - b).abs() <= 1e-5 * size, "{a} {b}");
        }
    }
    let after = observed(&new);
    let spread = |peaks: &Vec<f64>| {
        let used = || peaks.iter().filter(|p| **p > 0.0);
        used().fold(0.0f64, |m, p| m.max(*p)) / used().fold(f64::MAX, |m, p| m.min(*p))
    };
    let names = graph.nodes().map(|(_, n)| n).filter(|n| {
        let name = graph.value(n.output).name.as_str();
        name == "relu" || name == "view"
    });
    let stored: Vec<ValueId> = names.map(|n| n.output).collect();
    assert_eq!(stored.len(), 4);
    for v in stored {
        assert!(spread(&after[&v]) < 0.8 * spread(&before[&v]), "{v}");
    }
}

#[test]
fn what_a_sum_reads_too_stays() {
    let mut g = Graph::new("net");
    let x = g.input("x", Type::new(DType::F32, [1, 6, 6, 3]));
    let a = conv(&mut g, x, [8, 3, 1], 1);
    let b = conv(&mut g, a, [8, 3, 1], 11);
    let y = g.push("sum", Binary(BinaryFn::Add), &[a, b]).unwrap();
    g.output("y", y);
    let peaks = observed(&g);
    assert!(equalize(&g, &|v| peaks.get(&v).cloned()).is_none());
}
