use std::collections::HashMap;

use lowbit_ir::eval::{Plan, run, run_observed};
use lowbit_ir::ops::{
    Binary, BinaryFn, Concat, Conv, MatMul, Normalize, Pool, PoolKind, Reshape, Softmax, Transpose,
    Unary, UnaryFn,
};
use lowbit_ir::{DType, Data, Graph, Op, Stage, Tensor, Type, ValueId};
use lowbit_num::{Format, real};

use super::{
    Fit, Formats, LayerFormats, Quantized, Ranges, Rounding, Solver, quantize, quantize_fitted,
};
use crate::lower::{check_memory, lower};

/// Repeatable numbers between −1 and 1 with a bell shape.
pub(crate) fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 24) as f32
    };
    (0..n)
        .map(|_| (uniform() + uniform() + uniform()) * 2.0 / 3.0 - 1.0)
        .collect()
}

struct Net {
    graph: Graph,
    seed: u64,
    layers: usize,
}

impl Net {
    fn new(shape: &[usize]) -> (Self, ValueId) {
        let mut graph = Graph::new("net");
        let x = graph.input("x", Type::new(DType::F32, shape));
        let net = Self {
            graph,
            seed: 1,
            layers: 0,
        };
        (net, x)
    }

    fn constant(&mut self, shape: &[usize], scale: f32) -> ValueId {
        self.seed += 1;
        let v = noise(shape.iter().product(), self.seed)
            .iter()
            .map(|x| x * scale)
            .collect();
        self.graph.constant("c", Tensor::new(shape, v))
    }

    fn conv(&mut self, x: ValueId, o: usize, k: usize, stride: usize, groups: usize) -> ValueId {
        let c = self.graph.shape(x)[3];
        let w = self.constant(
            &[o, k, k, c / groups],
            2.0 / ((k * k * c / groups) as f32).sqrt(),
        );
        let b = self.constant(&[o], 0.3);
        let pad = [[k / 2, k / 2]; 2];
        let op = Conv {
            stride: [stride; 2],
            dilation: [1, 1],
            pad,
            groups,
        };
        self.layers += 1;
        let name = format!("conv{}", self.layers - 1);
        self.graph.push(name, op, &[x, w, b]).unwrap()
    }

    fn push(&mut self, op: impl Into<Op>, operands: &[ValueId]) -> ValueId {
        self.graph.push("v", op, operands).unwrap()
    }

    fn relu(&mut self, x: ValueId) -> ValueId {
        self.push(Unary(UnaryFn::Relu), &[x])
    }
}

struct Seen(HashMap<ValueId, (f64, f64)>);

impl Ranges for Seen {
    fn range(&self, v: ValueId, _: u32) -> (f64, f64) {
        self.0[&v]
    }
    fn extremes(&self, v: ValueId) -> (f64, f64) {
        self.0[&v]
    }
}

struct Calibrated {
    ranges: Seen,
    means: HashMap<ValueId, Vec<f64>>,
    samples: Vec<Tensor>,
}

fn calibrate(graph: &Graph, n: u64) -> Calibrated {
    let shape = graph.shape(graph.inputs()[0]).to_vec();
    let samples: Vec<Tensor> = (0..n)
        .map(|i| Tensor::new(shape.clone(), noise(shape.iter().product(), 1000 + i)))
        .collect();
    let mut ranges = HashMap::new();
    let mut means: HashMap<ValueId, Vec<f64>> = HashMap::new();
    for sample in &samples {
        let mut see = |v: ValueId, t: &Tensor| {
            let x = t.to_f64();
            let entry: &mut (f64, f64) = ranges.entry(v).or_default();
            *entry = x.iter().fold(*entry, |(lo, hi), &x| (lo.min(x), hi.max(x)));
            let c = *t.shape().last().unwrap_or(&1);
            let mean = means.entry(v).or_insert_with(|| vec![0.0; c]);
            for (i, x) in x.iter().enumerate() {
                mean[i % c] += x * c as f64 / (t.len() as f64 * n as f64);
            }
        };
        see(graph.inputs()[0], sample);
        run_observed(
            graph,
            &Plan::new(graph),
            std::slice::from_ref(sample),
            |_, v, t| see(v, t),
        )
        .unwrap();
    }
    Calibrated {
        ranges: Seen(ranges),
        means,
        samples,
    }
}

