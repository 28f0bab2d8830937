//! The plan of the integer program beside one width for all layers and beside what a search found, on samples that none
//! of them is fitted on.

use lowbit_passes::allocate::{Allocation, Limits, Pin, allocate};
use lowbit_passes::quantize::Formats;
use lowbit_passes::sensitivity::Layer;
use lowbit_report::{Plan, PlannedLayer, Sensitivity, Tried};

use super::{Ask, Chosen, Decision, formats, remembered};
use crate::fit::judged::{mean, standard_error};
use crate::plan::{plan, short};
use crate::{Error, Progress, Silent, polish};

/// Of two plans of one width, with and without those layers at 8 bits, one that is predicted to lose so many times as much
/// is not fitted to be measured.
const FAR: f64 = 3.0;
/// Budgets of bits whose single widths are measured before they are asked for, where fits take seconds.
const AHEAD: [f64; 7] = [6.0, 5.5, 5.0, 4.5, 4.0, 3.5, 3.0];

/// The name of the plan of the integer program.
pub(crate) const MIXED: &str = "mixed";
/// The name of the plan that a search found.
pub(crate) const SEARCH: &str = "search";

/// What is compared with the plan of the integer program.
struct Rival {
    plan: Plan,
    chosen: Chosen,
    /// `search`, or a width.
    name: String,
}

impl Rival {
    fn new(found: Allocation, name: &str, from: Chosen) -> Self {
        Self {
            plan: plan(&from.table, &found, &[], &|_| None),
            chosen: Chosen {
                choice: found.choice,
                ..from
            },
            name: name.into(),
        }
    }
}

/// A plan with what it loses by sample, and its place among those that were tried.
struct Compared {
    decision: Decision,
    lost: Vec<f64>,
    at: usize,
}

impl Compared {
    fn mean(&self) -> f64 {
        mean(&self.lost)
    }
}

