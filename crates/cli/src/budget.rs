//! Flags that bound costs, as several commands take them.

use lowbit::{Infeasible, Limits, Pin};

use crate::numbers;
use crate::output::json;

/// Bounds of what a plan costs. They combine; K, M and G are powers of 1000.
#[derive(clap::Args)]
pub(crate) struct Budgets {
    /// Largest average of bits of a weight.
    #[arg(long, value_parser = numbers::scaled)]
    pub(crate) bits: Option<f64>,
    /// Most bytes of the object's constants: weights as they lie packed, padding included, biases, multipliers, tables.
    #[arg(long, value_parser = numbers::scaled, value_name = "BYTES")]
    pub(crate) size: Option<f64>,
    /// Most bit operations: multiply-accumulates times weight bits times activation bits.
    #[arg(long, value_parser = numbers::scaled)]
    pub(crate) bops: Option<f64>,
    /// Most milliseconds of one inference, as it is predicted.
    #[arg(long, value_parser = numbers::scaled, value_name = "MS")]
    pub(crate) latency: Option<f64>,
    /// Most bytes of the object file.
    #[arg(long, value_parser = numbers::scaled, value_name = "BYTES")]
    pub(crate) object_size: Option<f64>,
    /// Most bytes of the arena.
    #[arg(long, value_parser = numbers::scaled, value_name = "BYTES")]
    pub(crate) ram: Option<f64>,
    /// Formats that a layer must have: `conv1=int8`, or `conv1=int4xint8` for weights and input. Weights can
    /// have int8, int6, int5, int4, int3, int2, ternary, or e2m3, e2m2, e2m1: floats that decode to integers.
    #[arg(long, value_parser = pin, value_name = "LAYER=FORMAT")]
    pub(crate) pin: Vec<Pin>,
}

impl Budgets {
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            bits: self.bits,
            size: self.size,
            bops: self.bops,
            latency: self.latency,
            object_size: self.object_size,
            ram: self.ram,
        }
    }
}

/// `LAYER=WEIGHT` or `LAYER=WEIGHTxACTIVATION`; a bare number means `int` and that number.
pub(crate) fn pin(text: &str) -> Result<Pin, String> {
    let (layer, formats) = text
        .rsplit_once('=')
        .filter(|(layer, formats)| !layer.is_empty() && !formats.is_empty())
        .ok_or_else(|| format!("'{text}' is no pin such as conv1=int8"))?;
    let name = |f: &str| match f.parse::<u32>() {
        Ok(bits) => format!("int{bits}"),
        Err(_) => f.to_ascii_lowercase(),
    };
    let (weight, activation) = match formats.split_once('x') {
        Some((w, a)) => (w, Some(name(a))),
        None => (formats, None),
    };
    Ok(Pin {
        layer: layer.into(),
        weight: Some(name(weight)),
        activation,
    })
}

/// Says on standard output that no plan keeps the budgets.
pub(crate) fn print_infeasible(found: &Infeasible) {
    json(&serde_json::json!({
        "status": "infeasible",
        "message": found.message,
        "least": found.least,
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_name_weights_and_inputs() {
        let found = pin("a/b=4x8").unwrap();
        assert_eq!(found.layer, "a/b");
        assert_eq!(found.weight.as_deref(), Some("int4"));
        assert_eq!(found.activation.as_deref(), Some("int8"));
        assert_eq!(pin("c=ternary").unwrap().weight.as_deref(), Some("ternary"));
        assert!(pin("conv1").is_err() && pin("=4").is_err() && pin("c=").is_err());
    }
}
