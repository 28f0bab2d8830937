use std::collections::HashMap;
use std::sync::Arc;

use cranelift_entity::{PrimaryMap, SecondaryMap, entity_impl};

use crate::{Op, OpError, Quant, Tensor, Type};

/// Refers to a value of a [`Graph`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(u32);
entity_impl!(ValueId, "%");

/// Refers to a node of a [`Graph`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u32);
entity_impl!(NodeId, "n");

/// Refers to an interned [`Quant`] of a [`Graph`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QuantId(u32);
entity_impl!(QuantId, "q");

/// Where a value comes from.
#[derive(Clone, Debug)]
pub enum Def {
    /// The graph's input of this index.
    Input(usize),
    /// A constant.
    Const(Arc<Tensor>),
    /// The result of a node.
    Node(NodeId),
}

/// A value: a name for messages, a type and a definition.
#[derive(Clone, Debug)]
pub struct Value {
    /// The name in the model, or one derived from it. Not unique and without meaning to passes.
    pub name: String,
    /// Element type, shape and quantisation.
    pub ty: Type,
    /// Where it comes from.
    pub def: Def,
}

/// An operation applied to values.
#[derive(Clone, Debug)]
pub struct Node {
    /// What is computed.
    pub op: Op,
    /// Operands, in the order that the operation documents; optional ones at the end.
    pub inputs: Vec<ValueId>,
    /// The value it defines.
    pub output: ValueId,
}

/// An output of a graph: its name in the model and its value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Output {
    /// The name in the model.
    pub name: String,
    /// What is given out.
    pub value: ValueId,
}

/// Straight-line SSA over tensors. Nodes are held in execution order.
#[derive(Clone, Default, Debug)]
pub struct Graph {
    /// Name of the model.
    pub name: String,
    values: PrimaryMap<ValueId, Value>,
    nodes: PrimaryMap<NodeId, Node>,
    inputs: Vec<ValueId>,
    outputs: Vec<Output>,
    quants: PrimaryMap<QuantId, Quant>,
    quant_ids: HashMap<Quant, QuantId>,
}

impl Graph {
    /// An empty graph.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }

    /// Adds an input.
    pub fn input(&mut self, name: impl Into<String>, ty: Type) -> ValueId {
        let def = Def::Input(self.inputs.len());
        let id = self.values.push(Value {
            name: name.into(),
            ty,
            def,
        });
        self.inputs.push(id);
        id
    }

    /// Adds a constant without quantisation.
    pub fn constant(&mut self, name: impl Into<String>, tensor: impl Into<Arc<Tensor>>) -> ValueId {
        self.constant_quantized(name, tensor, None)
    }

    /// Adds a constant whose codes stand for real values.
    pub fn constant_quantized(
        &mut self,
        name: impl Into<String>,
        tensor: impl Into<Arc<Tensor>>,
        quant: Option<QuantId>,
    ) -> ValueId {
        let tensor = tensor.into();
        let ty = Type {
            quant,
            ..tensor.ty()
        };
        self.values.push(Value {
            name: name.into(),
            ty,
            def: Def::Const(tensor),
        })
    }

    /// Appends a node; its type follows from the operation's shape rule.
    ///
    /// # Errors
    /// What the shape rule finds wrong with the operands.
    pub fn push(
        &mut self,
        name: impl Into<String>,
        op: impl Into<Op>,
        inputs: &[ValueId],
    ) -> Result<ValueId, OpError> {
        let op = op.into();
        let types: Vec<&Type> = inputs.iter().map(|&v| &self.values[v].ty).collect();
        let ty = op.infer(&types)?;
        Ok(self.push_typed(name, op, inputs, ty))
    }

    /// Appends a node of the integer stage and says how its codes map to real values.
    ///
    /// # Errors
    /// What the shape rule finds wrong with the operands.
    pub fn push_quantized(
        &mut self,
        name: impl Into<String>,
        op: impl Into<Op>,
        inputs: &[ValueId],
        quant: Quant,
    ) -> Result<ValueId, OpError> {
        let id = self.push(name, op, inputs)?;
        let quant = self.intern(quant);
        self.values[id].ty.quant = Some(quant);
        Ok(id)
    }

