//! What each layer would lose: traces as exact as asked, metrics by group, results that are kept.

use serde_json::Value;

use crate::tool::{Ran, command, compile, contents, data, lowbit, model, run, works};

fn sensitivity(extra: &[&str]) -> Vec<String> {
    let [model, data] = [model(), data()].map(|p| p.display().to_string());
    let fixed = ["sensitivity".into(), model, "--data".into(), data];
    let extra = extra.iter().map(ToString::to_string);
    fixed.into_iter().chain(extra).collect()
}

fn number(of: &Value, key: &str) -> f64 {
    let found = of[key].as_f64();
    found.unwrap_or_else(|| panic!("{key} is no number in {of}"))
}

#[test]
fn traces_are_as_exact_as_asked_and_both_estimates_agree() {
    let hessian = |extra: &[&str]| {
        let all = [&["--metric", "hessian", "--samples", "32", "--json"], extra].concat();
        works(sensitivity(&all)).json()["traces"].clone()
    };
    let exact = hessian(&["--trace-error", "0.04", "--probes", "4096"]);
    let rough = hessian(&["--trace-error", "0.3"]);
    assert!(number(&exact, "error") <= 0.04, "{exact}");
    assert!(number(&rough, "gradients") < number(&exact, "gradients"));
    for layer in exact["layers"].as_array().unwrap() {
        let [g, ge, p, pe] = ["gradients", "gradients_error", "probes", "probes_error"]
            .map(|key| number(layer, key));
        assert!(g > 0.0 && ge <= 0.04 * g, "{layer}");
        assert!((g - p).abs() < 4.0 * (ge * ge + pe * pe).sqrt(), "{layer}");
    }
}

#[test]
fn too_few_gradients_are_said_to_be_too_few() {
    let args = [
        "--metric",
        "hessian",
        "--samples",
        "16",
        "--trace-error",
        "0.001",
        "--probes",
        "64",
    ];
    let ran = works(sensitivity(&args));
    let text = ran.stdout.clone();
    assert!(
        text.contains("by 64 gradients") && text.contains("0.1 % was asked for; --probes "),
        "{text}"
    );
}

#[test]
fn groups_get_the_metrics_that_predict_them_best() {
    let args = ["--group", "kind", "--samples", "16", "--json"];
    let found = works(sensitivity(&args)).json();
    assert_eq!(found["metric"], "grouped");
    let groups = found["groups"].as_array().unwrap();
    let mut grouped: Vec<&str> = Vec::new();
    for g in groups {
        assert!(number(g, "scale") > 0.0, "{g}");
        assert_eq!(g["ranks"].as_array().unwrap().len(), 6);
        grouped.extend(
            g["layers"]
                .as_array()
                .unwrap()
                .iter()
                .filter_map(Value::as_str),
        );
    }
    let layers = found["layers"].as_array().unwrap();
    assert_eq!(grouped.len(), layers.len());
    assert!(
        layers
            .iter()
            .all(|l| grouped.contains(&l["name"].as_str().unwrap()))
    );
    let ranks = found["ranks"].as_array().unwrap();
    let of = |m: &str| ranks.iter().filter(|r| r["metric"] == m).count();
    assert_eq!([of("grouped"), of("joint"), of("lrp")], [3, 3, 3]);

    let first = layers[0]["name"].as_str().unwrap();
    let named = format!("first={first}");
    let own = works(sensitivity(&[
        "--group",
        &named,
        "--samples",
        "16",
        "--json",
    ]))
    .json();
    let names: Vec<&Value> = own["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|g| &g["name"])
        .collect();
    assert_eq!(names, ["first", "others"]);
    assert_eq!(own["groups"][0]["layers"], serde_json::json!([first]));
}

#[test]
fn groups_that_cannot_be_are_refused() {
    let refused = |args: &[&str], says: &str| {
        let ran: Ran = lowbit(sensitivity(args));
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(ran.stderr.contains(says), "{ran:?}");
    };
    refused(&["--group", "none=nothing*"], "'nothing*' takes no layer");
    refused(&["--group", "sort"], "expected kind or NAME=PATTERN");
    refused(&["--group", "kind", "--metric", "kl"], "leave --metric out");
    refused(&["--group", "kind", "--group", "a=*"], "stands alone");
    refused(&["--trace-error", "0"], "expected a positive number");
}

#[test]
fn a_second_budget_measures_nothing_again() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str, extra: &[&str]| {
        let folder = place.path().join(name);
        let all = [&["--effort", "0", "--eval", "none"], extra].concat();
        let ran = compile(&folder, &all);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        (ran.stderr, contents(&folder))
    };
    at("first", &["--bits", "5"]);
    let (said, again) = at("out", &["--bits", "4.5"]);
    for step in ["calibrate", "measure layers", "ranges", "random plans"] {
        assert!(!said.contains(step), "{step}: {said}");
    }
    std::fs::remove_dir_all(place.path().join("out")).unwrap();
    let (said, anew) = at("out", &["--bits", "4.5", "--no-cache"]);
    assert!(
        said.contains("calibrate") && said.contains("measure layers"),
        "{said}"
    );
    let object = |files: Vec<(String, Vec<u8>)>| {
        let mut files = files.into_iter();
        files.find(|(name, _)| name.ends_with(".o")).unwrap()
    };
    assert_eq!(object(again), object(anew));
}

