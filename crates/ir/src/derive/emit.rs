use crate::ops::{
    Binary, BinaryFn, Broadcast, Conv, MatMul, Op, OpError, Reduce, ReduceFn, Reshape, Select,
    Slice, Transpose, Unary, UnaryFn,
};
use crate::{DType, Graph, Tensor, ValueId};

/// Appends nodes to a graph under one name: what rules are written with.
pub struct Emit<'a> {
    /// The graph.
    pub graph: &'a mut Graph,
    name: String,
}

impl<'a> Emit<'a> {
    /// Nodes will be called `name` in messages.
    pub fn new(graph: &'a mut Graph, name: impl Into<String>) -> Self {
        Self {
            graph,
            name: name.into(),
        }
    }

    /// Shape of a value.
    pub fn shape(&self, v: ValueId) -> Vec<usize> {
        self.graph.shape(v).to_vec()
    }

    /// Any operation.
    ///
    /// # Errors
    /// What its shape rule says; so for every method below.
    pub fn push(&mut self, op: impl Into<Op>, inputs: &[ValueId]) -> Result<ValueId, OpError> {
        self.graph.push(self.name.clone(), op, inputs)
    }

    /// A constant of the float type of `like`.
    pub fn constant(&mut self, like: ValueId, shape: &[usize], elements: Vec<f64>) -> ValueId {
        let dtype = self.graph.ty(like).dtype;
        let tensor = Tensor::from_f64(dtype, shape, elements);
        self.graph.constant(self.name.clone(), tensor)
    }

    /// A constant of rank 0 of the float type of `like`.
    pub fn number(&mut self, like: ValueId, x: f64) -> ValueId {
        self.constant(like, &[], vec![x])
    }

    /// Zeros of the type of `like`.
    ///
    /// # Errors
    /// See [`Emit::push`].
    pub fn zeros(&mut self, like: ValueId) -> Result<ValueId, OpError> {
        let zero = self.number(like, 0.0);
        let shape = self.shape(like);
        self.broadcast(zero, &shape)
    }

    /// A function of one operand.
    ///
    /// # Errors
    /// See [`Emit::push`].
    pub fn unary(&mut self, f: UnaryFn, x: ValueId) -> Result<ValueId, OpError> {
        self.push(Unary(f), &[x])
    }

    /// A function of two operands.
    ///
    /// # Errors
    /// See [`Emit::push`].
    pub fn binary(&mut self, f: BinaryFn, x: ValueId, y: ValueId) -> Result<ValueId, OpError> {
        self.push(Binary(f), &[x, y])
    }

    /// `x + y`.
    ///
    /// # Errors
    /// See [`Emit::push`].
    pub fn add(&mut self, x: ValueId, y: ValueId) -> Result<ValueId, OpError> {
        self.binary(BinaryFn::Add, x, y)
    }

    /// `x − y`.
    ///
    /// # Errors
    /// See [`Emit::push`].
    pub fn sub(&mut self, x: ValueId, y: ValueId) -> Result<ValueId, OpError> {
        self.binary(BinaryFn::Sub, x, y)
    }

    /// `x · y`.
    ///
    /// # Errors
    /// See [`Emit::push`].
    pub fn mul(&mut self, x: ValueId, y: ValueId) -> Result<ValueId, OpError> {
        self.binary(BinaryFn::Mul, x, y)
    }

    /// `x / y`.
    ///
    /// # Errors
    /// See [`Emit::push`].
    pub fn div(&mut self, x: ValueId, y: ValueId) -> Result<ValueId, OpError> {
        self.binary(BinaryFn::Div, x, y)
    }

    /// `k · x`.
    ///
    /// # Errors
    /// See [`Emit::push`].
    pub fn scale(&mut self, x: ValueId, k: f64) -> Result<ValueId, OpError> {
        let k = self.number(x, k);
        self.mul(x, k)
    }

