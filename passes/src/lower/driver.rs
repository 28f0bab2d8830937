use std::collections::HashMap;

use lowbit_ir::ops::Reshape;
use lowbit_ir::{Data, Def, Graph, Node, Op, Tensor, ValueId};
use lowbit_kernel::{Call, Kernel, Place, Program};
use lowbit_targets::ResolvedTarget;

use super::arena::{Lifetime, lower_bound, plan};
use super::moved::{moved, read_anywhere};
use super::split::{self, Part};
use super::storage::{Border, SLACK, arena, borders, is_constant, reads_exactly, slack};
use super::view::{View, copy_step, relayout};
use super::{Arg, Machine, Operand, Step, Storage, border, select};
use crate::latency::gains_from_threads;

/// Where constants start.
const ALIGN: usize = 64;

/// Why a graph cannot be lowered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LowerError {
    /// An operation has no kernel.
    #[error("'{name}' ({op}) has no kernel")]
    NoKernel {
        /// Name of the node's result.
        name: String,
        /// The operation.
        op: &'static str,
    },
}

/// A value of the graph in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// How it lies there.
    pub storage: Storage,
    /// Where.
    pub place: Place,
}

/// Memory of the arena for a tensor or a work space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// The value that lies there first, or that is computed with the help of the work space.
    pub value: ValueId,
    /// Whether it is a work space.
    pub scratch: bool,
    /// Bytes, and the calls that need them.
    pub lifetime: Lifetime,
    /// Where it starts.
    pub offset: usize,
}

/// A program with what is known about where it came from.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// The program.
    pub program: Program,
    /// The value that each call computes (a part of).
    pub computes: Vec<ValueId>,
    /// Where values are while they live.
    pub located: HashMap<ValueId, Located>,
    /// What lies in the arena, and when.
    pub rooms: Vec<Room>,
    /// No arena can be smaller.
    pub arena_lower_bound: usize,
    /// Bytes of constants with the space behind them, by the value whose calls read them first.
    pub constants: HashMap<ValueId, usize>,
}

/// Lowers a graph of the integer stage to a program named `name`, with its layers cut for `threads` threads where that is
/// predicted to be faster.
///
/// # Errors
/// The first node without a kernel.
pub fn lower(
    graph: &Graph,
    target: &ResolvedTarget,
    name: &str,
    threads: usize,
) -> Result<Lowered, LowerError> {
    let mut driver = Driver::new(graph, target, threads);
    driver.inputs();
    for (_, node) in graph.nodes() {
        driver.node(node)?;
    }
    driver.outputs();
    Ok(driver.finish(name))
}

/// Memory that values share.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Memory {
    Input(usize),
    Output(usize),
    Const(usize),
    /// A buffer of the arena, by number.
    Buffer(usize),
}

/// Memory of the arena that has no place yet.
struct Buffer {
    value: ValueId,
    scratch: bool,
    bytes: usize,
    /// Bytes behind it that may be read.
    slack: usize,
}

/// A call whose buffers have no places yet.
struct Pending {
    kernel: Kernel,
    /// Each with the bytes into it.
    args: Vec<(Memory, usize)>,
    label: String,
    computes: ValueId,
    beside: bool,
}

/// The buffers of a step by what they are, with the bytes into each.
struct Places {
    operands: Vec<(Memory, usize)>,
    result: (Memory, usize),
}

impl Places {
    fn whole(operands: &[Memory], result: Memory) -> Self {
        Self {
            operands: operands.iter().map(|&m| (m, 0)).collect(),
            result: (result, 0),
        }
    }
}

struct Driver<'a> {
    graph: &'a Graph,
    target: &'a ResolvedTarget,
    machine: Machine,
    threads: usize,
    borders: HashMap<ValueId, Border>,
    values: HashMap<ValueId, (Memory, Storage)>,
    buffers: Vec<Buffer>,
    calls: Vec<Pending>,
    consts: Vec<u8>,
    known: HashMap<Vec<u8>, usize>,
    /// Outputs that their producers write themselves.
    direct: HashMap<ValueId, usize>,
}

