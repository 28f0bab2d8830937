//! Random kernels and the entry points: machine code equals the interpreter.

#[path = "../../../../crates/kernel/tests/text/random.rs"]
mod random;

use crate::common::{run, targets};
use lowbit_kernel::{Call, Kernel, Place, Program};
pub(crate) use random::Random;
use random::SIZES;

/// Bytes of an `inout` buffer with its slack, and of the others.
const WRITTEN: usize = SIZES[2] + 64;
const READ: usize = SIZES[0] + 64;

/// The input is copied into the arena, behind the buffers that kernels write, and work space follows; the buffers leave as the output.
fn program(seed: u64, count: usize) -> Program {
    let (x, work) = (WRITTEN * count, WRITTEN * count + READ);
    let places = |k| {
        vec![
            Place::Arena(x),
            Place::Const(64 * k),
            Place::Arena(WRITTEN * k),
            Place::Arena(work),
        ]
    };
    let call = |kernel, args| Call {
        kernel,
        label: format!("kernel {kernel}"),
        args,
        beside: false,
    };
    let randoms = (0..count).map(|k| call(k, places(k)));
    let first = call(count, vec![Place::Input(0), Place::Arena(x)]);
    let last = call(count + 1, vec![Place::Arena(0), Place::Output(0)]);
    let kernels = (0..count).map(|k| named(seed + k as u64, k));
    Program {
        name: "net".into(),
        kernels: kernels
            .chain([copy("take", READ), copy("give", x)])
            .collect(),
        consts: Random(seed).bytes(READ + 64 * count),
        calls: [first].into_iter().chain(randoms).chain([last]).collect(),
        arena_bytes: work + READ,
        inputs: vec![READ],
        outputs: vec![x],
    }
}

fn named(seed: u64, k: usize) -> Kernel {
    let mut kernel = random::kernel(seed);
    kernel.name = format!("random{k}");
    kernel
}

fn copy(name: &str, bytes: usize) -> Kernel {
    let text = format!(
        "kernel {name}(@x: in {bytes}, @y: out {bytes}) {{ for i0 in {} {{ %0 = load i8x16 @x[0 + i0*16] store %0, @y[0 + i0*16] }} }}",
        bytes / 16
    );
    text.parse().unwrap()
}

#[test]
fn random_kernels_compute_what_the_interpreter_does() {
    for (k, target) in targets().iter().enumerate() {
        let program = program(1000 * k as u64, 60);
        let input = Random(k as u64).bytes(program.inputs[0]);
        let expected = program.run(&[&input]).unwrap();
        if let Some(found) = run(&program, target, &[input]) {
            let differs = expected[0].iter().zip(&found[0]).position(|(a, b)| a != b);
            let kernel = differs.map(|at| program.kernels[at / WRITTEN].to_string());
            assert_eq!(kernel, None, "{} {}", target.level.name, target.triple);
        }
    }
}
