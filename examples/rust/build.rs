//! Compiles the model and links it.
fn main() -> Result<(), lowbit::Error> {
    let models = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/models");
    lowbit::build::compile(format!("{models}/digits.onnx"))
        .data(format!("{models}/digits.toml"))
        .bits(8.0)
        .threads(2)
        .emit()
}
