//! Axes and plots. Shapes are SVG stretched over their box, words are HTML beside it, so that both fit every width.

use maud::{Markup, html};

/// A map from values to shares of a length.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Axis {
    low: f64,
    high: f64,
    log: bool,
}

/// Decades that a logarithmic axis shows at most.
const DECADES: f64 = 6.0;

impl Axis {
    /// From 0 to a little over the largest value.
    pub(crate) fn from_zero(values: impl Iterator<Item = f64>) -> Self {
        let high = values.fold(0.0, f64::max);
        Self {
            low: 0.0,
            high: if high > 0.0 { high * 1.04 } else { 1.0 },
            log: false,
        }
    }

    /// Around the values.
    pub(crate) fn around(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = extremes(values);
        let margin = ((high - low) * 0.08).max(high.abs() * 1e-3).max(1e-9);
        Self {
            low: low - margin,
            high: high + margin,
            log: false,
        }
    }

    /// Logarithmic around the positive values, over at most six decades.
    pub(crate) fn log(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = extremes(values.filter(|v| *v > 0.0));
        let low = low.max(high * 10f64.powf(-DECADES));
        Self {
            low: low / 1.3,
            high: high * 1.3,
            log: true,
        }
    }

    /// Where a value lies, from 0 to 1.
    pub(crate) fn at(&self, x: f64) -> f64 {
        let share = if self.log {
            (x.max(self.low) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (x - self.low) / (self.high - self.low)
        };
        share.clamp(0.0, 1.0)
    }

    /// Round values, about four.
    pub(crate) fn ticks(&self) -> Vec<f64> {
        if !self.log {
            return linear_ticks(self.low, self.high);
        }
        let (from, to) = (self.low.log10().floor(), self.high.log10().ceil());
        let parts: &[f64] = if to - from > 3.0 {
            &[1.0]
        } else {
            &[1.0, 2.0, 5.0]
        };
        let decades = (from as i32)..=(to as i32);
        decades
            .flat_map(|e| parts.iter().map(move |p| p * 10f64.powi(e)))
            .filter(|t| self.low <= *t && *t <= self.high)
            .collect()
    }
}

fn extremes(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| {
        (l.min(v), h.max(v))
    });
    if low.is_finite() {
        (low, high)
    } else {
        (1.0, 1.0)
    }
}

fn linear_ticks(low: f64, high: f64) -> Vec<f64> {
    let rough = (high - low) / 4.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .map(|m| m * power)
        .into_iter()
        .find(|s| *s >= rough)
        .unwrap_or(rough);
    let first = (low / step).ceil() as i64;
    let last = (high / step).floor() as i64;
    (first..=last).map(|i| i as f64 * step).collect()
}

/// Width and height of every drawing's own coordinates.
pub(crate) const SIDE: f64 = 1000.0;

/// A coordinate of a drawing.
pub(crate) fn place(share: f64) -> f64 {
    (share * SIDE * 100.0).round() / 100.0
}

/// A style that places something at shares of its box, from the left and from the bottom.
pub(crate) fn anchor(x: f64, y: f64) -> String {
    format!("left:{:.3}%;bottom:{:.3}%", 100.0 * x, 100.0 * y)
}

/// A drawing stretched over its box; what it shows is said elsewhere.
pub(crate) fn drawing(content: &Markup) -> Markup {
    html! {
        svg viewBox=(format!("0 0 {SIDE} {SIDE}")) preserveAspectRatio="none" aria-hidden="true" focusable="false" {
            (content)
        }
    }
}

/// A plot with axes.
pub(crate) struct Plot<'a> {
    /// What it shows, in a sentence.
    pub(crate) label: &'a str,
    /// The horizontal axis, its title and its numbers.
    pub(crate) x: (Axis, &'a str, &'a dyn Fn(f64) -> String),
    /// The vertical axis, its title and its numbers.
    pub(crate) y: (Axis, &'a str, &'a dyn Fn(f64) -> String),
}

impl Plot<'_> {
    /// With shapes in the drawing's coordinates, and marks over it in shares of the box.
    pub(crate) fn draw(&self, shapes: &Markup, marks: &Markup) -> Markup {
        let (x, y) = (&self.x, &self.y);
        let lines = html! {
            @for t in y.0.ticks() {
                path.grid d=(format!("M0 {} H{SIDE}", place(1.0 - y.0.at(t)))) {}
            }
        };
        html! {
            div.plot role="img" aria-label=(self.label) {
                div.axis-title.y-title { (y.1) }
                div.y-ticks {
                    @for t in y.0.ticks() { span style=(anchor(0.0, y.0.at(t))) { (y.2(t)) } }
                }
                div.canvas {
                    (drawing(&html! { (lines) (shapes) }))
                    (marks)
                }
                div.x-ticks {
                    @for t in x.0.ticks() { span style=(anchor(x.0.at(t), 0.0)) { (x.2(t)) } }
                }
                div.axis-title.x-title { (x.1) }
            }
        }
    }
}

/// A broken line through points in shares of the box.
pub(crate) fn line(points: &[(f64, f64)]) -> String {
    let steps = points.iter().enumerate().map(|(i, (x, y))| {
        let letter = if i == 0 { 'M' } else { 'L' };
        format!("{letter}{} {}", place(*x), place(1.0 - y))
    });
    steps.collect::<Vec<_>>().join(" ")
}

/// A round dot at a point in shares of the box: a line of no length with round ends keeps its form where the drawing is stretched.
pub(crate) fn dot(x: f64, y: f64) -> String {
    format!("M{} {} h0", place(x), place(1.0 - y))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        let axis = Axis::from_zero([0.3, 157.0].into_iter());
        assert_eq!(axis.ticks(), [0.0, 50.0, 100.0, 150.0]);
        let axis = Axis::log([0.001, 20.0].into_iter());
        assert_eq!(axis.ticks(), [0.001, 0.01, 0.1, 1.0, 10.0]);
    }

    #[test]
    fn places_are_shares() {
        let axis = Axis::log([1.0, 100.0].into_iter());
        assert!((axis.at(10.0) - 0.5).abs() < 1e-12);
        assert_eq!(axis.at(0.0), 0.0);
        let axis = Axis::around([f64::NAN; 0].into_iter());
        assert!(axis.at(1.0).is_finite());
    }
}
