//! Any bytes are a model that verifies, or a message.
#![no_main]

use std::path::Path;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let bytes = data.to_vec().into();
    let options = lowbit_onnx::Options::default();
    if let Ok(imported) = lowbit_onnx::import_bytes(bytes, Path::new("fuzz.onnx"), &options) {
        imported.graph.verify(lowbit_ir::Stage::Float).unwrap();
    }
});
