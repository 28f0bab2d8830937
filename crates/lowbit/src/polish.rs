//! `--search`: plans around the integer program's, by what the quantised network is measured to lose.

use std::cell::Cell;

use lowbit_passes::allocate::{
    Allocation, Limits, Pin, Problem, Refusal, Scored, Search, check, search, swaps, totals,
};
use lowbit_passes::quantize::Formats;
use lowbit_report::{Plan, PlannedLayer, Sensitivity};

use crate::Error;
use crate::decide::{Ask, formats};
use crate::plan::short;

impl Ask<'_> {
    /// The plan that is measured to lose least of the integer program's and of those that two searches from it come to: half
    /// of `plans` by swaps, and half by a policy gradient.
    ///
    /// # Errors
    /// No plan keeps the limits, or a network cannot be run.
    pub(crate) fn searched(&self, limits: &Limits, plans: usize) -> Result<Allocation, Error> {
        let program = self.program(limits)?;
        let (table, pins) = (&program.table, &program.pins);
        let problem = Problem::new(table, limits, pins).map_err(Refusal::from)?;
        let start = Scored {
            score: self.loss(&formats_of(table, &program.found.choice))?,
            choice: program.found.choice.clone(),
        };
        let scored = Cell::new(0);
        let mut measure = |choice: &[usize]| {
            self.progress.step("search", scored.get(), plans);
            scored.set(scored.get() + 1);
            self.loss(&formats_of(table, choice))
        };
        let swapped = swaps(&problem, start.clone(), plans.div_ceil(2), &mut measure)?;
        let how = Search {
            evaluations: plans - scored.get(),
            seed: self.options.seed,
        };
        let sampled = search(&problem, start.clone(), how, &mut measure)?;
        let best = if sampled.score < swapped.score {
            sampled
        } else {
            swapped
        };
        self.progress.note(&format!(
            "search: of {} plans the best loses {} on held-out samples, the integer program's {}",
            scored.get(),
            short(best.score),
            short(start.score)
        ));
        Ok(moved(table, limits, pins, &program.found, best.choice))
    }
}

/// An allocation with other choices, which must keep what the first keeps.
fn moved(
    table: &Sensitivity,
    limits: &Limits,
    pins: &[Pin],
    from: &Allocation,
    choice: Vec<usize>,
) -> Allocation {
    let each = table.layers.iter().zip(&choice);
    let found = Allocation {
        objective: each.map(|(l, &c)| l.choices[c].loss).sum(),
        totals: totals(table, &choice),
        choice,
        ..from.clone()
    };
    if let Err(breach) = check(table, limits, pins, &found) {
        panic!("the plan of the search is wrong: {breach}");
    }
    found
}

/// The formats of choices.
fn formats_of(table: &Sensitivity, choice: &[usize]) -> Formats {
    let each = table.layers.iter().zip(choice);
    let layer = each.map(|(l, &c)| PlannedLayer {
        name: l.name.clone(),
        weight: l.choices[c].weight.clone(),
        activation: l.choices[c].activation.clone(),
        why: String::new(),
    });
    formats(&Plan {
        layers: layer.collect(),
    })
}

/// Gives each layer of a plan that the search moved its reason.
pub(crate) fn explain(plan: &mut Plan, program: &Plan, [loss, least]: [f64; 2]) {
    for l in &mut plan.layers {
        let own = program.layers.iter().find(|p| p.name == l.name);
        match own.filter(|p| p.weight == l.weight && p.activation == l.activation) {
            Some(same) => l.why.clone_from(&same.why),
            None => {
                let before = own.map_or("", |p| p.weight.as_str());
                l.why = format!(
                    "{} in place of {before}: the search measured a loss of {} on held-out samples, the integer program's plan {}",
                    l.weight,
                    short(loss),
                    short(least)
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(weights: [&str; 2]) -> Plan {
        let layer = |(i, w): (usize, &&str)| PlannedLayer {
            name: format!("l{i}"),
            weight: w.to_string(),
            activation: "int8".into(),
            why: "by price".into(),
        };
        Plan {
            layers: weights.iter().enumerate().map(layer).collect(),
        }
    }

    #[test]
    fn layers_that_moved_say_so_and_others_keep_their_reason() {
        let mut found = plan(["int4", "int3"]);
        explain(&mut found, &plan(["int4", "int8"]), [0.01, 0.02]);
        assert_eq!(found.layers[0].why, "by price");
        let why = &found.layers[1].why;
        assert!(why.starts_with("int3 in place of int8"), "{why}");
        assert!(why.contains("0.0100") && why.contains("0.0200"), "{why}");
    }
}