fn codes(q: &Quantized, x: &Tensor) -> Tensor {
    let quant = q.graph.quant_of(q.graph.inputs()[0]).unwrap();
    let scale = real::value(quant.scale());
    let code = |&x: &f32| real::quantize(x.into(), scale, quant.zero_point, 0, 255) as u8;
    Tensor::new(x.shape(), x.as_slice::<f32>().iter().map(code).collect())
}

/// Signal to noise of the first output, in decibels, over all samples.
fn sqnr(float: &Graph, q: &Quantized, samples: &[Tensor]) -> f64 {
    let (mut signal, mut noise) = (0.0, 0.0);
    let quant = q
        .graph
        .quant_of(q.graph.outputs()[0].value)
        .unwrap()
        .clone();
    for x in samples {
        let expected = run(float, std::slice::from_ref(x)).unwrap()[0].to_f64();
        let found = run(&q.graph, &[codes(q, x)]).unwrap()[0].to_f64();
        for (e, f) in expected.iter().zip(found) {
            let f = real::value(quant.scale()) * (f - f64::from(quant.zero_point));
            signal += e * e;
            noise += (e - f) * (e - f);
        }
    }
    10.0 * libm::log10(signal / noise)
}

fn fitted(graph: &Graph, calibrated: &Calibrated, formats: &Formats) -> Quantized {
    let samples: Vec<Vec<Tensor>> = calibrated.samples.iter().map(|x| vec![x.clone()]).collect();
    let fit = Fit {
        samples: &samples,
        mean: &|v| calibrated.means[&v].clone(),
        solver: Solver::Feedback,
        low_bits: 6,
        correct: true,
    };
    quantize_fitted(graph, &calibrated.ranges, formats, &fit, &mut |_, _| {}).unwrap()
}

fn check(net: Net, least: f64) -> Quantized {
    let graph = net.graph;
    graph.verify(Stage::Float).unwrap();
    let calibrated = calibrate(&graph, 8);
    let q = fitted(&graph, &calibrated, &Formats::default());
    q.graph.verify(Stage::Integer).unwrap();
    let codes = vec![codes(&q, &calibrated.samples[0])];
    lowers(&q, &codes);
    let found = sqnr(&graph, &q, &calibrated.samples);
    assert!(found > least, "{found:.1} dB, expected {least}");
    q
}

