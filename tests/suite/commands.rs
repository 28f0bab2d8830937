//! Help, JSON and progress of every command.

use std::path::Path;

use crate::tool::{command, compile, data, digits, entries, lowbit, model, run, works};

/// The commands that `--help` lists.
fn all() -> Vec<String> {
    let help = works(["--help"]).stdout;
    let list = help.split("Commands:").nth(1).unwrap();
    let lines = list.lines().skip(1).take_while(|l| !l.is_empty());
    let name = |l: &str| l.split_whitespace().next().unwrap().to_owned();
    let indented = |l: &&str| l.starts_with("  ") && !l.starts_with("   ");
    lines
        .filter(indented)
        .map(name)
        .filter(|n| n != "help")
        .collect()
}

#[test]
fn every_command_has_help_with_an_example() {
    let found = all();
    for known in [
        "compile", "check", "inspect", "eval", "run", "bench", "verify", "targets", "pareto",
    ] {
        assert!(found.iter().any(|f| f == known), "{found:?}");
    }
    for name in found {
        let help = works([name.as_str(), "--help"]).stdout;
        assert!(help.contains("Example:"), "{name} has no example");
        assert!(help.contains(&format!("lowbit {name} ")) || name == "targets");
        assert!(help.contains("--json"), "{name} has no --json");
    }
}

#[test]
fn the_version_is_the_packages() {
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(works(["--version"]).stdout, format!("lowbit {version}\n"));
}

#[test]
fn json_is_all_that_stands_on_standard_output() {
    let (folder, model, data) = (digits().as_os_str(), model(), data());
    let runs = tempfile::tempdir().unwrap();
    let samples = data.with_extension("npz");
    let input = runs.path().join("x.npy");
    works([
        "run".as_ref(),
        model.as_os_str(),
        "--input".as_ref(),
        one_sample(&samples, &input).as_os_str(),
        "--output".as_ref(),
        runs.path().as_os_str(),
    ]);
    let on = |name: &str, rest: &[&std::ffi::OsStr]| {
        let args = [name.as_ref()].into_iter().chain(rest.iter().copied());
        works(args.chain(["--json".as_ref()])).json()
    };
    let flag = |f| std::ffi::OsStr::new(f);
    let few = [
        flag("--data"),
        data.as_os_str(),
        flag("--limit"),
        flag("40"),
    ];
    assert_eq!(on("check", &[model.as_os_str()])["compiles"], true);
    assert!(
        on("inspect", &[model.as_os_str()])["macs"]
            .as_u64()
            .unwrap()
            > 300_000
    );
    assert_eq!(on("inspect", &[folder])["model"]["name"], "digits");
    let float = on("eval", &[&[model.as_os_str()][..], &few].concat());
    assert_eq!(float["samples"], 40);
    assert!(float["float_top1"].as_f64().unwrap() > 0.9);
    let own = on("eval", &[&[folder][..], &few].concat());
    assert!(own["top1"].as_f64().unwrap() > 0.9 && own["agreement"].as_f64().unwrap() > 0.9);
    let time = on("bench", &[folder]);
    assert!(time["median_us"].as_f64().unwrap() >= time["min_us"].as_f64().unwrap());
    assert!(on("targets", &[]).as_array().unwrap().len() >= 5);
    let output = [flag("--output"), runs.path().as_os_str()];
    let files = on(
        "run",
        &[&[folder, flag("--input"), input.as_os_str()][..], &output].concat(),
    );
    assert!(Path::new(files["files"][0].as_str().unwrap()).is_file());
}

/// A sample as a file of its own.
fn one_sample(archive: &Path, to: &Path) -> std::path::PathBuf {
    assert!(archive.is_file());
    let mut bytes = b"\x93NUMPY\x01\0\x76\0".to_vec();
    let mut head = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 8, 8), }".to_owned();
    head += &" ".repeat(117 - head.len());
    bytes.extend(head.as_bytes());
    bytes.push(b'\n');
    bytes.extend([0u8; 256]);
    std::fs::write(to, bytes).unwrap();
    to.into()
}

