//! Deciding and building again until the object itself keeps what was asked for.

use std::cell::Cell;

use lowbit_llvm::Options as EmitOptions;
use lowbit_passes::allocate::Budget as Bound;
use lowbit_passes::allocate::{Infeasible, Least, Limits};
use lowbit_passes::latency::{LatencyTable, network_us};
use lowbit_report::{Budget, Totals};
use lowbit_targets::ResolvedTarget;

use crate::Error;
use crate::compile::{Built, build};
use crate::costs::Sketch;
use crate::decide::{self, Ask, Decision};

/// How often limits are corrected by what the object takes beside the layers' costs.
const CORRECTIONS: usize = 8;

/// Decides and builds; where the object takes more than the layers' costs told, the limits are lowered by the difference and
/// all is done again.
///
/// # Errors
/// No object keeps the budgets.
pub(crate) fn within(
    ask: &Ask,
    target: &ResolvedTarget,
    latencies: &LatencyTable,
) -> Result<Built, Error> {
    let search = Search {
        ask,
        target,
        latencies,
        asked: &ask.options.budget,
        smallest: Cell::new(f64::INFINITY),
    };
    if ask.options.plan.is_some() || ask.options.uniform {
        let built = build(ask, ask.decide(&decide::limits(search.asked))?, target)?;
        // who gives every layer's width asks for no average
        let budget = Budget {
            bits: None,
            ..search.asked.clone()
        };
        check_budget(&budget, &search.found(&built))?;
        return Ok(built);
    }
    search.run()
}

/// What a plan or an object takes, in the units of the flags; 0 where it is not known yet.
#[derive(Clone, Copy, Debug, Default)]
struct Found {
    bits: f64,
    size: f64,
    bops: f64,
    ram: f64,
    object_size: f64,
    latency: f64,
}

impl Found {
    fn of(&self, bound: Bound) -> f64 {
        match bound {
            Bound::Bits => self.bits,
            Bound::Size => self.size,
            Bound::Bops => self.bops,
            Bound::Ram => self.ram,
            Bound::ObjectSize => self.object_size,
            Bound::Latency => self.latency,
        }
    }
}

/// Budgets that objects can exceed though their layers' costs do not.
const CORRECTED: [Bound; 4] = [Bound::Size, Bound::ObjectSize, Bound::Ram, Bound::Latency];

/// Sums of the same numbers in another order differ by less than this share.
const ROUNDING: f64 = 1e-9;

struct Search<'a> {
    ask: &'a Ask<'a>,
    target: &'a ResolvedTarget,
    latencies: &'a LatencyTable,
    asked: &'a Budget,
    /// Bytes of the smallest object that was built.
    smallest: Cell<f64>,
}

