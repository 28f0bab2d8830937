use serde::{Deserialize, Serialize};

use super::scalar::strides;
use super::{OpError, Operation, Slice, arity, checked, infer_of};
use crate::derive::{Adjoint, Derivatives, Differentiable, Emit};
use crate::{Element, Stage, Tensor, Type, ValueId, with_data};

/// Adds elements before, after and between those of each axis. Operands: x, and for [`PadMode::Constant`] a scalar of
/// the same element type.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Pad {
    /// Elements before, for each axis; a negative count crops.
    pub low: Vec<isize>,
    /// Elements after, for each axis; a negative count crops.
    pub high: Vec<isize>,
    /// Elements between neighbours, for each axis; only with [`PadMode::Constant`].
    pub interior: Vec<usize>,
    /// What the new elements hold.
    pub mode: PadMode,
}

/// What [`Pad`] adds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PadMode {
    /// The scalar operand.
    Constant,
    /// The nearest element.
    Edge,
    /// The mirror image without the border element.
    Reflect,
    /// The elements from the other end.
    Wrap,
}

impl Pad {
    fn extent(&self, axis: usize, extent: usize) -> Option<usize> {
        let inside =
            extent.checked_add(extent.saturating_sub(1).checked_mul(self.interior[axis])?)?;
        let sum = isize::try_from(inside)
            .ok()?
            .checked_add(self.low[axis])?
            .checked_add(self.high[axis])?;
        usize::try_from(sum).ok()
    }

    /// The operand's index for an index of the result along an axis; `None` where the new elements are.
    fn source(&self, axis: usize, extent: usize, i: usize) -> Option<usize> {
        let (at, extent) = (i as isize - self.low[axis], extent as isize);
        let index = match self.mode {
            PadMode::Constant => {
                let step = self.interior[axis] as isize + 1;
                (at >= 0 && at % step == 0 && at / step < extent).then_some(at / step)?
            }
            PadMode::Edge => at.clamp(0, extent - 1),
            PadMode::Wrap => at.rem_euclid(extent),
            PadMode::Reflect if extent == 1 => 0,
            PadMode::Reflect => {
                let k = at.rem_euclid(2 * (extent - 1));
                k.min(2 * (extent - 1) - k)
            }
        };
        Some(index as usize)
    }
}

impl Operation for Pad {
    const NAME: &'static str = "pad";
    const STAGES: &'static [Stage] = &[Stage::Float, Stage::Integer];

    fn infer(&self, inputs: &[&Type]) -> Result<Type, OpError> {
        match self.mode {
            PadMode::Constant => arity(inputs, 2..=2, "2")?,
            _ => arity(inputs, 1..=1, "1")?,
        }
        let (x, rank) = (inputs[0], inputs[0].rank());
        if [self.low.len(), self.high.len(), self.interior.len()] != [rank; 3] {
            return Err(OpError::shape(format!("{x} cannot be padded by {self:?}")));
        }
        if let Some(value) = inputs
            .get(1)
            .filter(|v| v.dtype != x.dtype || v.elements() != 1)
        {
            return Err(OpError::shape(format!(
                "the padding is {value}, expected one {}",
                x.dtype
            )));
        }
        let empty = (0..rank).any(|a| x.shape[a] == 0 || self.interior[a] > 0);
        if self.mode != PadMode::Constant && empty {
            return Err(OpError::shape(format!("{x} cannot be padded by {self:?}")));
        }
        let shape: Option<Vec<usize>> = (0..rank).map(|a| self.extent(a, x.shape[a])).collect();
        checked(
            x.dtype,
            shape.ok_or_else(|| OpError::shape(format!("{x} cannot be padded by {self:?}")))?,
        )
    }

    fn eval(&self, inputs: &[&Tensor]) -> Result<Tensor, OpError> {
        let shape = infer_of(self, inputs)?.shape;
        Ok(with_data!(inputs[0].data(), v => {
            let value = if self.mode == PadMode::Constant { same(v, inputs[1])[0] } else { Default::default() };
            Tensor::new(shape.clone(), self.filled(v, inputs[0].shape(), &shape, value))
        }))
    }
}

impl Pad {
    fn filled<T: Element>(&self, x: &[T], from: &[usize], shape: &[usize], value: T) -> Vec<T> {
        let own = strides(from);
        let sources: Vec<Vec<Option<usize>>> = (0..shape.len())
            .map(|a| {
                (0..shape[a])
                    .map(|i| self.source(a, from[a], i).map(|s| s * own[a]))
                    .collect()
            })
            .collect();
        // the last axes that stay as they are lie side by side
        let stays = |&a: &usize| shape[a] == from[a] && self.low[a] == 0 && self.interior[a] == 0;
        let axes = (0..shape.len()).rev().take_while(stays).count();
        let Some((last, outer)) = shape[..shape.len() - axes].split_last() else {
            return x.to_vec();
        };
        let unit: usize = from[outer.len() + 1..].iter().product();
        let runs = runs(&sources[outer.len()][..*last], unit);
        let result = strides(outer);
        let mut filled = Vec::with_capacity(shape.iter().product());
        for p in 0..outer.iter().product::<usize>() {
            let at = (0..outer.len())
                .try_fold(0, |at, a| Some(at + sources[a][p / result[a] % outer[a]]?));
            for run in &runs {
                match at.zip(run.from) {
                    Some((at, from)) => filled.extend_from_slice(&x[at + from..][..run.len]),
                    None => filled.resize(filled.len() + run.len, value),
                }
            }
        }
        filled
    }
}

/// Elements of a result that lie side by side in the operand, or are all new.
struct Run {
    from: Option<usize>,
    len: usize,
}