#[test]
fn predictions_are_those_that_the_accuracy_counts() {
    let out = tempfile::tempdir().unwrap();
    compile(out.path(), &["--eval", "none"]);
    let file = out.path().join("classes.csv");
    let accuracy = works([
        "eval".as_ref(),
        out.path().as_os_str(),
        "--data".as_ref(),
        data().as_os_str(),
        "--predictions".as_ref(),
        file.as_os_str(),
        "--json".as_ref(),
    ])
    .json();
    let text = std::fs::read_to_string(&file).unwrap();
    let (head, rows) = text.split_once('\n').unwrap();
    assert_eq!(head, "sample,label,float,object,sqnr_db");
    let rows: Vec<Vec<&str>> = rows.lines().map(|l| l.split(',').collect()).collect();
    let share = |a: usize, b: usize| {
        let same = rows.iter().filter(|r| r[a] == r[b]).count();
        same as f64 / rows.len() as f64
    };
    assert_eq!(accuracy["samples"], rows.len());
    for (name, a, b) in [("top1", 1, 3), ("float_top1", 1, 2), ("agreement", 2, 3)] {
        let told = accuracy[name].as_f64().unwrap();
        assert!((told - share(a, b)).abs() < 1e-12, "{name}: {told}");
    }
    let of = |r: &Vec<&str>| r[4].parse::<f64>().unwrap();
    let sqnr: Vec<f64> = rows.iter().map(of).collect();
    let [least, most] = [f64::min, f64::max].map(|f| sqnr.iter().copied().reduce(f).unwrap());
    let all = accuracy["sqnr_db"].as_f64().unwrap();
    assert!((least..most).contains(&all), "{all} of {least} to {most}");
}

#[test]
fn the_time_of_each_stage_is_told_on_demand() {
    let folder = tempfile::tempdir().unwrap();
    let ran = compile(folder.path(), &["--eval", "none", "-v", "--no-cache"]);
    for stage in ["calibrate", "fit", "emit"] {
        let of = |l: &str| l.starts_with(&format!("lowbit: {stage}: ")) && l.ends_with(" s");
        assert!(ran.stderr.lines().any(of), "{ran:?}");
    }
}

#[test]
fn progress_is_sparse_where_no_terminal_is() {
    let folder = tempfile::tempdir().unwrap();
    let ran = compile(folder.path(), &["--json"]);
    let lines = ran.stderr.lines().count();
    assert!((3..40).contains(&lines), "{ran:?}");
    assert!(ran.stderr.lines().all(|l| l.starts_with("lowbit: ")));
    let quiet = run(command().env("LOWBIT_QUIET", "1").args([
        "eval".as_ref(),
        digits().as_os_str(),
        "--data".as_ref(),
        data().as_os_str(),
    ]));
    assert_eq!((quiet.code, quiet.stderr.as_str()), (Some(0), ""));
}

#[test]
fn a_closed_pipe_is_no_failure_to_tell() {
    let model = model().display().to_string();
    let script = format!("\"$0\" inspect '{model}' | head -n 1");
    let ran =
        run(std::process::Command::new("sh").args(["-c", &script, env!("CARGO_BIN_EXE_lowbit")]));
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    assert_eq!(ran.stdout.lines().count(), 1);
}

#[test]
fn names_become_files_and_macros() {
    let folder = tempfile::tempdir().unwrap();
    compile(folder.path(), &["--name", "my_Net2", "--eval", "none"]);
    assert!(entries(folder.path()).contains(&"my_Net2.h".into()));
    let header = std::fs::read_to_string(folder.path().join("my_Net2.h")).unwrap();
    assert!(header.contains("MY_NET2_ARENA_BYTES") && header.contains("int my_Net2_run("));
    let odd = folder.path().join("7 net.v2.onnx");
    std::fs::copy(crate::tool::model(), &odd).unwrap();
    let out = folder.path().join("odd");
    let ran = lowbit([
        "compile".as_ref(),
        odd.as_os_str(),
        "-o".as_ref(),
        out.as_os_str(),
    ]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(
        entries(&out).contains(&"m_7_net_v2.o".into()),
        "{:?}",
        entries(&out)
    );
}
