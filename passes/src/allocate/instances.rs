//! Tables of random numbers that tests and the solver's benchmark solve.

use lowbit_report::{SensitiveChoice, SensitiveLayer, Sensitivity};

/// Numbers that repeat for a seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % n
    }

    pub(crate) fn unit(&mut self) -> f64 {
        self.below(1 << 24) as f64 / f64::from(1 << 24)
    }
}

/// A table of so many layers with so many choices.
pub(crate) type Kind = fn(&mut Random, usize, usize) -> Sensitivity;

/// Kinds of tables by name that are proved with little work from every seed; [`alike`] is not always.
pub(crate) const KINDS: &[(&str, Kind)] = &[
    ("noisy", noisy),
    ("scattered", scattered),
    ("convex", convex),
];

const BITS: [u32; 12] = [8, 7, 6, 5, 4, 3, 2, 9, 10, 11, 12, 16];

fn table(layers: usize, mut layer: impl FnMut(usize) -> SensitiveLayer) -> Sensitivity {
    Sensitivity {
        layers: (0..layers).map(&mut layer).collect(),
        ..Sensitivity::default()
    }
}

fn named(index: usize, params: f64, choices: Vec<SensitiveChoice>) -> SensitiveLayer {
    SensitiveLayer {
        name: format!("layer{index}"),
        params: Some(params),
        choices,
        ..SensitiveLayer::default()
    }
}

/// Losses that fall by a factor a bit, roughly, and costs that have reasons of their own.
pub(crate) fn noisy(r: &mut Random, layers: usize, choices: usize) -> Sensitivity {
    table(layers, |index| {
        let params = (1 + r.below(5000)) as f64;
        let weight = r.unit() * r.unit();
        let slow = r.unit();
        let choice = |r: &mut Random, c: usize| {
            let bits = BITS[c % BITS.len()];
            let noise = 0.5 + r.unit();
            SensitiveChoice {
                weight: format!("int{bits}"),
                activation: if r.below(3) == 0 { "int4" } else { "int8" }.into(),
                loss: weight * noise * (-1.2 * f64::from(bits)).exp2() * 100.0,
                weight_bytes: Some((params * f64::from(bits) / 8.0).ceil() + 12.0),
                bops: Some(params * f64::from(bits) * 8.0 * 49.0),
                latency_us: Some(params * (0.01 + slow * 0.002 * r.unit())),
                object_bytes: Some(params + 100.0 * r.unit()),
                ..SensitiveChoice::default()
            }
        };
        let choices = (0..choices).map(|c| choice(r, c)).collect();
        named(index, params, choices)
    })
}

/// Losses and costs that have nothing to do with one another.
pub(crate) fn scattered(r: &mut Random, layers: usize, choices: usize) -> Sensitivity {
    let mut table = noisy(r, layers, choices);
    for c in table.layers.iter_mut().flat_map(|l| &mut l.choices) {
        c.loss = r.unit();
        let mut cost = || Some(1000.0 * r.unit());
        (c.weight_bytes, c.bops) = (cost(), cost());
        (c.latency_us, c.object_bytes) = (cost(), cost());
    }
    table
}

/// Layers as networks have them: each bit takes away about three quarters of the loss, work is weights times positions, and
/// time goes with both.
pub(crate) fn convex(r: &mut Random, layers: usize, choices: usize) -> Sensitivity {
    let size = |r: &mut Random| (64.0 * (8.0 * r.unit()).exp2()).ceil();
    layered(r, layers, choices, size)
}

/// As [`convex`], but all layers have one of a few sizes, as those of transformers.
pub(crate) fn alike(r: &mut Random, layers: usize, choices: usize) -> Sensitivity {
    layered(r, layers, choices, |r| {
        1024.0 * [9.0, 36.0, 16.0, 64.0][r.below(4)]
    })
}

fn layered(
    r: &mut Random,
    layers: usize,
    choices: usize,
    size: impl Fn(&mut Random) -> f64,
) -> Sensitivity {
    table(layers, |index| {
        let params = size(r);
        let positions = (1 + r.below(1024)) as f64;
        let sensitivity = (8.0 * r.unit()).exp2();
        let decay = 0.2 + 0.1 * r.unit();
        let [per_byte, per_mac] = [0.001, 0.0001].map(|cost| cost * (0.5 + r.unit()));
        let choice = |c: usize| {
            // weights first, then inputs of half the bits
            let weight = [8, 6, 5, 4, 3, 2][c % 6];
            let input = if (c / 6).is_multiple_of(2) { 8 } else { 4 };
            let bits = f64::from(weight);
            let macs = params * positions;
            let lost = |bits: f64| decay.powf(bits - 2.0);
            let bytes = (params * bits / 8.0).ceil();
            SensitiveChoice {
                weight: format!("int{weight}"),
                activation: format!("int{input}"),
                loss: sensitivity * (lost(bits) + 0.1 * lost(f64::from(input))),
                weight_bytes: Some(bytes),
                bops: Some(macs * bits * f64::from(input)),
                latency_us: Some(per_byte * bytes + per_mac * macs * (0.3 + bits / 8.0)),
                object_bytes: Some(bytes + 100.0),
                ..SensitiveChoice::default()
            }
        };
        let choices = (0..choices).map(choice).collect();
        named(index, params, choices)
    })
}
