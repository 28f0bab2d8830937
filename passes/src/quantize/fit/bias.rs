use super::moments::Moments;

/// Mean of each channel of a layer before its bias, in steps of the accumulator: `Σ w · (x̄ − zero_point)`.
///
/// Rounding weights shifts the mean of every channel; a layer is given the mean that the float network has, on the same
/// samples and with all layers before it corrected already (Nagel et al. 2019, measured instead of derived).
pub(crate) fn means(moments: &Moments, codes: &[i8], groups: usize, zero_point: i32) -> Vec<f64> {
    let (k, per_group) = (moments.size(), codes.len() / moments.size() / groups);
    (0..groups)
        .flat_map(|g| {
            let mean = moments.mean(g);
            let rows = codes[g * per_group * k..][..per_group * k].chunks_exact(k);
            let channel = move |row: &[i8]| -> f64 {
                let terms = row.iter().zip(&mean);
                terms
                    .map(|(&q, x)| f64::from(q) * (x - f64::from(zero_point)))
                    .sum()
            };
            rows.map(channel).collect::<Vec<f64>>()
        })
        .collect()
}
