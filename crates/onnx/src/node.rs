//! What an operator's importer sees: a node's attributes and operands, and the graph under construction.

use std::cell::RefCell;
use std::collections::HashMap;

use lowbit_ir::ops::{
    Binary, BinaryFn, Broadcast, Cast, Reduce, ReduceFn, Reshape, Slice, Transpose, Unary, UnaryFn,
};
use lowbit_ir::{DType, Graph, Op, Tensor, Type, ValueId};

use crate::{proto, tensor};

/// ONNX's numbers of attribute types, and their names.
const FLOAT: i32 = 1;
const INT: i32 = 2;
const STRING: i32 = 3;
const TENSOR: i32 = 4;
const FLOATS: i32 = 6;
const INTS: i32 = 7;
const KINDS: [&str; 9] = [
    "untyped",
    "a float",
    "an integer",
    "a string",
    "a tensor",
    "a graph",
    "floats",
    "integers",
    "strings",
];

/// What stands in the way of a node, as the end of a sentence.
pub(crate) type Result<T> = std::result::Result<T, String>;

pub(crate) struct Node<'a> {
    pub(crate) proto: &'a proto::Node,
    pub(crate) opset: i64,
    /// ONNX's element types of inputs and initialisers by name.
    pub(crate) codes: &'a HashMap<String, i32>,
    pub(crate) inputs: Vec<Option<ValueId>>,
    pub(crate) graph: &'a mut Graph,
    pub(crate) name: &'a str,
    /// How many more elements of constants may be computed.
    pub(crate) room: &'a mut usize,
    /// The first attribute that was found to be of another type than its operator documents.
    pub(crate) fault: RefCell<Option<String>>,
}

