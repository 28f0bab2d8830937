//! The command that gives the same bytes again.

use crate::{Budget, Report};

/// The command line without its output folder; `budget` tells whether it holds the budgets that were given, or whatever
/// else stood in their place.
pub fn command(r: &Report, budget: bool) -> String {
    let mut words = vec!["lowbit".into(), "compile".into(), quoted(&r.model.path)];
    let mut flag = |name: &str, value: String| words.extend([name.into(), quoted(&value)]);
    let given = &r.reproduce;
    if let Some(data) = &given.data {
        flag("--data", data.clone());
    }
    if budget {
        budgets(&r.budget, &mut flag);
        let chosen = [
            ("--latency-table", given.latency_table.clone()),
            ("--plan", given.plan.clone()),
            ("--search", given.search.map(|n| n.to_string())),
        ];
        for (name, value) in chosen {
            if let Some(value) = value {
                flag(name, value);
            }
        }
    }
    for pin in &given.pins {
        flag("--pin", pin.clone());
    }
    if let Some(tie) = &given.tie {
        flag("--tie", tie.clone());
    }
    if let Some(metric) = &given.metric {
        flag("--metric", metric.clone());
    }
    if let Some(bits) = given.act_bits {
        flag("--act-bits", bits.to_string());
    }
    flag("--target", r.target.triple.clone());
    let cpu = Some(&given.cpu).filter(|c| !c.is_empty());
    flag("--cpu", cpu.unwrap_or(&r.target.level).clone());
    if let Some(name) = &given.name {
        flag("--name", name.clone());
    }
    if let Some(threads) = given.threads {
        flag("--threads", threads.to_string());
    }
    for (name, dims) in &given.shapes {
        let dims: Vec<String> = dims.iter().map(ToString::to_string).collect();
        let name = if name.is_empty() {
            String::new()
        } else {
            format!("{name}=")
        };
        flag("--shape", format!("{name}{}", dims.join("x")));
    }
    if r.reproduce.ranges != "auto" {
        flag("--ranges", r.reproduce.ranges.clone());
    }
    if let Some(effort) = r.reproduce.effort {
        flag("--effort", effort.to_string());
    }
    if let Some(steps) = r.reproduce.finetune {
        flag("--finetune", steps.to_string());
    }
    if !matches!(r.reproduce.rounding.as_str(), "auto" | "") {
        flag("--rounding", r.reproduce.rounding.clone());
    }
    if let Some(bits) = r.reproduce.residual_bits {
        flag("--residual-bits", bits.to_string());
    }
    if r.reproduce.estimator != "ste" {
        flag("--estimator", r.reproduce.estimator.clone());
    }
    if r.reproduce.seed != 1 {
        flag("--seed", r.reproduce.seed.to_string());
    }
    if r.reproduce.uniform && budget {
        words.push("--uniform".into());
    }
    words.join(" ")
}

fn budgets(b: &Budget, flag: &mut impl FnMut(&str, String)) {
    let given = [
        ("--bits", b.bits),
        ("--size", b.size.map(|x| x as f64)),
        ("--bops", b.bops),
        ("--latency", b.latency),
        ("--ram", b.ram.map(|x| x as f64)),
        ("--object-size", b.object_size.map(|x| x as f64)),
        ("--max-drop", b.max_drop),
    ];
    for (name, value) in given {
        if let Some(value) = value {
            flag(name, value.to_string());
        }
    }
}

/// A word for a shell.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-=+:,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(quoted("a/b.onnx"), "a/b.onnx");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }

    #[test]
    fn commands_hold_what_was_given() {
        let mut r = Report::default();
        r.model.path = "my net.onnx".into();
        r.budget.bits = Some(4.5);
        r.target.triple = "x86_64-linux".into();
        r.target.level = "x86-64-v3".into();
        r.reproduce.shapes = vec![(String::new(), vec![1, 3])];
        r.reproduce.ranges = "auto".into();
        r.reproduce.estimator = "ste".into();
        r.reproduce.effort = Some(2);
        r.reproduce.rounding = "adaround".into();
        r.reproduce.seed = 1;
        r.budget.latency = Some(0.25);
        r.budget.ram = Some(20000);
        r.budget.object_size = Some(64000);
        r.budget.max_drop = Some(0.5);
        r.reproduce.latency_table = Some("out/latency.json".into());
        r.reproduce.pins = vec!["a b=int8".into()];
        r.reproduce.search = Some(40);
        r.reproduce.tie = Some("residual".into());
        r.reproduce.plan = Some("my plan.json".into());
        r.reproduce.name = Some("net".into());
        r.reproduce.cpu = "znver4".into();
        let first = "lowbit compile 'my net.onnx' --bits 4.5 --latency 0.25 --ram 20000 --object-size 64000 --max-drop 0.5";
        assert_eq!(
            command(&r, true),
            format!(
                "{first} --latency-table out/latency.json --plan 'my plan.json' --search 40 --pin 'a b=int8' --tie residual --target x86_64-linux --cpu znver4 --name net --shape 1x3 --effort 2 --rounding adaround"
            )
        );
        assert_eq!(
            command(&r, false),
            "lowbit compile 'my net.onnx' --pin 'a b=int8' --tie residual --target x86_64-linux --cpu znver4 --name net --shape 1x3 --effort 2 --rounding adaround"
        );
        r.reproduce.plan = None;
        r.reproduce.tie = None;
        r.reproduce.name = None;
        r.reproduce.cpu = String::new();
        r.budget = Budget {
            bits: Some(4.5),
            ..Budget::default()
        };
        r.reproduce.pins.clear();
        r.reproduce.search = None;
        r.reproduce.latency_table = None;
        assert_eq!(
            command(&r, true),
            "lowbit compile 'my net.onnx' --bits 4.5 --target x86_64-linux --cpu x86-64-v3 --shape 1x3 --effort 2 --rounding adaround"
        );
    }
}
