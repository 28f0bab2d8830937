use maud::{Markup, html};

use super::plot::{SIDE, drawing, place};
use super::{bit_bars, bits_class, chip};
use crate::insight::{format_bits, meaning};
use crate::text::{bytes, count, micros, name, significant};
use crate::{Layer, Report};

/// The name of the first track.
const BITS: &str = "Bits";

/// A quantity of every layer.
struct Track<'a> {
    name: &'static str,
    value: &'a dyn Fn(&Layer) -> Option<f64>,
    show: &'a dyn Fn(f64) -> String,
}

/// The network as a strip, a card for the layer that is pointed at, and a table of everything.
pub(super) fn section(r: &Report) -> Option<Markup> {
    if r.layers.is_empty() {
        return None;
    }
    let source = r.totals.latency_source.as_deref().unwrap_or("measured");
    Some(html! {
        p { (sentence(r)) }
        @if let Some(note) = meanings(r) { p.note { (note) } }
        (strip(&r.layers))
        div.cards aria-live="polite" {
            @for (i, l) in r.layers.iter().enumerate() { (card(i, l, source)) }
        }
        (table(&r.layers))
    })
}

fn sentence(r: &Report) -> String {
    let mut formats: Vec<(&str, usize)> = Vec::new();
    for l in &r.layers {
        match formats.iter_mut().find(|f| f.0 == l.weight_format) {
            Some(f) => f.1 += 1,
            None => formats.push((&l.weight_format, 1)),
        }
    }
    formats.sort_by(|a, b| {
        format_bits(b.0)
            .partial_cmp(&format_bits(a.0))
            .expect("bits are finite")
    });
    let parts: Vec<String> = formats.iter().map(|(f, n)| format!("{n} at {f}")).collect();
    format!(
        "{} layers with weights, in order of execution: {}. Point at one, or use the arrow keys.",
        r.layers.len(),
        parts.join(", ")
    )
}

/// What the formats are whose names do not tell.
fn meanings(r: &Report) -> Option<String> {
    let mut all: Vec<String> = Vec::new();
    for l in &r.layers {
        let told = meaning(&l.weight_format).map(|m| format!("{}: {m}.", l.weight_format));
        all.extend(told.filter(|t| !all.contains(t)));
    }
    (!all.is_empty()).then(|| all.join(" "))
}

fn tracks() -> [Track<'static>; 5] {
    let bits = &|x: f64| format!("{x}");
    [
        Track {
            name: BITS,
            value: &|l| format_bits(&l.weight_format),
            show: bits,
        },
        Track {
            name: "Size",
            value: &|l| Some(l.weight_bytes as f64),
            show: &bytes,
        },
        Track {
            name: "Time",
            value: &|l| l.latency_us,
            show: &micros,
        },
        Track {
            name: "Predicted loss",
            value: &|l| l.predicted_loss,
            show: &significant,
        },
        Track {
            name: "Signal to noise",
            value: &|l| l.sqnr_db,
            show: &|x| format!("{x:.0} dB"),
        },
    ]
}

fn strip(layers: &[Layer]) -> Markup {
    let known: Vec<Track<'static>> = tracks()
        .into_iter()
        .filter(|t| layers.iter().any(|l| (t.value)(l).is_some()))
        .collect();
    html! {
        div.strip role="group" aria-label="Layers in order of execution" {
            @for (row, t) in known.iter().enumerate() {
                @let place = format!("grid-row:{}", row + 1);
                @let most = layers.iter().filter_map(t.value).fold(0.0, f64::max);
                span.track-name style=(place) { (t.name) }
                div.track style=(place) { @if t.name == BITS { (bit_bars(layers.iter().map(|l| l.weight_format.as_str()))) } @else { (bars(layers, t, most)) } }
                span.track-most style=(place) { (if t.name == BITS { String::new() } else { (t.show)(most) }) }
            }
            div.columns style=(format!("grid-row:1 / span {};grid-template-columns:repeat({},1fr)", known.len(), layers.len())) {
                @for (i, l) in layers.iter().enumerate() {
                    button type="button" tabindex=(if i == 0 { "0" } else { "-1" }) aria-label=(spoken(l)) aria-controls=(format!("layer-{i}")) {}
                }
            }
        }
    }
}

fn spoken(l: &Layer) -> String {
    format!(
        "{}, {}, {}",
        name(&l.name),
        l.weight_format,
        bytes(l.weight_bytes as f64)
    )
}

