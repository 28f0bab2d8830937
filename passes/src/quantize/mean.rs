use std::collections::BTreeSet;

use lowbit_ir::Node;
use lowbit_ir::ops::{IntMean, Pool, Reduce, ReduceFn};
use lowbit_num::real;

use super::{Affine, Builder, Coded, Stop, problem};

impl Builder<'_> {
    /// Average pooling: a sum, and one rounding for each divisor that occurs.
    pub(crate) fn mean(&mut self, node: &Node, op: &Pool) -> Result<Coded, Stop> {
        let x = self.operand(node.inputs[0])?;
        if x.affine.is_wide() {
            return problem(
                "its input has 16 bits because it is given out; only 8-bit tensors can be averaged",
            );
        }
        let affine = self.result_affine(node.output);
        let (from, to) = (
            self.float.shape(node.inputs[0]),
            self.float.shape(node.output),
        );
        let size = [from[1], from[2]];
        let counts: BTreeSet<u32> = (0..to[1])
            .flat_map(|y| (0..to[2]).map(move |x| [y, x]))
            .map(|at| op.counted(size, at))
            .collect();
        let mut scales = Vec::new();
        for taps in counts {
            let d = real::dyadic(x.affine.scale / (affine.scale * f64::from(taps)))
                .map_err(|e| Stop::Problem(e.to_string()))?;
            scales.push((taps, d.m(), d.c()));
        }
        let op = IntMean {
            pool: op.clone(),
            zero_point_in: x.affine.zero_point as u8,
            scales,
            zero_point: affine.zero_point,
            out: affine.codes(),
        };
        self.emit(node.output, op, &[x.id], affine)
    }

    /// Sums over axes that are no image's; means over one have become pooling before.
    pub(crate) fn reduce(&mut self, node: &Node, op: &Reduce) -> Result<Coded, Stop> {
        let name = match op.f {
            ReduceFn::Sum => "sum",
            ReduceFn::Mean => "mean",
            ReduceFn::Max => "maximum",
            ReduceFn::Min => "minimum",
        };
        let x = self.operand(node.inputs[0])?;
        let shape = self.float.shape(node.inputs[0]).to_vec();
        let contiguous = op.axes.windows(2).all(|w| w[1] == w[0] + 1);
        let (Some(&first), Some(&last), true) = (op.axes.first(), op.axes.last(), contiguous)
        else {
            return problem(format!(
                "a {name} over axes {:?} that are no neighbours has no integer form",
                op.axes
            ));
        };
        if !matches!(op.f, ReduceFn::Sum | ReduceFn::Mean) {
            return problem(format!(
                "a {name} over axes has no integer form; a maximum over height and width has"
            ));
        }
        let [outer, middle, inner] =
            [&shape[..first], &shape[first..=last], &shape[last + 1..]].map(|s| s.iter().product());
        let view = self.reshape(x, [outer, middle, 1, inner])?;
        let affine = self.result_affine(node.output);
        let divisor = if op.f == ReduceFn::Mean {
            middle as f64
        } else {
            1.0
        };
        let d = real::dyadic(x.affine.scale / (affine.scale * divisor))
            .map_err(|e| Stop::Problem(e.to_string()))?;
        let kernel = [middle, 1];
        let kind = lowbit_ir::ops::PoolKind::Mean;
        let pool = Pool {
            kind,
            kernel,
            stride: [1, 1],
            dilation: [1, 1],
            pad: [[0, 0]; 2],
        };
        let op = IntMean {
            pool,
            zero_point_in: x.affine.zero_point as u8,
            scales: vec![(middle as u32, d.m(), d.c())],
            zero_point: affine.zero_point,
            out: affine.codes(),
        };
        let sum = self.emit(node.output, op, &[view.id], affine)?;
        let shape = self.float.shape(node.output).to_vec();
        self.reshape(sum, shape)
    }

    pub(crate) fn reshape(
        &mut self,
        x: Coded,
        shape: impl Into<Vec<usize>>,
    ) -> Result<Coded, Stop> {
        let shape = shape.into();
        if self.out.shape(x.id) == shape {
            return Ok(x);
        }
        let name = self.out.value(x.id).name.clone();
        let affine: Affine = x.affine;
        let op = lowbit_ir::ops::Reshape { shape };
        let id = self.out.push_quantized(name, op, &[x.id], affine.quant())?;
        Ok(Coded { id, affine })
    }
}