impl Ask<'_> {
    /// What the network loses at formats on samples that it is not fitted on, without training.
    ///
    /// # Errors
    /// It cannot be quantised or run.
    pub(crate) fn loss(&self, formats: &Formats) -> Result<f64, Error> {
        Ok(mean(&self.lost(formats)?))
    }

    /// The same by sample.
    fn lost(&self, formats: &Formats) -> Result<Vec<f64>, Error> {
        let quiet: &dyn Progress = if self.options.search.is_some() {
            &Silent
        } else {
            self.progress
        };
        remembered(&self.losses, formats, || {
            self.quantizer.judged(formats, quiet)
        })
    }

    /// The plan of the integer program, or what loses less.
    ///
    /// # Errors
    /// No plan keeps the limits.
    pub(super) fn allocated(
        &self,
        layers: &[Layer],
        limits: &Limits,
        defaults: &[Pin],
    ) -> Result<Decision, Error> {
        let mixed = self.mixed(limits)?;
        let from = mixed.measured.clone().expect("the program has a table");
        let mut rivals = self.widths(&from, layers, limits, defaults)?;
        rivals.retain(|r| formats(&r.plan) != formats(&mixed.plan));
        if let Some(plans) = self.options.search {
            let found = self.searched(limits, plans)?;
            rivals.push(Rival::new(found, SEARCH, from.clone()));
        }
        if self.quantizer.is_slow()? {
            self.ahead(&from, layers, defaults)?;
        }
        self.better(mixed, rivals)
    }

    /// Measures single widths that other budgets will be held against.
    fn ahead(&self, from: &Chosen, layers: &[Layer], defaults: &[Pin]) -> Result<(), Error> {
        for (done, bits) in AHEAD.into_iter().enumerate() {
            self.progress.step("single widths", done, AHEAD.len());
            let limits = Limits {
                bits: Some(bits),
                ..Limits::default()
            };
            for rival in self.widths(from, layers, &limits, defaults)? {
                self.lost(&formats(&rival.plan))?;
            }
        }
        Ok(())
    }

    /// The widest single width within limits, with and without 8 bits in a small first and last layer.
    fn widths(
        &self,
        from: &Chosen,
        layers: &[Layer],
        limits: &Limits,
        defaults: &[Pin],
    ) -> Result<Vec<Rival>, Error> {
        let own = &self.options.pins;
        let pinned: Vec<Pin> = own.iter().chain(defaults).cloned().collect();
        // one width for all may keep a budget of time though it slows some layers down
        let all = Chosen {
            table: self.tied(self.table_of(self.sensitivities()?.clone(), limits, defaults))?,
            ..from.clone()
        };
        let widths = [&pinned, own].map(|pins| widest(&all.table, layers, limits, pins));
        let widths = || widths.iter().flatten();
        let least = widths().map(|w| w.0.objective);
        let far = FAR * least.fold(f64::INFINITY, f64::min);
        let near = widths().filter(|w| w.0.objective <= far);
        let rivals = near.map(|(found, width)| Rival::new(found.clone(), width, all.clone()));
        let mut rivals: Vec<Rival> = rivals.collect();
        rivals.dedup_by(|a, b| formats(&a.plan) == formats(&b.plan));
        Ok(rivals)
    }

    /// The mixed plan or what a search made of it where they lose less than one width for all, by more than a standard error
    /// of the paired difference, on samples that none of them is fitted on.
    fn better(&self, mixed: Decision, rivals: Vec<Rival>) -> Result<Decision, Error> {
        if rivals.is_empty() {
            return Ok(mixed);
        }
        let lost = self.lost(&formats(&mixed.plan))?;
        if lost.is_empty() {
            self.progress
                .note("plans are not compared: one calibration sample leaves none to judge on");
            return Ok(mixed);
        }
        let least = mean(&lost);
        let mut all = vec![tried_plan(MIXED, least, &mixed.plan)];
        let program = mixed.plan.clone();
        let mut best = Compared {
            decision: mixed,
            lost,
            at: 0,
        };
        let mut plain: Option<Compared> = None;
        for rival in rivals {
            let lost = self.lost(&formats(&rival.plan))?;
            all.push(tried_plan(&rival.name, mean(&lost), &rival.plan));
            let mut decision = Decision {
                plan: rival.plan,
                measured: Some(rival.chosen),
                tried: Vec::new(),
            };
            let losses = [mean(&lost), least];
            let searched = rival.name == SEARCH;
            if searched {
                polish::explain(&mut decision.plan, &program, losses);
            } else {
                self.one_width(&mut decision.plan, &rival.name, losses);
            }
            let new = Compared {
                decision,
                lost,
                at: all.len() - 1,
            };
            match &plain {
                _ if searched && new.mean() < best.mean() => best = new,
                _ if searched => {}
                Some(known) if known.mean() <= new.mean() => {}
                _ => plain = Some(new),
            }
        }
        if let Some(plain) = plain {
            let margin = standard_error(&best.lost, &plain.lost);
            if best.mean() + margin > plain.mean() {
                if best.mean() < plain.mean() {
                    let name = &all[plain.at].plan;
                    let margin = short(margin);
                    self.progress.note(&format!(
                        "{name} is taken: what the mixed plan loses less is within its standard error, {margin}"
                    ));
                }
                best = plain;
            }
        }
        all[best.at].returned = true;
        best.decision.tried = all;
        Ok(best.decision)
    }

    /// Tells what one width for all layers loses, and gives the layers their reason.
    fn one_width(&self, uniform: &mut Plan, width: &str, [loss, least]: [f64; 2]) {
        let other = uniform.layers.iter().filter(|l| l.weight != width);
        let place = match other
            .map(|l| l.name.as_str())
            .collect::<Vec<_>>()
            .join(", ")
        {
            none if none.is_empty() => "everywhere".to_owned(),
            pinned => format!("but for {pinned}"),
        };
        self.progress.note(&format!(
            "on held-out samples the mixed plan loses {}, {width} {place} {}",
            short(least),
            short(loss)
        ));
        for l in &mut uniform.layers {
            l.why = format!(
                "one width for all: on held-out samples it loses {}, the mixed plan {}{}",
                short(loss),
                short(least),
                if least < loss {
                    ", within the standard error of the difference"
                } else {
                    ""
                }
            );
        }
    }

    /// The plan that a search around a decision finds: the decision's own where none is measured to lose less.
    ///
    /// # Errors
    /// As [`Ask::decide`].
    pub(crate) fn polished(
        &self,
        mixed: &Decision,
        limits: &Limits,
        plans: usize,
    ) -> Result<Decision, Error> {
        let from = mixed.measured.clone().expect("the program has a table");
        let rival = Rival::new(self.searched(limits, plans)?, SEARCH, from);
        let start = Decision {
            plan: mixed.plan.clone(),
            measured: mixed.measured.clone(),
            tried: Vec::new(),
        };
        self.better(start, vec![rival])
    }
}

/// The plan with the widest single width that keeps the limits, pins aside, and the name of the width.
fn widest(
    table: &Sensitivity,
    layers: &[Layer],
    limits: &Limits,
    pins: &[Pin],
) -> Option<(Allocation, String)> {
    let widths = [8, 6, 5, 4, 3, 2].map(|b| format!("int{b}"));
    widths.into_iter().find_map(|width| {
        let rest = layers
            .iter()
            .filter(|l| !pins.iter().any(|p| p.layer == l.name && p.weight.is_some()));
        let rest = rest.map(|l| Pin {
            layer: l.name.clone(),
            weight: Some(width.clone()),
            activation: None,
        });
        let pins: Vec<Pin> = pins.iter().cloned().chain(rest).collect();
        Some((allocate(table, limits, &pins).ok()?, width))
    })
}

/// What was measured of a plan.
pub(crate) fn tried_plan(name: &str, loss: f64, plan: &Plan) -> Tried {
    let of = |format: fn(&PlannedLayer) -> &String| plan.layers.iter().map(format).cloned();
    Tried {
        plan: name.into(),
        loss,
        formats: of(|l| &l.weight).collect(),
        activations: of(|l| &l.activation).collect(),
        ..Tried::default()
    }
}
