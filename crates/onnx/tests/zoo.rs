//! Every model of the zoo imports.
use std::path::Path;

fn zoo() -> Option<std::path::PathBuf> {
    let shared = std::env::var_os("LOWBIT_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
        Into::into,
    );
    let models = shared.join("zoo/models");
    models.is_dir().then_some(models)
}

#[test]
fn every_model_of_the_zoo_imports() {
    let Some(models) = zoo() else {
        println!("the zoo is not here: skipped");
        return;
    };
    for entry in std::fs::read_dir(models).unwrap() {
        let path = entry.unwrap().path();
        let imported = lowbit_onnx::import(&path, &lowbit_onnx::Options::default());
        let imported = imported.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        imported.graph.verify(lowbit_ir::Stage::Float).unwrap();
        assert!(!imported.graph.outputs().is_empty());
    }
}
