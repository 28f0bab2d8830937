//! Derivatives in reverse mode, as graph IR.
//!
//! The rule of each operation stands in its file and emits nodes into the graph that holds the operation. A gradient is
//! therefore a value like any other, and can be differentiated again: a Hessian-vector product is
//! `gradient(⟨gradient, v⟩)` and needs no rules of its own. Relevance is propagated by the same walk with other rules.

mod emit;

use cranelift_entity::SecondaryMap;
use cranelift_entity::packed_option::PackedOption;

pub use emit::Emit;

use crate::{Graph, Node, OpError, ValueId};

/// What a rule works with: the node, and the derivative of the loss by its result.
pub struct Adjoint<'a> {
    /// Appends nodes.
    pub emit: Emit<'a>,
    /// Operands of the node.
    pub inputs: &'a [ValueId],
    /// Its result.
    pub output: ValueId,
    /// Derivative by the result, of the result's type.
    pub seed: ValueId,
    /// Rounding counts as the identity: the straight-through estimator.
    pub straight_through: bool,
    wanted: &'a [bool],
}

impl Adjoint<'_> {
    /// Whether the derivative by an operand is asked for.
    pub fn wants(&self, operand: usize) -> bool {
        self.wanted.get(operand).copied().unwrap_or(false)
    }

    /// The rule that gives every operand asked for the seed itself, summed over what was broadcast.
    ///
    /// # Errors
    /// What shape rules say.
    pub fn passed(&mut self) -> Derivatives {
        let seed = self.seed;
        (0..self.inputs.len())
            .map(|k| self.broadcast_to(k, |_| Ok(seed)))
            .collect()
    }

    /// [`Adjoint::passed`] for one operand alone.
    ///
    /// # Errors
    /// What shape rules say.
    pub fn passed_to(&mut self, operand: usize) -> Derivatives {
        let seed = self.seed;
        let mut all = vec![None; self.inputs.len()];
        all[operand] = self.broadcast_to(operand, |_| Ok(seed))?;
        Ok(all)
    }

    /// The generic rule of relevance, `x ⊙ (∂z/∂x)ᵀ (R ⊘ z)`: each operand's share in the result.
    ///
    /// # Errors
    /// What shape rules say.
    pub fn proportional(&mut self, op: &impl Differentiable) -> Derivatives {
        let relevance = self.seed;
        self.seed = self.emit.ratio(relevance, self.output)?;
        let derivatives = op.gradient(self)?;
        self.seed = relevance;
        let shares = self.inputs.iter().zip(derivatives);
        shares
            .map(|(&x, d)| d.map(|d| self.emit.mul(x, d)).transpose())
            .collect()
    }

    /// Half of each share where two operands have one.
    ///
    /// # Errors
    /// What shape rules say.
    pub fn halved(&mut self, shares: Vec<Option<ValueId>>) -> Derivatives {
        if shares.iter().flatten().count() < 2 {
            return Ok(shares);
        }
        let halves = shares.into_iter();
        halves
            .map(|s| s.map(|s| self.emit.scale(s, 0.5)).transpose())
            .collect()
    }

    /// The derivative by an operand, summed over what was broadcast, where it is asked for.
    ///
    /// # Errors
    /// What `rule` returns.
    pub fn broadcast_to(
        &mut self,
        operand: usize,
        rule: impl FnOnce(&mut Self) -> Result<ValueId, OpError>,
    ) -> Result<Option<ValueId>, OpError> {
        if !self.wants(operand) {
            return Ok(None);
        }
        let full = rule(self)?;
        let shape = self.emit.shape(self.inputs[operand]);
        self.emit.sum_to(full, &shape).map(Some)
    }
}

/// The derivative by each operand; `None` where it is zero everywhere or was not asked for.
pub type Derivatives = Result<Vec<Option<ValueId>>, OpError>;

