use maud::{Markup, html};

use super::plot::{Axis, Plot, SIDE, dot, drawing, line, place};
use super::{chip, predictor, short};
use crate::insight::{culprits, falls, remedies};
use crate::text::{bytes, list, name, percent, significant};
use crate::{Layer, Report};

/// Layers that are drawn at most.
const WORST: usize = 10;

/// Which layers cost most, what would help, how the error grows with depth, and how losses are predicted.
pub(super) fn section(r: &Report) -> Option<Markup> {
    let sentences = sentences(&r.layers);
    if sentences.is_empty() {
        return None;
    }
    Some(html! {
        @for s in &sentences { p { (s) } }
        (worst(&r.layers))
        (depth(&r.layers))
        @if let Some(p) = &r.predictor { (predictor::part(p)) }
    })
}

/// Where accuracy is lost and what would help most, in sentences.
pub fn sentences(layers: &[Layer]) -> Vec<String> {
    let names =
        |of: &[usize]| -> Vec<String> { of.iter().map(|&i| name(&layers[i].name)).collect() };
    let mut found = Vec::new();
    if let Some(c) = culprits(layers) {
        let (verb, n) = if c.layers.len() == 1 {
            ("causes", "1 layer".into())
        } else {
            ("cause", format!("{} layers", c.layers.len()))
        };
        found.push(format!(
            "{n} of {} {verb} {:.0} % of the predicted loss: {}.",
            layers.len(),
            100.0 * c.share,
            list(&names(&c.layers), 4)
        ));
    }
    let help: Vec<String> = remedies(layers, 3)
        .iter()
        .map(|m| {
            format!(
                "keep {} at {} bits: +{}, −{:.0} % of the predicted loss",
                name(&layers[m.layer].name),
                short(&m.choice.weight_format),
                bytes(m.bytes as f64),
                100.0 * m.gain
            )
        })
        .collect();
    if !help.is_empty() {
        found.push(format!("What would help most: {}.", help.join("; ")));
    }
    found.extend(noise(layers));
    found
}

fn noise(layers: &[Layer]) -> Option<String> {
    let known = layers.iter().filter_map(|l| Some((l, l.sqnr_db?)));
    let (least, db) = known.min_by(|a, b| a.1.total_cmp(&b.1))?;
    let steepest = falls(layers, 1)
        .first()
        .map_or(String::new(), |&(i, fall)| {
            format!(
                " It falls most at {}, by {fall:.1} dB.",
                name(&layers[i].name)
            )
        });
    let cosine = least
        .cosine
        .map_or(String::new(), |c| format!(", cosine {c:.4}"));
    Some(format!(
        "Measured on calibration samples against the float model, signal to noise is least at {}: {db:.1} dB{cosine}.{steepest}",
        name(&least.name)
    ))
}

fn worst(layers: &[Layer]) -> Markup {
    let total: f64 = layers
        .iter()
        .filter_map(|l| l.predicted_loss)
        .map(|x| x.max(0.0))
        .sum();
    if total <= 0.0 {
        return html! {};
    }
    let mut order: Vec<&Layer> = layers.iter().collect();
    order.sort_by(|a, b| {
        b.predicted_loss
            .partial_cmp(&a.predicted_loss)
            .expect("losses are finite")
    });
    let share = |l: &Layer| l.predicted_loss.unwrap_or(0.0).max(0.0) / total;
    let most = share(order[0]);
    html! {
        table.worst {
            caption { "Share of the predicted loss" }
            thead.visually-hidden { tr { th scope="col" { "Layer" } th scope="col" { "Format" } th scope="col" { "Drawn" } th scope="col" { "Share" } th scope="col" { "Loss" } } }
            tbody { @for l in order.into_iter().take(WORST) {
                tr {
                    th scope="row" title=(l.name) { (name(&l.name)) }
                    td { (chip(&l.weight_format)) }
                    td.wide { (drawing(&html! { rect.bar x="0" y="0" height=(SIDE) width=(place(share(l) / most)) {} })) }
                    td.number { (percent(share(l))) }
                    td.number { (significant(l.predicted_loss.unwrap_or(0.0))) }
                }
            } }
        }
    }
}

/// Signal to noise over depth.
fn depth(layers: &[Layer]) -> Markup {
    let known: Vec<(f64, f64)> = layers
        .iter()
        .enumerate()
        .filter_map(|(i, l)| Some((i as f64 + 1.0, l.sqnr_db?)))
        .collect();
    if known.len() < 2 {
        return html! {};
    }
    let x = Axis::around(known.iter().map(|p| p.0));
    let y = Axis::around(known.iter().map(|p| p.1));
    let points: Vec<(f64, f64)> = known.iter().map(|p| (x.at(p.0), y.at(p.1))).collect();
    let shapes = html! {
        path.curve d=(line(&points)) {}
        @for p in &points { path.point d=(dot(p.0, p.1)) {} }
    };
    let plot = Plot {
        label: "Signal to noise of each layer’s output, in order of execution; the table of layers has the numbers",
        x: (x, "layer", &|t| {
            if t == t.trunc() {
                format!("{t}")
            } else {
                String::new()
            }
        }),
        y: (y, "signal to noise, dB", &|t| format!("{t}")),
    };
    plot.draw(&shapes, &html! {})
}
