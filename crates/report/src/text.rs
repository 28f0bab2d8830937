//! Numbers as people read them.

/// Bytes in the largest power of 1000 that fits.
pub fn bytes(n: f64) -> String {
    scaled(n, &[(1e6, "MB"), (1e3, "kB")], "B")
}

/// A count with a suffix.
pub fn count(n: f64) -> String {
    scaled(n, &[(1e9, "G"), (1e6, "M"), (1e3, "k")], "")
        .trim_end()
        .into()
}

/// A duration of so many microseconds.
pub fn micros(us: f64) -> String {
    scaled(us * 1e3, &[(1e9, "s"), (1e6, "ms"), (1e3, "µs")], "ns")
}

/// A share as a percentage.
pub fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

/// Three significant digits without trailing zeros.
pub fn significant(x: f64) -> String {
    if x == 0.0 || !x.is_finite() {
        return if x == 0.0 { "0".into() } else { "–".into() };
    }
    let magnitude = x.abs().log10().floor() as i32;
    if !(-4..6).contains(&magnitude) {
        return format!("{x:.2e}").replace('-', "−");
    }
    let text = format!("{x:.*}", (2 - magnitude).max(0) as usize);
    let short = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    short.replace('-', "−")
}

/// `conv1`, `conv1 and conv2`, `conv1, conv2 and 3 more`.
pub fn list(names: &[impl AsRef<str>], most: usize) -> String {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    match names.as_slice() {
        [] => String::new(),
        [one] => (*one).into(),
        _ if names.len() <= most => {
            let (last, rest) = names.split_last().expect("there are two");
            format!("{} and {last}", rest.join(", "))
        }
        _ => format!(
            "{} and {} more",
            names[..most].join(", "),
            names.len() - most
        ),
    }
}

/// A name of the model, short enough for a line: the first of several joined ones, and of a long path its end, from a
/// whole part on where that leaves half a line.
pub fn name(full: &str) -> String {
    let first = full.split(';').next().unwrap_or(full);
    let length = first.chars().count();
    if length <= LONGEST_NAME {
        return first.into();
    }
    let tail: String = first.chars().skip(length + 1 - LONGEST_NAME).collect();
    let whole = tail.split_once('/').map(|(_, end)| end);
    let end = whole.filter(|end| end.chars().count() >= LONGEST_NAME / 2);
    format!("…{}", end.unwrap_or(&tail))
}

const LONGEST_NAME: usize = 40;

fn scaled(x: f64, units: &[(f64, &str)], least: &str) -> String {
    let found = units.iter().find(|(size, _)| x.abs() >= *size);
    let (size, unit) = found.copied().unwrap_or((1.0, least));
    let x = x / size;
    let digits = match x.abs() {
        _ if x == x.trunc() && size == 1.0 => 0,
        0.0..10.0 => 2,
        10.0..100.0 => 1,
        _ => 0,
    };
    format!("{x:.digits$} {unit}").replace('-', "−")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits() {
        assert_eq!(bytes(946.0), "946 B");
        assert_eq!(bytes(157_312.0), "157 kB");
        assert_eq!(bytes(3_538_984.0), "3.54 MB");
        assert_eq!(count(40_600_000.0), "40.6 M");
        assert_eq!(micros(931.24), "931 µs");
        assert_eq!(micros(12_345.0), "12.3 ms");
        assert_eq!(significant(0.013_49), "0.0135");
        assert_eq!(significant(-0.25), "−0.25");
        assert_eq!(significant(1_200.0), "1200");
        assert_eq!(significant(3.2e-7), "3.20e−7");
    }

    #[test]
    fn names_fit_a_line() {
        assert_eq!(name("conv1"), "conv1");
        assert_eq!(
            name("model/conv2d/Relu;model/conv2d/BiasAdd"),
            "model/conv2d/Relu"
        );
        let long = "MobilenetV2/expanded_conv_10/depthwise/BatchNorm/FusedBatchNorm";
        assert_eq!(name(long), "…depthwise/BatchNorm/FusedBatchNorm");
        let long = "Call/functional_1/batch_normalization_1/FusedBatchNormV3:0";
        assert_eq!(name(long), "…atch_normalization_1/FusedBatchNormV3:0");
        assert!(name(&"x".repeat(90)).chars().count() <= 40);
    }

    #[test]
    fn long_lists_are_cut() {
        assert_eq!(list(&["a", "b"], 3), "a and b");
        assert_eq!(list(&["a", "b", "c", "d"], 2), "a, b and 2 more");
    }
}