    fn push_typed(
        &mut self,
        name: impl Into<String>,
        op: Op,
        inputs: &[ValueId],
        ty: Type,
    ) -> ValueId {
        let output = self.values.next_key();
        let node = self.nodes.push(Node {
            op,
            inputs: inputs.to_vec(),
            output,
        });
        self.values.push(Value {
            name: name.into(),
            ty,
            def: Def::Node(node),
        })
    }

    /// Gives a value out under a name.
    pub fn output(&mut self, name: impl Into<String>, value: ValueId) {
        self.outputs.push(Output {
            name: name.into(),
            value,
        });
    }

    /// Forgets what is given out.
    pub fn clear_outputs(&mut self) {
        self.outputs.clear();
    }

    /// The id of a quantisation, the same for equal ones.
    pub fn intern(&mut self, quant: Quant) -> QuantId {
        if let Some(&id) = self.quant_ids.get(&quant) {
            return id;
        }
        let id = self.quants.push(quant.clone());
        self.quant_ids.insert(quant, id);
        id
    }

    /// Sets the quantisation of a value, as [`Graph::push_quantized`] does.
    pub fn set_quant(&mut self, value: ValueId, quant: Option<QuantId>) {
        self.values[value].ty.quant = quant;
    }

    /// Gives a constant other elements of the same type.
    ///
    /// # Panics
    /// When the value is no constant or the type changes.
    pub fn replace_constant(&mut self, id: ValueId, tensor: impl Into<Arc<Tensor>>) {
        let tensor = tensor.into();
        let value = &mut self.values[id];
        assert!(matches!(value.def, Def::Const(_)), "{id} is no constant");
        let old = (value.ty.dtype, value.ty.shape.as_slice());
        assert_eq!(
            old,
            (tensor.dtype(), tensor.shape()),
            "the type of a constant changes"
        );
        value.def = Def::Const(tensor);
    }

    /// The value behind an id.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id]
    }

    /// Type of a value.
    pub fn ty(&self, id: ValueId) -> &Type {
        &self.values[id].ty
    }

    /// Shape of a value.
    pub fn shape(&self, id: ValueId) -> &[usize] {
        &self.values[id].ty.shape
    }

    /// The node behind an id.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id]
    }

    /// The node that defines a value, if one does.
    pub fn producer(&self, id: ValueId) -> Option<&Node> {
        match self.values[id].def {
            Def::Node(n) => Some(&self.nodes[n]),
            _ => None,
        }
    }

    /// The tensor of a constant.
    pub fn as_const(&self, id: ValueId) -> Option<&Arc<Tensor>> {
        match &self.values[id].def {
            Def::Const(t) => Some(t),
            _ => None,
        }
    }

    /// The quantisation behind an id.
    pub fn quant(&self, id: QuantId) -> &Quant {
        &self.quants[id]
    }

    /// How the codes of a value map to real values.
    pub fn quant_of(&self, id: ValueId) -> Option<&Quant> {
        self.values[id].ty.quant.map(|q| &self.quants[q])
    }

    /// Nodes in execution order.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = (NodeId, &Node)> {
        self.nodes.iter()
    }

    /// All values: inputs, constants and results.
    pub fn values(&self) -> impl ExactSizeIterator<Item = (ValueId, &Value)> {
        self.values.iter()
    }

    /// Interned quantisations in the order of their ids.
    pub fn quants(&self) -> impl ExactSizeIterator<Item = (QuantId, &Quant)> {
        self.quants.iter()
    }

    /// Inputs in order.
    pub fn inputs(&self) -> &[ValueId] {
        &self.inputs
    }

    /// Outputs in order.
    pub fn outputs(&self) -> &[Output] {
        &self.outputs
    }

    /// The nodes that read each value, in execution order; a node that reads it twice stands twice.
    pub fn users(&self) -> SecondaryMap<ValueId, Vec<NodeId>> {
        let mut users = SecondaryMap::with_capacity(self.values.len());
        for (id, node) in self.nodes() {
            for &v in &node.inputs {
                let list: &mut Vec<NodeId> = &mut users[v];
                list.push(id);
            }
        }
        users
    }

    /// Whether a value is given out.
    pub fn is_output(&self, id: ValueId) -> bool {
        self.outputs.iter().any(|o| o.value == id)
    }

    /// Builds a new graph by walking this one in order. `visit` gets the graph under construction, a node and its
    /// operands there, and returns the value that stands for the node's result. [`Rewrite::copy`] keeps a node as it
    /// is. Nodes and constants that no output needs any more are left out.
    ///
    /// # Errors
    /// The first that `visit` returns.
    pub fn rewrite<E>(
        &self,
        mut visit: impl FnMut(&mut Rewrite<'_>, NodeId, &Node, &[ValueId]) -> Result<ValueId, E>,
    ) -> Result<Self, E> {
        let mut new = Rewrite::start(self);
        for (id, node) in self.nodes() {
            let operands: Vec<ValueId> = node.inputs.iter().map(|&v| new.get(v)).collect();
            let result = visit(&mut new, id, node, &operands)?;
            new.map[node.output] = Some(result).into();
        }
        Ok(new.finish().without_dead())
    }

    /// The same graph without nodes and constants that no output needs.
    pub fn without_dead(&self) -> Self {
        let mut live: SecondaryMap<ValueId, bool> = SecondaryMap::with_capacity(self.values.len());
        for o in &self.outputs {
            live[o.value] = true;
        }
        for (_, node) in self.nodes.iter().rev() {
            if live[node.output] {
                for &v in &node.inputs {
                    live[v] = true;
                }
            }
        }
        let mut new = Rewrite::start(self);
        for (_, node) in self.nodes() {
            if live[node.output] {
                let operands: Vec<ValueId> = node.inputs.iter().map(|&v| new.get(v)).collect();
                let id = new.copy(node, &operands);
                new.map[node.output] = Some(id).into();
            }
        }
        new.finish()
    }
}

