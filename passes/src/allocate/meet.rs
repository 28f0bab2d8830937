//! Plans near a bound, by halves that meet.
//!
//! At given prices every option adds something to the cheapest of its group, and what a plan leaves of a budget is lost at
//! its price. The loss of a plan is the bound and the sum of both. So a plan near the bound takes options that add little
//! and fills the budgets: the halves of plans that add little are listed, for one half of the groups and for the other,
//! and those that fill the budgets together are joined. Lists of ten thousand halves stand for plans that nobody could
//! list. A half that costs and loses no less than another is left out.

use std::cmp::Ordering;
use std::ops::Range;

use super::branch::{MOST_ROWS, Numbers};

/// Exponent of a bound of the lists' lengths; true lengths are a tenth of it, about.
const LENGTH: f64 = 18.0 * std::f64::consts::LN_2;
/// Width of the cells in which halves are looked up, in reaches.
const CELL: f64 = 1.5;
/// Where Chernoff's bound is best, as a power of two over the room.
const EXPONENTS: (f64, f64) = (-2.0, 40.0);
/// Exponents from here on add nothing that counts.
const FAR: f64 = 40.0;
/// Lists of this length are not pruned.
const SHORT: usize = 256;
/// Pruning goes on where it takes away one half in so many.
const WORTH: usize = 8;
/// No half, in a chain.
const END: u32 = u32::MAX;
/// An odd number without a pattern.
const MIXER: u64 = 0x9e37_79b9_7f4a_7c15;

/// What an option adds to the cheapest of its group.
pub(crate) struct Step {
    pub(crate) group: usize,
    pub(crate) option: usize,
    /// To the loss, costs paid.
    pub(crate) extra: f64,
    /// To the costs, in what they are worth.
    pub(crate) costs: Numbers,
}

/// A half of a plan.
struct Half {
    extra: f64,
    costs: Numbers,
    /// The last of its steps.
    taken: u32,
}

/// A step, and the one before it.
struct Taken {
    before: u32,
    step: u32,
}

/// Halves, and the steps that they take; the first of these is none.
#[derive(Default)]
struct List {
    halves: Vec<Half>,
    taken: Vec<Taken>,
}

/// The groups in two halves, each to be listed as far as the lists stay short.
pub(crate) struct Halves {
    sides: [Side; 2],
    /// How far from the bound plans are sought.
    pub(crate) reach: f64,
    /// Halves that were listed, and pairs that were tried.
    pub(crate) work: usize,
}

#[derive(Default)]
struct Side {
    steps: Vec<Step>,
    /// The steps of each group, those that add least first.
    groups: Vec<Range<usize>>,
}

impl Side {
    fn push(&mut self, steps: Vec<Step>) {
        let start = self.steps.len();
        self.steps.extend(steps);
        self.groups.push(start..self.steps.len());
    }

    /// The largest reach at which Chernoff's bound of the number of halves is small enough.
    fn reach(&self, room: f64) -> f64 {
        let at = |exponent: f64| {
            let s = libm::exp2(exponent) / room;
            let each = self.groups.iter().map(|g| {
                let steps = self.steps[g.clone()].iter().map(|x| s * x.extra);
                let near = steps.take_while(|x| *x < FAR);
                libm::log1p(near.map(|x| libm::exp(-x)).sum())
            });
            (LENGTH - each.sum::<f64>()) / s
        };
        // it has one maximum: the search halves what holds it
        let (mut low, mut high) = EXPONENTS;
        while high - low > 0.5 {
            let (a, b) = (low + 0.45 * (high - low), low + 0.55 * (high - low));
            if at(a) < at(b) {
                low = a;
            } else {
                high = b;
            }
        }
        at(f64::midpoint(low, high)).max(0.0)
    }