fn bars(layers: &[Layer], track: &Track<'_>, most: f64) -> Markup {
    let width = 1.0 / layers.len() as f64;
    let bar = |i: usize, l: &Layer| {
        let height = place(((track.value)(l).unwrap_or(0.0) / most.max(1e-300)).clamp(0.0, 1.0));
        html! {
            rect class=(bits_class(&l.weight_format)) x=(place((i as f64 + 0.06) * width)) y=(SIDE - height)
                width=(place(0.88 * width)) height=(height) {}
        }
    };
    drawing(&html! { @for (i, l) in layers.iter().enumerate() { (bar(i, l)) } })
}

fn card(i: usize, l: &Layer, source: &str) -> Markup {
    let mut facts = vec![
        ("Activations", l.activation_format.clone()),
        (
            "Weights",
            format!(
                "{}, {}",
                count(l.params as f64),
                bytes(l.weight_bytes as f64)
            ),
        ),
        ("Work", format!("{} MACs", count(l.macs as f64))),
    ];
    let time = l.latency_us.map(|us| format!("{}, {source}", micros(us)));
    let optional = [
        ("Time", time),
        ("Loss at 4 bits", l.sensitivity.map(significant)),
        ("Predicted loss", l.predicted_loss.map(significant)),
        ("Signal to noise", l.sqnr_db.map(|x| format!("{x:.1} dB"))),
        ("Cosine to float", l.cosine.map(|x| format!("{x:.5}"))),
    ];
    facts.extend(
        optional
            .into_iter()
            .filter_map(|(term, text)| Some((term, text?))),
    );
    html! {
        article.card id=(format!("layer-{i}")) hidden[i != 0] {
            h3 { (chip(&l.weight_format)) " " span title=(l.name) { (name(&l.name)) } " " small { (l.op) } }
            p { (l.why) }
            dl { @for (term, text) in facts { div { dt { (term) } dd { (text) } } } }
        }
    }
}

/// A column of the table: title, cell, and whether it holds numbers.
type Column = (&'static str, fn(&Layer) -> Option<Markup>, bool);

const COLUMNS: &[Column] = &[
    ("Operation", |l| text(&l.op), false),
    ("Weights", |l| Some(chip(&l.weight_format)), false),
    ("Activations", |l| Some(chip(&l.activation_format)), false),
    ("Number", |l| text(count(l.params as f64)), true),
    ("Size", |l| text(bytes(l.weight_bytes as f64)), true),
    ("MACs", |l| text(count(l.macs as f64)), true),
    ("Time", |l| l.latency_us.and_then(|x| text(micros(x))), true),
    (
        "Loss at 4 bits",
        |l| l.sensitivity.and_then(|x| text(significant(x))),
        true,
    ),
    (
        "Predicted loss",
        |l| l.predicted_loss.and_then(|x| text(significant(x))),
        true,
    ),
    (
        "SQNR",
        |l| l.sqnr_db.and_then(|x| text(format!("{x:.1} dB"))),
        true,
    ),
    (
        "Cosine",
        |l| l.cosine.and_then(|x| text(format!("{x:.4}"))),
        true,
    ),
];

fn text(x: impl AsRef<str>) -> Option<Markup> {
    Some(html! { (x.as_ref()) })
}

fn table(layers: &[Layer]) -> Markup {
    let columns: Vec<&Column> = COLUMNS
        .iter()
        .filter(|c| layers.iter().any(|l| c.1(l).is_some()))
        .collect();
    let same = layers.iter().all(|l| l.why == layers[0].why);
    html! {
        @if same { p.note { "All layers: " (layers[0].why) "." } }
        div.scroll.tall tabindex="0" role="region" aria-label="Table of all layers" {
            table.layers {
                thead { tr {
                    th scope="col" { "Layer" }
                    @for c in &columns { th.number[c.2] scope="col" { (c.0) } }
                } }
                @for l in layers {
                    tbody {
                        tr {
                            th scope="rowgroup" title=(l.name) { (name(&l.name)) }
                            @for c in &columns { td.number[c.2] { @if let Some(cell) = c.1(l) { (cell) } @else { "–" } } }
                        }
                        @if !same { tr.why { td colspan=(columns.len() + 1) { (l.why) } } }
                    }
                }
            }
        }
    }
}
