use maud::{Markup, html};

use super::plot::{Axis, Plot, SIDE, anchor, line, place};
use crate::text::{bytes, list, name};
use crate::{Buffer, Memory, Report};

/// The arena as a map of calls and bytes, with the peak named.
pub(super) fn section(r: &Report) -> Option<Markup> {
    let m = &r.memory;
    let peak = m.peak()?;
    let live = m.live(peak);
    Some(html! {
        p { (sentence(m)?) " " (bound(r)) }
        (map(r, peak))
        table.peak {
            caption { "What lives at the peak" }
            thead { tr { th scope="col" { "Tensor" } th.number scope="col" { "Bytes" } th.number scope="col" { "From call" } th.number scope="col" { "To call" } } }
            tbody { @for b in &live {
                tr {
                    th scope="row" title=(b.name) { (name(&b.name)) @if b.scratch { " (work space)" } }
                    td.number { (bytes(b.bytes as f64)) }
                    td.number { (b.first + 1) }
                    td.number { (b.last + 1) }
                }
            } }
        }
    })
}

/// When memory is fullest, and with what; nothing where no memory is used.
pub fn sentence(m: &Memory) -> Option<String> {
    let peak = m.peak()?;
    let named = |b: &&Buffer| {
        let what = if b.scratch { "work space of " } else { "" };
        format!("{what}{} ({})", name(&b.name), bytes(b.bytes as f64))
    };
    let live: Vec<String> = m.live(peak).iter().map(named).collect();
    Some(format!(
        "The peak of {} is during {}, call {} of {}: {}.",
        bytes(m.steps[peak].live_bytes as f64),
        name(&m.steps[peak].name),
        peak + 1,
        m.steps.len(),
        list(&live, 4)
    ))
}

fn bound(r: &Report) -> String {
    format!(
        "The arena takes {}; no arena can take less than {}.",
        bytes(r.totals.arena_bytes as f64),
        bytes(r.totals.arena_lower_bound_bytes as f64)
    )
}

fn map(r: &Report, peak: usize) -> Markup {
    let m = &r.memory;
    let ends = m.buffers.iter().map(|b| (b.offset + b.bytes) as f64);
    let y = Axis::from_zero(ends);
    let steps = m.steps.len() as f64;
    let x = Axis::from_zero([steps / 1.04].into_iter());
    let shapes = html! {
        rect.peak x=(place(peak as f64 / steps)) y="0" width=(place(1.0 / steps)) height=(SIDE) {}
        @for b in &m.buffers { (room(b, &x, &y)) }
        path.live d=(line(&total(m, &x, &y))) {}
    };
    let marks = html! {
        @for b in m.buffers.iter().filter(|b| roomy(b, steps, &y)) {
            span.room style=(over(b, &x, &y)) { (last(&b.name)) }
        }
        span.peak-mark.left[peak as f64 / steps > 0.7] style=(anchor(x.at(peak as f64 + 0.5), y.at(m.steps[peak].live_bytes as f64))) { "peak" }
    };
    let plot = Plot {
        label: "The arena: each tensor’s place over the calls during which it lives; the line is the total",
        x: (x, "call", &|t| format!("{t}")),
        y: (y, "arena", &bytes),
    };
    plot.draw(&shapes, &marks)
}

fn room(b: &Buffer, x: &Axis, y: &Axis) -> Markup {
    let (left, right) = (x.at(b.first as f64), x.at(b.last as f64 + 1.0));
    let (low, high) = (y.at(b.offset as f64), y.at((b.offset + b.bytes) as f64));
    html! {
        rect.room.scratch[b.scratch] x=(place(left)) width=(place(right - left)) y=(place(1.0 - high)) height=(place(high - low)) {
            title { (b.name) ", " (bytes(b.bytes as f64)) }
        }
    }
}

/// The end of a path.
fn last(full: &str) -> String {
    let short = name(full);
    short
        .trim_end_matches('/')
        .rsplit('/')
        .next()
        .map_or(short.clone(), Into::into)
}

/// Whether there is room for a name.
fn roomy(b: &Buffer, steps: f64, y: &Axis) -> bool {
    let width = (b.last + 1 - b.first) as f64 / steps;
    let height = y.at((b.offset + b.bytes) as f64) - y.at(b.offset as f64);
    width > 0.11 && height > 0.06
}

fn over(b: &Buffer, x: &Axis, y: &Axis) -> String {
    let (left, right) = (x.at(b.first as f64), x.at(b.last as f64 + 1.0));
    let (low, high) = (y.at(b.offset as f64), y.at((b.offset + b.bytes) as f64));
    format!(
        "left:{:.3}%;width:{:.3}%;bottom:{:.3}%;height:{:.3}%",
        100.0 * left,
        100.0 * (right - left),
        100.0 * low,
        100.0 * (high - low)
    )
}

/// The total as steps.
fn total(m: &Memory, x: &Axis, y: &Axis) -> Vec<(f64, f64)> {
    let steps = m.steps.iter().enumerate();
    steps
        .flat_map(|(i, s)| {
            let height = y.at(s.live_bytes as f64);
            [(x.at(i as f64), height), (x.at(i as f64 + 1.0), height)]
        })
        .collect()
}