    /// `x + k`.
    ///
    /// # Errors
    /// See [`Emit::push`].
    pub fn shift(&mut self, x: ValueId, k: f64) -> Result<ValueId, OpError> {
        let k = self.number(x, k);
        self.add(x, k)
    }

    /// `x` where the condition holds, 0 elsewhere.
    ///
    /// # Errors
    /// See [`Emit::push`].
    pub fn keep_where(&mut self, condition: ValueId, x: ValueId) -> Result<ValueId, OpError> {
        let zero = self.number(x, 0.0);
        self.push(Select, &[condition, x, zero])
    }

    /// `x` where the condition does not hold, 0 elsewhere.
    ///
    /// # Errors
    /// See [`Emit::push`].
    pub fn keep_unless(&mut self, condition: ValueId, x: ValueId) -> Result<ValueId, OpError> {
        let zero = self.number(x, 0.0);
        self.push(Select, &[condition, zero, x])
    }

    /// `x / y`, 0 where y is 0. Where y is tiny it counts as 10⁻⁹ larger, so that quotients stay finite.
    ///
    /// # Errors
    /// See [`Emit::push`].
    pub fn ratio(&mut self, x: ValueId, y: ValueId) -> Result<ValueId, OpError> {
        let sign = self.unary(UnaryFn::Sign, y)?;
        let guard = self.scale(sign, 1e-9)?;
        let guarded = self.add(y, guard)?;
        let zero = self.number(y, 0.0);
        let none = self.binary(BinaryFn::Equal, y, zero)?;
        let quotient = self.div(x, guarded)?;
        self.keep_unless(none, quotient)
    }

    /// The positive part of x for a positive `sign`, the negative part for a negative one.
    ///
    /// # Errors
    /// See [`Emit::push`].
    pub fn one_sided(&mut self, x: ValueId, sign: f64) -> Result<ValueId, OpError> {
        let zero = self.number(x, 0.0);
        let f = if sign > 0.0 {
            BinaryFn::Max
        } else {
            BinaryFn::Min
        };
        self.binary(f, x, zero)
    }

    /// Reduces over axes, which stay with extent 1.
    ///
    /// # Errors
    /// See [`Emit::push`].
    pub fn reduce(&mut self, f: ReduceFn, x: ValueId, axes: &[usize]) -> Result<ValueId, OpError> {
        let axes = axes.to_vec();
        self.push(
            Reduce {
                f,
                axes,
                keep: true,
            },
            &[x],
        )
    }

    /// The sum of all elements, of rank 0.
    ///
    /// # Errors
    /// See [`Emit::push`].
    pub fn total(&mut self, x: ValueId) -> Result<ValueId, OpError> {
        let axes = (0..self.graph.ty(x).rank()).collect();
        let f = ReduceFn::Sum;
        self.push(
            Reduce {
                f,
                axes,
                keep: false,
            },
            &[x],
        )
    }

    /// The adjoint of broadcasting: sums over what was repeated.
    ///
    /// # Errors
    /// See [`Emit::push`].
    pub fn sum_to(&mut self, x: ValueId, shape: &[usize]) -> Result<ValueId, OpError> {
        let from = self.shape(x);
        let front = from.len() - shape.len();
        let axes: Vec<usize> = (0..from.len())
            .filter(|&a| a < front || shape[a - front] != from[a])
            .collect();
        let sum = match axes.is_empty() {
            true => x,
            false => self.reduce(ReduceFn::Sum, x, &axes)?,
        };
        self.reshape(sum, shape)
    }

    /// The same elements under another shape.
    ///
    /// # Errors
    /// See [`Emit::push`].
    pub fn reshape(&mut self, x: ValueId, shape: &[usize]) -> Result<ValueId, OpError> {
        if self.graph.shape(x) == shape {
            return Ok(x);
        }
        let shape = shape.to_vec();
        self.push(Reshape { shape }, &[x])
    }

