//! Cuts a layer into parts that threads compute at the same time: ranges of rows, of pixels or of channels of its result.

use lowbit_ir::ops::{Epilogue, IntConv};
use lowbit_ir::{DType, Tensor};

use super::{Machine, Operand, Step, Storage, conv};

/// A part of a layer, and where its buffers start in those of the whole.
pub(crate) struct Part {
    pub(crate) step: Step,
    /// Bytes into each operand.
    pub(crate) operands: Vec<usize>,
    /// Bytes into the result.
    pub(crate) result: usize,
}

/// Along what the result is cut.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// An axis of pixels: 1 or 2.
    Pixels(usize),
    /// Channels, in steps of a vector.
    Channels,
}

/// `count` parts of a layer, or `None` where it is too small. `movable` tells whose buffers a call can be handed from the
/// middle on: each operand, then the result.
pub(crate) fn parts(
    op: &IntConv,
    operands: &[Operand<'_>],
    result: &Storage,
    machine: &Machine,
    count: usize,
    movable: &[bool],
) -> Option<Vec<Part>> {
    let cut = choose(op, operands, result, machine, count)?;
    let unit = match cut {
        Cut::Pixels(_) => 1,
        Cut::Channels => machine.lanes.into(),
    };
    let extent = match cut {
        Cut::Pixels(axis) => result.shape[axis],
        Cut::Channels => result.shape[3],
    };
    // the last part is the largest, so that no part reads past where the last one ends
    let bound = |k: usize| (k * extent.div_ceil(unit) / count * unit).min(extent);
    let ranges: Vec<[usize; 2]> = (0..count).map(|k| [bound(k), bound(k + 1)]).collect();
    let last = ranges[count - 1][0];
    let whole = Whole {
        op,
        operands,
        result,
        machine,
        cut,
        movable,
        last,
    };
    ranges.into_iter().map(|range| whole.part(range)).collect()
}

/// Large weights are cut, so that each thread reads its own; else the pixels of the result.
fn choose(
    op: &IntConv,
    operands: &[Operand<'_>],
    result: &Storage,
    machine: &Machine,
    count: usize,
) -> Option<Cut> {
    let weights = operands[1].storage.elements();
    let codes = operands[0].storage.elements() + result.elements();
    let channels = op.groups == 1 && result.shape[3] / usize::from(machine.lanes) >= count;
    let axis = (1..3).find(|&a| result.shape[a] >= 2 * count);
    match axis {
        Some(axis) if !channels || weights <= codes => Some(Cut::Pixels(axis)),
        _ => channels.then_some(Cut::Channels),
    }
}

struct Whole<'a> {
    op: &'a IntConv,
    operands: &'a [Operand<'a>],
    result: &'a Storage,
    machine: &'a Machine,
    cut: Cut,
    movable: &'a [bool],
    /// Where the last part starts.
    last: usize,
}

impl Whole<'_> {
    fn part(&self, [first, end]: [usize; 2]) -> Option<Part> {
        let mut storages: Vec<Storage> = self.operands.iter().map(|o| o.storage.clone()).collect();
        let mut constants: Vec<Option<Tensor>> =
            self.operands.iter().map(|o| o.constant.cloned()).collect();
        let (mut result, mut starts) = (self.result.clone(), vec![0; storages.len() + 1]);
        let end_of_list = storages.len();
        let residual = matches!(self.op.epilogue, Epilogue::Residual { .. });
        match self.cut {
            Cut::Pixels(axis) => {
                let stride = self.op.stride[axis - 1];
                let kernel = storages[1].shape[axis];
                let reach = (kernel - 1) * self.op.dilation[axis - 1] + 1;
                let rows = (end - first - 1) * stride + reach;
                let x = &mut storages[0];
                let step = stride * x.strides[axis];
                starts[0] = self.narrow(x, 0, step, first);
                x.shape[axis] = rows;
                if residual {
                    let step = storages[4].strides[axis];
                    starts[4] = self.narrow(&mut storages[4], 4, step, first);
                    storages[4].shape[axis] = end - first;
                }
                starts[end_of_list] =
                    self.narrow(&mut result, end_of_list, self.result.strides[axis], first);
                result.shape[axis] = end - first;
            }
            Cut::Channels => {
                for i in (1..storages.len()).filter(|&i| i != 4 || !residual) {
                    let tensor = rows(self.operands[i].constant?, first, end)?;
                    storages[i] = Storage {
                        slack: storages[i].slack,
                        ..Storage::dense(tensor.dtype(), tensor.shape())
                    };
                    constants[i] = Some(tensor);
                }
                if residual {
                    starts[4] = self.narrow(&mut storages[4], 4, 1, first);
                    storages[4].shape[3] = end - first;
                }
                let step = self.result.dtype.bytes();
                starts[end_of_list] = self.narrow(&mut result, end_of_list, step, first);
                result.shape[3] = end - first;
            }
        }
        let operands: Vec<Operand<'_>> = storages
            .iter()
            .zip(&constants)
            .map(|(storage, constant)| Operand {
                storage,
                constant: constant.as_ref(),
            })
            .collect();
        let mut steps = conv::lower(self.op, &operands, &result, self.machine);
        let step = steps.pop().filter(|_| steps.is_empty())?;
        Some(Part {
            step,
            result: starts.pop().unwrap_or(0),
            operands: starts,
        })
    }

    /// Lets a storage begin at the `first` of some elements `step` bytes apart; gives how far its buffer moves. Buffers of all
    /// parts have one length, so that equal parts have equal kernels.
    fn narrow(&self, s: &mut Storage, which: usize, step: usize, first: usize) -> usize {
        if !self.movable[which] {
            s.offset += first * step;
            return 0;
        }
        s.bytes -= self.last * step;
        first * step
    }
}

/// Indices `first..end` of the first axis.
fn rows(t: &Tensor, first: usize, end: usize) -> Option<Tensor> {
    let mut shape = t.shape().to_vec();
    let each: usize = shape[1..].iter().product();
    shape[0] = end - first;
    let range = first * each..end * each;
    Some(match t.dtype() {
        DType::I8 => Tensor::new(shape, t.as_slice::<i8>()[range].to_vec()),
        DType::U8 => Tensor::new(shape, t.as_slice::<u8>()[range].to_vec()),
        DType::I32 => Tensor::new(shape, t.as_slice::<i32>()[range].to_vec()),
        _ => return None,
    })
}
