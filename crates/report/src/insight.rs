//! What the facts say: where loss comes from, what would help, when memory is fullest.

use crate::{Buffer, Choice, Layer, Memory, Report};

/// The fewest layers that together cause a share of the predicted loss.
#[derive(Clone, Debug, PartialEq)]
pub struct Culprits {
    /// Indices of layers, the worst first.
    pub layers: Vec<usize>,
    /// Their share of the sum.
    pub share: f64,
}

/// The share of the loss that [`culprits`] looks for.
const MOST: f64 = 0.8;

/// The fewest layers that cause four fifths of the predicted loss; `None` where no loss is predicted.
pub fn culprits(layers: &[Layer]) -> Option<Culprits> {
    let loss = |i: usize| layers[i].predicted_loss.unwrap_or(0.0).max(0.0);
    let total: f64 = (0..layers.len()).map(loss).sum();
    if total <= 0.0 {
        return None;
    }
    let mut order: Vec<usize> = (0..layers.len()).collect();
    order.sort_by(|&a, &b| loss(b).total_cmp(&loss(a)).then(a.cmp(&b)));
    let (mut sum, mut found) = (0.0, Vec::new());
    for i in order {
        if sum >= MOST * total {
            break;
        }
        sum += loss(i);
        found.push(i);
    }
    Some(Culprits {
        layers: found,
        share: sum / total,
    })
}

/// A wider format for one layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Remedy {
    /// Index of the layer.
    pub layer: usize,
    /// The formats that it would have.
    pub choice: Choice,
    /// Share of the whole predicted loss that would go.
    pub gain: f64,
    /// Bytes that it would cost.
    pub bytes: i64,
}

/// For each layer the change of weight format that takes most of the loss away, the best first; at most `most`.
pub fn remedies(layers: &[Layer], most: usize) -> Vec<Remedy> {
    let total: f64 = layers
        .iter()
        .filter_map(|l| l.predicted_loss)
        .map(|l| l.max(0.0))
        .sum();
    let mut found: Vec<Remedy> = (0..layers.len())
        .filter_map(|i| remedy(layers, i, total))
        .collect();
    found.sort_by(|a, b| b.gain.total_cmp(&a.gain).then(a.layer.cmp(&b.layer)));
    found.truncate(most);
    found
}

fn remedy(layers: &[Layer], i: usize, total: f64) -> Option<Remedy> {
    let layer = &layers[i];
    let now = layer.predicted_loss?;
    let better = layer.choices.iter().filter(|c| {
        c.activation_format == layer.activation_format
            && c.predicted_loss < now
            && c.weight_bytes > layer.weight_bytes
    });
    let choice = better.min_by(|a, b| {
        (a.predicted_loss.total_cmp(&b.predicted_loss)).then(a.weight_bytes.cmp(&b.weight_bytes))
    })?;
    Some(Remedy {
        layer: i,
        choice: choice.clone(),
        gain: (now - choice.predicted_loss) / total,
        bytes: choice.weight_bytes as i64 - layer.weight_bytes as i64,
    })
}

/// Where signal to noise falls most from one layer to the next: indices and decibels, the steepest first; at most `most`.
pub fn falls(layers: &[Layer], most: usize) -> Vec<(usize, f64)> {
    let known: Vec<(usize, f64)> = layers
        .iter()
        .enumerate()
        .filter_map(|(i, l)| Some((i, l.sqnr_db?)))
        .collect();
    let mut falls: Vec<(usize, f64)> = known
        .windows(2)
        .map(|w| (w[1].0, w[0].1 - w[1].1))
        .filter(|f| f.1 > 0.0)
        .collect();
    falls.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    falls.truncate(most);
    falls
}

impl Memory {
    /// The first call during which most bytes live.
    pub fn peak(&self) -> Option<usize> {
        let most = self.steps.iter().map(|s| s.live_bytes).max()?;
        self.steps.iter().position(|s| s.live_bytes == most)
    }

    /// Buffers that live during a call, the largest first.
    pub fn live(&self, step: usize) -> Vec<&Buffer> {
        let mut live: Vec<&Buffer> = self
            .buffers
            .iter()
            .filter(|b| b.first <= step && step <= b.last)
            .collect();
        live.sort_by(|a, b| b.bytes.cmp(&a.bytes).then(a.offset.cmp(&b.offset)));
        live
    }
}

impl Report {
    /// The plan's sum of predicted losses; `None` where there are no predictions.
    pub fn predicted_loss(&self) -> Option<f64> {
        self.layers.iter().map(|l| l.predicted_loss).sum()
    }

