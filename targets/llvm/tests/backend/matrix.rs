//! Products of tiles: registers where the target has them, and the interpreter's sums on every target.

use crate::common::{run, targets};
use crate::kernels::Random;
use lowbit_kernel::{Buffer, Builder, Call, Kernel, Place, Program, Role, Type, Val};
use lowbit_llvm::{Options, disassemble, emit, scan};
use lowbit_targets::{Feature, ResolvedTarget, resolve};

/// `across × down` tiles of sums over `depth` chunks of `steps` times four bytes.
#[derive(Clone, Copy)]
struct Block {
    down: usize,
    across: usize,
    rows: usize,
    steps: usize,
    depth: usize,
}

impl Block {
    const BLOCKS: u32 = 3;

    fn pitch(&self) -> usize {
        4 * self.steps * self.depth + 5
    }

    fn operand(&self) -> usize {
        self.down * self.rows * self.pitch()
    }

    fn weights(&self) -> usize {
        self.depth * self.steps * self.across * 64
    }

    /// Whether registers hold all sums, the weights and an operand.
    fn fits(&self) -> bool {
        self.across * (self.down + 1) < 8
    }

    fn sums(&self) -> usize {
        self.down * self.across * self.rows * 64
    }

    fn kernel(&self) -> Kernel {
        let mut b = Builder::new("block");
        let x = b.buffer("x", Role::In, Self::BLOCKS as usize * self.operand());
        let w = b.declare(Buffer {
            name: "w".into(),
            role: Role::Const,
            len: self.weights() + 64,
            slack: 0,
            align: 64,
        });
        let y = b.buffer("y", Role::Out, Self::BLOCKS as usize * self.sums());
        let sum = Type::I32.x(16 * self.rows as u16);
        let a = Type::I8.x((4 * self.steps * self.rows) as u16);
        let factor = Type::I8.x(64 * self.steps as u16);
        b.for_(Self::BLOCKS, &[], |b, block, _| {
            let init: Vec<Val> = (0..self.down * self.across)
                .map(|_| b.load_rows(sum, w.at(self.weights() as i64), self.rows, 0))
                .collect();
            let sums = b.for_(self.depth as u32, &init, |b, k, sums| {
                let row = self.across as i64 * 64;
                let ws: Vec<Val> = (0..self.across)
                    .map(|v| {
                        let at = w.at(v as i64 * 64).step(k, self.steps as i64 * row);
                        b.load_rows(factor, at, self.steps, row)
                    })
                    .collect();
                let mut next = Vec::new();
                for p in 0..self.down {
                    let at = x.at((p * self.rows * self.pitch()) as i64);
                    let at = at.step(block, self.operand() as i64);
                    let at = at.step(k, 4 * self.steps as i64);
                    let a = b.load_rows(a, at, self.rows, self.pitch() as i64);
                    for (v, &w) in ws.iter().enumerate() {
                        next.push(b.dot4_tile(sums[p * ws.len() + v], a, w));
                    }
                }
                next
            });
            for (k, &s) in sums.iter().enumerate() {
                let at = y.at((k * self.rows * 64) as i64);
                b.store(s, at.step(block, self.sums() as i64));
            }
            Vec::new()
        });
        b.finish()
    }

    fn program(&self) -> Program {
        let kernel = self.kernel();
        let [x, w, y] = [0, 1, 2].map(|k: usize| kernel.buffers[k].len);
        Program {
            name: "t".into(),
            kernels: vec![kernel],
            consts: Random(5).bytes(w),
            calls: vec![Call {
                kernel: 0,
                label: "block".into(),
                args: vec![Place::Input(0), Place::Const(0), Place::Output(0)],
                beside: false,
            }],
            inputs: vec![x],
            outputs: vec![y],
            ..Program::default()
        }
    }
}

const BLOCKS: [[usize; 5]; 6] = [
    [2, 2, 16, 16, 5],
    [4, 1, 7, 12, 3],
    [1, 1, 1, 1, 1],
    [2, 1, 13, 9, 2],
    [1, 4, 14, 16, 4],
    // more tiles than there are registers
    [3, 3, 4, 3, 2],
];

fn block([down, across, rows, steps, depth]: [usize; 5]) -> Block {
    Block {
        down,
        across,
        rows,
        steps,
        depth,
    }
}

/// Tiles beside the vectors that this processor has: kernels whose tiles all have registers need no others.
fn on_this_processor() -> Option<ResolvedTarget> {
    let tiles = resolve(Some("x86_64-unknown-linux-gnu"), Some("x86-64-amx")).unwrap();
    let host = resolve(None, None).unwrap();
    let features = host.features.iter().copied();
    let features = features.chain([Feature::AmxTile, Feature::AmxInt8]);
    (host.arch == tiles.arch).then(|| ResolvedTarget {
        features: features.collect(),
        ..tiles
    })
}

#[test]
fn tiles_compute_what_the_interpreter_does() {
    if let Some(target) = on_this_processor() {
        for sizes in BLOCKS.into_iter().filter(|&b| block(b).fits()) {
            let program = block(sizes).program();
            let input = Random(3).bytes(program.inputs[0]);
            let expected = program.run(&[&input]).unwrap();
            let found = run(&program, &target, &[input]).expect("tiles are emulated");
            assert!(found == expected, "{sizes:?}");
        }
    }
    for sizes in BLOCKS {
        let program = block(sizes).program();
        let input = Random(3).bytes(program.inputs[0]);
        let expected = program.run(&[&input]).unwrap();
        // elsewhere large tiles are long vectors, which LLVM takes long to cut
        let small = sizes[2] * sizes[3] < 16;
        let with = |t: &ResolvedTarget| small || t.features.contains(&Feature::AmxInt8);
        for target in targets().into_iter().filter(with) {
            if let Some(found) = run(&program, &target, std::slice::from_ref(&input)) {
                assert!(found == expected, "{sizes:?} on {}", target.level.name);
            }
        }
    }
}

#[test]
fn sums_stay_in_tile_registers() {
    let target = resolve(Some("x86_64-unknown-linux-gnu"), Some("x86-64-amx")).unwrap();
    for sizes in BLOCKS {
        let block = block(sizes);
        let object = emit(&block.program(), &target, &Options::default())
            .unwrap()
            .object;
        assert_eq!(scan(&object).unwrap().float_instructions, []);
        let code = disassemble(&object).unwrap();
        let count = |name: &str| {
            code.iter()
                .filter(|(_, text)| text.starts_with(name))
                .count()
        };
        let tiles = block.down * block.across;
        let fits = block.fits();
        let times = |n: usize| if fits { n } else { 0 };
        assert_eq!(count("tdpbusd"), times(tiles), "{sizes:?}");
        assert_eq!(count("tilestored"), times(tiles), "{sizes:?}");
        assert_eq!(
            count("tileloadd"),
            times(tiles + block.down + block.across),
            "{sizes:?}"
        );
        assert_eq!(
            [count("ldtilecfg"), count("tilerelease")],
            [times(1); 2],
            "{sizes:?}"
        );
        assert_eq!(count("vpdpbusd") > 0, !fits, "{sizes:?}");
    }
}
