//! Numbers and shapes as flags take them.

/// A number with an optional suffix K, M or G, powers of 1000.
pub(crate) fn scaled(text: &str) -> Result<f64, String> {
    let (digits, factor) = match text.chars().last() {
        Some('K' | 'k') => (&text[..text.len() - 1], 1e3),
        Some('M' | 'm') => (&text[..text.len() - 1], 1e6),
        Some('G' | 'g') => (&text[..text.len() - 1], 1e9),
        _ => (text, 1.0),
    };
    let number: f64 = digits
        .parse()
        .map_err(|_| format!("'{text}' is no number such as 250K or 1.5M"))?;
    if number.is_finite() && number >= 0.0 {
        Ok(number * factor)
    } else {
        Err(format!("'{text}' is out of range"))
    }
}

/// `1x3x224x224`, or `NAME=1x3x224x224`.
pub(crate) fn shape(text: &str) -> Result<(String, Vec<usize>), String> {
    let (name, dims) = text.rsplit_once('=').unwrap_or(("", text));
    let dims: Result<Vec<usize>, _> = dims.split(['x', ',']).map(str::parse).collect();
    match dims {
        Ok(dims) if dims.iter().all(|&d| d > 0) => Ok((name.into(), dims)),
        _ => Err(format!(
            "'{text}' is no shape such as 1x3x224x224 or input=1x3x224x224"
        )),
    }
}

/// At least one.
pub(crate) fn threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..=1024) => Ok(n),
        _ => Err(format!("'{text}' is no number from 1 to 1024")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_are_powers_of_1000() {
        assert_eq!(scaled("1.5M"), Ok(1_500_000.0));
        assert_eq!(scaled("250K"), Ok(250_000.0));
        assert!(scaled("ten").is_err() && scaled("-1").is_err());
    }

    #[test]
    fn shapes_may_be_named() {
        assert_eq!(shape("x=1x3"), Ok(("x".into(), vec![1, 3])));
        assert_eq!(shape("4"), Ok((String::new(), vec![4])));
        assert!(shape("1x0").is_err());
    }
}
