//! The smallest model that keeps the accuracy.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::tool::{Ran, compile, data, lowbit, model, root, works, write};

fn report(folder: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(folder.join("report.json")).unwrap()).unwrap()
}

fn number(of: &Value, name: &str) -> f64 {
    let found = of[name].as_f64();
    found.unwrap_or_else(|| panic!("{name} is no number in {of}"))
}

/// The descriptor of the carried data with lines replaced, in another folder.
fn described(folder: &Path, changes: &[(&str, &str)]) -> PathBuf {
    let mut text = std::fs::read_to_string(data()).unwrap();
    for (old, new) in changes {
        assert!(text.contains(old), "{old}");
        text = text.replace(old, new);
    }
    let file = root().join("tests/models/digits.npz");
    text = text.replace("digits.npz", file.to_str().unwrap());
    write(folder, "data.toml", text)
}

fn compiled_with(data: &Path, out: &Path, extra: &[&str]) -> Ran {
    let model = model();
    let paths = [model.as_os_str(), "--data".as_ref(), data.as_os_str()];
    let fixed = [
        &["compile".as_ref()],
        &paths[..],
        &["-o".as_ref(), out.as_os_str()],
    ]
    .concat();
    lowbit(fixed.into_iter().chain(extra.iter().map(AsRef::as_ref)))
}

/// The plan that was compiled, the smallest of those within the bound; all that were measured.
fn kept(report: &Value, points: f64) -> (Value, Vec<Value>) {
    let tried = report["tried"].as_array().unwrap().clone();
    let returned: Vec<&Value> = tried.iter().filter(|t| t["returned"] == true).collect();
    assert_eq!(returned.len(), 1, "{tried:?}");
    assert!(number(returned[0], "drop") <= points);
    let bits = number(returned[0], "bits");
    let smaller = tried.iter().filter(|t| number(t, "bits") < bits);
    for t in smaller {
        assert!(
            number(t, "drop") > points,
            "{t} is smaller and was not taken"
        );
    }
    assert!((number(&report["totals"], "avg_weight_bits") - bits).abs() < 1e-9);
    (returned[0].clone(), tried)
}

#[test]
fn the_smallest_model_within_a_drop() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("none");
    let fixed = ["--cpu", "x86-64-v3", "--effort", "0", "--eval", "none"];
    let ran = compile(&out, &[&fixed[..], &["--max-drop", "0"]].concat());
    let none = report(&out);
    let (taken, tried) = kept(&none, 0.0);
    assert!(number(&taken, "bits") < 8.0 && tried.len() > 2, "{tried:?}");
    // every other one of 400 calibration samples
    assert!(tried.iter().all(|t| t["samples"] == 200), "{tried:?}");
    assert!(ran.stderr.contains("on 200 samples kept apart"), "{ran:?}");
    assert!(ran.stdout.contains("0 allowed"), "{ran:?}");
    let command = lowbit::report::command(&serde_json::from_value(none).unwrap(), true);
    assert!(command.contains("--max-drop 0 "), "{command}");
    let page = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains("measured on 200 samples kept apart"));
    let shown = works(["inspect".as_ref(), out.as_os_str()]).stdout;
    assert!(
        shown.contains("points below float") && shown.contains("200 samples"),
        "{shown}"
    );
    works(["verify".as_ref(), out.as_os_str()]);
    // what may drop more is smaller, within another budget
    let out = folder.path().join("any");
    let any = ["--max-drop", "100", "--bits", "5"];
    compile(&out, &[&fixed[..], &any].concat());
    let (any, _) = kept(&report(&out), 100.0);
    assert!(
        number(&any, "bits") < number(&taken, "bits"),
        "{any} {taken}"
    );
}

#[test]
fn drops_are_measured_apart_from_the_evaluation_split() {
    let folder = tempfile::tempdir().unwrap();
    let object = |name: &str, changes: &[(&str, &str)]| {
        let data = described(folder.path(), changes);
        let out = folder.path().join(name);
        let flags = ["--max-drop", "2", "--effort", "0", "--eval", "none"];
        let ran = compiled_with(&data, &out, &flags);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let tried = report(&out)["tried"].clone();
        (tried, std::fs::read(out.join("digits.o")).unwrap())
    };
    let evaluate = "evaluate = \"1000..1797\"";
    let (tried, bytes) = object("whole", &[]);
    assert_eq!(
        (tried, bytes),
        object("other", &[(evaluate, "evaluate = \"700..720\"")])
    );
    let (tuned, _) = object("tuned", &[(evaluate, "tune = \"400..650\"")]);
    let tuned = tuned.as_array().unwrap();
    assert!(tuned.iter().all(|t| t["samples"] == 250), "{tuned:?}");
    // without labels the float model's classes stand for them
    let labels = "[labels]\nfile = \"digits.npz\"\narray = \"y\"\n";
    let (alike, _) = object("alike", &[(labels, "")]);
    let drops = alike.as_array().unwrap().iter().map(|t| number(t, "drop"));
    assert!(
        drops.clone().all(|d| d >= 0.0) && drops.clone().any(|d| d > 0.0),
        "{alike}"
    );
}

