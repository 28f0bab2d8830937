//! From a file to a graph.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use lowbit_ir::{Graph, Tensor, Type, ValueId};
use prost::Message;

use crate::check::Origin;
use crate::error::{ImportError, Problem};
use crate::node::Node;
use crate::{ops, proto, tensor};

/// What the caller knows better than the model.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Shapes of inputs by name, `""` for the only input.
    pub shapes: Vec<(String, Vec<usize>)>,
    /// Inputs that are constant.
    pub constants: Vec<(String, Tensor)>,
}

/// An imported model.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The graph, in the float stage.
    pub graph: Graph,
    /// Version of ONNX's operator set.
    pub opset: i64,
    /// The program that wrote the model.
    pub producer: String,
}

/// Versions of ONNX's operator set that are read.
pub const OPSETS: std::ops::RangeInclusive<i64> = 7..=22;

/// Reads a model.
///
/// # Errors
/// The first thing that stands in the way; see [`ImportError`].
pub fn import(path: &Path, options: &Options) -> Result<Imported, ImportError> {
    let bytes = read(path)?;
    import_bytes(bytes, path, options)
}

/// Reads a model from memory; `path` names it in messages, and its folder holds external data.
///
/// # Errors
/// As [`import`].
pub fn import_bytes(bytes: Bytes, path: &Path, options: &Options) -> Result<Imported, ImportError> {
    let mut importer = Importer::open(bytes, path, options)?;
    match importer.run()?.into_iter().next() {
        Some(problem) => Err(problem.into()),
        None => importer.finish(),
    }
}

pub(crate) fn read(path: &Path) -> Result<Bytes, ImportError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Bytes::from(bytes)),
        Err(source) => Err(ImportError::Read {
            path: path.into(),
            source,
        }),
    }
}

pub(crate) struct Importer<'a> {
    pub(crate) proto: proto::Graph,
    producer: String,
    pub(crate) opset: i64,
    domains: HashSet<String>,
    folder: PathBuf,
    options: &'a Options,
    pub(crate) graph: Graph,
    values: HashMap<String, Option<ValueId>>,
    codes: HashMap<String, i32>,
    room: usize,
    /// Go on behind a node that cannot be imported, and keep which node each value comes from.
    pub(crate) lenient: bool,
    pub(crate) origins: Vec<(ValueId, Origin)>,
}

/// Elements of constants that any model may have computed at import, and a model with weights for each of them.
const ROOM: usize = 1 << 25;
const ROOM_PER_WEIGHT: usize = 16;