impl<'a> Driver<'a> {
    fn new(graph: &'a Graph, target: &'a ResolvedTarget, threads: usize) -> Self {
        Self {
            graph,
            target,
            machine: Machine::of(target),
            threads,
            borders: borders(graph),
            values: HashMap::new(),
            buffers: Vec::new(),
            calls: Vec::new(),
            consts: Vec::new(),
            known: HashMap::new(),
            direct: direct_outputs(graph),
        }
    }

    fn inputs(&mut self) {
        for (k, &v) in self.graph.inputs().iter().enumerate() {
            let ty = self.graph.ty(v);
            let given = Storage::dense(ty.dtype, &ty.shape);
            if reads_exactly(self.graph, v) {
                self.values.insert(v, (Memory::Input(k), given));
                continue;
            }
            let (memory, storage) = self.result(v);
            let operand = Operand {
                storage: &given,
                constant: None,
            };
            let step = relayout(&operand, &storage, &self.machine);
            self.step(step, v, &[Memory::Input(k)], memory, &mut HashMap::new());
            self.fill_border(v, memory, &storage);
            self.values.insert(v, (memory, storage));
        }
    }

    /// New memory for the result of a node.
    fn result(&mut self, v: ValueId) -> (Memory, Storage) {
        let ty = self.graph.ty(v);
        if let Some(&k) = self.direct.get(&v) {
            return (Memory::Output(k), Storage::dense(ty.dtype, &ty.shape));
        }
        let behind = slack(self.graph, v, &self.machine);
        let storage = arena(ty.dtype, &ty.shape, self.borders.get(&v), behind);
        let buffer = Buffer {
            value: v,
            scratch: false,
            bytes: storage.bytes,
            slack: behind,
        };
        (self.buffer(buffer), storage)
    }

    fn buffer(&mut self, buffer: Buffer) -> Memory {
        self.buffers.push(buffer);
        Memory::Buffer(self.buffers.len() - 1)
    }

    fn node(&mut self, node: &Node) -> Result<(), LowerError> {
        if self.shares_memory(node) {
            return Ok(());
        }
        if let Op::Reshape(_) = &node.op {
            self.reshape(node);
            return Ok(());
        }
        let (memory, storage) = self.result(node.output);
        let operands: Vec<(Memory, Storage)> =
            node.inputs.iter().map(|&v| self.operand(v)).collect();
        let constants: Vec<Option<&Tensor>> = node
            .inputs
            .iter()
            .map(|&v| self.graph.as_const(v).map(|t| &**t))
            .collect();
        let given: Vec<Operand<'_>> = operands
            .iter()
            .zip(&constants)
            .map(|((_, storage), &constant)| Operand { storage, constant })
            .collect();
        let steps = select::lower(&node.op, &given, &storage, &self.machine).ok_or_else(|| {
            let name = self.graph.value(node.output).name.clone();
            LowerError::NoKernel {
                name,
                op: node.op.name(),
            }
        })?;
        let places: Vec<Memory> = operands.iter().map(|o| o.0).collect();
        match self.split(node, &steps, &given, (memory, &storage), &places) {
            Some(parts) => self.beside(parts, node.output, &places, memory),
            None => {
                let mut scratch = HashMap::new();
                for step in steps {
                    self.step(step, node.output, &places, memory, &mut scratch);
                }
            }
        }
        self.fill_border(node.output, memory, &storage);
        self.values.insert(node.output, (memory, storage));
        Ok(())
    }