/// A graph under construction from another one; see [`Graph::rewrite`].
pub struct Rewrite<'a> {
    old: &'a Graph,
    new: Graph,
    map: SecondaryMap<ValueId, cranelift_entity::packed_option::PackedOption<ValueId>>,
}

impl<'a> Rewrite<'a> {
    fn start(old: &'a Graph) -> Self {
        let mut new = Graph::new(old.name.clone());
        new.quants = old.quants.clone();
        new.quant_ids = old.quant_ids.clone();
        let mut map = SecondaryMap::with_capacity(old.values.len());
        for &v in &old.inputs {
            let value = old.value(v);
            map[v] = Some(new.input(value.name.clone(), value.ty.clone())).into();
        }
        Self { old, new, map }
    }

    fn finish(mut self) -> Graph {
        for o in &self.old.outputs {
            let value = self.get(o.value);
            self.new.output(o.name.clone(), value);
        }
        self.new
    }

    /// What stands in the new graph for a value of the old one: constants are brought over when first asked for.
    ///
    /// # Panics
    /// When the value is the result of a node that was not visited yet.
    pub fn get(&mut self, old: ValueId) -> ValueId {
        if let Some(id) = self.map[old].expand() {
            return id;
        }
        let value = self.old.value(old);
        let Def::Const(tensor) = &value.def else {
            panic!("{old} is used before it is defined");
        };
        let id =
            self.new
                .constant_quantized(value.name.clone(), Arc::clone(tensor), value.ty.quant);
        self.map[old] = Some(id).into();
        id
    }

    /// Keeps a node of the old graph as it is, with the operands given; its type is inferred anew where operands
    /// changed theirs.
    pub fn copy(&mut self, node: &Node, operands: &[ValueId]) -> ValueId {
        let value = self.old.value(node.output);
        self.new.push_typed(
            value.name.clone(),
            node.op.clone(),
            operands,
            value.ty.clone(),
        )
    }

    /// The graph that is walked.
    pub fn old(&self) -> &'a Graph {
        self.old
    }
}

impl std::ops::Deref for Rewrite<'_> {
    type Target = Graph;
    fn deref(&self) -> &Graph {
        &self.new
    }
}

impl std::ops::DerefMut for Rewrite<'_> {
    fn deref_mut(&mut self) -> &mut Graph {
        &mut self.new
    }
}
