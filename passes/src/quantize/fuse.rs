//! Which nodes of the float graph become one node of the integer graph.

use std::collections::{HashMap, HashSet};

use lowbit_ir::ops::{BinaryFn, PoolKind, UnaryFn};
use lowbit_ir::{Graph, Node, NodeId, Op, ValueId};

/// A sum or convolution with the clamp behind it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    /// The convolution or the sum.
    pub(crate) root: NodeId,
    /// What is added to the convolution.
    pub(crate) residual: Option<ValueId>,
    /// Bounds on the real value of the result; infinite where there is none.
    pub(crate) lo: f64,
    /// See `lo`.
    pub(crate) hi: f64,
    /// The value that the group stands for.
    pub(crate) output: ValueId,
}

/// What becomes of a node.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Role {
    /// It is part of another node.
    Absorbed,
    /// It ends a convolution.
    Conv(Group),
    /// It ends a sum of two tensors.
    Clamped(Group),
    /// It ends a chain of elementwise functions of one tensor.
    Region,
    /// It stands alone.
    Plain,
}

pub(crate) struct Fusion {
    roles: HashMap<NodeId, Role>,
    /// The tensor that an elementwise value is a function of.
    roots: HashMap<ValueId, ValueId>,
    wide: HashSet<ValueId>,
    /// What sums of two tensors read that a layer or another such sum gives.
    streams: HashSet<ValueId>,
    /// The value whose range a result takes over: that of the concatenation it only feeds.
    ranges: HashMap<ValueId, ValueId>,
}

impl Fusion {
    pub(crate) fn new(graph: &Graph) -> Self {
        let mut fusion = Self {
            roles: HashMap::new(),
            roots: HashMap::new(),
            wide: HashSet::new(),
            streams: HashSet::new(),
            ranges: HashMap::new(),
        };
        let users = Users::new(graph);
        fusion.find_groups(graph, &users);
        fusion.find_normalizations(graph, &users);
        fusion.find_regions(graph, &users);
        fusion.find_wide(graph, &users);
        fusion.find_shared_ranges(graph, &users);
        fusion.find_streams(graph);
        fusion
    }

    pub(crate) fn role(&self, node: NodeId) -> Role {
        self.roles.get(&node).copied().unwrap_or(Role::Plain)
    }

    /// The value that a node's group stands for.
    pub(crate) fn result(&self, node: NodeId, own: ValueId) -> ValueId {
        match self.role(node) {
            Role::Conv(g) | Role::Clamped(g) => g.output,
            _ => own,
        }
    }

    pub(crate) fn is_wide(&self, v: ValueId) -> bool {
        self.wide.contains(&v)
    }

    /// Whether a tensor is a residual stream.
    pub(crate) fn is_stream(&self, v: ValueId) -> bool {
        self.streams.contains(&v)
    }

    /// Whether the graph has residual streams.
    pub(crate) fn has_streams(&self) -> bool {
        !self.streams.is_empty()
    }

    pub(crate) fn range_source(&self, v: ValueId) -> ValueId {
        self.ranges.get(&v).copied().unwrap_or(v)
    }

    /// The tensor that `v` is an elementwise function of; `v` itself where it is none.
    pub(crate) fn root(&self, v: ValueId) -> ValueId {
        self.roots.get(&v).copied().unwrap_or(v)
    }

    /// Convolutions from the end, so that of two that are added the later one takes the sum in; then the sums left.
    fn find_groups(&mut self, graph: &Graph, users: &Users) {
        let producers: HashMap<ValueId, NodeId> =
            graph.nodes().map(|(id, n)| (n.output, id)).collect();
        for conv in [true, false] {
            for (id, node) in graph.nodes().collect::<Vec<_>>().into_iter().rev() {
                let root = if conv {
                    matches!(node.op, Op::Conv(_))
                } else {
                    is_sum(graph, node)
                };
                if self.roles.contains_key(&id) || !root {
                    continue;
                }
                let mut chain = Chain::new(id, node.output);
                chain.follow(self, graph, users, conv);
                let group = chain.group;
                for n in chain.nodes {
                    self.roles.insert(n, Role::Absorbed);
                }
                let role = if conv {
                    Role::Conv(group)
                } else {
                    Role::Clamped(group)
                };
                self.roles.insert(producers[&group.output], role);
            }
        }
    }