#[test]
fn plans_that_were_compared_are_not_fitted_again() {
    let place = tempfile::tempdir().unwrap();
    let cache = place.path().join("cache");
    let folder = place.path().join("out");
    let fits = || {
        let flags = ["--bits", "4.5", "--effort", "0", "--eval", "none", "-v"];
        let [model, data, folder] = [&model(), &data(), &folder].map(|p| p.display().to_string());
        let fixed = ["compile", &model, "--data", &data, "-o", &folder];
        let args = fixed.iter().chain(&flags);
        let ran = run(command().args(args).env("LOWBIT_CACHE", &cache));
        assert_eq!(ran.code, Some(0), "{ran:?}");
        (ran.stderr, contents(folder.as_ref()))
    };
    let (first, then) = (fits(), fits());
    // only what is compared leaves samples out to judge on, and needs means of the others
    let means = |said: &str| said.contains("lowbit: means: ");
    assert!(means(&first.0), "{}", first.0);
    assert!(!means(&then.0), "{}", then.0);
    assert!(first.1 == then.1);
}

#[test]
fn no_plan_is_compared_twice() {
    let out = tempfile::tempdir().unwrap();
    let flags = ["--bits", "4.5", "--effort", "0", "--eval", "none", "--json"];
    let tried = |pins: &[String]| {
        let pins = pins.iter().flat_map(|pin| ["--pin", pin.as_str()]);
        let flags: Vec<&str> = flags.iter().copied().chain(pins).collect();
        let report = compile(out.path(), &flags).json();
        let formats = |plan: &Value| plan["formats"].clone();
        let tried = report["tried"].as_array().unwrap().iter().map(formats);
        (report["layers"].clone(), tried.collect::<Vec<Value>>())
    };
    let (layers, _) = tried(&[]);
    let layers = layers.as_array().unwrap();
    let ends = [&layers[0], &layers[layers.len() - 1]];
    let pins = ends.map(|l| format!("{}=int8", l["name"].as_str().unwrap()));
    // one width with 8 bits at the ends is then the same with the pins of the user and with those of the compiler
    let (_, plans) = tried(&pins);
    for (i, plan) in plans.iter().enumerate() {
        assert!(!plans[..i].contains(plan), "{plans:?}");
    }
}

#[test]
fn an_object_tells_how_its_losses_were_predicted() {
    let predictor = |metric: &str| {
        let out = tempfile::tempdir().unwrap();
        let flags = ["--bits", "4", "--effort", "0", "--eval", "none"];
        let flags = [&flags[..], &["--metric", metric, "--json"]].concat();
        let report = compile(out.path(), &flags).json();
        let layers = report["layers"].as_array().unwrap();
        assert!(layers.iter().all(|l| l["sensitivity"].is_f64()), "{report}");
        (report["predictor"].clone(), report["reproduce"].clone())
    };
    let (asked, reproduce) = predictor("hessian");
    assert_eq!(
        (&asked["metric"], &reproduce["metric"]),
        (&"hessian".into(), &"hessian".into())
    );
    assert!(asked["ranks"].is_null(), "{asked}");
    for layer in asked["traces"]["layers"].as_array().unwrap() {
        for key in ["gradients", "gradients_error", "probes", "probes_error"] {
            assert!(number(layer, key) > 0.0, "{layer}");
        }
    }
    let (chosen, reproduce) = predictor("auto");
    let judged = chosen["ranks"].as_array().unwrap().iter();
    assert!(
        judged.filter(|r| r["metric"] == chosen["metric"]).count() > 0,
        "{chosen}"
    );
    assert!(number(&chosen["traces"], "error") > 0.0 && chosen["traces"]["probes"].is_null());
    assert!(reproduce["metric"].is_null());
}
