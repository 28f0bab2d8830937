use std::collections::HashMap;

use lowbit_ir::eval::run;
use lowbit_ir::ops::{Binary, BinaryFn, Conv, Pool, PoolKind, Reshape, Unary, UnaryFn};
use lowbit_ir::{DType, Type, ValueId};
use lowbit_num::{Format, real};

use super::*;
use crate::quantize::{Formats, Ranges, quantize, tests::noise};

const DIVERGENCE: Loss = Loss::Divergence { temperature: 1.0 };

struct Seen(HashMap<ValueId, (f64, f64)>);

impl Ranges for Seen {
    fn range(&self, v: ValueId, _bits: u32) -> (f64, f64) {
        self.0[&v]
    }
    fn extremes(&self, v: ValueId) -> (f64, f64) {
        self.0[&v]
    }
}

fn classifier() -> Graph {
    let mut g = Graph::new("net");
    let x = g.input("x", Type::new(DType::F32, [1, 6, 6, 3]));
    let mut v = x;
    for (i, [o, k, stride]) in [[8, 3, 1], [12, 3, 2], [10, 1, 1]].into_iter().enumerate() {
        let c = g.shape(v)[3];
        let n = o * k * k * c;
        let w = noise(n, 40 + i as u64)
            .iter()
            .map(|x| x * 3.0 / ((k * k * c) as f32).sqrt())
            .collect();
        let w = g.constant("w", Tensor::new([o, k, k, c], w));
        let b = g.constant("b", Tensor::new([o], noise(o, 60 + i as u64)));
        let op = Conv {
            stride: [stride; 2],
            dilation: [1, 1],
            pad: [[k / 2, k / 2]; 2],
            groups: 1,
        };
        v = g.push(format!("conv{i}"), op, &[v, w, b]).unwrap();
        if i < 2 {
            v = g.push("relu", Unary(UnaryFn::Relu), &[v]).unwrap();
        }
    }
    let pool = Pool {
        kind: PoolKind::Mean,
        kernel: [3, 3],
        stride: [1, 1],
        dilation: [1, 1],
        pad: [[0, 0]; 2],
    };
    let v = g.push("pool", pool, &[v]).unwrap();
    let y = g.push("y", Reshape { shape: vec![1, 10] }, &[v]).unwrap();
    g.output("y", y);
    g
}

fn inputs(n: u64, seed: u64) -> Vec<Vec<Tensor>> {
    (0..n)
        .map(|i| vec![Tensor::new([1, 6, 6, 3], noise(108, seed + i))])
        .collect()
}

fn ranges(graph: &Graph, samples: &[Vec<Tensor>]) -> Seen {
    let mut seen: HashMap<ValueId, (f64, f64)> = HashMap::new();
    for sample in samples {
        let mut see = |v: ValueId, t: &Tensor| {
            let e = seen.entry(v).or_default();
            *e = t
                .to_f64()
                .iter()
                .fold(*e, |(l, h), &x| (l.min(x), h.max(x)));
        };
        see(graph.inputs()[0], &sample[0]);
        let plan = eval::Plan::new(graph);
        eval::run_observed(graph, &plan, sample, |_, v, t| see(v, t)).unwrap();
    }
    Seen(seen)
}

fn train(estimator: Estimator, activation: Format) -> (Graph, Quantized, Tuned) {
    let how = Finetune {
        block_steps: 0,
        steps: 150,
        estimator,
        loss: DIVERGENCE,
        seed: 7,
    };
    train_with(&how, activation)
}

fn train_with(how: &Finetune, activation: Format) -> (Graph, Quantized, Tuned) {
    let graph = classifier();
    let samples = inputs(48, 500);
    let formats = Formats::uniform(Format::Int3, activation);
    let q = quantize(&graph, &ranges(&graph, &samples), &formats).unwrap();
    let tuned = finetune(
        &graph,
        &q,
        &samples[8..],
        &samples[..8],
        how,
        &mut |_, _| {},
    )
    .unwrap();
    (graph, q, tuned.expect("training lowers the loss"))
}

#[test]
fn the_student_comes_nearer_on_samples_it_has_not_seen() {
    for &estimator in Estimator::ALL {
        let (graph, q, tuned) = train(estimator, Format::Int8);
        assert!(
            tuned.after < 0.7 * tuned.before,
            "{}: {} {}",
            estimator.name(),
            tuned.before,
            tuned.after
        );
        let fresh = inputs(32, 9000);
        let formats = Formats::uniform(Format::Int3, Format::Int8);
        let again = quantize(&tuned.graph, &ranges(&tuned.graph, &fresh), &formats).unwrap();
        let error = |g: &Quantized| distance(&graph, g, &fresh);
        assert!(
            error(&again) < 0.8 * error(&q),
            "{}: {} {}",
            estimator.name(),
            error(&again),
            error(&q)
        );
    }
}

