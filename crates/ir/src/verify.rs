use std::fmt;

use crate::{DType, Def, Graph, Node, OpError, ValueId};

/// The stages of the graph IR.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Stage {
    /// As imported and simplified: floats, and integers as indices.
    Float,
    /// After quantisation: integers alone.
    Integer,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Float => "float",
            Self::Integer => "integer",
        })
    }
}

/// What makes a graph illegal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// A node reads a value that is defined after it.
    #[error("{node}: reads {value} before it is defined")]
    Order {
        /// The node's result and operation.
        node: String,
        /// What it reads.
        value: ValueId,
    },
    /// An operation is not legal in the stage.
    #[error("{node}: not legal in the {stage} stage")]
    Stage {
        /// The node's result and operation.
        node: String,
        /// The stage.
        stage: Stage,
    },
    /// The shape rule refuses the operands.
    #[error("{node}: {error}")]
    Operands {
        /// The node's result and operation.
        node: String,
        /// What the rule says.
        error: OpError,
    },
    /// The type that the node claims is not what the shape rule gives.
    #[error("{node}: claims {claimed}, its shape rule gives {inferred}")]
    Type {
        /// The node's result and operation.
        node: String,
        /// The type in the graph.
        claimed: String,
        /// The type by the rule.
        inferred: String,
    },
    /// A float in the integer stage.
    #[error("{value} holds {dtype} in the integer stage")]
    Float {
        /// The value.
        value: ValueId,
        /// Its element type.
        dtype: DType,
    },
}

impl Graph {
    /// Checks data flow, legality in `stage`, and that every type is what the shape rule gives.
    ///
    /// # Errors
    /// The first violation.
    pub fn verify(&self, stage: Stage) -> Result<(), VerifyError> {
        if stage == Stage::Integer {
            self.verify_no_float()?;
        }
        self.nodes()
            .try_for_each(|(_, node)| self.verify_node(node, stage))
    }

    fn verify_no_float(&self) -> Result<(), VerifyError> {
        match self.values().find(|(_, v)| v.ty.dtype.is_float()) {
            None => Ok(()),
            Some((value, v)) => Err(VerifyError::Float {
                value,
                dtype: v.ty.dtype,
            }),
        }
    }

    fn verify_node(&self, node: &Node, stage: Stage) -> Result<(), VerifyError> {
        let label = || format!("{} = {}", node.output, node.op.name());
        let late = |v: &&ValueId| matches!(self.value(**v).def, Def::Node(_)) && **v >= node.output;
        if let Some(&value) = node.inputs.iter().find(late) {
            return Err(VerifyError::Order {
                node: label(),
                value,
            });
        }
        if !node.op.stages().contains(&stage) {
            return Err(VerifyError::Stage {
                node: label(),
                stage,
            });
        }
        let types: Vec<_> = node.inputs.iter().map(|&v| self.ty(v)).collect();
        let inferred = node
            .op
            .infer(&types)
            .map_err(|error| VerifyError::Operands {
                node: label(),
                error,
            })?;
        let claimed = self.ty(node.output);
        if (claimed.dtype, &claimed.shape) == (inferred.dtype, &inferred.shape) {
            return Ok(());
        }
        Err(VerifyError::Type {
            node: label(),
            claimed: claimed.to_string(),
            inferred: inferred.to_string(),
        })
    }
}