    /// Repeats to a larger shape.
    ///
    /// # Errors
    /// See [`Emit::push`].
    pub fn broadcast(&mut self, x: ValueId, shape: &[usize]) -> Result<ValueId, OpError> {
        if self.graph.shape(x) == shape {
            return Ok(x);
        }
        let shape = shape.to_vec();
        self.push(Broadcast { shape }, &[x])
    }

    /// Permutes axes; a reshape where only axes of extent 1 move.
    ///
    /// # Errors
    /// See [`Emit::push`].
    pub fn transpose(&mut self, x: ValueId, perm: &[usize]) -> Result<ValueId, OpError> {
        let from = self.shape(x);
        let moved = perm.iter().filter(|&&p| from[p] != 1);
        if moved.is_sorted() {
            let shape: Vec<usize> = perm.iter().map(|&p| from[p]).collect();
            return self.reshape(x, &shape);
        }
        let perm = perm.to_vec();
        self.push(Transpose { perm }, &[x])
    }

    /// Reverses the order along axes.
    ///
    /// # Errors
    /// See [`Emit::push`].
    pub fn flip(&mut self, x: ValueId, axes: &[usize]) -> Result<ValueId, OpError> {
        let len = self.shape(x);
        let reversed = |a: usize| axes.contains(&a) && len[a] > 1;
        if !(0..len.len()).any(reversed) {
            return Ok(x);
        }
        let start = (0..len.len())
            .map(|a| if reversed(a) { len[a] - 1 } else { 0 })
            .collect();
        let step = (0..len.len())
            .map(|a| if reversed(a) { -1 } else { 1 })
            .collect();
        self.push(Slice { start, len, step }, &[x])
    }

    /// The first elements of each axis.
    ///
    /// # Errors
    /// See [`Emit::push`].
    pub fn head(&mut self, x: ValueId, len: &[usize]) -> Result<ValueId, OpError> {
        if self.graph.shape(x) == len {
            return Ok(x);
        }
        let (start, step, len) = (vec![0; len.len()], vec![1; len.len()], len.to_vec());
        self.push(Slice { start, len, step }, &[x])
    }

    /// A product of matrices.
    ///
    /// # Errors
    /// See [`Emit::push`].
    pub fn matmul(&mut self, a: ValueId, b: ValueId) -> Result<ValueId, OpError> {
        self.push(MatMul, &[a, b])
    }

    /// The last two axes exchanged.
    ///
    /// # Errors
    /// See [`Emit::push`].
    pub fn matrix_transpose(&mut self, x: ValueId) -> Result<ValueId, OpError> {
        let rank = self.graph.ty(x).rank();
        let mut perm: Vec<usize> = (0..rank).collect();
        perm.swap(rank - 2, rank - 1);
        self.transpose(x, &perm)
    }

    /// Applies a matrix `[n, m]` along an axis of extent m, which becomes n.
    ///
    /// # Errors
    /// See [`Emit::push`].
    pub fn along(&mut self, matrix: ValueId, x: ValueId, axis: usize) -> Result<ValueId, OpError> {
        let shape = self.shape(x);
        let (outer, inner) = (
            shape[..axis].iter().product(),
            shape[axis + 1..].iter().product(),
        );
        let block = self.reshape(x, &[outer, shape[axis], inner])?;
        let product = self.matmul(matrix, block)?;
        let mut result = shape;
        result[axis] = self.graph.shape(matrix)[0];
        self.reshape(product, &result)
    }

    /// A convolution without bias.
    ///
    /// # Errors
    /// See [`Emit::push`].
    pub fn conv(&mut self, op: Conv, x: ValueId, w: ValueId) -> Result<ValueId, OpError> {
        self.push(op, &[x, w])
    }

    /// Whether elements are floats.
    pub fn is_float(&self, v: ValueId) -> bool {
        self.dtype(v).is_float()
    }

    /// Element type of a value.
    pub fn dtype(&self, v: ValueId) -> DType {
        self.graph.ty(v).dtype
    }
}