/// Runs along an axis whose elements are `unit` long and come from `sources`.
fn runs(sources: &[Option<usize>], unit: usize) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for &from in sources {
        match runs.last_mut() {
            Some(run) if from == run.from.map(|at| at + run.len) => run.len += unit,
            _ => runs.push(Run { from, len: unit }),
        }
    }
    runs
}

/// The elements of `b`, of the type that `x` has.
fn same<'a, T: Element>(_: &[T], b: &'a Tensor) -> &'a [T] {
    b.as_slice()
}

impl Differentiable for Pad {
    fn gradient(&self, at: &mut Adjoint<'_>) -> Derivatives {
        let shape = at.emit.shape(at.inputs[0]);
        if self.mode != PadMode::Constant {
            return Ok(vec![Some(self.gathered(&mut at.emit, &shape, at.seed)?)]);
        }
        let inside = self.cropped(&mut at.emit, at.seed)?;
        let by_value = match at.wants(1) {
            true => {
                let (all, kept) = (at.emit.total(at.seed)?, at.emit.total(inside)?);
                let rest = at.emit.sub(all, kept)?;
                let shape = at.emit.shape(at.inputs[1]);
                Some(at.emit.reshape(rest, &shape)?)
            }
            false => None,
        };
        Ok(vec![Some(inside), by_value])
    }

    fn relevance(&self, at: &mut Adjoint<'_>) -> Derivatives {
        self.gradient(at)
    }
}

impl Pad {
    /// Pads with zeros; the value itself where nothing changes.
    pub(crate) fn emit(&self, e: &mut Emit<'_>, x: ValueId) -> Result<ValueId, OpError> {
        let still = |side: &[isize]| side.iter().all(|&p| p == 0);
        if still(&self.low) && still(&self.high) && self.interior.iter().all(|&p| p == 0) {
            return Ok(x);
        }
        let zero = e.number(x, 0.0);
        e.push(self.clone(), &[x, zero])
    }

    /// The adjoint of padding by a constant: what stands where the operand's elements went.
    pub(crate) fn cropped(&self, e: &mut Emit<'_>, g: ValueId) -> Result<ValueId, OpError> {
        let negated = |side: &[isize]| side.iter().map(|p| -p).collect();
        let back = Self {
            low: negated(&self.low),
            high: negated(&self.high),
            interior: vec![0; self.interior.len()],
            mode: PadMode::Constant,
        };
        let inside = back.emit(e, g)?;
        if self.interior.iter().all(|&p| p == 0) {
            return Ok(inside);
        }
        let extents = e.shape(inside);
        let view = Slice {
            start: vec![0; extents.len()],
            len: (0..extents.len())
                .map(|a| extents[a].div_ceil(self.interior[a] + 1))
                .collect(),
            step: self.interior.iter().map(|&p| p as isize + 1).collect(),
        };
        e.push(view, &[inside])
    }

    /// The adjoint of padding by elements of the operand: each adds up what its copies got.
    fn gathered(&self, e: &mut Emit<'_>, shape: &[usize], g: ValueId) -> Result<ValueId, OpError> {
        let mut sum = g;
        for axis in (0..shape.len()).filter(|&a| self.low[a] != 0 || self.high[a] != 0) {
            let (from, to) = (shape[axis], e.shape(sum)[axis]);
            let mut matrix = vec![0.0; from * to];
            for i in 0..to {
                let source = self.source(axis, from, i).expect("every element has one");
                matrix[source * to + i] = 1.0;
            }
            let matrix = e.constant(g, &[from, to], matrix);
            sum = e.along(matrix, sum, axis)?;
        }
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every element is the one that [`Pad::source`] names.
    #[test]
    fn elements_come_from_their_sources() {
        let from = [2, 3, 4];
        let x: Vec<i32> = (1..=24).collect();
        let modes = [
            PadMode::Constant,
            PadMode::Edge,
            PadMode::Reflect,
            PadMode::Wrap,
        ];
        let sides: [[isize; 3]; 5] = [[0, 0, 0], [1, 2, 0], [0, 1, 3], [-1, 0, 1], [0, -1, -2]];
        for mode in modes {
            let mut padded = 0;
            for (low, high) in sides
                .iter()
                .flat_map(|l| sides.map(|h| (l.to_vec(), h.to_vec())))
            {
                for interior in [[0, 0, 0], [0, 2, 0], [1, 0, 1]] {
                    let pad = Pad {
                        low: low.clone(),
                        high: high.clone(),
                        interior: interior.to_vec(),
                        mode,
                    };
                    let mut operands = vec![Tensor::new(from, x.clone())];
                    if mode == PadMode::Constant {
                        operands.push(Tensor::new([], vec![-7]));
                    }
                    let Ok(y) = pad.eval(&operands.iter().collect::<Vec<_>>()) else {
                        continue;
                    };
                    padded += 1;
                    let shape = y.shape().to_vec();
                    let result = strides(&shape);
                    for (p, &y) in y.as_slice::<i32>().iter().enumerate() {
                        let at = (0..3).try_fold(0, |at, a| {
                            let i = p / result[a] % shape[a];
                            Some(at + pad.source(a, from[a], i)? * strides(&from)[a])
                        });
                        assert_eq!(y, at.map_or(-7, |at| x[at]), "{pad:?} at {p}");
                    }
                }
            }
            // only a constant can stand between elements
            let interiors = if mode == PadMode::Constant { 3 } else { 1 };
            assert_eq!(padded, sides.len().pow(2) * interiors, "{mode:?}");
        }
    }
}