    /// The halves that add at most `reach`, without those that another is as good as in everything.
    fn list(&self, reach: f64, rows: &[bool]) -> List {
        let mut list = List::default();
        list.halves.push(Half {
            extra: 0.0,
            costs: Numbers::default(),
            taken: 0,
        });
        list.taken.push(Taken { before: 0, step: 0 });
        let mut pruned = SHORT;
        let mut prunable: Vec<usize> = (0..rows.len()).collect();
        for steps in &self.groups {
            for half in 0..list.halves.len() {
                for i in steps.clone() {
                    let (from, step) = (&list.halves[half], &self.steps[i]);
                    let extra = from.extra + step.extra;
                    if extra > reach {
                        break;
                    }
                    let mut costs = from.costs;
                    let both = costs.iter_mut().zip(&step.costs);
                    both.for_each(|(sum, cost)| *sum += cost);
                    let (before, taken) = (from.taken, list.taken.len() as u32);
                    list.halves.push(Half {
                        extra,
                        costs,
                        taken,
                    });
                    list.taken.push(Taken {
                        before,
                        step: i as u32,
                    });
                }
            }
            if list.halves.len() > 2 * pruned && !prunable.is_empty() {
                prunable.retain(|&row| list.prune(row, rows));
                pruned = list.halves.len().max(SHORT);
            }
        }
        list
    }

    /// The steps of a half.
    fn taken<'a>(&'a self, list: &'a List, half: usize) -> impl Iterator<Item = &'a Step> {
        let first = list.halves[half].taken;
        let before = |&at: &u32| {
            let before = list.taken[at as usize].before;
            (before != 0).then_some(before)
        };
        let all = std::iter::successors((first != 0).then_some(first), before);
        all.map(|at| &self.steps[list.taken[at as usize].step as usize])
    }
}

impl List {
    /// Removes halves that cost as much as another in all rows but one, no less in that one, and lose no less. Whether they
    /// were worth it.
    fn prune(&mut self, row: usize, rows: &[bool]) -> bool {
        let before = self.halves.len();
        let others = |half: &Half| {
            let mut costs = half.costs;
            costs[row] = 0.0;
            costs
        };
        self.halves.sort_by(|a, b| {
            let each = (0..rows.len()).filter(|&r| r != row);
            let by_others = each.map(|r| a.costs[r].total_cmp(&b.costs[r]));
            let first = by_others.fold(Ordering::Equal, Ordering::then);
            let then = first.then(a.costs[row].total_cmp(&b.costs[row]));
            then.then(a.extra.total_cmp(&b.extra))
        });
        let mut last: Option<(Numbers, f64)> = None;
        self.halves.retain(|half| {
            // what a half loses but for costs that are the same
            let paid = if rows[row] { half.costs[row] } else { 0.0 };
            let loss = half.extra - paid;
            let key = others(half);
            let beaten = last.is_some_and(|(k, least)| k == key && least <= loss);
            if !beaten {
                last = Some((key, loss));
            }
            !beaten
        });
        self.halves.len() < before - before / WORTH
    }
}

impl Halves {
    /// Splits groups by their steps; `room` is the largest reach that is of use.
    pub(crate) fn new(mut groups: Vec<Vec<Step>>, room: f64) -> Self {
        groups.retain(|g| !g.is_empty());
        for steps in &mut groups {
            steps.sort_by(|a, b| a.extra.total_cmp(&b.extra));
        }
        // cheap steps last: while they are taken, lists are short
        groups.sort_by(|a, b| b[0].extra.total_cmp(&a[0].extra));
        let mut sides = [Side::default(), Side::default()];
        for (i, steps) in groups.into_iter().enumerate() {
            sides[i % 2].push(steps);
        }
        let reaches = sides.iter().map(|s| s.reach(room));
        Self {
            reach: reaches.fold(room, f64::min),
            sides,
            work: 0,
        }
    }