    /// A product and a sum by channel behind a normalisation belong to it.
    fn find_normalizations(&mut self, graph: &Graph, users: &Users) {
        for (_, node) in graph.nodes() {
            if !matches!(node.op, Op::Normalize(_)) {
                continue;
            }
            let mut v = node.output;
            for f in [BinaryFn::Mul, BinaryFn::Add] {
                let Some((id, next)) = users.only(graph, v) else {
                    break;
                };
                let matching = matches!(&next.op, Op::Binary(op) if op.0 == f);
                if matching && other_constant(graph, next, v).is_some() {
                    self.roles.insert(id, Role::Absorbed);
                    v = next.output;
                }
            }
            self.roots.insert(node.output, v);
        }
    }

    fn find_regions(&mut self, graph: &Graph, users: &Users) {
        for (id, node) in graph.nodes() {
            if self.roles.contains_key(&id) || matches!(node.op, Op::Normalize(_)) {
                continue;
            }
            if let Some(root) = self.region_root(graph, node) {
                self.roots.insert(node.output, root);
            }
        }
        for (id, node) in graph.nodes() {
            if self.roles.contains_key(&id) || self.root(node.output) == node.output {
                continue;
            }
            if matches!(node.op, Op::Normalize(_)) {
                continue;
            }
            let inside = |n: &NodeId| {
                let user = graph.node(*n);
                self.root(user.output) == self.root(node.output)
                    && self.root(user.output) != user.output
                    && !self.roles.contains_key(n)
            };
            let needed = graph.is_output(node.output) || !users.of(node.output).iter().all(inside);
            self.roles
                .insert(id, if needed { Role::Region } else { Role::Absorbed });
        }
    }

    /// The one tensor that an elementwise node is a function of.
    fn region_root(&self, graph: &Graph, node: &Node) -> Option<ValueId> {
        let elementwise = match &node.op {
            Op::Unary(_) | Op::Select(_) | Op::Cast(_) => true,
            Op::Binary(_) => !self.is_scaling(graph, node),
            _ => false,
        };
        if !elementwise {
            return None;
        }
        let mut root = None;
        for &v in &node.inputs {
            if let Some(c) = graph.as_const(v) {
                if c.len() != 1 {
                    return None;
                }
                continue;
            }
            let own = self.root(v);
            if graph.shape(own) != graph.shape(node.output) || root.is_some_and(|r| r != own) {
                return None;
            }
            root = Some(own);
        }
        root
    }

    /// A product with one positive number only changes what the codes mean.
    fn is_scaling(&self, graph: &Graph, node: &Node) -> bool {
        positive_factor(graph, node).is_some_and(|(v, _)| self.root(v) == v)
    }

    fn find_wide(&mut self, graph: &Graph, users: &Users) {
        let nodes: Vec<_> = graph.nodes().collect();
        for &(_, node) in nodes.iter().rev() {
            let v = node.output;
            let all_wide = users.of(v).iter().all(|&n| self.keeps_wide(graph, n));
            let used = graph.is_output(v) || !users.of(v).is_empty();
            if used && all_wide && graph.ty(v).dtype.is_float() {
                self.wide.insert(v);
            }
        }
        self.wide
            .retain(|&v| graph.producer(v).is_some_and(|n| makes_wide(graph, n)));
    }

