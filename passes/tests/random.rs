//! Random networks keep their function through all passes of the float stage.

use lowbit_ir::eval::run;
use lowbit_ir::ops::{
    Binary, BinaryFn, Concat, Conv, MatMul, Normalize, Op, Pad, PadMode, Pool, PoolKind, Reduce,
    ReduceFn, Reshape, Slice, Softmax, Transpose, Unary, UnaryFn,
};
use lowbit_ir::{DType, Graph, Tensor, Type, ValueId};
use lowbit_passes::{Control, run_passes, simplify};
use proptest::prelude::*;

struct Net {
    graph: Graph,
    /// Values so far; operations read the last, or any of them.
    values: Vec<ValueId>,
}

impl Net {
    fn new() -> Self {
        let mut graph = Graph::new("g");
        let x = graph.input("x", Type::new(DType::F32, [1, 4, 6, 4]));
        let values = vec![x];
        Self { graph, values }
    }

    fn constant(&mut self, shape: &[usize], seed: usize) -> ValueId {
        let wave = |i: usize| ((i * 29 + seed * 13) % 83) as f32 / 60.0 - 0.6;
        let elements = (0..shape.iter().product()).map(wave).collect();
        self.graph.constant("c", Tensor::new(shape, elements))
    }

    /// Adds an operation where it fits its operands.
    fn push(&mut self, op: impl Into<Op>, operands: &[ValueId]) {
        if let Ok(v) = self.graph.push("v", op, operands)
            && (1..2000).contains(&self.graph.ty(v).elements())
            && !self.graph.shape(v).is_empty()
        {
            self.values.push(v);
        }
    }

    fn step(&mut self, kind: u8, at: usize, seed: usize) {
        let x = self.values[self.values.len() - 1 - at % self.values.len().min(3)];
        let shape = self.graph.shape(x).to_vec();
        let axis = seed % shape.len().max(1);
        match kind % 14 {
            0 => self.transpose(x, seed),
            1 => self.conv(x, seed),
            2 => self.linear(x, seed),
            3 => self.reshape(x, seed),
            4 => self.with_constant(x, seed),
            5 => {
                let other = self.values[seed % self.values.len()];
                self.push(Binary(BinaryFn::Add), &[x, other]);
            }
            6 => self.push(Unary(UnaryFn::Tanh), &[x]),
            7 => self.push(Concat { axis }, &[x, x]),
            8 => self.slice(x, seed),
            9 => self.pad(x, seed),
            10 => self.reduce(x, seed),
            11 => self.push(Softmax { axis }, &[x]),
            12 => {
                let axes = vec![axis];
                let epsilon = 0.1.into();
                self.push(Normalize { axes, epsilon }, &[x]);
            }
            _ => self.pool(x),
        }
    }

    fn transpose(&mut self, x: ValueId, seed: usize) {
        let mut perm: Vec<usize> = (0..self.graph.shape(x).len()).collect();
        for i in (1..perm.len()).rev() {
            perm.swap(i, seed / (i + 3) % (i + 1));
        }
        self.push(Transpose { perm }, &[x]);
    }

    fn conv(&mut self, x: ValueId, seed: usize) {
        let &[_, _, _, c] = self.graph.shape(x) else {
            return;
        };
        let groups = if seed.is_multiple_of(3) { c } else { 1 };
        let w = self.constant(&[c, 1 + seed % 3, 1 + seed % 2, c / groups], seed);
        let op = Conv {
            stride: [1 + seed % 2, 1],
            dilation: [1, 1],
            pad: [[seed % 2, seed % 3], [0, seed % 2]],
            groups,
        };
        self.push(op, &[x, w]);
    }

    fn linear(&mut self, x: ValueId, seed: usize) {
        let shape = self.graph.shape(x).to_vec();
        let n = 2 + seed % 5;
        match shape[..] {
            [.., _, k] if !seed.is_multiple_of(3) => {
                let w = self.constant(&[k, n], seed);
                self.push(MatMul, &[x, w]);
            }
            [.., k, _] => {
                let w = self.constant(&[n, k], seed);
                self.push(MatMul, &[w, x]);
            }
            _ => {}
        }
    }

