use maud::{Markup, html};

use crate::text::{name, percent, significant};
use crate::{HessianTraces, LayerTrace, Predictor, RankCorrelation, temperature_sentence};

/// How losses were predicted, how well each metric orders plans, and second derivatives with their standard errors.
pub(super) fn part(p: &Predictor) -> Markup {
    html! {
        h3.part { "How losses are predicted" }
        p { (sentence(p)) }
        @if let Some(t) = p.temperature { p { (temperature_sentence(t)) } }
        @if !p.ranks.is_empty() { (ranks(p)) }
        @if let Some(t) = &p.traces { (traces(t)) }
    }
}

fn sentence(p: &Predictor) -> String {
    let what = match p.metric.as_str() {
        "hessian" => "the trace of the loss’s Hessian times the squared error of rounding",
        "fisher" => "squared gradients times the squared errors of rounding",
        "lrp" => "the relevance of each layer times its relative error",
        "sqnr" => "noise at the outputs with each layer rounded alone",
        "kl" => "divergence at the outputs with each layer rounded alone",
        "joint" => {
            "divergence at the outputs with each layer rounded alone, layers weighted by what random mixed plans lose"
        }
        other => other,
    };
    let why = match p.ranks.is_empty() {
        true => "as it was asked for",
        false => "chosen by how well it orders random mixed plans of this model",
    };
    format!("Losses are predicted by {} ({what}), {why}.", p.metric)
}

/// A row for each metric, a column for each kind of plans.
fn ranks(p: &Predictor) -> Markup {
    let mut metrics: Vec<&str> = Vec::new();
    let mut kinds: Vec<&str> = Vec::new();
    for r in &p.ranks {
        if !metrics.contains(&r.metric.as_str()) {
            metrics.push(&r.metric);
        }
        if !kinds.contains(&r.plans.as_str()) {
            kinds.push(&r.plans);
        }
    }
    let cell = |metric: &str, kind: &str| {
        let found = p
            .ranks
            .iter()
            .find(|r| (&*r.metric, &*r.plans) == (metric, kind));
        found.map_or("–".into(), correlation)
    };
    let count = p.ranks.iter().map(|r| r.count).max().unwrap_or(0);
    html! {
        div.scroll tabindex="0" role="region" aria-label="How well each metric orders plans" {
            table #ranks {
                caption { "Rank correlation of predicted with measured loss over " (count) " random plans of each kind, with 90 % intervals" }
                thead { tr {
                    th scope="col" { "Metric" }
                    @for kind in &kinds { th.number scope="col" { (kind) } }
                } }
                tbody { @for metric in metrics { tr class=[(metric == p.metric).then_some("own")] {
                    th scope="row" { (metric) }
                    @for kind in &kinds { td.number { (cell(metric, kind)) } }
                } } }
            }
        }
    }
}

fn correlation(r: &RankCorrelation) -> String {
    format!("{:.2} ({:.2}–{:.2})", r.value, r.low, r.high)
}

/// Traces of all layers by each estimate.
fn traces(t: &HessianTraces) -> Markup {
    let probed = t.probes.is_some();
    html! {
        p.note { (exactness(t)) }
        div.scroll.tall tabindex="0" role="region" aria-label="Traces of the Hessian" {
            table #traces {
                thead { tr {
                    th scope="col" { "Layer" }
                    th.number scope="col" { "By gradients" }
                    @if probed { th.number scope="col" { "By probes" } }
                } }
                tbody { @for l in &t.layers { tr {
                    th scope="row" title=(l.name) { (name(&l.name)) }
                    td.number { (estimate(l.gradients, l.gradients_error)) }
                    @if probed { td.number { (by_probes(l)) } }
                } } }
            }
        }
    }
}

fn exactness(t: &HessianTraces) -> String {
    let probes = t
        .probes
        .zip(t.probes_error)
        .map_or(String::new(), |(n, e)| {
            format!(", and by {n} Hutchinson probes of at most {}", percent(e))
        });
    format!(
        "The trace of the Hessian by the weights of each layer has a relative standard error of at most {} by {} gradients of sampled labels{probes}; {} was asked for.",
        percent(t.error),
        t.gradients,
        percent(t.asked_error)
    )
}

/// A number with its standard error.
fn estimate(x: f64, error: f64) -> String {
    format!("{} ± {}", significant(x), significant(error))
}

fn by_probes(l: &LayerTrace) -> String {
    let both = l.probes.zip(l.probes_error);
    both.map_or("–".into(), |(x, e)| estimate(x, e))
}
