//! The frontier: one measurement, the best plan at each budget.

use std::path::Path;

use serde_json::Value;

use crate::tool::{data, entries, lowbit, model, works};

fn pareto(extra: &[&str]) -> Vec<String> {
    let paths = [model(), data()].map(|p| p.display().to_string());
    let [model, data] = paths;
    let fixed = ["pareto".into(), model, "--data".into(), data];
    let extra = extra.iter().map(ToString::to_string);
    fixed.into_iter().chain(extra).collect()
}

fn number(point: &Value, key: &str) -> f64 {
    let found = point[key].as_f64();
    found.unwrap_or_else(|| panic!("{key} is no number in {point}"))
}

/// What is bounded grows from point to point, what is predicted to be lost shrinks.
fn is_a_frontier(points: &[Value], cost: &str) {
    for pair in points.windows(2) {
        assert!(number(&pair[0], cost) < number(&pair[1], cost), "{pair:?}");
        let losses = pair.iter().map(|p| number(p, "predicted_loss"));
        assert!(losses.clone().is_sorted_by(|a, b| a > b), "{pair:?}");
    }
}

#[test]
fn the_frontier_runs_from_the_smallest_plan_to_eight_bits() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("frontier");
    let out = folder.display().to_string();
    let found = works(pareto(&[
        "--points",
        "7",
        "--measure",
        "-o",
        &out,
        "--json",
    ]))
    .json();
    let points = found["points"].as_array().unwrap();
    assert!((4..=7).contains(&points.len()), "{found}");
    is_a_frontier(points, "bits");
    let last = points.last().unwrap();
    assert!(number(&points[0], "bits") < 2.5 && number(last, "bits") == 8.0);
    assert!(number(&points[0], "measured_loss") > 10.0 * number(last, "measured_loss"));
    let names: Vec<String> = (1..=points.len())
        .map(|i| format!("plan-{i:02}.json"))
        .collect();
    let expected: Vec<String> = ["pareto.html".into(), "pareto.json".into()]
        .into_iter()
        .chain(names.iter().cloned())
        .collect();
    assert_eq!(entries(&folder), expected);
    for (name, point) in names.iter().zip(points) {
        let plan = read(&folder.join(name));
        let layers = plan["layers"].as_array().unwrap();
        let formats: Vec<&Value> = layers.iter().map(|l| &l["weight"]).collect();
        assert_eq!(point["formats"], serde_json::json!(formats));
    }
    assert_eq!(read(&folder.join("pareto.json")), found);
    let page = std::fs::read_to_string(folder.join("pareto.html")).unwrap();
    assert!(page.contains("frontier-data") && page.contains(found["command"].as_str().unwrap()));
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn bit_operations_choose_inputs_too_and_pins_hold() {
    let args = [
        "--over",
        "bops",
        "--points",
        "5",
        "--pin",
        "block1_out=int5xint4",
    ];
    let found = works(pareto(&[&args[..], &["--json"]].concat())).json();
    let points = found["points"].as_array().unwrap();
    is_a_frontier(points, "bops");
    let layers = found["layers"].as_array().unwrap();
    let pinned = layers.iter().position(|l| l == "block1_out").unwrap();
    for p in points {
        assert_eq!(
            [&p["formats"][pinned], &p["activations"][pinned]],
            ["int5", "int4"]
        );
    }
    let table = works(pareto(&args)).stdout;
    assert!(
        table.contains("bit operations") && table.contains("1 int5×int4"),
        "{table}"
    );
    assert_eq!(table.lines().count(), points.len() + 2, "{table}");
}

#[test]
fn wrong_uses_are_told() {
    for (extra, code, said) in [
        (["--points", "1"], 2, "from 2 to 1000"),
        (["--over", "time"], 2, "bits, size, bops"),
        (["--pin", "nowhere=int8"], 1, "no such layer"),
    ] {
        let ran = lowbit(pareto(&extra));
        assert_eq!(ran.code, Some(code), "{ran:?}");
        assert!(ran.stderr.contains(said), "{ran:?}");
    }
}
