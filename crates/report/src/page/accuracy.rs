use maud::{Markup, html};

use super::bits_text;
use super::plot::{Axis, drawing, place};
use crate::text::{bytes, percent};
use crate::{Accuracy, Report};

/// A row of the comparison.
struct Row {
    name: String,
    class: &'static str,
    top1: Option<f64>,
    agreement: Option<f64>,
    bits: f64,
    weight_bytes: f64,
}

fn rows(r: &Report, a: &Accuracy) -> Vec<Row> {
    let params: u64 = r.layers.iter().map(|l| l.params).sum();
    let mut rows = vec![
        Row {
            name: "Float model".into(),
            class: "float",
            top1: a.float_top1,
            agreement: None,
            bits: 32.0,
            weight_bytes: 4.0 * params as f64,
        },
        Row {
            name: "This object".into(),
            class: "own",
            top1: a.top1,
            agreement: a.agreement,
            bits: r.totals.avg_weight_bits,
            weight_bytes: r.totals.weight_bytes as f64,
        },
    ];
    rows.extend(r.baselines.iter().rev().map(|(name, b)| {
        Row {
            name: name
                .strip_prefix("uniform")
                .map_or(name.clone(), |bits| format!("Uniform {bits} bits")),
            class: "baseline",
            top1: b.top1,
            agreement: b.agreement,
            bits: b.avg_weight_bits,
            weight_bytes: b.weight_bytes as f64,
        }
    }));
    rows
}

/// Accuracy of the object beside the float model and plainer plans, on the same samples.
pub(super) fn section(r: &Report) -> Option<Markup> {
    let Some(a) = &r.accuracy else {
        return Some(html! {
            p { "No accuracy is claimed: nothing was evaluated. Give " code { "--data" } " with a " code { "[split]" } " whose samples no decision reads." }
        });
    };
    let rows = rows(r, a);
    let labelled = a.top1.is_some();
    let value = |row: &Row| if labelled { row.top1 } else { row.agreement };
    let error = |p: f64| (p * (1.0 - p) / a.samples.max(1) as f64).sqrt();
    let ends = rows
        .iter()
        .filter_map(value)
        .flat_map(|p| [p - error(p), p + error(p)]);
    let axis = Axis::around(ends);
    Some(html! {
        p { (sentence(a)) }
        div.scroll tabindex="0" role="region" aria-label="Accuracy and size of each plan" {
            table.comparison {
                thead { tr {
                    th scope="col" { "Plan" }
                    @if labelled { th.number scope="col" { "Right" } }
                    th.number scope="col" { "Agrees with float" }
                    th.wide scope="col" { span.visually-hidden { "Drawn" } }
                    th.number scope="col" { "Bits a weight" }
                    th.number scope="col" { "Weights" }
                } }
                tbody {
                    @for row in &rows {
                        tr class=(row.class) {
                            th scope="row" { (row.name) }
                            @if labelled { td.number { (shown(row.top1)) } }
                            td.number { (shown(row.agreement)) }
                            td.wide { @if let Some(p) = value(row) { (whisker(&axis, p, error(p))) } }
                            td.number { (bits_text(row.bits)) }
                            td.number { (bytes(row.weight_bytes)) }
                        }
                    }
                }
            }
        }
    })
}

fn shown(p: Option<f64>) -> String {
    p.map_or("–".into(), percent)
}

fn sentence(a: &Accuracy) -> String {
    let noise = match (a.sqnr_db, a.agreement) {
        (Some(db), Some(p)) => format!(
            " It gives the float model’s class on {} of them, and its output stands {db:.1} dB above its error.",
            percent(p)
        ),
        _ => String::new(),
    };
    format!(
        "Measured by running the object itself on {} evaluation samples that no decision has read.{noise} Bars are one standard error to each side.",
        a.samples
    )
}

/// A dot with one standard error to each side.
fn whisker(axis: &Axis, p: f64, error: f64) -> Markup {
    let (low, mid, high) = (axis.at(p - error), axis.at(p), axis.at(p + error));
    drawing(&html! {
        path.rail d="M0 500 H1000" {}
        path.whisker d=(format!("M{} 500 H{}", place(low), place(high))) {}
        path.dot d=(format!("M{} 500 h0", place(mid))) {}
    })
}
