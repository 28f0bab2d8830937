//! Residual streams of 8 and of 16 bits.

use std::path::Path;

use serde_json::Value;

use crate::tool::{compile, works};

fn report(folder: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(folder.join("report.json")).unwrap()).unwrap()
}

#[test]
fn residual_streams_have_the_bits_that_are_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let made = |bits: &str| {
        let out = folder.path().join(bits);
        compile(&out, &["--residual-bits", bits, "--eval", "16"]);
        works(["verify".as_ref(), out.as_os_str()]);
        report(&out)
    };
    let [narrow, wide] = ["8", "16"].map(made);
    assert_eq!(narrow["totals"]["residual_bits"], 8);
    assert_eq!(wide["totals"]["residual_bits"], 16);
    let hash = |r: &Value| r["reproduce"]["object_sha256"].clone();
    assert_ne!(hash(&narrow), hash(&wide));
    let told = works(["inspect".as_ref(), folder.path().join("16").as_os_str()]).stdout;
    assert!(told.contains("residual streams of 16 bits"), "{told}");
}

#[test]
fn a_budget_of_memory_or_time_keeps_streams_at_8_bits() {
    let folder = tempfile::tempdir().unwrap();
    for (i, budget) in [["--ram", "60K"], ["--latency", "1"]].iter().enumerate() {
        let out = folder.path().join(i.to_string());
        compile(
            &out,
            &[&budget[..], &["--effort", "1", "--eval", "16"]].concat(),
        );
        assert_eq!(report(&out)["totals"]["residual_bits"], 8, "{budget:?}");
        works(["verify".as_ref(), out.as_os_str()]);
    }
}
