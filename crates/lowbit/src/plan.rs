//! Plans: from choices to formats by layer, each with its reason in one sentence.

use lowbit_passes::allocate::{Allocation, Budget, Pin, weight_bits};
use lowbit_report::{Plan, PlannedLayer, SensitiveChoice, SensitiveLayer, Sensitivity};

/// The formats of an allocation, with reasons. `pinned` says why a layer had no choice, by name.
pub(crate) fn plan(
    table: &Sensitivity,
    found: &Allocation,
    pins: &[Pin],
    pinned: &dyn Fn(&str) -> Option<String>,
) -> Plan {
    let layer = |(l, &c): (&SensitiveLayer, &usize)| {
        let choice = &l.choices[c];
        let forced = pins.iter().any(|p| p.layer == l.name && p.weight.is_some());
        let reason = || pinned(&l.name).unwrap_or_else(|| "it is pinned to this format".into());
        PlannedLayer {
            name: l.name.clone(),
            weight: choice.weight.clone(),
            activation: choice.activation.clone(),
            why: match forced {
                true => reason(),
                false => shared(table, l, c, found),
            },
        }
    };
    Plan {
        layers: table.layers.iter().zip(&found.choice).map(layer).collect(),
    }
}

/// Why a layer that could choose has its choice; layers that are tied choose as one.
fn shared(table: &Sensitivity, layer: &SensitiveLayer, index: usize, found: &Allocation) -> String {
    let others =
        |o: &&SensitiveLayer| layer.tie.is_some() && o.tie == layer.tie && o.name != layer.name;
    let names: Vec<String> = table
        .layers
        .iter()
        .filter(others)
        .map(|o| format!("'{}'", o.name))
        .collect();
    if names.is_empty() {
        return why(layer, index, found);
    }
    let mut all = layer.clone();
    for other in table.layers.iter().filter(others) {
        all.params = all.params.zip(other.params).map(|(a, b)| a + b);
        for (sum, c) in all.choices.iter_mut().zip(&other.choices) {
            add(sum, c);
        }
    }
    format!("with {}: {}", names.join(", "), why(&all, index, found))
}

/// Adds losses and costs.
fn add(sum: &mut SensitiveChoice, other: &SensitiveChoice) {
    let both = |a: Option<f64>, b: Option<f64>| a.zip(b).map(|(a, b)| a + b);
    sum.loss += other.loss;
    sum.weight_bytes = both(sum.weight_bytes, other.weight_bytes);
    sum.bops = both(sum.bops, other.bops);
    sum.latency_us = both(sum.latency_us, other.latency_us);
    sum.object_bytes = both(sum.object_bytes, other.object_bytes);
    for (step, bytes) in &other.step_bytes {
        *sum.step_bytes.entry(step.clone()).or_default() += bytes;
    }
}

/// A number with three digits.
pub(crate) fn short(x: f64) -> String {
    if x == 0.0 || (0.001..1e6).contains(&x.abs()) {
        let digits = if x == 0.0 {
            0
        } else {
            (2 - x.abs().log10().floor() as i32).max(0)
        };
        format!("{x:.*}", digits as usize)
    } else {
        format!("{x:.2e}")
    }
}

fn bits(choice: &SensitiveChoice) -> u32 {
    weight_bits(&choice.weight).unwrap_or(0)
}

/// Why a layer that could choose has its choice.
fn why(layer: &SensitiveLayer, index: usize, found: &Allocation) -> String {
    let chosen = &layer.choices[index];
    let alike = |c: &&SensitiveChoice| c.activation == chosen.activation;
    let others = || layer.choices.iter().filter(alike);
    if layer.choices.len() == 1 {
        return "it is the only format that the layer can have".into();
    }
    let name = &chosen.weight;
    // of several formats of as many bits the one that loses least
    let better = |a: &SensitiveChoice, b: &SensitiveChoice| b.loss.total_cmp(&a.loss);
    let narrower = others()
        .filter(|c| bits(c) < bits(chosen))
        .max_by(|a, b| bits(a).cmp(&bits(b)).then(better(a, b)));
    let wider = others()
        .filter(|c| bits(c) > bits(chosen))
        .max_by(|a, b| bits(b).cmp(&bits(a)).then(better(a, b)));
    let binding: Vec<&(Budget, f64)> = found
        .certificate
        .prices
        .iter()
        .filter(|p| p.1 > 0.0)
        .collect();
    let steps = &found.certificate.steps;
    let tight: Vec<&(String, f64)> = steps.iter().filter(|s| s.1 > 0.0).collect();
    if binding.is_empty() && tight.is_empty() {
        return format!("{name} loses least, and no budget asks for less");
    }
    let worth = |c: &SensitiveChoice| -> f64 {
        let cost = |b: Budget, c| b.cost(layer, c).unwrap_or(0.0);
        let memory =
            |step: &str, c: &SensitiveChoice| c.step_bytes.get(step).copied().unwrap_or(0.0);
        let sums = binding
            .iter()
            .map(|(b, p)| p * (cost(*b, chosen) - cost(*b, c)));
        let live = tight
            .iter()
            .map(|(step, p)| p * (memory(step, chosen) - memory(step, c)));
        sums.sum::<f64>() + live.sum::<f64>()
    };
    if let Some(slower) = slower(layer, chosen, narrower, &binding) {
        return slower;
    }
    let mut reasons = Vec::new();
    let memory = narrower.and_then(|n| Some((n, work_space(n, chosen, &tight)?)));
    if let Some((n, bytes)) = memory {
        reasons.push(format!(
            "{} would need {} bytes more to work in, which --ram does not leave",
            n.weight,
            short(bytes)
        ));
    } else if let Some(n) = narrower {
        reasons.push(format!(
            "{} would add {} to the loss for room that is worth {} elsewhere",
            n.weight,
            short(n.loss - chosen.loss),
            short(worth(n).max(0.0))
        ));
    }
    if let Some(w) = wider {
        reasons.push(format!(
            "{} would save {} for room that is worth {}",
            w.weight,
            short(chosen.loss - w.loss),
            short((-worth(w)).max(0.0))
        ));
    }
    if reasons.is_empty() {
        return format!(
            "{name} with {} inputs loses least within the budget",
            chosen.activation
        );
    }
    format!("{name}: {}", reasons.join("; "))
}

