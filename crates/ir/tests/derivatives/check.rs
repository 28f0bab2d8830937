//! What is checked for every case.

use lowbit_ir::derive::{Emit, gradient, hessian_vector, relevance};
use lowbit_ir::eval::run;
use lowbit_ir::{DType, Graph, Tensor, Type, ValueId};

/// Numbers in −1…1, none of them near 0, no two of them near each other, that do not repeat.
pub(crate) fn noise(n: usize, seed: usize) -> Vec<f64> {
    let place = |i: usize| ((i * 7919 + seed * 104_729) % 1009) as f64 / 1009.0;
    (0..n).map(|i| place(i).mul_add(2.0, -0.9991)).collect()
}

/// A function under test: a graph whose float inputs are differentiated by, and where it is looked at.
pub(crate) struct Function {
    pub(crate) graph: Graph,
    pub(crate) at: Vec<Tensor>,
    pub(crate) by: Vec<ValueId>,
    pub(crate) loss: ValueId,
    pub(crate) result: ValueId,
}

impl Function {
    /// `Σ r (y + y²/2)` of a result: curved, and different for every element.
    pub(crate) fn new(mut graph: Graph, at: Vec<Tensor>, y: ValueId) -> Self {
        let n = graph.ty(y).elements();
        let shape = graph.shape(y).to_vec();
        let mut e = Emit::new(&mut graph, "loss");
        let r = e.constant(y, &shape, noise(n, 5));
        let square = e.mul(y, y).unwrap();
        let half = e.scale(square, 0.5).unwrap();
        let curve = e.add(y, half).unwrap();
        let weighted = e.mul(curve, r).unwrap();
        let loss = e.total(weighted).unwrap();
        let by = graph.inputs().to_vec();
        Self {
            graph,
            at,
            by,
            loss,
            result: y,
        }
    }

    fn with_outputs(&self, graph: &Graph, outputs: &[ValueId]) -> Graph {
        let mut graph = graph.clone();
        for &v in outputs {
            graph.output("d", v);
        }
        graph
    }

    fn loss_at(&self, at: &[Tensor]) -> f64 {
        let graph = self.with_outputs(&self.graph, &[self.loss]);
        run(&graph, at).unwrap()[0].to_f64()[0]
    }

    fn gradient_at(&self, at: &[Tensor]) -> Vec<Vec<f64>> {
        let mut graph = self.graph.clone();
        let d = gradient(&mut graph, self.loss, &self.by).unwrap();
        for (&d, &v) in d.iter().zip(&self.by) {
            assert_eq!(
                graph.ty(d),
                graph.ty(v),
                "a derivative has its value's type"
            );
        }
        let graph = self.with_outputs(&graph, &d).without_dead();
        run(&graph, at)
            .unwrap()
            .iter()
            .map(Tensor::to_f64)
            .collect()
    }

    fn hessian_vector_at(&self, directions: &[Tensor]) -> Vec<Vec<f64>> {
        let mut graph = self.graph.clone();
        let v: Vec<ValueId> = self
            .by
            .iter()
            .map(|&v| graph.input("v", graph.ty(v).clone()))
            .collect();
        let d = hessian_vector(&mut graph, self.loss, &self.by, &v).unwrap();
        let graph = self.with_outputs(&graph, &d).without_dead();
        let inputs: Vec<Tensor> = self.at.iter().chain(directions).cloned().collect();
        run(&graph, &inputs)
            .unwrap()
            .iter()
            .map(Tensor::to_f64)
            .collect()
    }

    fn directions(&self, seed: usize) -> Vec<Tensor> {
        let each = self.at.iter().enumerate();
        each.map(|(k, t)| Tensor::new(t.shape(), noise(t.len(), seed + k)))
            .collect()
    }

    /// The first and second derivatives against differences; the symmetry of the second.
    pub(crate) fn check(&self, name: &str) {
        self.check_gradient(name);
        self.check_hessian(name);
    }

    /// Relevance put on the result and what its operands got of it.
    pub(crate) fn relevance(&self) -> (f64, Vec<Vec<f64>>) {
        let mut graph = self.graph.clone();
        let n = graph.ty(self.result).elements();
        let shape = graph.shape(self.result).to_vec();
        let put: Vec<f64> = noise(n, 41).iter().map(|x| x.abs()).collect();
        let seed = graph.constant("relevance", Tensor::new(shape, put.clone()));
        let found = relevance(&mut graph, &[(self.result, seed)], &self.by).unwrap();
        let graph = self.with_outputs(&graph, &found).without_dead();
        let got = run(&graph, &self.at).unwrap();
        (put.iter().sum(), got.iter().map(Tensor::to_f64).collect())
    }

    fn check_gradient(&self, name: &str) {
        let derived = self.gradient_at(&self.at);
        for (k, t) in self.at.iter().enumerate() {
            for (i, &d) in derived[k].iter().enumerate() {
                let moved = |step: f64| {
                    let mut at = self.at.clone();
                    let mut x = t.to_f64();
                    x[i] += step;
                    at[k] = Tensor::new(t.shape(), x);
                    self.loss_at(&at)
                };
                let difference = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
                close(
                    difference,
                    d,
                    1e-7,
                    &format!("{name}: operand {k}, element {i}"),
                );
            }
        }
    }

    fn check_hessian(&self, name: &str) {
        let (v, w) = (self.directions(11), self.directions(23));
        let (hv, hw) = (self.hessian_vector_at(&v), self.hessian_vector_at(&w));
        let dot = |a: &[Tensor], b: &[Vec<f64>]| -> f64 {
            let pairs = a.iter().zip(b);
            pairs
                .map(|(a, b)| a.to_f64().iter().zip(b).map(|(x, y)| x * y).sum::<f64>())
                .sum()
        };
        close(
            dot(&w, &hv),
            dot(&v, &hw),
            1e-10,
            &format!("{name}: wᵀHv = vᵀHw"),
        );
        let moved = |step: f64| {
            let at: Vec<Tensor> = self
                .at
                .iter()
                .zip(&v)
                .map(|(t, v)| {
                    let x = t.to_f64().into_iter().zip(v.to_f64());
                    Tensor::new(t.shape(), x.map(|(x, v)| x + step * v).collect())
                })
                .collect();
            self.gradient_at(&at)
        };
        let (up, down) = (moved(STEP), moved(-STEP));
        for (k, hv) in hv.iter().enumerate() {
            for (i, &h) in hv.iter().enumerate() {
                let difference = (up[k][i] - down[k][i]) / (2.0 * STEP);
                close(
                    difference,
                    h,
                    1e-6,
                    &format!("{name}: Hv of operand {k}, element {i}"),
                );
            }
        }
    }
}

const STEP: f64 = 1e-5;

pub(crate) fn close(a: f64, b: f64, tolerance: f64, what: &str) {
    let error = (a - b).abs() / a.abs().max(b.abs()).max(1.0);
    assert!(error < tolerance, "{what}: {a} and {b}");
}

/// An input of doubles.
pub(crate) fn input(graph: &mut Graph, shape: &[usize]) -> ValueId {
    graph.input("x", Type::new(DType::F64, shape))
}
