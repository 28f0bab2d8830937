//! The house rules that a test keeps.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use crate::shell::{cargo, output, root, run as shell};

/// Who may import whom, among our own crates.
const EDGES: &[(&str, &[&str])] = &[
    ("lowbit-num", &[]),
    ("lowbit-ir", &["lowbit-num"]),
    ("lowbit-kernel", &["lowbit-num"]),
    ("lowbit-onnx", &["lowbit-ir", "lowbit-num"]),
    ("lowbit-data", &[]),
    ("lowbit-report", &[]),
    ("lowbit-load", &[]),
    ("lowbit-targets", &["lowbit-kernel", "lowbit-num"]),
    (
        "lowbit-passes",
        &[
            "lowbit-ir",
            "lowbit-kernel",
            "lowbit-targets",
            "lowbit-num",
            "lowbit-report",
        ],
    ),
    // its tests load what it writes
    (
        "lowbit-llvm",
        &["lowbit-kernel", "lowbit-load", "lowbit-targets"],
    ),
    (
        "lowbit",
        &[
            "lowbit-data",
            "lowbit-ir",
            "lowbit-kernel",
            "lowbit-llvm",
            "lowbit-load",
            "lowbit-num",
            "lowbit-onnx",
            "lowbit-passes",
            "lowbit-report",
            "lowbit-targets",
        ],
    ),
    ("lowbit-cli", &["lowbit"]),
    ("digits-example", &["lowbit"]),
    ("xtask", &[]),
];

/// Where `unsafe` is allowed.
const UNSAFE: &[&str] = &["targets/llvm/", "crates/load/"];

/// Files of the integer stage: no float but in tests.
const INTEGER: &[&str] = &[
    "crates/num/src/",
    "crates/ir/src/ops/int_",
    "crates/kernel/src/",
    "passes/src/lower/",
];

/// The border between real numbers and codes.
const REAL: &[&str] = &["crates/num/src/real.rs"];

/// Who may print.
const PRINTS: &[&str] = &[
    "crates/cli/",
    "crates/xtask/",
    "tests/",
    "benches/",
    "examples/",
];

const LONGEST_FILE: usize = 800;
const LONGEST_FUNCTION: usize = 100;
const LARGEST: u64 = 1 << 20;

pub(crate) fn run() -> Result<()> {
    let mut found = edges()?;
    for file in files()? {
        found.extend(check_file(&file)?);
    }
    for line in &found {
        eprintln!("tidy: {line}");
    }
    if !found.is_empty() {
        bail!("{} violations", found.len());
    }
    formatted()?;
    shell(cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--quiet",
        "--",
        "-D",
        "warnings",
    ]))
}

/// Every file by name: `cargo fmt` does not see modules that a macro declares.
fn formatted() -> Result<()> {
    let rust = files()?
        .into_iter()
        .filter(|p| p.extension().is_some_and(|e| e == "rs"));
    let status = Command::new("rustfmt")
        .args(["--edition", "2024", "--check"])
        .args(rust)
        .current_dir(root())
        .status()
        .context("cannot start rustfmt")?;
    if !status.success() {
        bail!("run rustfmt --edition 2024 on the files above");
    }
    Ok(())
}

fn edges() -> Result<Vec<String>> {
    let metadata = cargo_metadata::MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .exec()?;
    let allowed: BTreeMap<&str, &[&str]> = EDGES.iter().copied().collect();
    let ours: Vec<String> = metadata
        .packages
        .iter()
        .map(|p| p.name.to_string())
        .collect();
    let mut found = Vec::new();
    for package in &metadata.packages {
        let name = package.name.to_string();
        let Some(edges) = allowed.get(name.as_str()) else {
            found.push(format!(
                "{name}: a crate without a line in xtask's table of edges"
            ));
            continue;
        };
        for dependency in &package.dependencies {
            let normal = dependency.kind == cargo_metadata::DependencyKind::Normal;
            if normal
                && ours.contains(&dependency.name)
                && !edges.contains(&dependency.name.as_str())
            {
                found.push(format!(
                    "{name} must not depend on {}: see docs/architecture.md",
                    dependency.name
                ));
            }
        }
    }
    Ok(found)
}