impl Node<'_> {
    /// An attribute of type `kind`. One of another type is remembered in `fault`; very old files leave the type out.
    fn attribute(&self, name: &str, kind: i32) -> Option<&proto::Attribute> {
        let found = self.proto.attribute.iter().find(|a| a.name == name)?;
        if found.r#type == kind || found.r#type == 0 {
            return Some(found);
        }
        let known = |kind: i32| {
            KINDS
                .get(kind as usize)
                .copied()
                .unwrap_or("of another type")
        };
        self.blame(format!(
            "attribute '{name}' is {}, expected {}",
            known(found.r#type),
            known(kind)
        ));
        None
    }

    fn blame(&self, message: String) {
        self.fault.borrow_mut().get_or_insert(message);
    }

    /// Whether the node has an attribute.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.proto.attribute.iter().any(|a| a.name == name)
    }

    pub(crate) fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name, INT).map_or(default, |a| a.i)
    }

    pub(crate) fn float(&self, name: &str, default: f32) -> f64 {
        let x = self.attribute(name, FLOAT).map_or(default, |a| a.f);
        if x.is_nan() {
            self.blame(format!("attribute '{name}' is not a number (NaN)"));
        }
        x.into()
    }

    pub(crate) fn ints(&self, name: &str) -> Option<Vec<i64>> {
        self.attribute(name, INTS).map(|a| a.ints.clone())
    }

    pub(crate) fn string(&self, name: &str, default: &str) -> String {
        self.attribute(name, STRING).map_or_else(
            || default.into(),
            |a| String::from_utf8_lossy(&a.s).into_owned(),
        )
    }

    pub(crate) fn tensor(&self, name: &str) -> Result<Option<Tensor>> {
        let Some(a) = self.attribute(name, TENSOR) else {
            return Ok(None);
        };
        let t =
            a.t.as_ref()
                .ok_or_else(|| format!("attribute '{name}' holds no tensor"))?;
        let tensor = tensor::read(t, None).map_err(|e| format!("attribute '{name}': {e}"))?;
        match tensor::first(&tensor, f64::is_nan) {
            Some(i) => Err(format!(
                "attribute '{name}': element {i} is not a number (NaN)"
            )),
            None => Ok(Some(tensor)),
        }
    }

    pub(crate) fn floats(&self, name: &str) -> Option<Vec<f32>> {
        self.attribute(name, FLOATS).map(|a| a.floats.clone())
    }

    /// Extents along spatial axes: 1 to 2^20.
    pub(crate) fn positive(&self, name: &str) -> Result<Option<Vec<usize>>> {
        let Some(list) = self.ints(name) else {
            return Ok(None);
        };
        let positive = |&x: &i64| {
            usize::try_from(x)
                .ok()
                .filter(|x| (1..=1 << 20).contains(x))
        };
        let positives: Option<Vec<usize>> = list.iter().map(positive).collect();
        positives
            .map(Some)
            .ok_or_else(|| format!("attribute '{name}' is {list:?}, expected 1 to 2^20 each"))
    }

    /// Distances and extents of either sign: −2^30 to 2^30.
    pub(crate) fn moderate(&self, name: &str) -> Result<Option<Vec<i64>>> {
        match self.ints(name) {
            Some(list) if list.iter().any(|x| x.unsigned_abs() > 1 << 30) => Err(format!(
                "attribute '{name}' is {list:?}, expected -2^30 to 2^30 each"
            )),
            list => Ok(list),
        }
    }

    /// A count from 1 to 2^20.
    pub(crate) fn count(&self, name: &str) -> Result<usize> {
        let given = self.int(name, 0);
        usize::try_from(given)
            .ok()
            .filter(|x| (1..=1 << 20).contains(x))
            .ok_or_else(|| format!("attribute '{name}' is {given}, expected 1 to 2^20"))
    }

    /// ONNX's element type of an operand that is an input or an initialiser.
    pub(crate) fn code(&self, i: usize) -> Option<i32> {
        self.codes.get(self.proto.input.get(i)?).copied()
    }

    /// A required operand.
    pub(crate) fn input(&self, i: usize) -> Result<ValueId> {
        self.optional(i)
            .ok_or_else(|| format!("operand {i} is missing"))
    }

    /// An optional operand.
    pub(crate) fn optional(&self, i: usize) -> Option<ValueId> {
        self.inputs.get(i).copied().flatten()
    }

    pub(crate) fn ty(&self, v: ValueId) -> &Type {
        self.graph.ty(v)
    }

    pub(crate) fn shape(&self, v: ValueId) -> Vec<usize> {
        self.graph.shape(v).to_vec()
    }

    pub(crate) fn rank(&self, v: ValueId) -> usize {
        self.graph.shape(v).len()
    }

    /// The elements of an operand that must be known at import.
    pub(crate) fn constant(&self, i: usize, what: &str) -> Result<Tensor> {
        let v = self.input(i)?;
        let tensor = self.graph.as_const(v).ok_or_else(|| {
            format!("its {what} (operand {i}) depends on the input; it must be constant (bind shapes with --shape, or fold the model with onnxsim)")
        })?;
        Ok(tensor.as_ref().clone())
    }

    /// Integers from an attribute of older opsets or an operand of newer ones.
    pub(crate) fn ints_or_input(&self, attribute: &str, i: usize) -> Result<Option<Vec<i64>>> {
        if let Some(list) = self.ints(attribute) {
            return Ok(Some(list));
        }
        if self.optional(i).is_none() {
            return Ok(None);
        }
        let wide = self.constant(i, attribute)?.to_i64();
        wide.map(Some)
            .ok_or_else(|| format!("its {attribute} are no integers"))
    }

    /// An axis counted from the front.
    pub(crate) fn axis(&self, axis: i64, rank: usize) -> Result<usize> {
        let at = if axis < 0 { axis + rank as i64 } else { axis };
        usize::try_from(at)
            .ok()
            .filter(|&a| a < rank)
            .ok_or_else(|| format!("axis {axis} is outside a tensor of {rank} axes"))
    }

    /// Axes counted from the front, ascending and distinct.
    pub(crate) fn axes(&self, axes: &[i64], rank: usize) -> Result<Vec<usize>> {
        let list: Result<Vec<usize>> = axes.iter().map(|&a| self.axis(a, rank)).collect();
        let mut list = list?;
        list.sort_unstable();
        if list.windows(2).any(|w| w[0] == w[1]) {
            return Err(format!("axes {axes:?} name one axis twice"));
        }
        Ok(list)
    }

    /// Appends an operation; evaluates it here where all operands are constant.
    pub(crate) fn push(&mut self, op: impl Into<Op>, operands: &[ValueId]) -> Result<ValueId> {
        let op = op.into();
        let types: Vec<&Type> = operands.iter().map(|&v| self.graph.ty(v)).collect();
        let ty = op.infer(&types).map_err(|e| e.to_string())?;
        tensor::bounded(&ty.shape)?;
        let constants: Option<Vec<Tensor>> = operands
            .iter()
            .map(|&v| self.graph.as_const(v).map(|t| t.as_ref().clone()))
            .collect();
        if let Some(constants) = constants {
            self.take_room(&ty.shape)?;
            let result = op
                .eval(&constants.iter().collect::<Vec<_>>())
                .map_err(|e| e.to_string())?;
            return Ok(self.graph.constant(self.name, result));
        }
        self.graph
            .push(self.name, op, operands)
            .map_err(|e| e.to_string())
    }

    /// Accounts for a constant that is made here.
    pub(crate) fn take_room(&mut self, shape: &[usize]) -> Result<()> {
        let elements = shape.iter().product();
        *self.room = self
            .room
            .checked_sub(elements)
            .ok_or_else(|| format!("it makes a constant of shape {shape:?}, which is too large"))?;
        Ok(())
    }

    pub(crate) fn give(&mut self, tensor: Tensor) -> ValueId {
        self.graph.constant(self.name, tensor)
    }

    /// A number of the element type of `like`.
    pub(crate) fn number(&mut self, x: f64, like: ValueId) -> ValueId {
        let dtype = self.ty(like).dtype;
        let tensor = if dtype.is_float() {
            Tensor::from_f64(dtype, [], vec![x])
        } else {
            Tensor::from_i64(dtype, [], vec![x as i64])
        };
        self.give(tensor)
    }

    pub(crate) fn unary(&mut self, f: UnaryFn, x: ValueId) -> Result<ValueId> {
        self.push(Unary(f), &[x])
    }

    pub(crate) fn binary(&mut self, f: BinaryFn, x: ValueId, y: ValueId) -> Result<ValueId> {
        self.push(Binary(f), &[x, y])
    }

    /// A function of x and a number.
    pub(crate) fn with(&mut self, f: BinaryFn, x: ValueId, number: f64) -> Result<ValueId> {
        let number = self.number(number, x);
        self.binary(f, x, number)
    }

    pub(crate) fn transpose(&mut self, x: ValueId, perm: Vec<usize>) -> Result<ValueId> {
        self.push(Transpose { perm }, &[x])
    }

    pub(crate) fn reshape(&mut self, x: ValueId, shape: Vec<usize>) -> Result<ValueId> {
        self.push(Reshape { shape }, &[x])
    }

    pub(crate) fn cast(&mut self, x: ValueId, to: DType) -> Result<ValueId> {
        if self.ty(x).dtype == to {
            Ok(x)
        } else {
            self.push(Cast { to }, &[x])
        }
    }

    pub(crate) fn broadcast(&mut self, x: ValueId, shape: Vec<usize>) -> Result<ValueId> {
        self.push(Broadcast { shape }, &[x])
    }

    pub(crate) fn reduce(
        &mut self,
        f: ReduceFn,
        x: ValueId,
        axes: Vec<usize>,
        keep: bool,
    ) -> Result<ValueId> {
        self.push(Reduce { f, axes, keep }, &[x])
    }

    /// Indices `first..first + len` along an axis.
    pub(crate) fn range(
        &mut self,
        x: ValueId,
        axis: usize,
        first: usize,
        len: usize,
    ) -> Result<ValueId> {
        let shape = self.shape(x);
        let mut op = Slice {
            start: vec![0; shape.len()],
            len: shape.clone(),
            step: vec![1; shape.len()],
        };
        (op.start[axis], op.len[axis]) = (first, len);
        self.push(op, &[x])
    }

    /// A vector by channel, shaped to broadcast to a tensor of `rank` axes with channels second.
    pub(crate) fn by_channel(&mut self, v: ValueId, rank: usize) -> Result<ValueId> {
        let c = self.graph.ty(v).elements();
        let mut shape = vec![1; rank.saturating_sub(1)];
        if let Some(first) = shape.first_mut() {
            *first = c;
        }
        self.reshape(v, shape)
    }
}