#[test]
fn drops_that_cannot_be_kept_or_measured_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let flags = [
        "--max-drop",
        "0",
        "--bits",
        "2.1",
        "--effort",
        "0",
        "--json",
    ];
    let ran = compiled_with(&data(), &out, &flags);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    let told = ran.json();
    assert_eq!(told["status"], "infeasible");
    let message = told["message"].as_str().unwrap();
    for word in [
        "--max-drop 0 cannot be met",
        "bits a weight",
        "points of top-1",
        "samples",
    ] {
        assert!(message.contains(word), "{message}");
    }
    let model = model();
    let out = out.as_os_str();
    let fixed = ["compile".as_ref(), model.as_os_str(), "-o".as_ref(), out];
    let with = |extra: &[&str]| lowbit(fixed.into_iter().chain(extra.iter().map(AsRef::as_ref)));
    let blind = with(&["--max-drop", "1"]);
    assert_eq!(blind.code, Some(2), "{blind:?}");
    assert!(blind.stderr.contains("needs --data"), "{blind:?}");
    for wrong in ["-1", "101", "much"] {
        let ran = with(&[&format!("--max-drop={wrong}")]);
        assert!(
            ran.code == Some(2) && ran.stderr.contains("percentage points"),
            "{ran:?}"
        );
    }
    assert_eq!(with(&["--max-drop", "1", "--uniform"]).code, Some(2));
    assert!(!Path::new(out).exists());
}

#[test]
fn a_search_is_told_whatever_it_finds() {
    let folder = tempfile::tempdir().unwrap();
    for (i, drop) in ["0", "60"].iter().enumerate() {
        let out = folder.path().join(i.to_string());
        let flags = [
            "--max-drop",
            drop,
            "--search",
            "2",
            "--effort",
            "0",
            "--eval",
            "none",
        ];
        compile(&out, &flags);
        let report = report(&out);
        let tried = report["tried"].as_array().unwrap();
        let count = |key: &str, value: Value| tried.iter().filter(|t| t[key] == value).count();
        assert_eq!(count("plan", "search".into()), 1, "{tried:?}");
        assert_eq!(count("returned", true.into()), 1, "{tried:?}");
    }
}

#[test]
fn searched_plans_measure_no_worse_and_keep_the_budget() {
    let folder = tempfile::tempdir().unwrap();
    let flags = [
        "--bits", "3", "--search", "12", "--effort", "0", "--eval", "none",
    ];
    let out = folder.path().join("first");
    let ran = compile(&out, &flags);
    assert!(ran.stderr.contains("search: of 12 plans"), "{ran:?}");
    let first = report(&out);
    assert!(number(&first["totals"], "avg_weight_bits") <= 3.0);
    let tried = first["tried"].as_array().unwrap();
    let loss = |plan: &str| {
        let row = tried.iter().find(|t| t["plan"] == plan);
        number(
            row.unwrap_or_else(|| panic!("no {plan} in {tried:?}")),
            "loss",
        )
    };
    assert!(loss("search") <= loss("mixed"));
    let least = tried.iter().map(|t| number(t, "loss"));
    let least = least.fold(f64::INFINITY, f64::min);
    let returned = tried.iter().find(|t| t["returned"] == true).unwrap();
    assert_eq!(number(returned, "loss"), least, "{tried:?}");
    println!("{tried:?}");
    let command = lowbit::report::command(&serde_json::from_value(first).unwrap(), true);
    assert!(command.contains("--search 12 "), "{command}");
    works(["verify".as_ref(), out.as_os_str()]);
    // the same flags give the same plan
    let again = folder.path().join("again");
    compile(&again, &flags);
    let object = |out: &Path| std::fs::read(out.join("digits.o")).unwrap();
    assert_eq!(object(&out), object(&again));
}