impl Search<'_> {
    fn run(&self) -> Result<Built, Error> {
        let mut limits = decide::limits(self.asked);
        let mut last = None;
        let mut open = CORRECTED.to_vec();
        for _ in 0..CORRECTIONS {
            let decision = match self.ask.decide(&limits) {
                Err(Error::Infeasible(found)) => match self.floor(&found.least, &limits, &open) {
                    Some((bound, least)) => {
                        limits = limits.with(bound, Some(least));
                        open.retain(|&b| b != bound);
                        continue;
                    }
                    None if found.least.is_empty() => return Err(Error::Infeasible(found)),
                    None => return Err(self.infeasible(found.least, &limits)?),
                },
                decided => decided?,
            };
            let totals = decision.totals();
            let sketched = self.sketch(&decision)?;
            let built = match sketched.filter(|f| self.exceeded(f)) {
                Some(found) => Err(found),
                None => {
                    let built = build(self.ask, decision, self.target)?;
                    let found = self.found(&built);
                    self.smallest
                        .set(self.smallest.get().min(found.object_size));
                    if check_budget(self.asked, &found).is_ok() {
                        Ok(built)
                    } else {
                        Err(found)
                    }
                }
            };
            let found = match built {
                Ok(built) => return Ok(built),
                Err(found) => found,
            };
            last = Some(found);
            let lower = |bound: Bound, limit: f64| {
                let asked = decide::limits(self.asked).of(bound)?;
                let over = found.of(bound) - asked;
                let planned = totals.get(bound.total()).copied().unwrap_or(f64::INFINITY);
                let planned = planned / if bound == Bound::Latency { 1000.0 } else { 1.0 };
                (over > 0.0).then(|| limit.min(planned) - over)
            };
            for bound in CORRECTED {
                let limit = limits.of(bound);
                let new = limit.and_then(|l| lower(bound, l)).or(limit);
                limits = limits.with(bound, new);
            }
        }
        check_budget(self.asked, &last.unwrap_or_default())?;
        Err(Error::Infeasible(
            "the budget cannot be met: no plan that was tried keeps all budgets together; loosen one of them a little"
                .to_string()
                .into(),
        ))
    }

    /// A budget whose limit was lowered beneath the least that a plan can have, which is within what was asked for; one of
    /// those that are `open`.
    fn floor(&self, least: &[Least], limits: &Limits, open: &[Bound]) -> Option<(Bound, f64)> {
        let asked = decide::limits(self.asked);
        least.iter().find_map(|l| {
            let (value, limit) = (l.with_others?, limits.of(l.budget)?);
            let may = open.contains(&l.budget) && limit < value && value <= asked.of(l.budget)?;
            may.then_some((l.budget, value))
        })
    }

    /// What is known of a plan before it is fitted and emitted.
    fn sketch(&self, decision: &Decision) -> Result<Option<Found>, Error> {
        if self.ask.costs.is_none() {
            return Ok(None);
        }
        let formats = decide::formats(&decision.plan);
        let sketch = Sketch::new(self.ask.quantizer, &formats, self.target)?;
        let (quantized, lowered) = (&sketch.quantized, &sketch.lowered);
        let time = network_us(
            quantized,
            lowered,
            sketch.resident(),
            self.target,
            self.latencies,
        );
        Ok(Some(Found {
            size: lowered.program.consts.len() as f64,
            ram: lowered.program.arena_bytes as f64,
            latency: time.total_us() / 1000.0,
            ..Found::default()
        }))
    }

    fn exceeded(&self, found: &Found) -> bool {
        check_budget(self.asked, found).is_err()
    }

    fn found(&self, built: &Built) -> Found {
        let t: &Totals = &built.report.totals;
        Found {
            bits: t.avg_weight_bits,
            size: t.weight_bytes as f64,
            bops: t.bops,
            ram: t.arena_bytes as f64,
            object_size: t.object_bytes as f64,
            latency: built.latency_us(self.target, self.latencies) / 1000.0,
        }
    }

    /// Says what could be had, in terms of the object: what the plan takes that needs least; where that is not known, least
    /// values rise by as much as limits were lowered.
    fn infeasible(&self, least: Vec<Least>, limits: &Limits) -> Result<Error, Error> {
        let asked = decide::limits(self.asked);
        let mut all = Vec::new();
        for mut l in least {
            let Some(wanted) = asked.of(l.budget) else {
                continue;
            };
            if l.budget == Bound::Bits && wanted >= 8.0 {
                // nobody asked for fewer
                continue;
            }
            let shift = wanted - limits.of(l.budget).unwrap_or(wanted);
            l.asked = wanted;
            let real = |least: f64, others: &Limits| -> Result<f64, Error> {
                let found = self.taken(l.budget, &others.with(l.budget, Some(least)))?;
                Ok(found.map_or(least + shift, |found| found.max(least)))
            };
            l.alone = real(l.alone, &Limits::default())?;
            l.with_others = l.with_others.map(|w| real(w, limits)).transpose()?;
            all.push(l);
        }
        let told = Infeasible { least: all };
        Ok(Error::Infeasible(crate::error::Infeasible {
            message: told.to_string(),
            least: told.least,
        }))
    }

    /// Bytes that the object of the best plan within limits takes, where there is such a plan and bytes are asked for.
    fn taken(&self, bound: Bound, limits: &Limits) -> Result<Option<f64>, Error> {
        if self.ask.costs.is_none()
            || !matches!(bound, Bound::Size | Bound::Ram | Bound::ObjectSize)
        {
            return Ok(None);
        }
        let plan = match self.ask.quick(limits) {
            Err(Error::Infeasible(_)) => return Ok(None),
            found => found?,
        };
        let sketch = Sketch::new(self.ask.quantizer, &decide::formats(&plan), self.target)?;
        let program = &sketch.lowered.program;
        Ok(Some(match bound {
            Bound::Size => program.consts.len() as f64,
            Bound::Ram => program.arena_bytes as f64,
            _ => {
                let emitted = lowbit_llvm::emit(program, self.target, &EmitOptions::default())?;
                self.smallest.get().min(emitted.object.len() as f64)
            }
        }))
    }
}

fn check_budget(budget: &Budget, found: &Found) -> Result<(), Error> {
    let limits = decide::limits(budget);
    let broken: Vec<String> = limits
        .given()
        .filter(|(bound, limit)| found.of(*bound) > *limit * (1.0 + ROUNDING))
        .map(|(bound, limit)| {
            let least = bound.least(found.of(bound));
            format!("{bound} {limit} was asked for, {least} is the smallest that can be had")
        })
        .collect();
    if broken.is_empty() {
        return Ok(());
    }
    let message = format!("the budget cannot be met: {}", broken.join("; "));
    Err(Error::Infeasible(message.into()))
}
