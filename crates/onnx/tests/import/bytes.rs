//! Damaged files end in a message, never in a panic.

use std::path::Path;

use bytes::Bytes;
use lowbit_ir::{DType, Graph, Tensor, eval};
use lowbit_onnx::{Options, import_bytes};
use proptest::prelude::*;
use prost::Message;

use crate::model::small;

/// A graph that is small enough is run, too: what was imported must run, or say why not.
fn attempt(bytes: Vec<u8>) {
    let imported = import_bytes(bytes.into(), Path::new("m.onnx"), &Options::default());
    let Ok(imported) = imported else { return };
    let graph: &Graph = &imported.graph;
    graph.verify(lowbit_ir::Stage::Float).unwrap();
    if graph.values().map(|(_, v)| v.ty.elements()).sum::<usize>() > 1 << 16 {
        return;
    }
    let zeros = graph.inputs().iter().map(|&v| {
        let (ty, n) = (graph.ty(v), graph.ty(v).elements());
        match ty.dtype {
            DType::F32 | DType::F64 => Tensor::from_f64(ty.dtype, ty.shape.clone(), vec![0.0; n]),
            _ => Tensor::from_i64(ty.dtype, ty.shape.clone(), vec![0; n]),
        }
    });
    let _ = eval::run(graph, &zeros.collect::<Vec<_>>());
}

fn digits() -> Bytes {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/models/digits.onnx");
    std::fs::read(path).unwrap().into()
}

fn flipped(model: &[u8], flips: &[(prop::sample::Index, u8)]) -> Vec<u8> {
    let mut bytes = model.to_vec();
    for (at, with) in flips {
        bytes[at.index(model.len())] ^= with;
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn a_small_model_with_flipped_bits(flips in prop::collection::vec((any::<prop::sample::Index>(), 1..=255u8), 1..4)) {
        attempt(flipped(&small().encode_to_vec(), &flips));
    }

    #[test]
    fn a_small_model_with_bytes_cut_out(from in any::<prop::sample::Index>(), len in 1..32usize) {
        let mut bytes = small().encode_to_vec();
        let from = from.index(bytes.len());
        bytes.drain(from..(from + len).min(bytes.len()));
        attempt(bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_trained_model_with_flipped_bits(flips in prop::collection::vec((any::<prop::sample::Index>(), 1..=255u8), 1..20)) {
        attempt(flipped(&digits(), &flips));
    }
}
