use maud::{Markup, html};

use super::{bits_text, figure};
use crate::text::{bytes, count, micros, percent};
use crate::{Budget, Report, Totals};

/// What was compiled, for what, and how it came out.
pub(super) fn header(r: &Report) -> Markup {
    html! {
        p.eyebrow { "Lowbit report" }
        h1 { (r.model.name) }
        p.lead { (lead(r)) }
        dl.figures {
            @if let Some(a) = &r.accuracy {
                @if let Some(top1) = a.top1 {
                    (figure("Accuracy", &percent(top1), &beside_float(r)))
                } @else if let Some(agreement) = a.agreement {
                    (figure("Agreement", &percent(agreement), "of classes are the float model’s"))
                }
            }
            (figure("Weights", &bytes(r.totals.weight_bytes as f64), &format!("{} bits a weight, {}", bits_text(r.totals.avg_weight_bits), smaller(r))))
            (figure("Working memory", &bytes(r.totals.arena_bytes as f64), &memory(&r.totals)))
            @if let Some(us) = r.totals.latency_us {
                (figure("One inference", &micros(us), &format!("{}, one core", r.totals.latency_source.as_deref().unwrap_or(""))))
            } @else {
                (figure("One inference", &count(r.totals.macs as f64), "multiply-accumulates"))
            }
        }
    }
}

fn memory(t: &Totals) -> String {
    let streams = match t.residual_bits {
        Some(16) => ", residual streams of 16 bits among it",
        _ => "",
    };
    format!("and {} of stack{streams}", bytes(t.stack_bytes as f64))
}

fn lead(r: &Report) -> String {
    let t = &r.target;
    let cpu = if t.cpu == t.level || t.cpu.is_empty() {
        t.level.clone()
    } else {
        format!("{} ({})", t.level, t.cpu)
    };
    let limits = limits(&r.budget);
    let within = if limits.is_empty() {
        String::new()
    } else {
        format!(" It was asked to stay within {}.", limits.join(" and "))
    };
    format!(
        "One object of {} for {}, level {cpu}, that computes with integers only.{within}",
        bytes(r.totals.object_bytes as f64),
        t.triple
    )
}

/// The budgets that were given, in words.
pub(crate) fn limits(b: &Budget) -> Vec<String> {
    let of = |n: u64, what: &str| format!("{} of {what}", bytes(n as f64));
    [
        b.bits.map(|x| format!("{} bits a weight", bits_text(x))),
        b.size.map(|n| of(n, "weights")),
        b.bops.map(|x| format!("{} bit operations", count(x))),
        b.latency
            .map(|ms| format!("{} an inference", micros(1000.0 * ms))),
        b.ram.map(|n| of(n, "working memory")),
        b.object_size.map(|n| of(n, "object")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn smaller(r: &Report) -> String {
    let params: u64 = r.layers.iter().map(|l| l.params).sum();
    let ratio = 4.0 * params as f64 / (r.totals.weight_bytes.max(1)) as f64;
    format!("{ratio:.1}× smaller than float")
}

fn beside_float(r: &Report) -> String {
    let a = r.accuracy.as_ref();
    let Some((own, float)) = a.and_then(|a| Some((a.top1?, a.float_top1?))) else {
        return String::new();
    };
    let points = 100.0 * (own - float);
    let sign = if points < 0.0 { '−' } else { '+' };
    if points.abs() < 0.005 {
        return "the same as the float model".into();
    }
    format!("float {}, {sign}{:.2} points", percent(float), points.abs())
}
