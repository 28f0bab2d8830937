/// Adam (Kingma and Ba 2014) over parameters, each with a rate of its own.
pub(crate) struct Adam {
    first: Vec<f64>,
    second: Vec<f64>,
    step: i32,
}

const BETA: [f64; 2] = [0.9, 0.99];

impl Adam {
    pub(crate) fn new(n: usize) -> Self {
        Self {
            first: vec![0.0; n],
            second: vec![0.0; n],
            step: 0,
        }
    }

    /// Moves parameters against their gradient by about `rate` of each.
    pub(crate) fn step(&mut self, x: &mut [f64], gradient: &[f64], rate: impl Fn(usize) -> f64) {
        self.step += 1;
        let bias = BETA.map(|b| 1.0 - libm::pow(b, self.step.into()));
        for (i, (x, &g)) in x.iter_mut().zip(gradient).enumerate() {
            let (m, v) = (&mut self.first[i], &mut self.second[i]);
            *m += (1.0 - BETA[0]) * (g - *m);
            *v += (1.0 - BETA[1]) * (g * g - *v);
            *x -= rate(i) * (*m / bias[0]) / ((*v / bias[1]).sqrt() + 1e-12);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_finds_the_bottom_of_a_bowl() {
        let mut x = vec![3.0, -2.0];
        let mut adam = Adam::new(2);
        for t in 0..2000 {
            let gradient = [2.0 * (x[0] - 1.0), 200.0 * (x[1] - 0.5)];
            adam.step(&mut x, &gradient, |_| 0.02 * (1.0 - f64::from(t) / 2000.0));
        }
        assert!(
            (x[0] - 1.0).abs() < 1e-2 && (x[1] - 0.5).abs() < 1e-2,
            "{x:?}"
        );
    }
}
