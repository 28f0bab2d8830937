use maud::{Markup, html};

use super::figure;
use crate::Report;
use crate::reproduce::command;

/// What was proved, the command and the hashes.
pub(super) fn section(r: &Report) -> Markup {
    let p = &r.reproduce;
    let facts = [
        ("Lowbit", Some(p.lowbit_version.clone())),
        (
            "Model",
            Some(format!(
                "{}, opset {}, SHA-256 {}",
                r.model.path, r.model.opset, r.model.sha256
            )),
        ),
        (
            "Data",
            p.data
                .as_ref()
                .zip(p.data_sha256.as_ref())
                .map(|(d, hash)| format!("{d}, SHA-256 {hash}")),
        ),
        (
            "Target",
            Some(format!(
                "{}, level {}, features {}",
                r.target.triple,
                r.target.level,
                r.target.features.join(" ")
            )),
        ),
        ("Ranges", Some(p.ranges.clone())),
        ("Seed", Some(p.seed.to_string())),
        ("Object", Some(format!("SHA-256 {}", p.object_sha256))),
    ];
    html! {
        dl.figures.small {
            (proof("floating-point instructions in the object", r.proofs.float_instructions == 0, &r.proofs.float_instructions.to_string()))
            (proof("undefined symbols", r.proofs.undefined_symbols.is_empty(), &r.proofs.undefined_symbols.len().to_string()))
            (proof("bits in the widest accumulator, over the actual weights", r.proofs.max_accumulator_bits <= 64, &r.proofs.max_accumulator_bits.to_string()))
            (proof("samples on which object and definition gave the same bytes", r.proofs.bit_exact_samples > 0, &r.proofs.bit_exact_samples.to_string()))
        }
        p { "The same model, data, flags and version give the same bytes:" }
        p.command { code { (command(r, true)) " -o out" } }
        dl.facts {
            @for (name, text) in facts { @if let Some(text) = text { div { dt { (name) } dd { (text) } } } }
        }
    }
}

fn proof(label: &str, holds: bool, value: &str) -> Markup {
    let mark = if holds { "✓ " } else { "✗ " };
    figure(label, &format!("{mark}{value}"), "")
}
