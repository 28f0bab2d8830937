use std::collections::HashMap;

use lowbit_ir::ops::{Cast, IntLookup};
use lowbit_ir::{DType, Node, Op, Tensor, ValueId};

use super::{Affine, Builder, Coded, Stop, problem};

impl Builder<'_> {
    /// A chain of elementwise functions of one tensor: a table over its codes.
    pub(crate) fn lookup(&mut self, node: &Node) -> Result<Coded, Stop> {
        let root = self.fusion.root(node.output);
        let x = self.operand(root)?;
        if x.affine.is_wide() {
            return problem("its operand has 16 bits because it is given out; a table takes 8");
        }
        if !self.float.ty(node.output).dtype.is_float() {
            return problem(
                "its result is no real number; only functions that give real numbers can be tabulated",
            );
        }
        let real = self.tabulate(root, node.output, x.affine)?;
        let affine = self.result_affine(node.output);
        let codes = real.iter().map(|&y| affine.encode(y));
        let table = if affine.is_wide() {
            Tensor::new([256], codes.map(|q| q as i16).collect())
        } else {
            Tensor::new([256], codes.map(|q| q as u8).collect())
        };
        let name = format!("{}.table", self.float.value(node.output).name);
        let table = self.out.constant(name, table);
        self.emit(node.output, IntLookup, &[x.id, table], affine)
    }

    /// The function from `root` to `v` at each of the 256 codes, computed with the operations' own bodies in `f64`.
    fn tabulate(&self, root: ValueId, v: ValueId, x: Affine) -> Result<Vec<f64>, Stop> {
        let points = (0..256).map(|q| x.decode(q)).collect();
        let mut known = HashMap::from([(root, Tensor::new([256], points))]);
        for (_, node) in self.float.nodes() {
            let function_of_root = self.fusion.root(node.output) == root
                && self.fusion.root(node.output) != node.output;
            if !function_of_root || known.contains_key(&node.output) {
                continue;
            }
            let operands: Option<Vec<Tensor>> = node
                .inputs
                .iter()
                .map(|i| known.get(i).cloned().or_else(|| self.scalar(*i)))
                .collect();
            if let Some(operands) = operands {
                let result = in_f64(&node.op).eval(&operands.iter().collect::<Vec<_>>())?;
                known.insert(node.output, result);
            }
            if node.output == v {
                break;
            }
        }
        let result = known.remove(&v).ok_or(Stop::Poisoned)?.to_f64();
        match result.iter().position(|y| y.is_nan()) {
            Some(q) => problem(format!("it is not a number at {}", x.decode(q as i32))),
            None => Ok(result),
        }
    }

    fn scalar(&self, v: ValueId) -> Option<Tensor> {
        let c = self.float.as_const(v)?;
        if c.dtype() == DType::F32 {
            return Some(Tensor::new([], c.to_f64()));
        }
        (c.len() == 1).then(|| c.reshaped([]))
    }
}

/// The same operation where every real number is `f64`.
fn in_f64(op: &Op) -> Op {
    match op {
        Op::Cast(cast) if cast.to == DType::F32 => Cast { to: DType::F64 }.into(),
        _ => op.clone(),
    }
}
