use lowbit_ir::ops::{IntSoftmax, Softmax, Transpose};
use lowbit_ir::{Node, Tensor};
use lowbit_num::real;

use super::{Affine, Builder, Coded, Stop};

impl Builder<'_> {
    /// Softmax: tables of the exponential, scale `2^-8`, or `2^-16` where it is given out.
    pub(crate) fn softmax(&mut self, node: &Node, op: &Softmax) -> Result<Coded, Stop> {
        let x = self.operand(node.inputs[0])?;
        let rank = self.float.shape(node.inputs[0]).len();
        let mut perm: Vec<usize> = (0..rank).collect();
        perm.swap(op.axis, rank - 1);
        let last = op.axis + 1 == rank;
        let mut operand = x.id;
        if !last {
            let name = self.out.value(x.id).name.clone();
            operand = self.out.push_quantized(
                name,
                Transpose { perm: perm.clone() },
                &[x.id],
                x.affine.quant(),
            )?;
        }
        let d = real::dyadic(x.affine.scale * 4096.0).map_err(|e| Stop::Problem(e.to_string()))?;
        let bits = if self.fusion.is_wide(node.output) {
            16
        } else {
            8
        };
        let affine = Affine::probability(bits);
        let [t1, t2] = [16.0, 4096.0].map(|steps| {
            let entry = |i: i32| real::round_i64(libm::exp(-f64::from(i) / steps) * 32768.0) as u16;
            Tensor::new([256], (0..256).map(entry).collect())
        });
        let t1 = self.out.constant("exp.high", t1);
        let t2 = self.out.constant("exp.low", t2);
        let softmax = IntSoftmax {
            m: d.m(),
            c: d.c(),
            bits: bits as u8,
        };
        let mut coded = self.emit(node.output, softmax, &[operand, t1, t2], affine)?;
        if !last {
            let name = self.float.value(node.output).name.clone();
            coded.id =
                self.out
                    .push_quantized(name, Transpose { perm }, &[coded.id], affine.quant())?;
        }
        Ok(coded)
    }
}
