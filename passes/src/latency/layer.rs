//! How long a layer takes in a format, before its network is compiled.

use std::collections::HashMap;
use std::ops::Range;

use lowbit_ir::ops::{Epilogue, IntConv, Operation};
use lowbit_ir::{DType, Graph, Op, Tensor, Type, ValueId};
use lowbit_kernel::{Buffer, Call, Place, Program};
use lowbit_num::Format;
use lowbit_targets::ResolvedTarget;

use super::kernel_us;
use crate::lower::storage::{Border, SLACK, arena};
use crate::lower::{Arg, Machine, Operand, Step, Storage, select};

/// Everything about a layer but its parameters and formats.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Geometry {
    /// The operation.
    pub op: IntConv,
    /// Operand as `[N, H, W, C]`.
    pub x: [usize; 4],
    /// Weights as `[O, KH, KW, C / groups]`.
    pub w: [usize; 4],
    /// Bytes that are touched between two runs of the layer: constants and arena of its network.
    pub resident: usize,
}

impl Geometry {
    /// Of the layer that computes a value of an integer graph whose object touches `resident` bytes; `None` where the value
    /// is no layer's.
    pub fn of(graph: &Graph, v: ValueId, resident: usize) -> Option<Self> {
        let node = graph.producer(v)?;
        let Op::IntConv(op) = &node.op else {
            return None;
        };
        let shape = |i: usize| graph.shape(node.inputs[i]).try_into().ok();
        Some(Self {
            op: op.clone(),
            x: shape(0)?,
            w: shape(1)?,
            resident,
        })
    }

    /// What tables call the layer: everything that its time depends on.
    pub fn key(&self) -> String {
        let ([n, h, w, c], [o, kh, kw, _], op) = (self.x, self.w, &self.op);
        let [[top, bottom], [left, right]] = op.pad;
        let epilogue = match op.epilogue {
            Epilogue::Accumulator => "accumulator",
            Epilogue::High => "high",
            Epilogue::Exact { .. } => "exact",
            Epilogue::Residual { .. } => "residual",
        };
        format!(
            "{n}x{h}x{w}x{c} -> {o}, kernel {kh}x{kw}, stride {}x{}, dilation {}x{}, pad {top},{bottom},{left},{right}, \
             groups {}, {epilogue} {}",
            op.stride[0],
            op.stride[1],
            op.dilation[0],
            op.dilation[1],
            op.groups,
            op.out.dtype.name(),
        )
    }

    /// The layer's own steps for a target, with made-up parameters of a format.
    pub(crate) fn steps(&self, target: &ResolvedTarget, weights: Format) -> Vec<Step> {
        let mut tensors = vec![
            Tensor::from_i64(DType::U8, self.x, vec![0; self.x.iter().product()]),
            Tensor::from_i64(DType::I8, self.w, codes(weights, self.w.iter().product())),
        ];
        let channels = self.w[0];
        let column = |dtype, x: i64| Tensor::from_i64(dtype, [channels], vec![x; channels]);
        tensors.push(column(DType::I32, 0));
        if self.op.epilogue != Epilogue::Accumulator {
            tensors.push(column(DType::I32, 1 << 30));
        }
        let types: Vec<Type> = tensors.iter().map(Tensor::ty).collect();
        match self.op.epilogue {
            Epilogue::Exact { .. } => tensors.push(column(DType::U8, 40)),
            Epilogue::Residual { .. } => {
                let y = self.result(&types[..3]);
                tensors.push(Tensor::from_i64(DType::U8, y, vec![0; y.iter().product()]));
            }
            _ => {}
        }
        self.lowered(&tensors, self.result(&types[..3]), weights, target)
    }

    fn result(&self, types: &[Type]) -> [usize; 4] {
        let bare = IntConv {
            epilogue: Epilogue::Accumulator,
            out: lowbit_ir::ops::Codes::I32,
            ..self.op.clone()
        };
        let ty = bare.infer(&types.iter().collect::<Vec<_>>());
        let shape = ty.expect("the layer was part of a graph").shape;
        shape.try_into().expect("results have four axes")
    }

    fn lowered(
        &self,
        tensors: &[Tensor],
        y: [usize; 4],
        weights: Format,
        target: &ResolvedTarget,
    ) -> Vec<Step> {
        let [rows, columns] = self.op.pad;
        let border = Border {
            size: [rows[0], rows[1], columns[0], columns[1]],
            code: self.op.pad_code,
        };
        let storage = |i: usize, t: &Tensor| {
            let border = (i == 0).then_some(&border);
            arena(t.dtype(), t.shape(), border, SLACK)
        };
        let storages: Vec<Storage> = tensors
            .iter()
            .enumerate()
            .map(|(i, t)| storage(i, t))
            .collect();
        let operands: Vec<Operand<'_>> = storages
            .iter()
            .zip(tensors)
            .map(|(storage, t)| Operand {
                storage,
                constant: Some(t),
            })
            .collect();
        let result = Storage::dense(self.op.out.dtype, &y);
        let op = Op::IntConv(IntConv {
            weights,
            ..self.op.clone()
        });
        select::lower(&op, &operands, &result, &Machine::of(target)).expect("layers have kernels")
    }
}

/// Predicted microseconds of a layer with weights in `weights` on one core of a target.
///
/// The layer is lowered as the compiler would lower it and its kernels' texts are priced ([`kernel_us`]), so that what a
/// format costs to unpack counts, and what it saves in bytes too.
pub fn latency_us(target: &ResolvedTarget, layer: &Geometry, weights: Format) -> f64 {
    let steps = layer.steps(target, weights);
    let us = |s: &Step| kernel_us(&s.kernel, layer.resident, target);
    steps.iter().map(us).sum()
}