    /// Offers every plan within reach that leaves no row below 0 of what the cheapest options leave; each that is taken
    /// shortens the reach. Of each row, whether it has a price. Whether any was taken.
    pub(crate) fn meet(
        &mut self,
        left: Numbers,
        rows: &[bool],
        rounding: f64,
        mut offer: impl FnMut(&mut dyn Iterator<Item = &Step>) -> bool,
    ) -> bool {
        let tight: Vec<usize> = (0..rows.len()).filter(|&r| rows[r]).collect();
        let lists = self.sides.each_ref().map(|s| s.list(self.reach, rows));
        let [ours, theirs] = &lists;
        let table = Cells::new(&theirs.halves, &tight, CELL * self.reach);
        let (mut reach, mut any) = (self.reach, false);
        let mut work = ours.taken.len() + theirs.taken.len();
        for (index, half) in ours.halves.iter().enumerate() {
            let mut want = left;
            let both = want.iter_mut().zip(&half.costs);
            both.for_each(|(want, cost)| *want -= cost);
            table.near(&want, reach - half.extra, |other| {
                work += 1;
                let their = &theirs.halves[other];
                let lost = tight.iter().map(|&r| want[r] - their.costs[r]);
                let gap = half.extra + their.extra + lost.sum::<f64>();
                let fits = their
                    .costs
                    .iter()
                    .zip(&want)
                    .all(|(cost, want)| cost <= want);
                if fits && gap < reach - rounding {
                    let [a, b] = &self.sides;
                    let mut steps = a.taken(ours, index).chain(b.taken(theirs, other));
                    if offer(&mut steps) {
                        (reach, any) = (gap, true);
                    }
                }
            });
        }
        self.work += work;
        any
    }
}

/// Halves by what they cost, in cells; those of a cell are chained, those that add least first.
struct Cells<'a> {
    halves: &'a [Half],
    tight: &'a [usize],
    width: f64,
    heads: Vec<u32>,
    next: Vec<u32>,
}

/// A cell; rows without a price stay 0.
type Cell = [i64; MOST_ROWS];

impl<'a> Cells<'a> {
    fn new(halves: &'a [Half], tight: &'a [usize], width: f64) -> Self {
        let mut cells = Self {
            halves,
            tight,
            width,
            heads: vec![END; 2 * halves.len().next_power_of_two()],
            next: vec![END; halves.len()],
        };
        let mut order: Vec<usize> = (0..halves.len()).collect();
        order.sort_by(|&a, &b| halves[b].extra.total_cmp(&halves[a].extra));
        for half in order {
            let slot = cells.slot(&cells.cell(&halves[half].costs, 0.0));
            cells.next[half] = cells.heads[slot];
            cells.heads[slot] = half as u32;
        }
        cells
    }

    fn cell(&self, costs: &Numbers, less: f64) -> Cell {
        let mut cell = Cell::default();
        for &r in self.tight {
            cell[r] = ((costs[r] - less) / self.width).floor() as i64;
        }
        cell
    }

    fn slot(&self, cell: &Cell) -> usize {
        let mix = |hash: u64, x: &i64| (hash.rotate_left(5) ^ *x as u64).wrapping_mul(MIXER);
        let hash = cell.iter().fold(0, mix);
        (hash >> 32) as usize & (self.heads.len() - 1)
    }

    /// Visits all halves that add at most `room` and cost at most that much less than is wanted; others too.
    fn near(&self, want: &Numbers, room: f64, mut visit: impl FnMut(usize)) {
        if room < 0.0 {
            return;
        }
        let (first, last) = (self.cell(want, room), self.cell(want, 0.0));
        let mut cell = first;
        loop {
            let mut half = self.heads[self.slot(&cell)];
            while half != END && self.halves[half as usize].extra <= room {
                visit(half as usize);
                half = self.next[half as usize];
            }
            let next = self.tight.iter().position(|&r| cell[r] < last[r]);
            let Some(next) = next else { return };
            cell[self.tight[next]] += 1;
            for &r in &self.tight[..next] {
                cell[r] = first[r];
            }
        }
    }
}