/// The rules that an operation on floats has. All of them are mandatory.
pub trait Differentiable: crate::ops::Operation {
    /// The reverse-mode rule: the derivative by each operand, from the derivative by the result.
    ///
    /// # Errors
    /// What the shape rules of emitted nodes say.
    fn gradient(&self, at: &mut Adjoint<'_>) -> Derivatives;

    /// The rule of layer-wise relevance propagation: the relevance of each operand, from that of the result.
    ///
    /// # Errors
    /// What the shape rules of emitted nodes say.
    fn relevance(&self, at: &mut Adjoint<'_>) -> Derivatives;
}

/// Why there is no derivative.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("node '{name}' ({op}): {error}")]
pub struct DeriveError {
    /// Name of the node's result.
    pub name: String,
    /// The operation.
    pub op: &'static str,
    /// What stands in the way.
    pub error: OpError,
}

/// How derivatives are taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rules {
    /// Rounding functions count as the identity (the straight-through estimator), not as constant.
    pub straight_through: bool,
}

/// Appends the derivatives of the sum of `loss`'s elements by each value of `by` — inputs, constants or results — and
/// returns them, each of its value's type.
///
/// # Errors
/// An operation between them that has no derivative.
pub fn gradient(
    graph: &mut Graph,
    loss: ValueId,
    by: &[ValueId],
) -> Result<Vec<ValueId>, DeriveError> {
    gradient_with(graph, loss, by, Rules::default())
}

/// [`gradient`] under other rules.
///
/// # Errors
/// As [`gradient`].
pub fn gradient_with(
    graph: &mut Graph,
    loss: ValueId,
    by: &[ValueId],
    rules: Rules,
) -> Result<Vec<ValueId>, DeriveError> {
    let mut walk = Walk::new(graph, by);
    let one = broadcast_one(graph, loss)?;
    walk.adjoint[loss] = Some(one).into();
    walk.walk(graph, Rule::Gradient(rules))?;
    by.iter().map(|&v| walk.result(graph, v)).collect()
}

/// Appends the product of the Hessian of `loss` with a vector: `direction` holds a value of the same type for each of
/// `by`, on which `direction` must not depend.
///
/// # Errors
/// As [`gradient`].
pub fn hessian_vector(
    graph: &mut Graph,
    loss: ValueId,
    by: &[ValueId],
    direction: &[ValueId],
) -> Result<Vec<ValueId>, DeriveError> {
    let first = gradient(graph, loss, by)?;
    let inner = inner_product(graph, &first, direction)
        .map_err(|error| failed("⟨gradient, direction⟩".into(), "inner product", error))?;
    gradient(graph, inner, by)
}

/// Appends the relevance of each value of `by`, from that of results: pairs of a value and its relevance. What several
/// nodes read gets the sum of what each of them gives it.
///
/// # Errors
/// As [`gradient`].
pub fn relevance(
    graph: &mut Graph,
    results: &[(ValueId, ValueId)],
    by: &[ValueId],
) -> Result<Vec<ValueId>, DeriveError> {
    let mut walk = Walk::new(graph, by);
    for &(result, relevance) in results {
        walk.adjoint[result] = Some(relevance).into();
    }
    walk.walk(graph, Rule::Relevance)?;
    by.iter().map(|&v| walk.result(graph, v)).collect()
}

fn inner_product(graph: &mut Graph, a: &[ValueId], b: &[ValueId]) -> Result<ValueId, OpError> {
    let mut emit = Emit::new(graph, "inner product");
    let mut sum = None;
    for (&a, &b) in a.iter().zip(b) {
        let product = emit.mul(a, b)?;
        let term = emit.total(product)?;
        sum = Some(match sum {
            None => term,
            Some(s) => emit.add(s, term)?,
        });
    }
    sum.ok_or_else(|| OpError::Value("there is nothing to differentiate by".into()))
}

fn broadcast_one(graph: &mut Graph, loss: ValueId) -> Result<ValueId, DeriveError> {
    let shape = graph.shape(loss).to_vec();
    let mut emit = Emit::new(graph, "one");
    let one = emit.number(loss, 1.0);
    emit.broadcast(one, &shape)
        .map_err(|error| failed("one".into(), "broadcast", error))
}

fn failed(name: String, op: &'static str, error: OpError) -> DeriveError {
    DeriveError { name, op, error }
}

/// What is propagated.
#[derive(Clone, Copy)]
enum Rule {
    Gradient(Rules),
    Relevance,
}

struct Walk {
    /// Whether a value depends on one that is differentiated by.
    depends: SecondaryMap<ValueId, bool>,
    adjoint: SecondaryMap<ValueId, PackedOption<ValueId>>,
}

impl Walk {
    fn new(graph: &Graph, by: &[ValueId]) -> Self {
        let mut depends = SecondaryMap::new();
        for &v in by {
            depends[v] = true;
        }
        for (_, node) in graph.nodes() {
            let any = node.inputs.iter().any(|&v| depends[v]);
            depends[node.output] |= any && graph.ty(node.output).dtype.is_float();
        }
        Self {
            depends,
            adjoint: SecondaryMap::new(),
        }
    }

    /// Every node there is, from the last to the first.
    fn walk(&mut self, graph: &mut Graph, rule: Rule) -> Result<(), DeriveError> {
        let nodes: Vec<Node> = graph.nodes().map(|(_, n)| n.clone()).collect();
        nodes
            .iter()
            .rev()
            .try_for_each(|node| self.visit(graph, node, rule))
    }

    /// What a value got, zeros where nothing reached it.
    fn result(&self, graph: &mut Graph, v: ValueId) -> Result<ValueId, DeriveError> {
        if let Some(d) = self.adjoint[v].expand() {
            return Ok(d);
        }
        let name = graph.value(v).name.clone();
        let zeros = Emit::new(graph, name.clone()).zeros(v);
        zeros.map_err(|error| failed(name, "zeros", error))
    }

    fn visit(&mut self, graph: &mut Graph, node: &Node, rule: Rule) -> Result<(), DeriveError> {
        let Some(seed) = self.adjoint[node.output].expand() else {
            return Ok(());
        };
        let wanted: Vec<bool> = node.inputs.iter().map(|&v| self.depends[v]).collect();
        if !wanted.contains(&true) {
            return Ok(());
        }
        let name = graph.value(node.output).name.clone();
        let wrong = |error| failed(name.clone(), node.op.name(), error);
        let mut at = Adjoint {
            emit: Emit::new(graph, name.clone()),
            inputs: &node.inputs,
            output: node.output,
            seed,
            straight_through: matches!(rule, Rule::Gradient(r) if r.straight_through),
            wanted: &wanted,
        };
        let derivatives = match rule {
            Rule::Gradient(_) => node.op.gradient(&mut at),
            Rule::Relevance => node.op.relevance(&mut at),
        };
        let derivatives = derivatives.map_err(wrong)?;
        for (&v, d) in node.inputs.iter().zip(derivatives) {
            if let Some(d) = d {
                self.accumulate(&mut at.emit, v, d).map_err(wrong)?;
            }
        }
        Ok(())
    }

    fn accumulate(&mut self, emit: &mut Emit<'_>, v: ValueId, d: ValueId) -> Result<(), OpError> {
        let sum = match self.adjoint[v].expand() {
            None => d,
            Some(known) => emit.add(known, d)?,
        };
        self.adjoint[v] = Some(sum).into();
        Ok(())
    }
}