    fn find_streams(&mut self, graph: &Graph) {
        let mut read: Vec<ValueId> = Vec::new();
        for role in self.roles.values() {
            match role {
                Role::Conv(group) => read.extend(group.residual),
                Role::Clamped(group) => read.extend(&graph.node(group.root).inputs),
                Role::Absorbed | Role::Region | Role::Plain => {}
            }
        }
        for v in read {
            let mut path = vec![v];
            while let Some(node) = graph.producer(path[path.len() - 1]) {
                if !matches!(node.op, Op::Reshape(_)) {
                    break;
                }
                path.push(node.inputs[0]);
            }
            let source = path[path.len() - 1];
            let given = self.roles.values().any(|role| match role {
                Role::Conv(group) | Role::Clamped(group) => group.output == source,
                _ => false,
            });
            let free = |v: &ValueId| {
                !graph.is_output(*v) && !self.ranges.contains_key(v) && !self.wide.contains(v)
            };
            if given && path.iter().all(free) {
                self.streams.extend(path);
            }
        }
    }

    fn keeps_wide(&self, graph: &Graph, user: NodeId) -> bool {
        let node = graph.node(user);
        let passes = match &node.op {
            Op::Reshape(_) | Op::Transpose(_) | Op::Softmax(_) => true,
            Op::Binary(_) => positive_factor(graph, node).is_some(),
            _ => matches!(self.role(user), Role::Absorbed) && is_clamp(graph, node),
        };
        passes && self.wide.contains(&node.output)
    }

    /// What only feeds a concatenation takes over its range, so that nothing is requantised there.
    fn find_shared_ranges(&mut self, graph: &Graph, users: &Users) {
        let nodes: Vec<_> = graph.nodes().collect();
        for &(_, node) in nodes.iter().rev() {
            if !matches!(node.op, Op::Concat(_)) {
                continue;
            }
            let range = self.range_source(node.output);
            for &v in &node.inputs {
                let mut v = v;
                while users.only(graph, v).is_some() {
                    self.ranges.insert(v, range);
                    match graph.producer(v) {
                        Some(n) if is_pass_through(&n.op) => v = n.inputs[0],
                        _ => break,
                    }
                }
            }
        }
    }
}

struct Chain {
    group: Group,
    nodes: Vec<NodeId>,
    at: NodeId,
}

impl Chain {
    fn new(root: NodeId, output: ValueId) -> Self {
        let group = Group {
            root,
            residual: None,
            lo: f64::NEG_INFINITY,
            hi: f64::INFINITY,
            output,
        };
        Self {
            group,
            nodes: Vec::new(),
            at: root,
        }
    }

    fn follow(&mut self, fusion: &Fusion, graph: &Graph, users: &Users, conv: bool) {
        while let Some((id, node)) = users.only(graph, self.group.output) {
            let free = !self.bounded() && self.group.residual.is_none();
            if let Some((lo, hi)) = clamp_bounds(graph, node) {
                self.group.lo = self.group.lo.max(lo).min(hi);
                self.group.hi = self.group.hi.min(hi).max(lo);
            } else if conv && free && !fusion.is_taken(id) && is_sum(graph, node) {
                match residual(graph, node, self.group.output) {
                    Some(r) => self.group.residual = Some(r),
                    None => break,
                }
            } else {
                break;
            }
            self.nodes.push(self.at);
            self.at = id;
            self.group.output = node.output;
        }
    }

    fn bounded(&self) -> bool {
        self.group.lo.is_finite() || self.group.hi.is_finite()
    }
}

impl Fusion {
    /// Whether a sum belongs to a later convolution already.
    fn is_taken(&self, id: NodeId) -> bool {
        match self.role(id) {
            Role::Absorbed | Role::Conv(_) => true,
            Role::Clamped(_) | Role::Region | Role::Plain => false,
        }
    }
}

/// The nodes that read each value.
pub(crate) struct Users(lowbit_ir::SecondaryMap<ValueId, Vec<NodeId>>);

impl Users {
    pub(crate) fn new(graph: &Graph) -> Self {
        Self(graph.users())
    }

    pub(crate) fn of(&self, v: ValueId) -> &[NodeId] {
        &self.0[v]
    }

    /// The only reader of a value that is not given out.
    fn only<'g>(&self, graph: &'g Graph, v: ValueId) -> Option<(NodeId, &'g Node)> {
        match self.of(v) {
            &[id] if !graph.is_output(v) => Some((id, graph.node(id))),
            _ => None,
        }
    }
}

