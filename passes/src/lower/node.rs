//! What a node's lowering is given and what it gives back.

use lowbit_ir::{DType, Tensor};
use lowbit_kernel::Kernel;

/// How a tensor lies in memory: element `i` of axis `a` is `i · strides[a]` bytes from `offset`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Storage {
    /// Element type.
    pub dtype: DType,
    /// Extent of each axis.
    pub shape: Vec<usize>,
    /// Bytes between neighbours of each axis.
    pub strides: Vec<usize>,
    /// Bytes from the start of the buffer to the first element: the border before it.
    pub offset: usize,
    /// Bytes of the buffer, border included.
    pub bytes: usize,
    /// Bytes behind the buffer that may be read (never written) without meaning anything.
    pub slack: usize,
}

impl Storage {
    /// Row-major without gaps.
    pub fn dense(dtype: DType, shape: &[usize]) -> Self {
        let mut strides = vec![dtype.bytes(); shape.len()];
        for a in (1..shape.len()).rev() {
            strides[a - 1] = strides[a] * shape[a];
        }
        let bytes = shape.iter().product::<usize>() * dtype.bytes();
        Self {
            dtype,
            shape: shape.to_vec(),
            strides,
            offset: 0,
            bytes,
            slack: 0,
        }
    }

    /// Whether it is row-major without gaps.
    pub fn is_dense(&self) -> bool {
        let dense = Self::dense(self.dtype, &self.shape);
        // the stride of an axis of extent 1 is never used
        let same = |a: usize| self.shape[a] == 1 || self.strides[a] == dense.strides[a];
        self.offset == 0 && self.bytes == dense.bytes && (0..self.shape.len()).all(same)
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// What a buffer of a step's kernel is bound to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Arg {
    /// The tensor of this operand of the node.
    Operand(usize),
    /// The node's result.
    Result,
    /// Constant bytes, packed for this kernel.
    Const(Vec<u8>),
    /// Work space of this node, by number; all its steps share the space of one number.
    Scratch(usize, usize),
}

/// One call of a kernel: arguments in the order of the kernel's buffers.
#[derive(Clone, Debug)]
pub struct Step {
    /// The kernel. Its name must follow from everything its text depends on, or be one that the driver makes unique:
    /// equal texts are emitted once, whatever their names.
    pub kernel: Kernel,
    /// What each buffer is bound to; `Scratch(number, bytes)`.
    pub args: Vec<Arg>,
}

/// An operand of a node that is lowered.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    /// How it lies in memory; dense for a constant.
    pub storage: &'a Storage,
    /// Its elements, where it is a constant.
    pub constant: Option<&'a Tensor>,
}
