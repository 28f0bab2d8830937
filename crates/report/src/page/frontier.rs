use std::collections::BTreeMap;

use maud::{Markup, PreEscaped, html};
use serde::Serialize;

use super::plot::{Axis, Plot, anchor, dot, line};
use super::{bit_bars, bits_text, short};
use crate::insight::format_bits;
use crate::reproduce::command;
use crate::text::{bytes, list, name, significant};
use crate::{Layer, Point, Report, Tried};

/// What the drawing needs.
pub(super) struct Facts<'a> {
    /// Compiles the model, once a budget and a folder are added.
    pub(super) command: &'a str,
    /// Names of layers.
    pub(super) layers: Vec<String>,
    /// From the smallest to the largest.
    pub(super) points: &'a [Point],
    /// The point that was compiled.
    pub(super) chosen: Option<usize>,
    /// Other plans: name, bytes, predicted loss.
    pub(super) others: Vec<(&'static str, f64, f64)>,
    /// Points were sought at budgets of bit operations.
    pub(super) by_bops: bool,
}

/// The frontier with the plan that was compiled; nothing where no sensitivity was measured.
pub(super) fn section(r: &Report) -> Option<Markup> {
    if r.frontier.is_empty() {
        return None;
    }
    let chosen = r.chosen();
    let own = r.predicted_loss().filter(|_| chosen.is_none());
    let facts = Facts {
        command: &command(r, false),
        layers: r.layers.iter().map(|l| name(&l.name)).collect(),
        points: &r.frontier,
        chosen,
        others: own
            .map(|loss| ("this object", r.totals.weight_bytes as f64, loss))
            .into_iter()
            .collect(),
        by_bops: false,
    };
    Some(html! {
        (body(&facts))
        (compared(r))
    })
}

/// What the plan was compared with before it was compiled.
fn compared(r: &Report) -> Markup {
    let named = |t: &Tried| match t.plan.as_str() {
        "mixed" => "The mixed plan".to_owned(),
        "search" => match r.reproduce.search {
            Some(plans) => format!("The best of {plans} plans around it"),
            None => "The best plan around it".to_owned(),
        },
        width => match format_bits(width) {
            Some(bits) => format!("{} bits {}", bits_text(bits), except(t, &r.layers)),
            None => width.to_owned(),
        },
    };
    let bounded = r.tried.iter().any(|t| t.drop.is_some());
    let number = |x: Option<f64>| x.map_or_else(|| "–".into(), significant);
    html! {
        @if !r.tried.is_empty() {
            table #compared {
                caption { (compared_by(r)) }
                thead { tr {
                    th scope="col" { "Plan" }
                    @if bounded {
                        th scope="col" { "Bits a weight" }
                        th scope="col" { "Points below float" }
                    }
                    th scope="col" { "Loss measured" }
                    th scope="col" { "" }
                } }
                tbody {
                    @for t in &r.tried {
                        tr {
                            th scope="row" { (named(t)) }
                            @if bounded {
                                td { (number(t.bits)) }
                                td { (number(t.drop)) }
                            }
                            td { (significant(t.loss)) }
                            td { @if t.returned { "compiled" } }
                        }
                    }
                }
            }
        }
    }
}

/// Where a plan of one width has that width: everywhere, or but for layers that are pinned.
fn except(t: &Tried, layers: &[Layer]) -> String {
    let others: Vec<String> = (t.formats.iter().zip(layers))
        .filter(|(format, _)| **format != t.plan)
        .map(|(format, l)| format!("{} ({})", name(&l.name), short(format)))
        .collect();
    match others.is_empty() {
        true => "everywhere".into(),
        false => format!("but for {}", list(&others, MOST_NAMED)),
    }
}

/// Layers that are named in a sentence.
const MOST_NAMED: usize = 3;

/// What plans were measured on, and which is taken.
fn compared_by(r: &Report) -> String {
    match r.budget.max_drop.zip(r.tried_on()) {
        Some((points, samples)) => format!(
            "Plans that were quantised and measured on {samples} samples kept apart; the smallest of those at most {} points below the float model is compiled",
            significant(points)
        ),
        None => "Plans that were quantised and measured on calibration samples kept apart; the least loss is compiled".into(),
    }
}

/// What the page's script reads.
#[derive(Serialize)]
struct Data<'a> {
    command: &'a str,
    layers: &'a [String],
    chosen: Option<usize>,
    /// Bits and label of each format that occurs.
    formats: BTreeMap<&'a str, (f64, &'a str)>,
    points: Vec<PointData<'a>>,
}

#[derive(Serialize)]
struct PointData<'a> {
    /// Place of the point, in shares of the plot.
    x: f64,
    y: f64,
    bits: f64,
    weight_bytes: u64,
    predicted_loss: f64,
    /// The flag with the budget that gives this plan: not below what it takes.
    budget: String,
    /// In words: bits, size, loss.
    shown: [String; 3],
    formats: &'a [String],
}