    fn reshape(&mut self, x: ValueId, seed: usize) {
        let mut shape = self.graph.shape(x).to_vec();
        let axis = seed % (shape.len() + 1);
        match seed / 7 % 4 {
            0 => shape = vec![1, shape.iter().product()],
            1 => shape.insert(axis, 1),
            2 if axis + 1 < shape.len() => {
                shape[axis] *= shape[axis + 1];
                shape.remove(axis + 1);
            }
            _ if axis < shape.len() && shape[axis].is_multiple_of(2) => {
                shape[axis] /= 2;
                shape.insert(axis, 2);
            }
            _ => {}
        }
        if shape.len() < 6 {
            self.push(Reshape { shape }, &[x]);
        }
    }

    fn with_constant(&mut self, x: ValueId, seed: usize) {
        let mut shape = self.graph.shape(x).to_vec();
        // the whole shape, or one axis of it
        if !seed.is_multiple_of(4) {
            let axis = shape.len() - 1 - seed / 5 % shape.len();
            (0..shape.len()).for_each(|i| shape[i] = if i == axis { shape[i] } else { 1 });
            shape.drain(..seed % (axis + 1));
        }
        let c = self.constant(&shape, seed);
        let f = [
            BinaryFn::Add,
            BinaryFn::Mul,
            BinaryFn::Sub,
            BinaryFn::Max,
            BinaryFn::Min,
        ][seed % 5];
        let operands = if seed.is_multiple_of(7) {
            [c, x]
        } else {
            [x, c]
        };
        self.push(Binary(f), &operands);
    }

    fn slice(&mut self, x: ValueId, seed: usize) {
        let shape = self.graph.shape(x).to_vec();
        let axis = seed % shape.len();
        let mut op = Slice {
            start: vec![0; shape.len()],
            len: shape.clone(),
            step: vec![1; shape.len()],
        };
        op.len[axis] = shape[axis].div_ceil(2);
        if seed.is_multiple_of(2) {
            op.step[axis] = -1;
            op.start[axis] = shape[axis] - 1;
        }
        self.push(op, &[x]);
    }

    fn pad(&mut self, x: ValueId, seed: usize) {
        let rank = self.graph.shape(x).len();
        let pads = |k: usize| {
            (0..rank)
                .map(|a| ((seed >> (a + k)) % 2) as isize)
                .collect()
        };
        let op = Pad {
            low: pads(0),
            high: pads(2),
            interior: vec![0; rank],
            mode: PadMode::Constant,
        };
        let value = Tensor::scalar(if seed.is_multiple_of(3) { 0.5f32 } else { 0.0 });
        let value = self.graph.constant("value", value);
        self.push(op, &[x, value]);
    }

    fn reduce(&mut self, x: ValueId, seed: usize) {
        let rank = self.graph.shape(x).len();
        let axes: Vec<usize> = (0..rank).filter(|a| seed >> a & 1 == 1).collect();
        let op = Reduce {
            f: [ReduceFn::Mean, ReduceFn::Max, ReduceFn::Sum][seed % 3],
            axes,
            keep: seed % 5 > 2,
        };
        self.push(op, &[x]);
    }

    fn pool(&mut self, x: ValueId) {
        let op = Pool {
            kind: PoolKind::Max,
            kernel: [2, 2],
            stride: [1, 2],
            dilation: [1, 1],
            pad: [[0, 0]; 2],
        };
        self.push(op, &[x]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn random_networks_keep_their_function(
        steps in prop::collection::vec((any::<u8>(), 0usize..3, 0usize..10_000), 1..14)
    ) {
        let mut net = Net::new();
        for (kind, at, seed) in steps {
            net.step(kind, at, seed);
        }
        let Net { mut graph, values } = net;
        for &v in values.iter().rev().take(2) {
            graph.output("y", v);
        }
        let x = (0..96).map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0).collect();
        let input = [Tensor::new([1, 4, 6, 4], x)];
        let before = run(&graph, &input).unwrap();
        let new = run_passes(graph, simplify::PIPELINE, Control::default());
        let after = run(&new, &input).unwrap();
        for (a, b) in before.iter().zip(&after) {
            prop_assert_eq!(a.shape(), b.shape());
            let largest = a.to_f64().iter().fold(1.0, |m: f64, x| m.max(x.abs()));
            for (x, y) in a.to_f64().into_iter().zip(b.to_f64()) {
                prop_assert!((x - y).abs() <= 1e-4 * largest, "{} became {}", x, y);
            }
        }
    }
}
