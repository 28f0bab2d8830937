use std::io::Write;

use serde::Serialize;

/// Prints a line on standard output; a closed pipe ends the command quietly.
pub(crate) fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Prints one JSON object.
pub(crate) fn json<T: Serialize>(value: &T) {
    line(lowbit::report::to_json(value).trim_end());
}

/// A share as a percentage, or a dash.
pub(crate) fn percent(x: Option<f64>) -> String {
    x.map_or("–".into(), |x| format!("{:.2} %", 100.0 * x))
}

/// Bytes in the largest power of 1000 that fits.
pub(crate) fn bytes(n: u64) -> String {
    match n {
        0..10_000 => format!("{n} B"),
        10_000..10_000_000 => format!("{:.1} kB", n as f64 / 1e3),
        _ => format!("{:.2} MB", n as f64 / 1e6),
    }
}

/// A count with a suffix.
pub(crate) fn count(n: u64) -> String {
    match n {
        0..10_000 => n.to_string(),
        10_000..10_000_000 => format!("{:.1} k", n as f64 / 1e3),
        _ => format!("{:.1} M", n as f64 / 1e6),
    }
}

/// Columns of text, each as wide as its widest cell; the first is aligned to the left.
pub(crate) fn table(rows: &[Vec<String>]) {
    table_with_notes(rows, &[]);
}

/// A table with a sentence behind each row but the first, which heads it.
pub(crate) fn table_with_notes(rows: &[Vec<String>], notes: &[&str]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| {
        rows.iter()
            .filter_map(|r| r.get(c))
            .map(|s| s.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for (r, row) in rows.iter().enumerate() {
        let cells = row.iter().enumerate().map(|(c, cell)| {
            let pad = " ".repeat(widths[c] - cell.chars().count());
            if c == 0 {
                format!("{cell}{pad}")
            } else {
                format!("{pad}{cell}")
            }
        });
        let note = r.checked_sub(1).and_then(|r| notes.get(r)).unwrap_or(&"");
        let row = cells.collect::<Vec<_>>().join("  ");
        line(format!("{row}  {note}").trim_end());
    }
}