/// Divergence of the outputs from the float network's.
fn distance(float: &Graph, q: &Quantized, samples: &[Vec<Tensor>]) -> f64 {
    let out = q.graph.outputs()[0].value;
    let x = q.graph.quant_of(q.graph.inputs()[0]).unwrap();
    let y = q.graph.quant_of(out).unwrap();
    let one = |sample: &Vec<Tensor>| -> f64 {
        let code = |v: f64| real::quantize(v, real::value(x.scale()), x.zero_point, 0, 255) as u8;
        let codes = sample[0].to_f64().into_iter().map(code).collect();
        let found = run(&q.graph, &[Tensor::new(sample[0].shape(), codes)]).unwrap();
        let real = |f: f64| real::value(y.scale()) * (f - f64::from(y.zero_point));
        let found: Vec<f64> = found[0].to_f64().into_iter().map(real).collect();
        let expected = run(float, sample).unwrap();
        DIVERGENCE.between(&target(&expected[0], DIVERGENCE), &found)
    };
    samples.iter().map(one).sum()
}

#[test]
fn blocks_alone_come_nearer_too() {
    let how = Finetune {
        block_steps: 100,
        steps: 0,
        estimator: Estimator::Straight,
        loss: DIVERGENCE,
        seed: 7,
    };
    for activation in [Format::Int8, Format::Int4] {
        let (_, _, tuned) = train_with(&how, activation);
        let gain = tuned.before / tuned.after;
        assert!(gain > 1.2, "{activation}: {gain}");
    }
}

#[test]
fn a_block_ends_where_all_that_follows_reads_one_tensor() {
    let mut g = Graph::new("net");
    let x = g.input("x", Type::new(DType::F32, [1, 6, 6, 3]));
    let conv = |g: &mut Graph, v: ValueId, seed: u64| {
        let c = g.shape(v)[3];
        let w = g.constant("w", Tensor::new([8, 1, 1, c], noise(8 * c, seed)));
        let op = Conv {
            stride: [1; 2],
            dilation: [1; 2],
            pad: [[0; 2]; 2],
            groups: 1,
        };
        let v = g.push(format!("conv{seed}"), op, &[v, w]).unwrap();
        g.push("relu", Unary(UnaryFn::Relu), &[v]).unwrap()
    };
    let shortcut = conv(&mut g, x, 1);
    let branch = conv(&mut g, shortcut, 2);
    let branch = conv(&mut g, branch, 3);
    let sum = g
        .push("sum", Binary(BinaryFn::Add), &[branch, shortcut])
        .unwrap();
    let last = conv(&mut g, sum, 4);
    g.output("y", last);
    let samples = inputs(2, 3);
    let formats = Formats::uniform(Format::Int4, Format::Int8);
    let q = quantize(&g, &ranges(&g, &samples), &formats).unwrap();
    let layers: Vec<&Layer> = q.layers.iter().collect();
    let found = blocks::blocks(&g, &q, &layers);
    let ends: Vec<(Vec<ValueId>, ValueId)> = found.into_iter().map(|b| (b.from, b.to)).collect();
    assert_eq!(ends, [(vec![x], sum), (vec![sum], last)]);
}

#[test]
fn quantising_a_tuned_network_keeps_its_weights() {
    let (_, _, tuned) = train(Estimator::Straight, Format::Int4);
    let samples = inputs(4, 1);
    let formats = Formats::uniform(Format::Int3, Format::Int8);
    let q = quantize(&tuned.graph, &ranges(&tuned.graph, &samples), &formats).unwrap();
    for layer in &q.layers {
        let source = &tuned.graph.producer(layer.float).unwrap().inputs;
        let weights = tuned.graph.as_const(source[1]).unwrap().to_f64();
        let node = q.graph.producer(layer.int).unwrap();
        let codes = q.graph.as_const(node.inputs[1]).unwrap();
        let k = weights.len() / layer.weight_scale.len();
        for (i, (w, &c)) in weights.iter().zip(codes.as_slice::<i8>()).enumerate() {
            let back = layer.weight_scale[i / k] * f64::from(c);
            assert!((w - back).abs() < 1e-5, "{}: {w} {back}", layer.name);
        }
    }
}

#[test]
fn training_does_not_depend_on_threads() {
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| train(Estimator::Straight, Format::Int8).2.after)
    };
    assert_eq!(on(1).to_bits(), on(3).to_bits());
}
