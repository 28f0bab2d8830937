use lowbit_ir::Node;
use lowbit_ir::ops::{IntMatMul, Transpose};

use super::params::rescale;
use super::{Builder, Coded, Stop, problem};

impl Builder<'_> {
    /// A matrix product of two activations.
    pub(crate) fn matmul(&mut self, node: &Node) -> Result<Coded, Stop> {
        let (a, b) = (self.operand(node.inputs[0])?, self.operand(node.inputs[1])?);
        if a.affine.is_wide() || b.affine.is_wide() {
            return problem(
                "an operand has 16 bits because it is given out; only 8-bit tensors can be multiplied",
            );
        }
        let shape = self.out.shape(b.id).to_vec();
        if shape.len() < 2 || self.out.shape(a.id).len() < 2 {
            return problem("a product with a vector has no integer form; give it a second axis");
        }
        let rank = shape.len();
        let mut perm: Vec<usize> = (0..rank).collect();
        perm.swap(rank - 1, rank - 2);
        let name = format!("{}.transposed", self.out.value(b.id).name);
        let transposed =
            self.out
                .push_quantized(name, Transpose { perm }, &[b.id], b.affine.quant())?;
        let affine = self.result_affine(node.output);
        let k = shape[rank - 2];
        let ratio = a.affine.scale * b.affine.scale / affine.scale;
        let bound = 65025.0 * k as f64;
        if bound > 2_147_483_647.0 {
            return problem(format!("a sum over {k} products needs more than 32 bits"));
        }
        let op = IntMatMul {
            zero_points: [a, b].map(|t| t.affine.zero_point as u8),
            rescale: rescale(ratio, affine.zero_point, bound).map_err(Stop::Problem)?,
            out: affine.codes(),
        };
        self.emit(node.output, op, &[a.id, transposed], affine)
    }
}
