use lowbit_ir::ops::{Concat, Gather, Pad, PadMode};
use lowbit_ir::{DType, Node, Tensor, ValueId};

use super::fuse::single;
use super::{Builder, Coded, Stop, problem};

impl Builder<'_> {
    /// An operation that moves elements and keeps their codes.
    pub(crate) fn same_codes(&mut self, node: &Node) -> Result<Coded, Stop> {
        let x = match self.is_stream(node.output) {
            true => self.stored(node.inputs[0])?,
            false => self.operand(node.inputs[0])?,
        };
        self.emit(node.output, node.op.clone(), &[x.id], x.affine)
    }

    pub(crate) fn gather(&mut self, node: &Node, op: &Gather) -> Result<Coded, Stop> {
        let x = self.operand(node.inputs[0])?;
        let Some(indices) = self.float.as_const(node.inputs[1]) else {
            return problem(
                "its indices are computed in the model; only constant indices can be compiled",
            );
        };
        let indices = self.out.constant("indices", indices.clone());
        self.emit(node.output, op.clone(), &[x.id, indices], x.affine)
    }

    /// Joins tensors in the codes of the result; those that were computed in them already are not touched.
    pub(crate) fn concat(&mut self, node: &Node, op: &Concat) -> Result<Coded, Stop> {
        let affine = self.narrow_affine(node.output, self.activations.bits(node.output));
        let mut ids = Vec::new();
        for &v in &node.inputs {
            let coded = if self.float.as_const(v).is_some() {
                self.encode_constant(v, affine)
            } else {
                let x = self.operand(v)?;
                self.recode(x, affine)?
            };
            ids.push(coded.id);
        }
        self.emit(node.output, op.clone(), &ids, affine)
    }

    pub(crate) fn pad(&mut self, node: &Node, op: &Pad) -> Result<Coded, Stop> {
        let x = self.operand(node.inputs[0])?;
        let mut operands = vec![x.id];
        if op.mode == PadMode::Constant {
            let value = match node.inputs.get(1) {
                None => 0.0,
                Some(&v) => match single(self.float, v) {
                    Some(value) => value,
                    None => {
                        return problem(
                            "its padding value is computed in the model; only a constant can be compiled",
                        );
                    }
                },
            };
            let code = x.affine.encode(value);
            let dtype = if x.affine.is_wide() {
                DType::I16
            } else {
                DType::U8
            };
            operands.push(
                self.out
                    .constant("padding", Tensor::from_i64(dtype, [], vec![code.into()])),
            );
        }
        self.emit(node.output, op.clone(), &operands, x.affine)
    }

    /// Lets another float value stand for the same codes.
    pub(crate) fn alias(&mut self, v: ValueId, coded: Coded) {
        self.coded.insert(v, Some(coded));
    }
}