/// Bytes that a choice needs more than the chosen one at a step where memory is short.
fn work_space(
    other: &SensitiveChoice,
    chosen: &SensitiveChoice,
    tight: &[&(String, f64)],
) -> Option<f64> {
    let bytes = |c: &SensitiveChoice, step: &str| c.step_bytes.get(step).copied().unwrap_or(0.0);
    let more = tight
        .iter()
        .map(|(step, _)| bytes(other, step) - bytes(chosen, step));
    more.filter(|&m| m > 0.0).reduce(f64::max)
}

/// Fewer bits that would be slower, where time is what is bounded.
fn slower(
    layer: &SensitiveLayer,
    chosen: &SensitiveChoice,
    narrower: Option<&SensitiveChoice>,
    binding: &[&(Budget, f64)],
) -> Option<String> {
    let size = |b: Budget| matches!(b, Budget::Bits | Budget::Size | Budget::ObjectSize);
    if binding.iter().any(|p| size(p.0)) || !binding.iter().any(|p| p.0 == Budget::Latency) {
        return None;
    }
    let narrower = narrower?;
    let (now, then) = (
        Budget::Latency.cost(layer, chosen)?,
        Budget::Latency.cost(layer, narrower)?,
    );
    (then >= now).then(|| {
        format!(
            "{}: {} would not be faster ({} µs against {}), and size is not the budget",
            chosen.weight,
            narrower.weight,
            short(then),
            short(now)
        )
    })
}

#[cfg(test)]
mod tests {
    use lowbit_passes::allocate::{Limits, allocate};

    use super::*;

    fn choice(bits: u32, loss: f64, latency: f64) -> SensitiveChoice {
        SensitiveChoice {
            weight: format!("int{bits}"),
            activation: "int8".into(),
            loss,
            latency_us: Some(latency),
            ..SensitiveChoice::default()
        }
    }

    #[test]
    fn formats_that_memory_rules_out_are_said_to_be() {
        let mut table = table();
        table.steps = vec![lowbit_report::MemoryStep {
            name: "easy".into(),
            bytes: 1000.0,
        }];
        for (c, bytes) in table.layers[1].choices.iter_mut().zip([0.0, 500.0, 500.0]) {
            c.step_bytes.insert("easy".into(), bytes);
            c.loss = 1.0 - c.loss;
        }
        let ram = Limits {
            ram: Some(1400.0),
            ..Limits::default()
        };
        let found = allocate(&table, &ram, &[]).unwrap();
        let plan = plan(&table, &found, &[], &|_| None);
        let why = &plan.layers[1].why;
        assert!(
            why.contains("int4 would need 500 bytes more to work in"),
            "{why}"
        );
    }

    fn layer(name: &str, choices: Vec<SensitiveChoice>) -> SensitiveLayer {
        SensitiveLayer {
            name: name.into(),
            params: Some(100.0),
            choices,
            ..SensitiveLayer::default()
        }
    }

    fn table() -> Sensitivity {
        let hard = vec![
            choice(8, 0.0, 10.0),
            choice(4, 0.5, 6.0),
            choice(2, 2.0, 7.0),
        ];
        let easy = vec![
            choice(8, 0.0, 10.0),
            choice(4, 0.001, 6.0),
            choice(2, 0.5, 12.0),
        ];
        Sensitivity {
            layers: vec![
                layer("hard", hard),
                layer("easy", easy),
                layer("only", vec![choice(8, 0.0, 1.0)]),
            ],
            ..Sensitivity::default()
        }
    }

    fn whys(limits: &Limits, pins: &[Pin]) -> Vec<String> {
        let table = table();
        let found = allocate(&table, limits, pins).unwrap();
        let plan = plan(&table, &found, pins, &|_| None);
        plan.layers.into_iter().map(|l| l.why).collect()
    }

    #[test]
    fn reasons_name_what_the_neighbours_would_cost() {
        let bits = Limits {
            bits: Some(6.7),
            ..Limits::default()
        };
        let found = whys(&bits, &[]);
        assert!(
            found[0].starts_with("int8: int4 would add 0.500 to the loss"),
            "{found:?}"
        );
        assert!(found[1].contains("int8 would save 0.00100"), "{found:?}");
        assert!(found[2].contains("only format"), "{found:?}");
        let free = whys(&Limits::default(), &[]);
        assert!(free[0].contains("no budget asks for less"), "{free:?}");
    }

    #[test]
    fn fewer_bits_that_are_slower_are_said_to_be() {
        let latency = Limits {
            latency: Some(0.017),
            ..Limits::default()
        };
        let found = whys(&latency, &[]);
        assert!(
            found[1].contains("int2 would not be faster (12.0 µs against 6.00)"),
            "{found:?}"
        );
    }

    #[test]
    fn numbers_have_three_digits() {
        let cases = [
            (0.0, "0"),
            (0.001234, "0.00123"),
            (12.345, "12.3"),
            (1234.5, "1234"),
            (1e-9, "1.00e-9"),
        ];
        for (x, text) in cases {
            assert_eq!(short(x), text);
        }
    }
}