    /// The parts of a layer, where threads are predicted to gain more than handing them out takes.
    fn split(
        &self,
        node: &Node,
        steps: &[Step],
        operands: &[Operand<'_>],
        (memory, storage): (Memory, &Storage),
        places: &[Memory],
    ) -> Option<Vec<Part>> {
        let Op::IntConv(op) = &node.op else {
            return None;
        };
        let kernels: Vec<&Kernel> = steps.iter().map(|s| &s.kernel).collect();
        if !gains_from_threads(&kernels, self.threads, self.target) {
            return None;
        }
        let all = places.iter().chain([&memory]);
        let movable: Vec<bool> = all.map(|m| matches!(m, Memory::Buffer(_))).collect();
        split::parts(op, operands, storage, &self.machine, self.threads, &movable)
    }

    /// Calls that may run at the same time, each with work spaces of its own.
    fn beside(&mut self, parts: Vec<Part>, v: ValueId, operands: &[Memory], result: Memory) {
        for (k, part) in parts.into_iter().enumerate() {
            let places = Places {
                operands: operands.iter().copied().zip(part.operands).collect(),
                result: (result, part.result),
            };
            self.placed(part.step, v, &places, &mut HashMap::new(), k > 0);
        }
    }

    /// Lets the result be a part of its operand's memory, where it only moves elements and all that read it take any layout.
    fn shares_memory(&mut self, node: &Node) -> bool {
        let Some(&first) = node.inputs.first() else {
            return false;
        };
        let Some((memory @ Memory::Buffer(_), given)) = self.values.get(&first).cloned() else {
            return false;
        };
        let Some(view) = moved(&node.op, &given) else {
            return false;
        };
        let users = self.graph.users();
        if !read_anywhere(self.graph, &users, node.output, &view) {
            return false;
        }
        self.values.insert(node.output, (memory, view));
        true
    }

    /// Shares memory where the elements lie alike, else copies.
    fn reshape(&mut self, node: &Node) {
        let v = node.output;
        let ty = self.graph.ty(v);
        let (from, given) = self.operand(node.inputs[0]);
        let bordered = self.borders.contains_key(&v);
        let own = Storage {
            slack: given.slack,
            ..Storage::dense(ty.dtype, &ty.shape)
        };
        let stays = self
            .direct
            .get(&v)
            .is_none_or(|&k| from == Memory::Output(k));
        if given.is_dense() && !bordered && stays {
            self.values.insert(v, (from, own));
            return;
        }
        let (memory, storage) = self.result(v);
        let step = if given.is_dense() {
            let operand = Operand {
                storage: &own,
                constant: None,
            };
            relayout(&operand, &storage, &self.machine)
        } else {
            assert!(
                !bordered,
                "a tensor with a border is reshaped to one with a border"
            );
            let same = Storage::dense(given.dtype, &given.shape);
            let operand = Operand {
                storage: &given,
                constant: None,
            };
            copy_step(
                "copy",
                &operand,
                &storage,
                &[(View::of(&same), View::of(&given))],
                &self.machine,
            )
        };
        self.step(step, v, &[from], memory, &mut HashMap::new());
        self.fill_border(v, memory, &storage);
        self.values.insert(v, (memory, storage));
    }

    fn fill_border(&mut self, v: ValueId, memory: Memory, storage: &Storage) {
        if let Some(border) = self.borders.get(&v).copied() {
            let step = border::fill(&border, storage, &self.machine);
            self.step(step, v, &[], memory, &mut HashMap::new());
        }
    }

    fn operand(&mut self, v: ValueId) -> (Memory, Storage) {
        if let Some(known) = self.values.get(&v) {
            return known.clone();
        }
        let tensor = self
            .graph
            .as_const(v)
            .expect("operands are constants or were computed");
        let storage = Storage {
            slack: SLACK,
            ..Storage::dense(tensor.dtype(), tensor.shape())
        };
        // parameters are packed by the kernels that use them; only tensors of codes lie here
        let memory = match self.graph.ty(v).quant {
            Some(_) => Memory::Const(self.constant(&bytes_of(tensor))),
            None => Memory::Const(0),
        };
        self.values.insert(v, (memory, storage.clone()));
        (memory, storage)
    }

    fn constant(&mut self, bytes: &[u8]) -> usize {
        if let Some(&at) = self.known.get(bytes) {
            return at;
        }
        let at = self.consts.len().next_multiple_of(ALIGN);
        self.consts.resize(at, 0);
        self.consts.extend_from_slice(bytes);
        self.known.insert(bytes.to_vec(), at);
        at
    }

    /// Bytes of constants by the value whose calls read them first.
    fn constants(&self) -> HashMap<ValueId, usize> {
        let mut starts: Vec<usize> = self.known.values().copied().collect();
        starts.sort_unstable();
        let mut read = vec![false; starts.len()];
        let mut bytes: HashMap<ValueId, usize> = HashMap::new();
        for call in &self.calls {
            for (m, _) in &call.args {
                let Memory::Const(at) = *m else { continue };
                let Some(blob) = starts.partition_point(|&s| s <= at).checked_sub(1) else {
                    continue;
                };
                if !std::mem::replace(&mut read[blob], true) {
                    let end = starts.get(blob + 1).copied();
                    let end = end.unwrap_or(self.consts.len());
                    *bytes.entry(call.computes).or_default() += end - starts[blob];
                }
            }
        }
        bytes
    }

    fn step(
        &mut self,
        step: Step,
        computes: ValueId,
        operands: &[Memory],
        result: Memory,
        scratch: &mut HashMap<usize, Memory>,
    ) {
        let places = Places::whole(operands, result);
        self.placed(step, computes, &places, scratch, false);
    }

    fn placed(
        &mut self,
        step: Step,
        computes: ValueId,
        places: &Places,
        scratch: &mut HashMap<usize, Memory>,
        beside: bool,
    ) {
        let args = step
            .args
            .iter()
            .map(|arg| match arg {
                Arg::Operand(i) => places.operands[*i],
                Arg::Result => places.result,
                Arg::Const(bytes) => (Memory::Const(self.constant(bytes)), 0),
                Arg::Scratch(k, bytes) => {
                    let space = scratch.entry(*k).or_insert_with(|| {
                        self.buffers.push(Buffer {
                            value: computes,
                            scratch: true,
                            bytes: *bytes,
                            slack: 0,
                        });
                        Memory::Buffer(self.buffers.len() - 1)
                    });
                    (*space, 0)
                }
            })
            .collect();
        let label: String = self
            .graph
            .value(computes)
            .name
            .chars()
            .filter(|c| !matches!(c, '"' | '\n' | '\r'))
            .collect();
        self.calls.push(Pending {
            kernel: step.kernel,
            args,
            label,
            computes,
            beside,
        });
    }

    /// Copies what is given out and was not written there by its producer.
    fn outputs(&mut self) {
        for (k, output) in self.graph.outputs().iter().enumerate() {
            let (memory, storage) = self.operand(output.value);
            if memory == Memory::Output(k) {
                continue;
            }
            let own = Storage::dense(storage.dtype, &storage.shape);
            let operand = Operand {
                storage: &storage,
                constant: None,
            };
            let step = relayout(&operand, &own, &self.machine);
            self.step(
                step,
                output.value,
                &[memory],
                Memory::Output(k),
                &mut HashMap::new(),
            );
        }
    }

    fn finish(mut self, name: &str) -> Lowered {
        let lifetimes = self.lifetimes();
        let planned = plan(&lifetimes);
        let ends = planned
            .offsets
            .iter()
            .zip(&self.buffers)
            .map(|(o, b)| o + b.bytes + b.slack);
        let arena_bytes = ends.max().unwrap_or(0);
        let place = |(m, from): (Memory, usize)| match m {
            Memory::Input(k) => Place::Input(k),
            Memory::Output(k) => Place::Output(k),
            Memory::Const(at) => Place::Const(at),
            Memory::Buffer(k) => Place::Arena(planned.offsets[k] + from),
        };
        let rooms = (self.buffers.iter().zip(&lifetimes).zip(&planned.offsets))
            .map(|((buffer, &lifetime), &offset)| Room {
                value: buffer.value,
                scratch: buffer.scratch,
                lifetime,
                offset,
            })
            .collect();
        self.consts
            .resize(self.consts.len().next_multiple_of(ALIGN), 0);
        let constants = self.constants();
        self.consts.resize(self.consts.len() + SLACK, 0);
        let (mut kernels, mut calls, mut computes) = (Kernels::default(), Vec::new(), Vec::new());
        for pending in self.calls {
            let kernel = kernels.add(pending.kernel);
            let args = pending.args.iter().map(|&m| place(m)).collect();
            calls.push(Call {
                kernel,
                label: pending.label,
                args,
                beside: pending.beside,
            });
            computes.push(pending.computes);
        }
        let located = self
            .values
            .into_iter()
            .filter(|(v, _)| !is_constant(self.graph, *v))
            .map(|(v, (memory, storage))| {
                (
                    v,
                    Located {
                        storage,
                        place: place((memory, 0)),
                    },
                )
            })
            .collect();
        let bytes = |v: ValueId| self.graph.ty(v).bytes();
        let program = Program {
            name: name.into(),
            kernels: kernels.list,
            consts: self.consts,
            calls,
            arena_bytes,
            inputs: self.graph.inputs().iter().map(|&v| bytes(v)).collect(),
            outputs: self
                .graph
                .outputs()
                .iter()
                .map(|o| bytes(o.value))
                .collect(),
        };
        Lowered {
            program,
            computes,
            located,
            arena_lower_bound: lower_bound(&lifetimes),
            constants,
            rooms,
        }
    }

    fn lifetimes(&self) -> Vec<Lifetime> {
        let mut lifetimes: Vec<Option<Lifetime>> = vec![None; self.buffers.len()];
        let beside = |call: &usize| self.calls[*call].beside;
        for (call, pending) in self.calls.iter().enumerate() {
            // what one of several calls at the same time needs is there during all of them
            let first = (0..=call).rev().find(|c| !beside(c)).unwrap_or(0);
            let last = call + (call + 1..self.calls.len()).take_while(beside).count();
            for memory in &pending.args {
                if let Memory::Buffer(k) = memory.0 {
                    let new = Lifetime {
                        bytes: self.buffers[k].bytes,
                        first,
                        last,
                    };
                    lifetimes[k].get_or_insert(new).last = last;
                }
            }
        }
        lifetimes
            .into_iter()
            .map(|l| l.expect("every buffer is used"))
            .collect()
    }
}

/// Kernels with equal texts once, under distinct names.
#[derive(Default)]
struct Kernels {
    list: Vec<Kernel>,
    known: HashMap<Kernel, usize>,
    names: HashMap<String, usize>,
}

impl Kernels {
    fn add(&mut self, mut kernel: Kernel) -> usize {
        if let Some(&k) = self.known.get(&kernel) {
            return k;
        }
        self.known.insert(kernel.clone(), self.list.len());
        let count = self.names.entry(kernel.name.clone()).or_insert(0);
        *count += 1;
        kernel.name = format!("{}_{count}", kernel.name);
        self.list.push(kernel);
        self.list.len() - 1
    }
}

/// Results that can be written where the caller wants them: given out once, read by nothing else, without a border.
fn direct_outputs(graph: &Graph) -> HashMap<ValueId, usize> {
    let users = graph.users();
    let borders = borders(graph);
    let mut direct = HashMap::new();
    for (k, output) in graph.outputs().iter().enumerate() {
        let mut v = output.value;
        loop {
            let once =
                users[v].len() + graph.outputs().iter().filter(|o| o.value == v).count() == 1;
            let Def::Node(node) = graph.value(v).def else {
                break;
            };
            if !once || borders.contains_key(&v) {
                break;
            }
            direct.insert(v, k);
            // a reshape passes the place on to what it reshapes
            match &graph.node(node).op {
                Op::Reshape(Reshape { .. }) => v = graph.node(node).inputs[0],
                _ => break,
            }
        }
    }
    direct
}

fn bytes_of(tensor: &Tensor) -> Vec<u8> {
    match tensor.data() {
        Data::U8(v) => v.clone(),
        Data::I16(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Data::I32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        other => panic!("constants hold codes, not {}", other.dtype()),
    }
}
