use lowbit_ir::ops::{IntNormalize, Normalize};
use lowbit_ir::{Node, Tensor, ValueId};
use lowbit_num::real;

use super::fuse::other_constant;
use super::{Builder, Coded, Stop, problem};

impl Builder<'_> {
    /// Layer normalisation with the product and the sum by channel behind it.
    pub(crate) fn normalize(&mut self, node: &Node, op: &Normalize) -> Result<Coded, Stop> {
        let x = self.operand(node.inputs[0])?;
        let shape = self.float.shape(node.inputs[0]).to_vec();
        let trailing = op
            .axes
            .iter()
            .copied()
            .eq(shape.len() - op.axes.len()..shape.len());
        if !trailing || op.axes.is_empty() {
            return problem(format!(
                "normalisation over axes {:?} of {shape:?} has no integer form; over the last axes it has",
                op.axes
            ));
        }
        let n: usize = op.axes.iter().map(|&a| shape[a]).product();
        let end = self.fusion.root(node.output);
        let (gamma, beta) = self.scale_and_shift(node.output, end, n)?;
        let affine = self.result_affine(end);
        let largest = gamma.iter().fold(0.0f64, |a, g| a.max(g.abs())) / affine.scale;
        let fraction = (0..=20)
            .rev()
            .find(|&f| largest * real::power_of_two(f) < 8_388_608.0)
            .unwrap_or(0);
        let one = real::power_of_two(fraction);
        let m = gamma
            .iter()
            .map(|g| real::round_i64(g / affine.scale * one) as i32)
            .collect();
        let zero = f64::from(affine.zero_point) + 0.5;
        let b = beta
            .iter()
            .map(|b| real::round_i64((b / affine.scale + zero) * one * 4096.0))
            .collect();
        let epsilon = op.epsilon.get() * (n * n) as f64 / (x.affine.scale * x.affine.scale);
        let op = IntNormalize {
            epsilon: real::round_i64(epsilon).clamp(1, 1 << 40) as u64,
            c: 12 + fraction as u8,
            out: affine.codes(),
        };
        let name = self.float.value(end).name.clone();
        let m = self.out.constant(format!("{name}.m"), Tensor::new([n], m));
        let b = self.out.constant(format!("{name}.b"), Tensor::new([n], b));
        let flat: Vec<usize> = [&shape[..op_start(&shape, n)], &[n]].concat();
        let view = self.reshape(x, flat)?;
        let result = self.emit(end, op, &[view.id, m, b], affine)?;
        let coded = self.reshape(result, shape)?;
        self.alias(end, coded);
        Ok(coded)
    }

    /// Scale and shift by element, one and zero where the model has none.
    fn scale_and_shift(
        &self,
        from: ValueId,
        to: ValueId,
        n: usize,
    ) -> Result<(Vec<f64>, Vec<f64>), Stop> {
        let (mut gamma, mut beta) = (vec![1.0; n], vec![0.0; n]);
        let mut v = from;
        while v != to {
            let (_, node) = self
                .float
                .nodes()
                .find(|(_, node)| node.inputs.contains(&v))
                .expect("a normalisation's scale and shift follow it");
            let other = other_constant(self.float, node, v).expect("scale and shift are constants");
            let values = self
                .float
                .as_const(other)
                .expect("it is a constant")
                .to_f64();
            if values.len() != 1 && values.len() != n {
                return problem(format!(
                    "its scale or shift has {} elements, expected {n}",
                    values.len()
                ));
            }
            let product = matches!(&node.op, lowbit_ir::Op::Binary(b) if b.0 == lowbit_ir::ops::BinaryFn::Mul);
            let target = if product { &mut gamma } else { &mut beta };
            for (i, t) in target.iter_mut().enumerate() {
                *t = values[i % values.len()];
            }
            v = node.output;
        }
        Ok((gamma, beta))
    }
}

fn op_start(shape: &[usize], n: usize) -> usize {
    let mut inner = 1;
    let mut at = shape.len();
    while inner < n || at == shape.len() {
        at -= 1;
        inner *= shape[at];
    }
    at
}