fn files() -> Result<Vec<PathBuf>> {
    let list = output(Command::new("git").args([
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
    ]))?;
    Ok(list
        .lines()
        .map(PathBuf::from)
        .filter(|p| root().join(p).is_file())
        .collect())
}

fn check_file(file: &Path) -> Result<Vec<String>> {
    let path = root().join(file);
    let name = file.display().to_string();
    let size = std::fs::metadata(&path)?.len();
    let mut found = Vec::new();
    if size > LARGEST {
        found.push(format!(
            "{name}: {size} bytes; nothing over 1 MiB is kept here"
        ));
    }
    let Ok(text) = std::fs::read_to_string(&path) else {
        return Ok(found);
    };
    found.extend(check_text(&name, &text));
    if name.ends_with(".rs") {
        found.extend(check_rust(&name, &text)?);
    }
    Ok(found)
}

/// Words that must not stand anywhere, and lengths.
fn check_text(name: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    // written in two halves, so that this file may name them
    let words = [
        ("/wo", "rk/", "a path of one machine"),
        ("/ro", "ot/", "a path of one machine"),
        ("/ho", "me/", "a path of one machine"),
        (
            "FIX",
            "ME",
            "finish it, or write down what is missing in the documentation",
        ),
        (
            "XX",
            "X",
            "finish it, or write down what is missing in the documentation",
        ),
    ];
    if name != "Cargo.lock" {
        for (number, line) in text.lines().enumerate() {
            for (a, b, why) in words {
                if line.contains(&format!("{a}{b}")) {
                    found.push(format!("{name}:{}: '{a}{b}': {why}", number + 1));
                }
            }
        }
    }
    let lines = text.lines().count();
    if name.ends_with(".rs") && lines > LONGEST_FILE && !text.contains("tidy: long because") {
        found.push(format!(
            "{name}: {lines} lines; split it, or write '// tidy: long because …' in it"
        ));
    }
    found
}

fn check_rust(name: &str, text: &str) -> Result<Vec<String>> {
    let file = syn::parse_file(text).with_context(|| format!("{name} does not parse"))?;
    let listed = |list: &[&str]| list.iter().any(|p| name.starts_with(p));
    let mut rules = Rules {
        name,
        text,
        found: Vec::new(),
        unsafe_allowed: listed(UNSAFE),
        float_allowed: !listed(INTEGER)
            || listed(REAL)
            || name.ends_with("/testing.rs")
            || name.contains("/tests/"),
        print_allowed: listed(PRINTS)
            || name.contains("/tests/")
            || name.ends_with("/tests.rs")
            || name.ends_with("build.rs"),
    };
    rules.visit_file(&file);
    Ok(rules.found)
}

struct Rules<'a> {
    name: &'a str,
    text: &'a str,
    found: Vec<String>,
    unsafe_allowed: bool,
    float_allowed: bool,
    print_allowed: bool,
}

impl Rules<'_> {
    fn report(&mut self, span: proc_macro2::Span, what: &str) {
        self.found
            .push(format!("{}:{}: {what}", self.name, span.start().line));
    }

    fn function(&mut self, span: proc_macro2::Span) {
        let lines = span.end().line - span.start().line + 1;
        let before = span.start().line.saturating_sub(6);
        let reason = self
            .text
            .lines()
            .skip(before)
            .take(8)
            .any(|l| l.contains("tidy: long because"));
        if lines > LONGEST_FUNCTION && !reason {
            self.report(span, &format!("a function of {lines} lines; split it"));
        }
    }

    fn attributes(&mut self, attributes: &[syn::Attribute]) {
        for a in attributes.iter().filter(|a| a.path().is_ident("ignore")) {
            self.report(a.span(), "an ignored test; run it or remove it");
        }
    }
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|a| {
        a.path().is_ident("cfg") && a.parse_args::<syn::Ident>().is_ok_and(|i| i == "test")
    })
}

