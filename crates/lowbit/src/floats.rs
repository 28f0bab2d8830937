//! Float formats that people may ask for, and why integer-only code has only those with two bits of exponent.

use lowbit_num::Format;
use lowbit_passes::allocate::Pin;

use crate::Error;

const SAME: &str = "which takes as many bits";
const WIDEST: &str = "the widest that weights have: with a scale for every channel it keeps the accuracy of most networks";

/// Names, the format that stands nearest, and what speaks for it.
const FLOATS: &[(&[&str], &str, &str)] = &[
    (&["e3m1"], "e2m2", SAME),
    (&["fp6", "e3m2"], "e2m3", SAME),
    (
        &["e2m4", "e3m3", "e4m2"],
        "e2m3",
        "the nearest below its 7 bits, or int8 above",
    ),
    (
        &["e2m5", "e3m4", "e4m3", "e4m3fn", "e5m2", "fp8"],
        "int8",
        SAME,
    ),
    (
        &["bf16", "bfloat16", "fp16", "float16", "half"],
        "int8",
        WIDEST,
    ),
    (&["fp32", "float32", "float", "tf32"], "int8", WIDEST),
];

/// Why a name is no format, where it names floats.
pub(crate) fn reason(name: &str) -> Option<String> {
    let lower = name.to_ascii_lowercase();
    if lower == "fp4" {
        return Some(format!("{name} is called e2m1 here"));
    }
    let (_, instead, why) = FLOATS.iter().find(|f| f.0.contains(&lower.as_str()))?;
    Some(format!(
        "{name} is a floating-point format whose numbers span more than the 8 bits that integer-only code multiplies: only \
         e2m1, e2m2 and e2m3 decode to integers of one scale; use {instead}, {why}"
    ))
}

/// Refuses pins to float formats.
///
/// # Errors
/// A pin names one.
pub(crate) fn refuse(pins: &[Pin]) -> Result<(), Error> {
    for pin in pins {
        let input = |name: &String| {
            let format = Format::from_name(name).filter(|f| f.knee().is_some());
            let only = |f: Format| {
                format!("{f} is for weights only: inputs are unsigned codes of 8 or 4 bits")
            };
            format.map(only).or_else(|| reason(name))
        };
        let weight = pin.weight.iter().find_map(|w| reason(w));
        if let Some(reason) = weight.or_else(|| pin.activation.as_ref().and_then(input)) {
            return Err(Error::Usage(format!(
                "layer '{}' cannot have what it is pinned to: {reason}",
                pin.layer
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_float_has_a_format_of_no_more_bits() {
        for (names, instead, _) in FLOATS {
            let instead = Format::from_name(instead).unwrap();
            for name in *names {
                assert!(Format::from_name(name).is_none());
                let digits: Vec<u32> = name
                    .split(['e', 'm'])
                    .filter_map(|d| d.parse().ok())
                    .collect();
                if let [exponent, mantissa] = digits[..] {
                    assert!(instead.bits() <= 1 + exponent + mantissa, "{name}");
                }
            }
        }
        assert!(reason("E4M3").unwrap().contains("use int8"));
        assert!(reason("int4").is_none() && reason("e9m9").is_none());
    }

    #[test]
    fn pins_of_inputs_are_refused_too() {
        let pin = |weight: &str, activation: &str| Pin {
            layer: "conv1".into(),
            weight: Some(weight.into()),
            activation: Some(activation.into()),
        };
        assert!(refuse(&[pin("int4", "int8")]).is_ok());
        let told = refuse(&[pin("int4", "int8"), pin("int4", "e2m1")]).unwrap_err();
        assert_eq!(told.exit_code(), 2);
        assert!(told.to_string().contains("'conv1'") && told.to_string().contains("8 or 4 bits"));
        assert!(refuse(&[pin("e2m1", "int8")]).is_ok());
    }
}