/// The plot, the slider under it and the bits of each layer at the slider's point.
pub(super) fn body(facts: &Facts<'_>) -> Markup {
    let points = facts.points;
    let start = facts.chosen.unwrap_or(points.len() / 2);
    let (x, y) = axes(facts);
    let data = Data {
        command: facts.command,
        layers: &facts.layers,
        chosen: facts.chosen,
        formats: formats(points),
        points: points
            .iter()
            .map(|p| data(p, facts.by_bops, &x, &y))
            .collect(),
    };
    let here = &data.points[start];
    html! {
        p { (sentence(facts)) }
        (plot(facts, x, y, (here.x, here.y)))
        div.slider {
            label for="budget" { "Budget" }
            input #budget type="range" min="0" max=(points.len() - 1) step="1" value=(start)
                aria-valuetext=(here.shown.join(", ")) aria-describedby="frontier-changes";
            output #frontier-now for="budget" {
                @for (id, text) in ["bits", "size", "loss"].iter().zip(&here.shown) {
                    span id=(format!("frontier-{id}")) { (text) }
                }
            }
        }
        div #frontier-bars .bits-strip { (bit_bars(points[start].formats.iter().map(String::as_str))) }
        p #frontier-changes aria-live="polite" {}
        p.command { code #frontier-command { (facts.command) " " (here.budget) " -o out" } }
        script #frontier-data type="application/json" { (PreEscaped(embedded(&data))) }
    }
}

fn formats(points: &[Point]) -> BTreeMap<&str, (f64, &str)> {
    let all = points.iter().flat_map(|p| &p.formats);
    all.map(|f| (f.as_str(), (format_bits(f).unwrap_or(8.0), short(f))))
        .collect()
}

/// JSON that cannot end the element that holds it.
fn embedded(data: &Data<'_>) -> String {
    let text = serde_json::to_string(data).expect("facts are plain");
    text.replace('<', "\\u003c")
}

fn data<'a>(p: &'a Point, by_bops: bool, x: &Axis, y: &Axis) -> PointData<'a> {
    PointData {
        x: x.at(p.weight_bytes as f64),
        y: y.at(p.predicted_loss),
        bits: p.bits,
        weight_bytes: p.weight_bytes,
        predicted_loss: p.predicted_loss,
        budget: match p.bops.filter(|_| by_bops) {
            Some(bops) => format!("--bops {}", bops.ceil()),
            None => format!("--bits {}", (p.bits * 1000.0 - 1e-6).ceil() / 1000.0),
        },
        shown: [
            format!("{} bits a weight", bits_text(p.bits)),
            bytes(p.weight_bytes as f64),
            losses(p),
        ],
        formats: &p.formats,
    }
}

fn losses(p: &Point) -> String {
    let predicted = format!("predicted loss {}", significant(p.predicted_loss));
    match p.measured_loss {
        Some(measured) => format!("{predicted}, measured {}", significant(measured)),
        None => predicted,
    }
}

fn axes(facts: &Facts<'_>) -> (Axis, Axis) {
    let sizes = facts.points.iter().map(|p| p.weight_bytes as f64);
    let losses = facts.points.iter().map(|p| p.predicted_loss);
    (
        Axis::around(sizes.chain(facts.others.iter().map(|o| o.1))),
        Axis::log(losses.chain(facts.others.iter().map(|o| o.2))),
    )
}

fn sentence(facts: &Facts<'_>) -> String {
    let (small, large) = (&facts.points[0], &facts.points[facts.points.len() - 1]);
    format!(
        "{} plans, each the best that was found at its {}, from {} at {} bits a weight to {} at {}. {}",
        facts.points.len(),
        if facts.by_bops {
            "bit operations"
        } else {
            "size"
        },
        bytes(small.weight_bytes as f64),
        bits_text(small.bits),
        bytes(large.weight_bytes as f64),
        bits_text(large.bits),
        match facts.points.iter().all(|p| p.measured_loss.is_some()) {
            true =>
                "The curve shows predicted losses; under it stands also what was measured on samples held out.",
            false => "Losses are predictions, not measurements.",
        }
    )
}

fn plot(facts: &Facts<'_>, x: Axis, y: Axis, here: (f64, f64)) -> Markup {
    let at = |size: f64, loss: f64| (x.at(size), y.at(loss));
    let points: Vec<(f64, f64)> = facts
        .points
        .iter()
        .map(|p| at(p.weight_bytes as f64, p.predicted_loss))
        .collect();
    let chosen = facts.chosen.map(|i| ("this object", points[i]));
    let others = facts.others.iter().map(|o| (o.0, at(o.1, o.2)));
    let named: Vec<_> = chosen.into_iter().chain(others).collect();
    let shapes = html! {
        path.curve d=(line(&points)) {}
        @for p in &points { path.point d=(dot(p.0, p.1)) {} }
        @for (_, p) in &named { path.chosen d=(dot(p.0, p.1)) {} }
    };
    let marks = html! {
        span #frontier-dot style=(anchor(here.0, here.1)) {}
        @for (title, p) in &named { span.mark.left[p.0 > 0.7] style=(anchor(p.0, p.1)) { (title) } }
    };
    let plot = Plot {
        label: "Predicted loss against bytes of weights, of the best plan at each size",
        x: (x, "weights", &bytes),
        y: (y, "predicted loss", &significant),
    };
    plot.draw(&shapes, &marks)
}