impl<'ast> Visit<'ast> for Rules<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if is_test(&item.attrs) {
            let allowed = (self.float_allowed, self.print_allowed);
            (self.float_allowed, self.print_allowed) = (true, true);
            visit::visit_item_mod(self, item);
            (self.float_allowed, self.print_allowed) = allowed;
        } else {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(item.span());
        self.attributes(&item.attrs);
        if item.sig.unsafety.is_some() && !self.unsafe_allowed {
            self.report(item.span(), "unsafe outside targets/llvm and crates/load");
        }
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(item.span());
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_expr_unsafe(&mut self, expr: &'ast syn::ExprUnsafe) {
        if !self.unsafe_allowed {
            self.report(expr.span(), "unsafe outside targets/llvm and crates/load");
        }
        visit::visit_expr_unsafe(self, expr);
    }

    fn visit_lit_float(&mut self, lit: &'ast syn::LitFloat) {
        if !self.float_allowed {
            self.report(lit.span(), "a float in the integer stage");
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let float = path.get_ident().is_some_and(|i| i == "f32" || i == "f64");
        if float && !self.float_allowed {
            self.report(path.span(), "a float in the integer stage");
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, m: &'ast syn::Macro) {
        let name = m
            .path
            .segments
            .last()
            .map(|s| s.ident.to_string())
            .unwrap_or_default();
        if matches!(
            name.as_str(),
            "print" | "println" | "eprint" | "eprintln" | "dbg"
        ) && !self.print_allowed
        {
            self.report(m.span(), "only the command line prints");
        }
        if matches!(name.as_str(), "todo" | "unimplemented") {
            self.report(m.span(), "unfinished code");
        }
        if name == "assert" && m.tokens.to_string() == "true" {
            self.report(m.span(), "an assertion that cannot fail");
        }
        visit::visit_macro(self, m);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violations(name: &str, text: &str) -> Vec<String> {
        let mut found = check_text(name, text);
        found.extend(check_rust(name, text).unwrap());
        found
    }

    #[test]
    fn every_rule_can_fail() {
        let long = format!("fn f() {{\n{}}}", "    g();\n".repeat(120));
        let cases = [
            ("crates/ir/src/a.rs", "fn f() { unsafe { g() } }", "unsafe"),
            ("crates/kernel/src/a.rs", "fn f() -> f32 { g() }", "float"),
            ("crates/num/src/a.rs", "const X: u8 = { 1.5; 1 };", "float"),
            ("crates/ir/src/a.rs", "fn f() { println!(\"x\") }", "prints"),
            ("crates/ir/src/a.rs", "#[ignore]\nfn f() {}", "ignored"),
            ("crates/ir/src/a.rs", "fn f() { todo!() }", "unfinished"),
            (
                "crates/ir/src/a.rs",
                "fn f() { assert!(true) }",
                "cannot fail",
            ),
            ("crates/ir/src/a.rs", long.as_str(), "lines"),
        ];
        for (name, text, word) in cases {
            let found = violations(name, text);
            assert!(found.iter().any(|f| f.contains(word)), "{text}: {found:?}");
        }
        let path = ["fn f() { g(\"/wo", "rk/x\") }"].concat();
        assert_eq!(violations("a.rs", &path).len(), 1);
        assert_eq!(violations("a.rs", &"\n".repeat(900)).len(), 1);
    }

    #[test]
    fn what_is_allowed_passes() {
        let cases = [
            ("targets/llvm/src/a.rs", "fn f() { unsafe { g() } }"),
            ("crates/num/src/real.rs", "fn f() -> f64 { 1.5 }"),
            (
                "crates/kernel/src/a.rs",
                "#[cfg(test)]\nmod tests { fn f() -> f64 { println!(\"x\"); 1.5 } }",
            ),
            ("crates/cli/src/a.rs", "fn f() { println!(\"x\") }"),
        ];
        for (name, text) in cases {
            assert_eq!(violations(name, text), Vec::<String>::new(), "{text}");
        }
    }
}
