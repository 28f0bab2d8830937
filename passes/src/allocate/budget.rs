use std::fmt;

use lowbit_num::Format;
use lowbit_report::{MemoryStep, SensitiveChoice, SensitiveLayer, Sensitivity};
use serde::{Serialize, Serializer};

/// A cost that can be bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Budget {
    /// Average bits of a weight.
    Bits,
    /// Bytes of weights and constants.
    Size,
    /// Bit operations.
    Bops,
    /// Milliseconds of one inference.
    Latency,
    /// Bytes of the object.
    ObjectSize,
    /// Bytes of the arena: a limit of every step of the schedule.
    Ram,
}

impl Budget {
    /// Every budget.
    pub const ALL: &'static [Self] = &[
        Self::Bits,
        Self::Size,
        Self::Bops,
        Self::Latency,
        Self::ObjectSize,
        Self::Ram,
    ];

    /// The flag of the command line.
    pub fn flag(self) -> &'static str {
        match self {
            Self::Bits => "--bits",
            Self::Size => "--size",
            Self::Bops => "--bops",
            Self::Latency => "--latency",
            Self::ObjectSize => "--object-size",
            Self::Ram => "--ram",
        }
    }

    /// The flag's name as a key.
    pub fn name(self) -> String {
        self.flag()[2..].replace('-', "_")
    }

    /// The field of a choice, or of a layer, that tells the cost.
    pub(crate) fn field(self) -> &'static str {
        match self {
            Self::Bits => "params",
            Self::Size => "weight_bytes",
            Self::Bops => "bops",
            Self::Latency => "latency_us",
            Self::ObjectSize => "object_bytes",
            Self::Ram => "step_bytes",
        }
    }

    /// The name of the total that a budget bounds.
    pub fn total(self) -> &'static str {
        match self {
            Self::Bits => "avg_weight_bits",
            Self::Ram => "arena_bytes",
            other => other.field(),
        }
    }

    /// What a choice costs: weights × bits, bytes, operations or microseconds. `None` where the table does not tell, and for
    /// memory, which is no sum over the layers.
    pub fn cost(self, layer: &SensitiveLayer, choice: &SensitiveChoice) -> Option<f64> {
        match self {
            Self::Bits => Some(layer.params? * f64::from(weight_bits(&choice.weight)?)),
            Self::Size => choice.weight_bytes,
            Self::Bops => choice.bops,
            Self::Latency => choice.latency_us,
            Self::ObjectSize => choice.object_bytes,
            Self::Ram => None,
        }
    }

    /// What every plan costs beside its layers.
    pub fn fixed(self, table: &Sensitivity) -> f64 {
        match self {
            Self::Size => table.fixed.weight_bytes,
            Self::Latency => table.fixed.latency_us,
            Self::ObjectSize => table.fixed.object_bytes,
            Self::Bits | Self::Bops | Self::Ram => 0.0,
        }
    }

    /// What the flag counts.
    pub fn unit_name(self) -> &'static str {
        match self {
            Self::Bits => "bits",
            Self::Bops => "bit operations",
            Self::Latency => "ms",
            Self::Size | Self::ObjectSize | Self::Ram => "bytes",
        }
    }

    /// A least value in units of the flag, with few enough digits to be typed: rounded up, so that it can be had.
    pub fn least(self, value: f64) -> String {
        let parts = match self {
            Self::Bits | Self::Latency => 1e4,
            Self::Size | Self::Bops | Self::ObjectSize | Self::Ram => 1.0,
        };
        let value = (value * parts * (1.0 - ROUNDING)).ceil() / parts;
        format!("{value} {}", self.unit_name())
    }

    /// How many units of cost make one unit of the flag: all weights for `--bits`, 1000 microseconds for `--latency`.
    pub fn unit(self, layers: &[SensitiveLayer]) -> f64 {
        match self {
            Self::Bits => layers.iter().filter_map(|l| l.params).sum(),
            Self::Latency => 1000.0,
            Self::Size | Self::Bops | Self::ObjectSize | Self::Ram => 1.0,
        }
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.flag())
    }
}

impl Serialize for Budget {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.name())
    }
}

/// Nominal bits of a weight format; formats that people name themselves may be `int` and a number.
pub fn weight_bits(name: &str) -> Option<u32> {
    let own = || name.strip_prefix("int")?.parse().ok();
    Format::from_name(name).map_or_else(own, |f| Some(f.bits()))
}

/// Limits of the costs, in the units of the flags; `None` where there is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// Average bits of a weight.
    pub bits: Option<f64>,
    /// Bytes of weights and constants.
    pub size: Option<f64>,
    /// Bit operations.
    pub bops: Option<f64>,
    /// Milliseconds of one inference.
    pub latency: Option<f64>,
    /// Bytes of the object.
    pub object_size: Option<f64>,
    /// Bytes of the arena.
    pub ram: Option<f64>,
}

/// A sum of floats may exceed its true value by this share of it: thousands of roundings.
const ROUNDING: f64 = 1e-12;

impl Limits {
    /// The limit of a budget.
    pub fn of(&self, budget: Budget) -> Option<f64> {
        match budget {
            Budget::Bits => self.bits,
            Budget::Size => self.size,
            Budget::Bops => self.bops,
            Budget::Latency => self.latency,
            Budget::ObjectSize => self.object_size,
            Budget::Ram => self.ram,
        }
    }

    /// The limits with one of them replaced.
    pub fn with(self, budget: Budget, limit: Option<f64>) -> Self {
        let mut new = self;
        *match budget {
            Budget::Bits => &mut new.bits,
            Budget::Size => &mut new.size,
            Budget::Bops => &mut new.bops,
            Budget::Latency => &mut new.latency,
            Budget::ObjectSize => &mut new.object_size,
            Budget::Ram => &mut new.ram,
        } = limit;
        new
    }

    /// The budgets that are given.
    pub fn given(&self) -> impl Iterator<Item = (Budget, f64)> + '_ {
        Budget::ALL.iter().filter_map(|&b| Some((b, self.of(b)?)))
    }
}

/// Bytes that a choice adds to what lives during a step.
pub fn step_bytes(step: &MemoryStep, choice: &SensitiveChoice) -> f64 {
    choice.step_bytes.get(&step.name).copied().unwrap_or(0.0)
}

/// Whether a sum of costs keeps its limit.
pub(crate) fn within(sum: f64, limit: f64) -> bool {
    sum <= slackened(limit)
}

/// The largest sum of costs that keeps a limit.
pub(crate) fn slackened(limit: f64) -> f64 {
    limit + ROUNDING * limit.abs()
}
