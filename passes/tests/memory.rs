//! The memory that calibration takes does not grow with the number of samples.

use std::convert::Infallible;

use lowbit_ir::ops::{Conv, Unary, UnaryFn};
use lowbit_ir::{DType, Graph, Tensor, Type};
use lowbit_passes::calibrate::calibrate;
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

fn graph() -> Graph {
    let mut g = Graph::new("g");
    let mut v = g.input("x", Type::new(DType::F32, [1, 32, 32, 8]));
    let weights: Vec<f32> = (0..8 * 9 * 8).map(|i| (i as f32).sin() / 8.0).collect();
    let w = g.constant("w", Tensor::new([8, 3, 3, 8], weights));
    for _ in 0..4 {
        let conv = Conv {
            stride: [1, 1],
            dilation: [1, 1],
            pad: [[1, 1]; 2],
            groups: 1,
        };
        v = g.push("c", conv, &[v, w]).unwrap();
        v = g.push("r", Unary(UnaryFn::Relu), &[v]).unwrap();
    }
    g.output("y", v);
    g
}

/// Bytes held at most while `n` samples calibrate, beyond those held before.
fn peak(g: &Graph, n: usize) -> usize {
    let sample = |i: usize| {
        let x = (0..32 * 32 * 8).map(|k| ((i * 7919 + k * 104_729) % 1000) as f32 / 500.0 - 1.0);
        Ok::<_, Infallible>(vec![Tensor::new([1, 32, 32, 8], x.collect())])
    };
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    calibrate(g, n, sample, |_| true, |_, _| {}).unwrap();
    MEMORY.peak_usage().saturating_sub(before)
}

#[test]
fn a_hundred_times_the_samples_take_the_same_memory() {
    let g = graph();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build();
    pool.unwrap().install(|| {
        // the first run starts what lives as long as the process
        peak(&g, 16);
        let (few, many) = (peak(&g, 16), peak(&g, 1600));
        println!("16 samples: {few} bytes, 1600 samples: {many} bytes");
        assert!(few > 100_000, "{few} bytes cannot hold what is observed");
        assert!(many < few + few / 4, "{few} bytes grew to {many}");
    });
}
