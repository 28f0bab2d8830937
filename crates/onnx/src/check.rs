//! Everything that stands in the way of a model, in one pass.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use lowbit_ir::{Graph, Type, ValueId};

use crate::error::{ImportError, Problem};
use crate::model::{Importer, Options, read};
use crate::{proto, tensor};

/// What a model's nodes became, as far as they could be imported.
#[derive(Clone, Debug)]
pub struct Checked {
    /// Every node that cannot be imported.
    pub problems: Vec<Problem>,
    /// The nodes that can be, and what they read: results of a node that cannot be imported are inputs of the graph where
    /// the model declares their shape. Values that nothing reads are its outputs.
    pub graph: Graph,
    /// The node of the model that each value of the graph comes from, by the value's name.
    pub origins: BTreeMap<String, Origin>,
    /// Version of ONNX's operator set.
    pub opset: i64,
}

/// A node of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Its name, or that of its first output where it has none.
    pub node: String,
    /// Its operator.
    pub op: String,
}

/// Imports what can be imported. A node that depends on one that cannot be is only looked at where the model declares the
/// shape of what it reads.
///
/// # Errors
/// What makes the whole model unreadable.
pub fn check(path: &Path, options: &Options) -> Result<Checked, ImportError> {
    let mut importer = Importer::open(read(path)?, path, options)?;
    importer.lenient = true;
    let problems = importer.run()?;
    Ok(importer.checked(problems))
}

impl Importer<'_> {
    /// An input of the graph in place of a result that could not be had, where its type is declared.
    pub(crate) fn placeholder(&mut self, name: &str) -> Option<ValueId> {
        let declared = self.proto.value_info.iter().chain(&self.proto.output);
        let ty = declared
            .filter(|v| v.name == name)
            .find_map(|v| static_type(v).ok())?;
        Some(self.graph.input(name, ty))
    }

    fn checked(mut self, problems: Vec<Problem>) -> Checked {
        let mut origins = BTreeMap::new();
        for (value, origin) in std::mem::take(&mut self.origins) {
            origins
                .entry(self.graph.value(value).name.clone())
                .or_insert(origin);
        }
        let given: HashSet<ValueId> = self.graph.inputs().iter().copied().collect();
        let users = self.graph.users();
        let ends: Vec<(String, ValueId)> = self
            .graph
            .values()
            .filter(|(id, v)| {
                users[*id].is_empty()
                    && v.ty.dtype.is_float()
                    && !given.contains(id)
                    && self.graph.as_const(*id).is_none()
            })
            .map(|(id, v)| (v.name.clone(), id))
            .collect();
        for (name, id) in ends {
            self.graph.output(name, id);
        }
        Checked {
            problems,
            graph: self.graph.without_dead(),
            origins,
            opset: self.opset,
        }
    }
}

fn static_type(info: &proto::ValueInfo) -> Result<Type, String> {
    let unknown = || "the shape is unknown".to_owned();
    let ty = info.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
    let ty = ty.ok_or_else(unknown)?;
    let shape = ty.shape.as_ref().ok_or_else(unknown)?;
    let dim = |d: &proto::Dimension| match d.value {
        Some(proto::Extent::Value(d)) if d > 0 => Ok(d),
        _ => Err(unknown()),
    };
    let dims: Vec<i64> = shape.dim.iter().map(dim).collect::<Result<_, _>>()?;
    Ok(Type::new(
        tensor::dtype(ty.elem_type)?,
        tensor::extents(&dims)?,
    ))
}
