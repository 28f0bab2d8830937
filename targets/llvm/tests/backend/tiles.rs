//! Convolution tiles keep their accumulators in registers and compute what the interpreter does.

use crate::common::{run, targets};
use crate::kernels::Random;
use lowbit_kernel::{Buffer, Builder, Call, Kernel, Place, Program, Role, Scalar, Type, Val};
use lowbit_llvm::{Options, disassemble, emit};
use lowbit_targets::{ResolvedTarget, resolve};

/// `pixels × vectors` accumulators over `depth` dwords of channels, requantised to bytes.
struct Tile {
    pixels: i64,
    vectors: i64,
    depth: u32,
    blocks: u32,
}

impl Tile {
    fn kernel(&self, lanes: u16) -> Kernel {
        let mut b = Builder::new("tile");
        let (acc, bytes) = (Type::I32.x(lanes), Type::I8.x(4 * lanes));
        let vector = bytes.bytes() as i64;
        let depth = i64::from(self.depth);
        let x = b.buffer("x", Role::In, (self.pixels * depth * 4) as usize);
        let w = b.declare(Buffer {
            name: "w".into(),
            role: Role::Const,
            len: self.weights(lanes),
            slack: 0,
            align: 64,
        });
        let y = b.buffer("y", Role::Out, self.output(lanes));
        b.for_(self.blocks, &[], |b, block, _| {
            let zero = b.constant(acc, 1 << 12);
            let inits = vec![zero; (self.pixels * self.vectors) as usize];
            let sums = b.for_(self.depth, &inits, |b, k, sums| {
                let at = w
                    .at(0)
                    .step(block, depth * self.vectors * vector)
                    .step(k, self.vectors * vector);
                let ws: Vec<_> = (0..self.vectors)
                    .map(|v| b.load(bytes, at.clone().plus(v * vector)))
                    .collect();
                let mut next = Vec::new();
                for p in 0..self.pixels {
                    let a = b.load_dword_splat(4 * lanes, x.at(p * depth * 4).step(k, 4));
                    for (v, &wv) in ws.iter().enumerate() {
                        next.push(b.dot4(sums[p as usize * ws.len() + v], a, wv));
                    }
                }
                next
            });
            let m = b.load(acc, w.at(0).step(block, vector));
            let finish = |b: &mut Builder, v: Val| {
                let high = b.mulhi(v, m);
                b.sat_u8(high)
            };
            for (k, &sum) in sums.iter().enumerate() {
                let v = finish(b, sum);
                let out = k as i64 * i64::from(lanes);
                b.store(
                    v,
                    y.at(out)
                        .step(block, self.pixels * self.vectors * i64::from(lanes)),
                );
            }
            vec![]
        });
        b.finish()
    }

    fn weights(&self, lanes: u16) -> usize {
        self.blocks as usize * self.depth as usize * self.vectors as usize * usize::from(lanes) * 4
    }

    fn output(&self, lanes: u16) -> usize {
        self.blocks as usize * (self.pixels * self.vectors) as usize * usize::from(lanes)
    }

    fn program(&self, target: &ResolvedTarget) -> Program {
        let lanes = target.level.lanes(Scalar::I32);
        Program {
            name: "tile_net".into(),
            kernels: vec![self.kernel(lanes)],
            consts: Random(5).bytes(self.weights(lanes)),
            calls: vec![Call {
                kernel: 0,
                label: "conv".into(),
                args: vec![Place::Input(0), Place::Const(0), Place::Output(0)],
                beside: false,
            }],
            inputs: vec![(self.pixels * i64::from(self.depth) * 4) as usize],
            outputs: vec![self.output(lanes)],
            ..Program::default()
        }
    }
}

/// The lines of the assembly of one function.
fn body<'a>(asm: &'a str, function: &str) -> Vec<&'a str> {
    let start = format!("{function}:");
    let lines = asm.lines().skip_while(|l| !l.starts_with(&start)).skip(1);
    lines.take_while(|l| !l.starts_with(".Lfunc_end")).collect()
}

#[test]
fn a_tile_of_28_accumulators_never_touches_the_stack() {
    let target = resolve(Some("x86_64-unknown-linux-gnu"), Some("x86-64-vnni")).unwrap();
    let tile = Tile {
        pixels: 14,
        vectors: 2,
        depth: 64,
        blocks: 4,
    };
    let asm = emit(
        &tile.program(&target),
        &target,
        &Options {
            asm: true,
            ..Options::default()
        },
    )
    .unwrap()
    .asm
    .unwrap();
    let lines = body(&asm, "kernel.tile");
    let dots = lines.iter().filter(|l| l.contains("vpdpbusd")).count();
    assert_eq!(dots, 28, "the tile is one loop body");
    let spills: Vec<_> = lines
        .iter()
        .filter(|l| l.contains("(%rsp)") && l.contains("zmm"))
        .collect();
    assert!(spills.is_empty(), "{spills:?}");
}

#[test]
fn tiles_compute_what_the_interpreter_does() {
    let tile = Tile {
        pixels: 6,
        vectors: 2,
        depth: 9,
        blocks: 3,
    };
    for target in targets() {
        let program = tile.program(&target);
        let input = Random(11).bytes(program.inputs[0]);
        let expected = program.run(&[&input]).unwrap();
        if let Some(found) = run(&program, &target, &[input]) {
            assert_eq!(found, expected, "{} {}", target.level.name, target.triple);
        }
    }
}

/// Bytes of stack that straight code takes: pushes and subtractions from the stack pointer.
fn taken(code: &[(u64, String)]) -> u32 {
    let bytes = |text: &str| match text.split_once("sub\trsp, ") {
        Some((_, n)) => n.parse().unwrap(),
        None => 8 * u32::from(text.starts_with("push")),
    };
    code.iter().map(|(_, text)| bytes(text)).sum()
}

#[test]
fn the_stack_bound_covers_spills_and_saved_registers() {
    let target = resolve(Some("x86_64-unknown-linux-gnu"), Some("x86-64-v3")).unwrap();
    let tile = Tile {
        pixels: 20,
        vectors: 2,
        depth: 16,
        blocks: 2,
    };
    let emitted = emit(&tile.program(&target), &target, &Options::default()).unwrap();
    let taken = taken(&disassemble(&emitted.object).unwrap());
    assert!(taken > 20 * 32, "so many accumulators are spilt");
    assert!(
        (taken..taken + 512).contains(&emitted.stack_bytes),
        "{taken} taken, {} reported",
        emitted.stack_bytes
    );
}
