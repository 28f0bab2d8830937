use core::f64::consts::{FRAC_PI_2, PI};

/// What stands for the derivative of rounding, which is zero almost everywhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Estimator {
    /// The identity (Bengio et al. 2013).
    #[default]
    Straight,
    /// A power function around each threshold that sharpens as training goes on (ReSTE, Wu et al. 2023).
    Power,
    /// A half-wave around each threshold (BiPer, Vargas et al. 2024).
    Periodic,
}

/// The exponent that [`Estimator::Power`] ends at.
const SHARPEST: f64 = 3.0;
/// Distance within which [`Estimator::Power`] takes the secant.
const NEAR: f64 = 0.1;

impl Estimator {
    /// Every estimator.
    pub const ALL: &'static [Self] = &[Self::Straight, Self::Power, Self::Periodic];

    /// The name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Straight => "ste",
            Self::Power => "reste",
            Self::Periodic => "biper",
        }
    }

    /// The estimator with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|e| e.name() == name)
    }

    /// Derivative of the code by a weight whose distance from the nearest threshold is `distance` steps, −½…½, after
    /// the share `done` of the training.
    pub fn slope(self, distance: f64, done: f64) -> f64 {
        match self {
            Self::Straight => 1.0,
            Self::Power => {
                let o = 1.0 + (SHARPEST - 1.0) * (1.0 - libm::cos(FRAC_PI_2 * done));
                let x = (2.0 * distance).abs();
                if x < NEAR {
                    libm::pow(NEAR, 1.0 / o) / NEAR
                } else {
                    libm::pow(x, (1.0 - o) / o) / o
                }
            }
            Self::Periodic => FRAC_PI_2 * libm::cos(PI * distance),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_up_is_one_code() {
        // the slopes between two codes add up to about the one code that lies between them
        for &estimator in Estimator::ALL {
            for done in [0.0, 0.5, 1.0] {
                let n = 10_000;
                let at = |i: i32| (f64::from(i) + 0.5) / f64::from(n) - 0.5;
                let sum: f64 = (0..n).map(|i| estimator.slope(at(i), done)).sum();
                assert!(
                    (sum / f64::from(n) - 1.0).abs() < 0.02,
                    "{} {done} {sum}",
                    estimator.name()
                );
            }
        }
    }
}