/// The program of every level gives the codes of the graph.
fn lowers(q: &Quantized, inputs: &[Tensor]) {
    let expected = run(&q.graph, inputs).unwrap();
    for (triple, cpu) in [
        ("x86_64-unknown-linux-gnu", "x86-64"),
        ("x86_64-unknown-linux-gnu", "x86-64-v3"),
        ("x86_64-unknown-linux-gnu", "cascadelake"),
        ("aarch64-unknown-linux-gnu", "cortex-a76"),
    ] {
        let target = lowbit_targets::resolve(Some(triple), Some(cpu)).unwrap();
        let lowered = lower(&q.graph, &target, "net", 1).unwrap();
        lowered.program.verify().unwrap();
        check_memory(&q.graph, &lowered).unwrap();
        let bytes: Vec<&[u8]> = inputs.iter().map(|t| t.as_slice::<u8>()).collect();
        let found = lowered.program.run(&bytes).unwrap();
        for (e, f) in expected.iter().zip(&found) {
            let e: Vec<u8> = match e.data() {
                Data::U8(v) => v.clone(),
                Data::I16(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
                other => panic!("{}", other.dtype()),
            };
            assert_eq!(&e, f, "{cpu}");
        }
    }
}

#[test]
fn residual_network_with_pooling() {
    let (mut net, x) = Net::new(&[1, 12, 10, 3]);
    let a = net.conv(x, 16, 3, 1, 1);
    let a = net.relu(a);
    let b = net.conv(a, 16, 3, 1, 1);
    let b = net.relu(b);
    let b = net.conv(b, 16, 3, 1, 1);
    let sum = net.push(Binary(BinaryFn::Add), &[b, a]);
    let sum = net.relu(sum);
    let c = net.conv(sum, 24, 3, 2, 1);
    let d = net.conv(sum, 24, 1, 2, 1);
    let sum = net.push(Binary(BinaryFn::Add), &[c, d]);
    let sum = net.relu(sum);
    let kernel = [net.graph.shape(sum)[1], net.graph.shape(sum)[2]];
    let pool = Pool {
        kind: PoolKind::Mean,
        kernel,
        stride: [1, 1],
        dilation: [1, 1],
        pad: [[0, 0]; 2],
    };
    let p = net.push(pool, &[sum]);
    let logits = net.conv(p, 10, 1, 1, 1);
    let y = net.push(Reshape { shape: vec![1, 10] }, &[logits]);
    net.graph.output("y", y);
    let q = check(net, 30.0);
    let residuals = q.graph.nodes().filter(|(_, n)| matches!(&n.op, Op::IntConv(c) if matches!(c.epilogue, lowbit_ir::ops::Epilogue::Residual { .. })));
    assert_eq!(residuals.count(), 2, "both sums belong to convolutions");
    assert_eq!(q.graph.ty(q.graph.outputs()[0].value).dtype, DType::I16);
}

/// Blocks that each add two convolutions to what they read, then logits.
fn residual_blocks(blocks: usize) -> Net {
    let (mut net, x) = Net::new(&[1, 8, 6, 3]);
    let mut stream = net.conv(x, 12, 3, 1, 1);
    stream = net.relu(stream);
    for block in 0..blocks {
        let a = net.conv(stream, 12, 3, 1, 1);
        let a = net.relu(a);
        let mut b = net.conv(a, 12, 3, 1, 1);
        if block == 0 {
            // a sum that is no convolution's: the tensor between is needed elsewhere
            let c = net.conv(b, 12, 1, 1, 1);
            b = net.push(Binary(BinaryFn::Add), &[b, c]);
        }
        stream = net.push(Binary(BinaryFn::Add), &[b, stream]);
        stream = net.relu(stream);
    }
    let y = net.conv(stream, 10, 1, 1, 1);
    net.graph.output("y", y);
    net
}

#[test]
fn residual_streams_of_16_bits() {
    let graph = residual_blocks(6).graph;
    let calibrated = calibrate(&graph, 8);
    let at = |activation, wide_streams| {
        let formats = Formats {
            wide_streams,
            ..Formats::uniform(Format::Int8, activation)
        };
        let q = fitted(&graph, &calibrated, &formats);
        q.graph.verify(Stage::Integer).unwrap();
        lowers(&q, &[codes(&q, &calibrated.samples[0])]);
        q
    };
    for activation in [Format::Int8, Format::Int4] {
        let [narrow, wide] = [false, true].map(|wide| at(activation, wide));
        assert_eq!((narrow.stream_bits, wide.stream_bits), (Some(8), Some(16)));
        let streams = |q: &Quantized| {
            let sums = q.graph.nodes().filter(|(_, n)| match &n.op {
                Op::IntConv(c) => matches!(c.epilogue, lowbit_ir::ops::Epilogue::Residual { .. }),
                Op::IntSum(s) => s.m.len() == 2,
                _ => false,
            });
            sums.map(|(_, n)| q.graph.ty(n.output).dtype)
                .collect::<Vec<_>>()
        };
        assert!(streams(&narrow).iter().all(|&t| t == DType::U8));
        // the last sum is read by a layer alone
        let found = streams(&wide);
        assert_eq!(found.len(), 7);
        assert_eq!(found.iter().filter(|&&t| t == DType::I16).count(), 6);
        let all = &calibrated.samples;
        let [narrow, wide] = [narrow, wide].map(|q| sqnr(&graph, &q, all));
        // what layers read with 4 bits errs more than any stream
        let least = if activation == Format::Int8 {
            1.0
        } else {
            -1.0
        };
        assert!(
            wide > narrow + least,
            "{activation}: {wide:.1} dB, {narrow:.1} with 8 bits"
        );
    }
    let (plain, x) = Net::new(&[1, 4, 4, 3]);
    let mut plain = plain;
    let y = plain.conv(x, 4, 1, 1, 1);
    plain.graph.output("y", y);
    let calibrated = calibrate(&plain.graph, 2);
    let q = fitted(&plain.graph, &calibrated, &Formats::default());
    assert_eq!(q.stream_bits, None);
}

#[test]
fn branches_tables_and_depthwise() {
    let (mut net, x) = Net::new(&[1, 8, 8, 4]);
    let a = net.conv(x, 8, 1, 1, 1);
    let a = net.relu(a);
    let b = net.conv(a, 8, 3, 1, 8);
    let s = net.push(Unary(UnaryFn::Sigmoid), &[b]);
    let b = net.push(Binary(BinaryFn::Mul), &[b, s]);
    let c = net.conv(a, 12, 3, 1, 1);
    let six = net.graph.constant("six", Tensor::scalar(0.8f32));
    let c = net.push(Binary(BinaryFn::Min), &[c, six]);
    let joined = net.push(Concat { axis: 3 }, &[b, c]);
    let pool = Pool {
        kind: PoolKind::Max,
        kernel: [2, 2],
        stride: [2, 2],
        dilation: [1, 1],
        pad: [[0, 0]; 2],
    };
    let p = net.push(pool, &[joined]);
    let t = net.push(Unary(UnaryFn::Tanh), &[p]);
    let gate = net.constant(&[20], 1.0);
    let g = net.push(Binary(BinaryFn::Mul), &[t, gate]);
    let y = net.conv(g, 6, 1, 1, 2);
    net.graph.output("y", y);
    check(net, 25.0);
}

#[test]
fn attention() {
    let (mut net, x) = Net::new(&[1, 6, 16]);
    let normal = net.push(
        Normalize {
            axes: vec![2],
            epsilon: 1e-5.into(),
        },
        &[x],
    );
    let gamma = net
        .graph
        .constant("gamma", Tensor::new([16], vec![1.3f32; 16]));
    let scaled = net.push(Binary(BinaryFn::Mul), &[normal, gamma]);
    let beta = net.constant(&[16], 0.2);
    let normal = net.push(Binary(BinaryFn::Add), &[scaled, beta]);
    let view = net.push(
        Reshape {
            shape: vec![1, 1, 6, 16],
        },
        &[normal],
    );
    let [q, k, v] = [0, 1, 2].map(|_| net.conv(view, 16, 1, 1, 1));
    let turned = net.push(
        Transpose {
            perm: vec![0, 1, 3, 2],
        },
        &[k],
    );
    let scores = net.push(MatMul, &[q, turned]);
    let scale = net.graph.constant("scale", Tensor::scalar(0.25f32));
    let scores = net.push(Binary(BinaryFn::Mul), &[scores, scale]);
    let weights = net.push(Softmax { axis: 3 }, &[scores]);
    let mixed = net.push(MatMul, &[weights, v]);
    let out = net.conv(mixed, 16, 1, 1, 1);
    let out = net.push(
        Reshape {
            shape: vec![1, 6, 16],
        },
        &[out],
    );
    let y = net.push(Binary(BinaryFn::Add), &[out, x]);
    net.graph.output("y", y);
    check(net, 28.0);
}

#[test]
fn bias_correction_restores_the_mean() {
    let (mut net, x) = Net::new(&[1, 9, 9, 4]);
    let a = net.conv(x, 8, 3, 1, 1);
    let a = net.relu(a);
    let y = net.conv(a, 8, 3, 1, 8);
    let last = net.graph.constant("m", Tensor::scalar(-9.0f32));
    let y = net.push(Binary(BinaryFn::Max), &[y, last]);
    net.graph.output("y", y);
    let calibrated = calibrate(&net.graph, 16);
    let plain = quantize(&net.graph, &calibrated.ranges, &Formats::default()).unwrap();
    let corrected = fitted(&net.graph, &calibrated, &Formats::default());
    let codes: Vec<Vec<Tensor>> = calibrated
        .samples
        .iter()
        .map(|x| vec![codes(&plain, x)])
        .collect();
    let shift = |q: &Quantized| {
        let quant = q.graph.quant_of(q.graph.outputs()[0].value).unwrap();
        let mut mean = [0.0; 8];
        for x in &codes {
            let y = run(&q.graph, x).unwrap()[0].to_f64();
            y.iter()
                .enumerate()
                .for_each(|(i, y)| mean[i % 8] += y - f64::from(quant.zero_point));
        }
        let count = (codes.len() * 81) as f64;
        let expected = &calibrated.means[&net.graph.outputs()[0].value];
        let off = |(m, e): (&f64, &f64)| (m / count * real::value(quant.scale()) - e).abs();
        mean.iter().zip(expected).map(off).fold(0.0, f64::max)
    };
    assert!(
        shift(&corrected) < 0.5 * shift(&plain),
        "{} {}",
        shift(&corrected),
        shift(&plain)
    );
}

/// Every kind of layer: with few channels, depthwise, grouped, with a residual, behind a concatenation, linear.
fn all_kinds() -> Graph {
    let (mut net, x) = Net::new(&[1, 9, 8, 3]);
    let a = net.conv(x, 12, 3, 1, 1);
    let a = net.relu(a);
    let b = net.conv(a, 12, 3, 1, 12);
    let b = net.relu(b);
    let b = net.conv(b, 12, 1, 1, 1);
    let sum = net.push(Binary(BinaryFn::Add), &[b, a]);
    let sum = net.relu(sum);
    let c = net.conv(sum, 10, 3, 2, 2);
    let d = net.conv(sum, 6, 1, 2, 1);
    let joined = net.push(Concat { axis: 3 }, &[c, d]);
    let pool = Pool {
        kind: PoolKind::Max,
        kernel: [2, 2],
        stride: [1, 1],
        dilation: [1, 1],
        pad: [[0, 0]; 2],
    };
    let p = net.push(pool, &[joined]);
    let e = net.conv(p, 20, 3, 1, 1);
    let e = net.relu(e);
    let n = net.graph.shape(e).iter().product();
    let shape = vec![1, 1, 1, n];
    let flat = net.push(Reshape { shape }, &[e]);
    let y = net.conv(flat, 7, 1, 1, 1);
    net.graph.output("y", y);
    net.graph
}

#[test]
fn every_format_lowers_to_its_definition() {
    let graph = all_kinds();
    let calibrated = calibrate(&graph, 4);
    for activation in [Format::Int8, Format::Int4] {
        let mut before = f64::INFINITY;
        for &weight in Format::ALL {
            let formats = Formats::uniform(weight, activation);
            let q = quantize(&graph, &calibrated.ranges, &formats).unwrap();
            q.graph.verify(Stage::Integer).unwrap();
            for layer in &q.layers {
                assert_eq!(layer.weights.bits(), weight.bits());
                assert_eq!(layer.activation_bits, activation.bits(), "{}", layer.name);
            }
            lowers(&q, &[codes(&q, &calibrated.samples[0])]);
            let found = sqnr(&graph, &q, &calibrated.samples);
            // each bit less costs about 6 dB; ternary lies between 1 and 2 bits
            assert!(
                found < before + 4.0,
                "{weight}: {found:.1} dB after {before:.1}"
            );
            assert!(
                found > f64::from(weight.bits().min(activation.bits())) * 4.0 - 6.0,
                "{weight} {activation}: {found:.1} dB"
            );
            before = found;
        }
    }
}

#[test]
fn only_layers_that_want_four_bits_read_them() {
    let graph = all_kinds();
    let calibrated = calibrate(&graph, 2);
    let mut formats = Formats::uniform(Format::Int4, Format::Int8);
    let narrow = LayerFormats {
        weight: Format::Int4,
        activation: Format::Int4,
    };
    // one shares its operand with a sum, the other does not
    for layer in ["conv1", "conv6"] {
        formats.layers.insert(layer.into(), narrow);
    }
    let q = quantize(&graph, &calibrated.ranges, &formats).unwrap();
    for layer in &q.layers {
        let expected = if formats.layers.contains_key(&layer.name) {
            4
        } else {
            8
        };
        assert_eq!(layer.activation_bits, expected, "{}", layer.name);
    }
    let wide = quantize(&graph, &calibrated.ranges, &Formats::default()).unwrap();
    let nodes = |q: &Quantized| q.graph.nodes().len();
    assert_eq!(nodes(&q), nodes(&wide) + 1, "one copy of the shared tensor");
    lowers(&q, &[codes(&q, &calibrated.samples[0])]);
}

#[test]
fn error_feedback_beats_the_nearest_codes() {
    let (mut net, x) = Net::new(&[1, 9, 9, 6]);
    // channels that follow one another, as those of real images do
    let mix = net.conv(x, 12, 3, 1, 1);
    let a = net.relu(mix);
    let b = net.conv(a, 12, 3, 1, 1);
    let b = net.relu(b);
    let c = net.conv(b, 12, 3, 1, 12);
    let y = net.conv(c, 8, 1, 1, 2);
    net.graph.output("y", y);
    let calibrated = calibrate(&net.graph, 24);
    for format in [Format::Int4, Format::Int3, Format::Ternary] {
        let formats = Formats::uniform(format, Format::Int8);
        let nearest = quantize(&net.graph, &calibrated.ranges, &formats).unwrap();
        let fed = fitted(&net.graph, &calibrated, &formats);
        fed.graph.verify(Stage::Integer).unwrap();
        let samples: Vec<Tensor> = (0..16)
            .map(|i| Tensor::new([1, 9, 9, 6], noise(9 * 9 * 6, 9000 + i)))
            .collect();
        let (before, after) = (
            sqnr(&net.graph, &nearest, &samples),
            sqnr(&net.graph, &fed, &samples),
        );
        assert!(
            after > before + 2.0,
            "{format}: {before:.1} dB became {after:.1} dB"
        );
        assert!(fed.layers.iter().any(|l| l.rounding != Rounding::Nearest));
    }
}

#[test]
fn every_node_without_an_integer_form_is_named() {
    let (mut net, x) = Net::new(&[1, 4, 4, 4]);
    let a = net.conv(x, 4, 1, 1, 1);
    let b = net.conv(x, 4, 1, 1, 1);
    let quotient = net.push(Binary(BinaryFn::Div), &[a, b]);
    let power = net.push(Binary(BinaryFn::Pow), &[a, b]);
    let sum = net.push(Binary(BinaryFn::Add), &[quotient, power]);
    net.graph.output("y", sum);
    let calibrated = calibrate(&net.graph, 1);
    let problems = quantize(&net.graph, &calibrated.ranges, &Formats::default()).unwrap_err();
    assert_eq!(problems.len(), 2, "{problems:?}");
}