impl<'a> Importer<'a> {
    pub(crate) fn open(
        bytes: Bytes,
        path: &Path,
        options: &'a Options,
    ) -> Result<Self, ImportError> {
        let refuse = |what: String| ImportError::NotOnnx {
            path: path.into(),
            what,
        };
        if bytes.is_empty() {
            return Err(refuse("the file is empty".into()));
        }
        let model = proto::Model::decode(bytes).map_err(|e| refuse(e.to_string()))?;
        let proto = model
            .graph
            .ok_or_else(|| refuse("it holds no graph".into()))?;
        let onnx = |d: &str| d.is_empty() || d == "ai.onnx";
        let opset = model
            .opset_import
            .iter()
            .find(|o| onnx(&o.domain))
            .map(|o| o.version);
        let opset =
            opset.ok_or_else(|| refuse("it names no version of ONNX's operator set".into()))?;
        if !OPSETS.contains(&opset) {
            return Err(ImportError::Model(format!(
                "the model uses opset {opset}; opsets {} to {} are supported (convert it with onnx.version_converter)",
                OPSETS.start(),
                OPSETS.end()
            )));
        }
        let folder = path
            .parent()
            .filter(|p| !p.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        Ok(Self {
            graph: Graph::new(proto.name.clone()),
            producer: model.producer_name,
            opset,
            domains: model.opset_import.into_iter().map(|o| o.domain).collect(),
            folder: folder.into(),
            options,
            values: HashMap::new(),
            codes: codes(&proto),
            room: ROOM,
            lenient: false,
            origins: Vec::new(),
            proto,
        })
    }

    /// Imports all nodes and returns those that could not be.
    pub(crate) fn run(&mut self) -> Result<Vec<Problem>, ImportError> {
        if !self.proto.sparse_initializer.is_empty() {
            return Err(ImportError::Model(
                "sparse initialisers are not supported; store them dense".into(),
            ));
        }
        self.initializers()?;
        self.inputs()?;
        self.check_names()?;
        let nodes = std::mem::take(&mut self.proto.node);
        let mut problems = Vec::new();
        for node in &nodes {
            let before = self.graph.values().len();
            if let Err(problem) = self.node(node) {
                for output in &node.output {
                    let value = self.lenient.then(|| self.placeholder(output)).flatten();
                    self.values.insert(output.clone(), value);
                }
                problems.extend(problem);
            }
            if self.lenient {
                let new = self.graph.values().skip(before);
                let origin = Origin {
                    node: label(node).into(),
                    op: node.op_type.clone(),
                };
                let new = new.map(|(id, _)| (id, origin.clone()));
                self.origins.extend(new.collect::<Vec<_>>());
            }
        }
        self.proto.node = nodes;
        Ok(problems)
    }

    fn initializers(&mut self) -> Result<(), ImportError> {
        for t in &self.proto.initializer {
            let fail = |e: String| ImportError::Model(format!("initialiser '{}': {e}", t.name));
            let tensor = tensor::read(t, Some(&self.folder)).map_err(fail)?;
            check_finite(&tensor).map_err(fail)?;
            self.room += ROOM_PER_WEIGHT * tensor.len();
            let id = self.graph.constant(t.name.clone(), tensor);
            if self.values.insert(t.name.clone(), Some(id)).is_some() {
                return Err(ImportError::Model(format!(
                    "two initialisers are named '{}'",
                    t.name
                )));
            }
        }
        Ok(())
    }

    fn inputs(&mut self) -> Result<(), ImportError> {
        let inputs = std::mem::take(&mut self.proto.input);
        let free: Vec<&proto::ValueInfo> = inputs
            .iter()
            .filter(|i| !self.values.contains_key(&i.name))
            .collect();
        let only = free.len() == 1;
        let mut seen = HashSet::new();
        for input in free {
            if !seen.insert(&input.name) {
                return Err(ImportError::Model(format!(
                    "two inputs are named '{}'",
                    input.name
                )));
            }
            let id = match self
                .options
                .constants
                .iter()
                .find(|(name, _)| *name == input.name)
            {
                Some((name, tensor)) => self.graph.constant(name.clone(), tensor.clone()),
                None => {
                    let ty = self.input_type(input, only)?;
                    self.graph.input(input.name.clone(), ty)
                }
            };
            self.values.insert(input.name.clone(), Some(id));
        }
        if let Some((name, _)) = self
            .options
            .shapes
            .iter()
            .find(|(n, _)| !n.is_empty() && !seen.contains(n))
        {
            let known: Vec<&str> = seen.iter().map(|s| s.as_str()).collect();
            return Err(ImportError::Model(format!(
                "--shape names input '{name}'; the model has {known:?}"
            )));
        }
        Ok(())
    }

    fn input_type(&self, input: &proto::ValueInfo, only: bool) -> Result<Type, ImportError> {
        let fail = |e: String| ImportError::Model(format!("input '{}': {e}", input.name));
        let ty = input.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
        let ty =
            ty.ok_or_else(|| fail("it is no tensor; sequences and maps are not supported".into()))?;
        let dtype = tensor::dtype(ty.elem_type).map_err(fail)?;
        let given = self
            .options
            .shapes
            .iter()
            .find(|(n, _)| *n == input.name || (n.is_empty() && only));
        let Some(shape) = &ty.shape else {
            let shape = given.map(|(_, s)| s.clone());
            return shape.map(|s| Type::new(dtype, s)).ok_or_else(|| {
                fail(format!(
                    "its shape is unknown; give it with --shape {}=1x3x224x224",
                    input.name
                ))
            });
        };
        if let Some((_, s)) = given.filter(|(_, s)| s.len() != shape.dim.len()) {
            return Err(fail(format!(
                "--shape gives {} axes, the model declares {}",
                s.len(),
                shape.dim.len()
            )));
        }
        let mut dims = Vec::new();
        for (axis, dim) in shape.dim.iter().enumerate() {
            let wanted = given.map(|(_, s)| s[axis] as i64);
            dims.push(match (&dim.value, wanted) {
                (Some(proto::Extent::Value(d)), None) if *d > 0 || (*d < 0 && axis > 0) => *d,
                (Some(proto::Extent::Value(d)), Some(w)) if *d > 0 && *d != w && axis > 0 => {
                    return Err(fail(format!(
                        "--shape gives {w} for axis {axis}, the model declares {d}"
                    )));
                }
                (_, Some(w)) => w,
                (_, None) if axis == 0 => 1,
                (Some(proto::Extent::Param(p)), None) if !p.is_empty() => {
                    return Err(fail(format!(
                        "axis {axis} is the symbol '{p}'; bind it with --shape {}=…",
                        input.name
                    )));
                }
                (_, None) => {
                    return Err(fail(format!(
                        "axis {axis} is unknown; bind it with --shape {}=…",
                        input.name
                    )));
                }
            });
        }
        let extents = tensor::extents(&dims).map_err(fail)?;
        Ok(Type::new(dtype, extents))
    }

    /// Every name has one definition, and nothing is read that nothing defines.
    fn check_names(&self) -> Result<(), ImportError> {
        let mut defined: HashMap<&str, usize> =
            self.values.keys().map(|k| (k.as_str(), 0)).collect();
        for (i, node) in self.proto.node.iter().enumerate() {
            for output in node.output.iter().filter(|o| !o.is_empty()) {
                if defined.insert(output, i + 1).is_some() {
                    return Err(ImportError::Model(format!("'{output}' is defined twice")));
                }
            }
        }
        for (i, node) in self.proto.node.iter().enumerate() {
            for input in node.input.iter().filter(|s| !s.is_empty()) {
                let label = label(node);
                match defined.get(input.as_str()) {
                    None => {
                        return Err(ImportError::Model(format!(
                            "node '{label}' ({}) reads '{input}', which nothing defines",
                            node.op_type
                        )));
                    }
                    Some(&at) if at > i => {
                        return Err(ImportError::Model(format!(
                            "node '{label}' ({}) reads '{input}' before it is defined: the graph has a cycle or is not in order",
                            node.op_type
                        )));
                    }
                    Some(_) => {}
                }
            }
        }
        self.check_outputs(&defined)
    }

    fn check_outputs(&self, defined: &HashMap<&str, usize>) -> Result<(), ImportError> {
        let mut seen = HashSet::new();
        let message = match self.proto.output.iter().find_map(|o| {
            let name = o.name.as_str();
            if !defined.contains_key(name) {
                Some(format!("output '{name}' is defined nowhere"))
            } else {
                (!seen.insert(name)).then(|| format!("two outputs are named '{name}'"))
            }
        }) {
            Some(message) => message,
            None if self.proto.output.is_empty() => "the model has no output".into(),
            None => return Ok(()),
        };
        Err(ImportError::Model(message))
    }

    /// Imports one node; an error without a problem means that it depends on a node that has one. An operator that is not
    /// supported is told even then.
    fn node(&mut self, proto: &proto::Node) -> Result<(), Option<Problem>> {
        let domain = match proto.domain.as_str() {
            "" => String::new(),
            domain => format!("{domain}::"),
        };
        let opset = self.opset;
        let problem = |message| Problem {
            name: label(proto).into(),
            op: format!("{domain}{}", proto.op_type),
            opset,
            message,
        };
        let import = self.importer(proto).map_err(&problem)?;
        let mut inputs = Vec::new();
        for name in &proto.input {
            match name.is_empty() {
                true => inputs.push(None),
                false => inputs.push(Some(self.values.get(name).copied().flatten().ok_or(None)?)),
            }
        }
        let outputs = self.decompose(proto, import, inputs).map_err(problem)?;
        for (name, id) in proto.output.iter().zip(outputs) {
            self.values.insert(name.clone(), Some(id));
        }
        Ok(())
    }

    /// An output has the element type that the model declares.
    fn check_type(&self, output: &proto::ValueInfo, id: ValueId) -> Result<(), ImportError> {
        let declared = output.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
        let Some(code) = declared.map(|t| t.elem_type).filter(|&code| code != 0) else {
            return Ok(());
        };
        let found = self.graph.ty(id).dtype;
        match tensor::dtype(code) {
            Ok(wanted) if wanted == found => Ok(()),
            wanted => Err(ImportError::Model(format!(
                "output '{}' is declared to be {}, its node gives {found}; correct the declaration",
                output.name,
                wanted.map_or_else(|e| e, |d| d.to_string())
            ))),
        }
    }

    /// What imports nodes of this operator.
    fn importer(&self, proto: &proto::Node) -> Result<ops::Import, String> {
        let own = proto.domain.is_empty() || proto.domain == "ai.onnx";
        if !own {
            let known = if self.domains.contains(&proto.domain) {
                ""
            } else {
                ", which the model does not import"
            };
            return Err(format!(
                "operators of domain '{}'{known} are not supported",
                proto.domain
            ));
        }
        if let Some(a) = proto.attribute.iter().find(|a| !a.ref_attr_name.is_empty()) {
            return Err(format!(
                "attribute '{}' refers to a function's attribute",
                a.name
            ));
        }
        ops::find(&proto.op_type).ok_or_else(|| {
            "the operator is not supported; replace it before export, or cut the model in front of it".to_string()
        })
    }

    fn decompose(
        &mut self,
        proto: &proto::Node,
        import: ops::Import,
        inputs: Vec<Option<ValueId>>,
    ) -> Result<Vec<ValueId>, String> {
        let name = proto
            .output
            .first()
            .map_or(proto.name.as_str(), |o| o.as_str());
        let mut node = Node {
            proto,
            opset: self.opset,
            codes: &self.codes,
            inputs,
            graph: &mut self.graph,
            name,
            room: &mut self.room,
            fault: RefCell::default(),
        };
        let result = import(&mut node);
        if let Some(fault) = node.fault.take() {
            return Err(fault);
        }
        let outputs = result?;
        if outputs.len() < proto.output.iter().filter(|o| !o.is_empty()).count() {
            return Err(format!(
                "it has {} outputs, {} are supported",
                proto.output.len(),
                outputs.len()
            ));
        }
        Ok(outputs)
    }

    fn finish(mut self) -> Result<Imported, ImportError> {
        for output in &self.proto.output {
            let id = self.values.get(&output.name).copied().flatten();
            let id = id.expect("outputs are defined, and every node was imported");
            self.check_type(output, id)?;
            self.graph.output(output.name.clone(), id);
        }
        Ok(Imported {
            graph: self.graph.without_dead(),
            opset: self.opset,
            producer: self.producer,
        })
    }
}

/// ONNX's element types of inputs and initialisers by name.
fn codes(graph: &proto::Graph) -> HashMap<String, i32> {
    let code = |i: &proto::ValueInfo| {
        let tensor = i.r#type.as_ref()?.tensor_type.as_ref()?;
        Some((i.name.clone(), tensor.elem_type))
    };
    let weights = graph.initializer.iter();
    let weights = weights.map(|t| (t.name.clone(), t.data_type));
    graph.input.iter().filter_map(code).chain(weights).collect()
}

/// Weights are finite; a lone infinity is a bound or a mask.
fn check_finite(weights: &Tensor) -> Result<(), String> {
    if let Some(i) = tensor::first(weights, f64::is_nan) {
        return Err(format!("element {i} is not a number (NaN)"));
    }
    match tensor::first(weights, f64::is_infinite) {
        Some(i) if weights.len() > 1 => Err(format!("element {i} is infinite")),
        _ => Ok(()),
    }
}

pub(crate) fn label(node: &proto::Node) -> &str {
    let first = node.output.first().map_or("", |o| o.as_str());
    if node.name.is_empty() {
        first
    } else {
        &node.name
    }
}
