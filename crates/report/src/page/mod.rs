//! `report.html`: one file that needs nothing else, drawn from the facts alone. One file a section.

mod accuracy;
mod frontier;
mod layers;
mod loss;
mod memory;
mod plot;
mod predictor;
mod reproduce;
mod summary;

pub use loss::sentences as loss_sentences;
use maud::{DOCTYPE, Markup, PreEscaped, html};

pub use memory::sentence as memory_sentence;

use crate::insight::format_bits;
use crate::{Point, Report};

/// A section: its anchor, its title and what it says.
struct Section {
    id: &'static str,
    title: &'static str,
    body: Markup,
}

/// The page about a compiled model.
pub fn report_page(report: &Report) -> String {
    let sections: Vec<Section> = [
        ("accuracy", "Accuracy", accuracy::section(report)),
        ("layers", "Layer by layer", layers::section(report)),
        (
            "frontier",
            "What other budgets would give",
            frontier::section(report),
        ),
        ("loss", "Where accuracy is lost", loss::section(report)),
        ("memory", "Memory over time", memory::section(report)),
        (
            "reproduce",
            "Proofs, and how to reproduce",
            Some(reproduce::section(report)),
        ),
    ]
    .into_iter()
    .filter_map(|(id, title, body)| {
        Some(Section {
            id,
            title,
            body: body?,
        })
    })
    .collect();
    document(&report.model.name, &summary::header(report), &sections)
}

/// The page about the frontier of a model: names of its layers and the best plans from the smallest to the largest.
///
/// `command` compiles the model once ` --bits B -o DIR` is added to it, ` --bops N -o DIR` where points were sought
/// `by_bops`.
pub fn frontier_page(
    model: &str,
    command: &str,
    layers: &[String],
    points: &[Point],
    by_bops: bool,
) -> String {
    let cost = if by_bops { "bit operations" } else { "size" };
    let header = html! {
        p.eyebrow { "Lowbit frontier" }
        h1 { (model) }
        p.lead { "The best plan that was found at each " (cost) ". Move the slider to see what each layer gets." }
    };
    let body = frontier::body(&frontier::Facts {
        command,
        layers: layers.iter().map(|l| crate::text::name(l)).collect(),
        points,
        chosen: None,
        others: Vec::new(),
        by_bops,
    });
    let sections = [Section {
        id: "frontier",
        title: "Size against loss",
        body,
    }];
    document(model, &header, &sections)
}

/// Nothing is fetched: the policy forbids it, so that the page cannot.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:";

/// An empty icon: without one, browsers ask for one.
const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 8 8'%3E%3Cpath d='M0 8V4h2v4M3 8V2h2v6M6 8V0h2v8' fill='%232f5fd0'/%3E%3C/svg%3E";

fn document(name: &str, header: &Markup, sections: &[Section]) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (name) " · Lowbit" }
                link rel="icon" href=(PreEscaped(ICON));
                style { (PreEscaped(include_str!("style.css"))) }
            }
            body {
                a.skip href="#main" { "Skip to the report" }
                header.page { (header) }
                @if sections.len() > 1 {
                    nav aria-label="Sections" {
                        @for s in sections { a href=(format!("#{}", s.id)) { (s.title) } }
                    }
                }
                main id="main" {
                    @for s in sections {
                        section id=(s.id) aria-labelledby=(format!("{}-title", s.id)) {
                            h2 id=(format!("{}-title", s.id)) { (s.title) }
                            (s.body)
                        }
                    }
                }
                footer { "Made by Lowbit " (env!("CARGO_PKG_VERSION")) ". This file needs no network and no other file." }
                script { (PreEscaped(include_str!("script.js"))) }
            }
        }
    };
    page.into_string()
}

/// A number with what it means: one figure of a row of them.
fn figure(label: &str, value: &str, note: &str) -> Markup {
    html! {
        div.figure {
            dt { (label) }
            dd { strong { (value) } @if !note.is_empty() { span { (note) } } }
        }
    }
}

/// The class that colours a format by its bits.
fn bits_class(format: &str) -> String {
    match format_bits(format) {
        Some(bits) => format!("b{}", bits as u32),
        None => "b8".into(),
    }
}

/// A format as a small label of its colour.
fn chip(format: &str) -> Markup {
    html! { span class=(format!("chip {}", bits_class(format))) { (short(format)) } }
}

/// A format without the prefix that all have.
fn short(format: &str) -> &str {
    format.strip_prefix("int").unwrap_or(format)
}

/// The bits of each layer as a row of bars.
fn bit_bars<'a>(formats: impl Iterator<Item = &'a str>) -> Markup {
    let bar = |format: &'a str| {
        let bits = format_bits(format).unwrap_or(8.0);
        html! {
            span class=(bits_class(format)) style=(format!("height:{}%", 12.5 * bits)) data-format=(short(format)) {
                (bits_text(bits))
            }
        }
    };
    let bars: Vec<Markup> = formats.map(bar).collect();
    html! {
        div.bit-bars.many[bars.len() > MANY].crowded[bars.len() > CROWDED] aria-hidden="true" {
            @for b in &bars { (b) }
        }
    }
}

/// More bars than this have no numbers on a narrow screen.
const MANY: usize = 16;
/// More bars than this have no numbers at all.
const CROWDED: usize = 60;

/// Bits for people: `4.5`, `8`.
fn bits_text(bits: f64) -> String {
    let text = format!("{bits:.2}");
    text.trim_end_matches('0').trim_end_matches('.').into()
}