/// A program that runs each layer by itself with made-up parameters of a format, in order: what `--tune` times. The calls of
/// each layer are given too.
pub fn layers_program(
    target: &ResolvedTarget,
    layers: &[Geometry],
    weights: Format,
) -> (Program, Vec<Range<usize>>) {
    let mut program = Program {
        name: "layers".into(),
        ..Program::default()
    };
    let mut calls = Vec::new();
    for layer in layers {
        let first = program.calls.len();
        add_layer(&mut program, layer.steps(target, weights), calls.len());
        calls.push(first..program.calls.len());
    }
    program.consts.resize(program.consts.len() + SLACK, 0);
    (program, calls)
}

/// Adds the steps of a layer; each of its tensors has a place of its own in the arena.
fn add_layer(program: &mut Program, steps: Vec<Step>, number: usize) {
    let (mut places, mut end) = (HashMap::new(), 0);
    for (k, step) in steps.into_iter().enumerate() {
        let mut kernel = step.kernel;
        kernel.name = format!("layer{number}_{k}");
        let mut args = Vec::new();
        for (arg, buffer) in step.args.into_iter().zip(&kernel.buffers) {
            args.push(match arg {
                Arg::Const(bytes) => {
                    let at = program.consts.len().next_multiple_of(64);
                    program.consts.resize(at, 0);
                    program.consts.extend(bytes);
                    Place::Const(at)
                }
                Arg::Operand(i) => arena_place(&mut places, (0, i), buffer, &mut end),
                Arg::Result => arena_place(&mut places, (1, 0), buffer, &mut end),
                Arg::Scratch(i, _) => arena_place(&mut places, (2, i), buffer, &mut end),
            });
        }
        program.calls.push(Call {
            kernel: program.kernels.len(),
            label: kernel.name.clone(),
            args,
            beside: false,
        });
        program.kernels.push(kernel);
    }
    program.arena_bytes = program.arena_bytes.max(end);
}

fn arena_place(
    places: &mut HashMap<(u8, usize), usize>,
    key: (u8, usize),
    buffer: &Buffer,
    end: &mut usize,
) -> Place {
    let at = places.entry(key).or_insert_with(|| {
        let at = end.next_multiple_of(64);
        *end = at + buffer.len + buffer.slack;
        at
    });
    Place::Arena(*at)
}

/// Codes spread over a format's range as trained weights are: most of them small.
fn codes(format: Format, n: usize) -> Vec<i64> {
    let all: Vec<i32> = format.codes().collect();
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut part = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as usize % 1024
    };
    let mut code = || {
        let sum = part() + part() + part() + part();
        all[sum * all.len() / (4 * 1024)].into()
    };
    (0..n).map(|_| code()).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use lowbit_ir::ops::Codes;

    use super::*;

    pub(crate) fn layer(c: usize, kernel: usize, size: usize) -> Geometry {
        Geometry {
            op: IntConv {
                stride: [1, 1],
                dilation: [1, 1],
                pad: [[kernel / 2; 2]; 2],
                groups: 1,
                pad_code: 0,
                weights: Format::Int8,
                epilogue: Epilogue::High,
                out: Codes::U8,
            },
            x: [1, size, size, c],
            w: [c, kernel, kernel, c],
            resident: 1 << 20,
        }
    }

    #[test]
    fn time_grows_with_work_and_falls_with_features() {
        let target = |cpu| lowbit_targets::resolve(None, Some(cpu)).expect("a level");
        let us = |cpu, l: &Geometry| latency_us(&target(cpu), l, Format::Int8);
        for cpu in ["x86-64-v3", "x86-64-vnni", "aarch64-dotprod"] {
            let (small, large) = (layer(16, 3, 16), layer(64, 3, 16));
            let ratio = us(cpu, &large) / us(cpu, &small);
            assert!((8.0..24.0).contains(&ratio), "{cpu}: {ratio}");
        }
        let l = layer(64, 3, 16);
        assert!(us("x86-64-vnni", &l) < us("x86-64-v3", &l));
        assert!(us("x86-64-v3", &l) < us("portable", &l) / 3.0);
        let l = layer(256, 3, 14);
        assert!(us("x86-64-amx", &l) < us("x86-64-vnni", &l) / 2.0);
    }

    #[test]
    fn layers_run_by_themselves_in_every_format() {
        let target = lowbit_targets::resolve(None, Some("x86-64-v3")).expect("a level");
        let layers = [layer(16, 3, 4), layer(24, 1, 3)];
        for &format in Format::ALL {
            let (program, calls) = layers_program(&target, &layers, format);
            program.verify().expect("the program is well-formed");
            assert_eq!(calls.last().map(|c| c.end), Some(program.calls.len()));
        }
    }

    #[test]
    fn weights_beyond_the_caches_cost_their_bytes() {
        let target = lowbit_targets::resolve(None, Some("x86-64-v3")).expect("a level");
        let near = Geometry {
            resident: 1 << 14,
            ..layer(512, 1, 1)
        };
        let far = Geometry {
            resident: 1 << 24,
            ..near.clone()
        };
        let us = |l: &Geometry| latency_us(&target, l, Format::Int8);
        assert!(us(&far) > 1.2 * us(&near));
    }
}
