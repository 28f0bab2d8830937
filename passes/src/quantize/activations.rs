//! How many bits each tensor has.

use std::collections::HashSet;

use lowbit_ir::{Graph, Node, NodeId, Op, ValueId};
use lowbit_num::Format;

use super::fuse::{Fusion, Users, is_pass_through, positive_factor};
use super::{Formats, LayerFormats};

/// Tensors that have 4 bits, because nothing that needs more reads them.
pub(crate) struct Activations(HashSet<ValueId>);

impl Activations {
    pub(crate) fn new(graph: &Graph, fusion: &Fusion, formats: &Formats) -> Self {
        let users = Users::new(graph);
        let mut narrow = Self(HashSet::new());
        for (id, node) in graph.nodes().collect::<Vec<_>>().into_iter().rev() {
            let v = fusion.result(id, node.output);
            let readers = users.of(v);
            let wants = |&n: &NodeId| narrow.wanted(graph, formats, graph.node(n), v);
            if !graph.is_output(v) && !readers.is_empty() && readers.iter().all(wants) {
                narrow.0.insert(v);
            }
        }
        narrow
    }

    /// Whether a reader of `v` is a layer that reads 4 bits, or passes the codes on to such layers alone.
    fn wanted(&self, graph: &Graph, formats: &Formats, reader: &Node, v: ValueId) -> bool {
        match &reader.op {
            Op::Conv(_) => {
                let LayerFormats { activation, .. } = formats.of(&graph.value(reader.output).name);
                reader.inputs[0] == v && activation == Format::Int4
            }
            Op::Concat(_) | Op::Pad(_) => self.0.contains(&reader.output),
            op if is_pass_through(op) => self.0.contains(&reader.output),
            _ => positive_factor(graph, reader).is_some() && self.0.contains(&reader.output),
        }
    }

    /// Bits of a tensor that is not given out.
    pub(crate) fn bits(&self, v: ValueId) -> u32 {
        if self.0.contains(&v) { 4 } else { 8 }
    }
}
