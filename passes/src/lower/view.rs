//! Parts of tensors, and moving codes between them.

use lowbit_ir::DType;
use lowbit_kernel::{BufId, Builder, Role};

use super::elementwise::Nest;
use super::{Arg, Machine, Operand, Step, Storage};

/// A part of a tensor in memory: element `i` of axis `a` is `i · strides[a]` bytes from `offset`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct View {
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<usize>,
    pub(crate) strides: Vec<isize>,
    pub(crate) offset: isize,
}

/// Indices along an axis that one view covers: `first + i · step` for `i < len`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Run {
    pub(crate) first: usize,
    pub(crate) step: isize,
    pub(crate) len: usize,
}

impl View {
    /// The whole tensor.
    pub(crate) fn of(s: &Storage) -> Self {
        Self {
            dtype: s.dtype,
            shape: s.shape.clone(),
            strides: s.strides.iter().map(|&x| x as isize).collect(),
            offset: s.offset as isize,
        }
    }

    /// Keeps the indices of a run along an axis.
    pub(crate) fn along(mut self, axis: usize, run: Run) -> Self {
        self.offset += run.first as isize * self.strides[axis];
        self.strides[axis] *= run.step;
        self.shape[axis] = run.len;
        self
    }

    /// Keeps `len` indices from `first` on along an axis.
    pub(crate) fn range(self, axis: usize, first: usize, len: usize) -> Self {
        self.along(
            axis,
            Run {
                first,
                step: 1,
                len,
            },
        )
    }

    /// Axis `i` of the result is axis `perm[i]`.
    pub(crate) fn permuted(mut self, perm: &[usize]) -> Self {
        self.shape = perm.iter().map(|&p| self.shape[p]).collect();
        self.strides = perm.iter().map(|&p| self.strides[p]).collect();
        self
    }

    /// The stride along an axis of a tensor of `rank` axes that this one is broadcast to.
    pub(crate) fn broadcast_stride(&self, axis: usize, rank: usize) -> isize {
        match (axis + self.shape.len()).checked_sub(rank) {
            Some(own) if self.shape[own] != 1 => self.strides[own],
            _ => 0,
        }
    }
}

/// Splits indices into runs of constant step, from the front, each as long as it can be.
pub(crate) fn runs(indices: &[usize]) -> Vec<(usize, Run)> {
    let mut result = Vec::new();
    let mut at = 0;
    while at < indices.len() {
        let step = indices
            .get(at + 1)
            .map_or(1, |&n| n as isize - indices[at] as isize);
        let follows = |w: &[usize]| w[1] as isize - w[0] as isize == step;
        let len = 1 + indices[at..].windows(2).take_while(|w| follows(w)).count();
        result.push((
            at,
            Run {
                first: indices[at],
                step,
                len,
            },
        ));
        at += len;
    }
    result
}

/// Writes the loops that copy `from` to `to`; `from` broadcasts.
pub(crate) fn copy(b: &mut Builder, to: (&View, BufId), from: (&View, BufId), machine: &Machine) {
    let lanes = machine.vector_bytes() / to.0.dtype.bytes();
    Nest::new(to.0, std::slice::from_ref(from.0)).emit(b, lanes as u16, |b, at| {
        let v = at.load(b, 1, from.1);
        b.store(v, at.addr(0, to.1));
    });
}

/// A step that copies parts of the first operand to parts of the result.
pub(crate) fn copy_step(
    kind: &str,
    operand: &Operand<'_>,
    result: &Storage,
    parts: &[(View, View)],
    machine: &Machine,
) -> Step {
    let mut b = Builder::new(kind);
    let x = b.buffer("x", Role::In, operand.storage.bytes);
    let y = b.buffer("y", Role::Out, result.bytes);
    for (to, from) in parts {
        copy(&mut b, (to, y), (from, x), machine);
    }
    Step {
        kernel: b.finish(),
        args: vec![Arg::Operand(0), Arg::Result],
    }
}

/// Copies the operand to a result of another layout.
pub(crate) fn relayout(operand: &Operand<'_>, result: &Storage, machine: &Machine) -> Step {
    copy_step(
        "copy",
        operand,
        result,
        &[(View::of(result), View::of(operand.storage))],
        machine,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_cover_the_indices() {
        for indices in [&[0usize, 1, 2, 5, 7, 9, 9, 9, 4, 3][..], &[3], &[]] {
            let runs = runs(indices);
            let back: Vec<usize> = runs
                .iter()
                .flat_map(|(_, r)| {
                    (0..r.len as isize).map(|i| (r.first as isize + i * r.step) as usize)
                })
                .collect();
            assert_eq!(back, indices);
        }
    }
}