fn residual(graph: &Graph, sum: &Node, main: ValueId) -> Option<ValueId> {
    let Op::Binary(op) = &sum.op else { return None };
    let &[a, b] = &sum.inputs[..] else {
        return None;
    };
    let other = if a == main { b } else { a };
    let fits = graph.shape(other) == graph.shape(main) && graph.as_const(other).is_none();
    (op.0 == BinaryFn::Add && fits && other != main).then_some(other)
}

/// A sum or difference of tensors, one of which may be a constant that is no single number.
fn is_sum(graph: &Graph, node: &Node) -> bool {
    let sum = matches!(&node.op, Op::Binary(op) if matches!(op.0, BinaryFn::Add | BinaryFn::Sub));
    sum && node
        .inputs
        .iter()
        .all(|&v| graph.as_const(v).is_none_or(|c| c.len() != 1))
}

fn is_clamp(graph: &Graph, node: &Node) -> bool {
    clamp_bounds(graph, node).is_some()
}

/// Bounds that a node puts on its operand.
fn clamp_bounds(graph: &Graph, node: &Node) -> Option<(f64, f64)> {
    match &node.op {
        Op::Unary(op) if op.0 == UnaryFn::Relu => Some((0.0, f64::INFINITY)),
        Op::Binary(op) => {
            let bound = node.inputs.iter().find_map(|&v| single(graph, v))?;
            match op.0 {
                BinaryFn::Max => Some((bound, f64::INFINITY)),
                BinaryFn::Min => Some((f64::NEG_INFINITY, bound)),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The number that a constant of one element holds.
pub(crate) fn single(graph: &Graph, v: ValueId) -> Option<f64> {
    let c = graph.as_const(v)?;
    (c.len() == 1).then(|| c.to_f64()[0])
}

/// The operand of a node that multiplies or divides by one positive number, and the factor.
pub(crate) fn positive_factor(graph: &Graph, node: &Node) -> Option<(ValueId, f64)> {
    let Op::Binary(op) = &node.op else {
        return None;
    };
    let &[a, b] = &node.inputs[..] else {
        return None;
    };
    let (v, factor) = match (op.0, single(graph, a), single(graph, b)) {
        (BinaryFn::Mul, None, Some(f)) => (a, f),
        (BinaryFn::Mul, Some(f), None) => (b, f),
        (BinaryFn::Div, None, Some(f)) => (a, 1.0 / f),
        _ => return None,
    };
    let same_shape = graph.shape(v) == graph.shape(node.output);
    (factor > 0.0 && factor.is_finite() && same_shape).then_some((v, factor))
}

/// The constant that a node with two operands combines `v` with.
pub(crate) fn other_constant(graph: &Graph, node: &Node, v: ValueId) -> Option<ValueId> {
    let &[a, b] = &node.inputs[..] else {
        return None;
    };
    let other = if a == v { b } else { a };
    graph.as_const(other).map(|_| other)
}

/// Operations whose results hold the codes of their operand.
pub(crate) fn is_pass_through(op: &Op) -> bool {
    match op {
        Op::Reshape(_) | Op::Transpose(_) | Op::Slice(_) | Op::Gather(_) | Op::Broadcast(_) => true,
        Op::Pool(p) => p.kind == PoolKind::Max,
        _ => false,
    }
}

/// Operations that can leave with 16 bits or pass them on.
fn makes_wide(graph: &Graph, node: &Node) -> bool {
    match &node.op {
        Op::Conv(_) | Op::Softmax(_) | Op::Normalize(_) | Op::Reshape(_) | Op::Transpose(_) => true,
        Op::Pool(p) => p.kind != PoolKind::Max,
        Op::Unary(op) => op.0 == UnaryFn::Relu,
        Op::Binary(op) => match op.0 {
            BinaryFn::Add | BinaryFn::Sub => is_sum(graph, node),
            BinaryFn::Max | BinaryFn::Min => is_clamp(graph, node),
            BinaryFn::Mul | BinaryFn::Div => positive_factor(graph, node).is_some(),
            _ => false,
        },
        _ => false,
    }
}