    /// Samples that drops of accuracy were measured on, where one was bounded.
    pub fn tried_on(&self) -> Option<usize> {
        self.tried.iter().find_map(|t| t.samples)
    }

    /// The point of the frontier that was compiled.
    pub fn chosen(&self) -> Option<usize> {
        let same = |formats: &[String]| {
            let own = self.layers.iter().map(|l| family(&l.weight_format));
            own.eq(formats.iter().map(String::as_str))
        };
        self.frontier.iter().position(|p| same(&p.formats))
    }
}

/// The format that a plan asks for by another name: of the two grids of 2 or of 3 bits a layer gets the one that errs less.
fn family(format: &str) -> &str {
    match format {
        "odd3" => "int3",
        "odd2" => "int2",
        other => other,
    }
}

/// What a format's codes are, where its name does not tell.
pub fn meaning(format: &str) -> Option<&'static str> {
    Some(match format {
        "e2m3" => {
            "6 bits, floats of 2 bits of exponent and 3 of mantissa, unpacked to whole numbers of eighths"
        }
        "e2m2" => {
            "5 bits, floats of 2 bits of exponent and 2 of mantissa, unpacked to whole numbers of quarters"
        }
        "e2m1" => {
            "4 bits, floats 0, ½, 1, 1½, 2, 3, 4, 6 and their negatives, unpacked to whole numbers of halves"
        }
        "odd3" => "3 bits, −7, −5 … 5, 7: it stands for int3 where it errs less",
        "odd2" => "2 bits, −3, −1, 1, 3: it stands for int2 where it errs less",
        _ => return None,
    })
}

/// Nominal bits of a weight of a format; `None` for an unknown name.
pub fn format_bits(format: &str) -> Option<f64> {
    match format {
        "ternary" => Some(2.0),
        "binary" => Some(1.0),
        "e2m1" => Some(4.0),
        "e2m2" => Some(5.0),
        "e2m3" => Some(6.0),
        _ => format
            .trim_start_matches(|c: char| !c.is_ascii_digit())
            .parse()
            .ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(loss: f64, choices: &[(&str, f64, u64)]) -> Layer {
        let choice = |&(format, predicted_loss, weight_bytes): &(&str, f64, u64)| Choice {
            weight_format: format.into(),
            activation_format: "int8".into(),
            predicted_loss,
            weight_bytes,
        };
        Layer {
            weight_format: "int4".into(),
            activation_format: "int8".into(),
            weight_bytes: 50,
            predicted_loss: Some(loss),
            choices: choices.iter().map(choice).collect(),
            ..Layer::default()
        }
    }

    #[test]
    fn the_fewest_layers_that_cause_most() {
        let layers = [layer(1.0, &[]), layer(7.0, &[]), layer(2.0, &[])];
        let found = culprits(&layers).expect("a loss is predicted");
        assert_eq!(found.layers, [1, 2]);
        assert!((found.share - 0.9).abs() < 1e-12);
        assert_eq!(culprits(&[layer(0.0, &[])]), None);
    }

    #[test]
    fn remedies_cost_bytes_and_save_loss() {
        let layers = [
            layer(
                4.0,
                &[("int3", 9.0, 40), ("int6", 1.0, 75), ("int8", 0.5, 100)],
            ),
            layer(6.0, &[("int8", 0.0, 100)]),
        ];
        let found = remedies(&layers, 3);
        assert_eq!(found.iter().map(|r| r.layer).collect::<Vec<_>>(), [1, 0]);
        assert_eq!((found[0].gain, found[0].bytes), (0.6, 50));
        assert_eq!(found[1].choice.weight_format, "int8");
    }

    #[test]
    fn the_peak_and_what_lives_there() {
        let buffer = |bytes, first, last| Buffer {
            bytes,
            first,
            last,
            ..Buffer::default()
        };
        let step = |live_bytes| crate::Step {
            live_bytes,
            ..crate::Step::default()
        };
        let memory = Memory {
            steps: vec![step(10), step(40), step(30)],
            buffers: vec![buffer(10, 0, 1), buffer(30, 1, 2)],
        };
        assert_eq!(memory.peak(), Some(1));
        let live: Vec<u64> = memory.live(1).iter().map(|b| b.bytes).collect();
        assert_eq!(live, [30, 10]);
    }

    #[test]
    fn falls_are_steepest_first() {
        let with = |db| Layer {
            sqnr_db: db,
            ..Layer::default()
        };
        let layers = [
            with(Some(40.0)),
            with(Some(38.0)),
            with(None),
            with(Some(30.0)),
        ];
        assert_eq!(falls(&layers, 2), [(3, 8.0), (1, 2.0)]);
    }
}
