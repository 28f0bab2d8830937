//! Plans near a bound, by halves that meet.
//!
//! At given prices every option adds something to the cheapest of its group, and what a plan leaves of a budget is lost at
//! its price. The loss of a plan is the bound and the sum of both. So a plan near the bound takes options that add little
//! and fills the budgets: the halves of plans that add little are listed, for one half of the groups and for the other,
//! and those that fill the budgets together are joined. Lists of thousands of halves stand for plans that nobody could
//! list. A half that costs and loses no less than another is left out.

use std::ops::Range;

use super::branch::Numbers;

/// Exponent of a bound of the lists' lengths; true lengths are a tenth of it, about.
const LENGTH: f64 = 16.0 * std::f64::consts::LN_2;
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
pub(crate) struct Step<const R: usize> {
    pub(crate) group: usize,
    pub(crate) option: usize,
    /// To the loss, costs paid.
    pub(crate) extra: f64,
    /// To the costs, in what they are worth.
    pub(crate) costs: Numbers<R>,
}

/// A half of a plan.
struct Half<const R: usize> {
    extra: f64,
    costs: Numbers<R>,
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
struct List<const R: usize> {
    halves: Vec<Half<R>>,
    taken: Vec<Taken>,
}

/// The groups in two halves, each to be listed as far as the lists stay short.
pub(crate) struct Halves<const R: usize> {
    sides: [Side<R>; 2],
    /// How far from the bound plans are sought.
    pub(crate) reach: f64,
    /// Halves that were listed, and pairs that were tried.
    pub(crate) work: usize,
}

#[derive(Default)]
struct Side<const R: usize> {
    steps: Vec<Step<R>>,
    /// The steps of each group, those that add least first.
    groups: Vec<Range<usize>>,
}

impl<const R: usize> Side<R> {
    fn push(&mut self, steps: Vec<Step<R>>) {
        let start = self.steps.len();
        self.steps.extend(steps);
        self.groups.push(start..self.steps.len());
    }

    /// The largest reach, up to `room`, at which Chernoff's bound of the number of halves is small enough.
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
            let (at_a, at_b) = (at(a), at(b));
            if at_a.max(at_b) >= room {
                return room;
            }
            if at_a < at_b {
                low = a;
            } else {
                high = b;
            }
        }
        at(f64::midpoint(low, high)).clamp(0.0, room)
    }

    /// The halves that add at most `reach`, without those that another is as good as in everything.
    fn list(&self, reach: f64, rows: &[bool]) -> List<R> {
        let mut list = List::default();
        list.halves.push(Half {
            extra: 0.0,
            costs: [0.0; R],
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
    fn taken<'a>(&'a self, list: &'a List<R>, half: usize) -> impl Iterator<Item = &'a Step<R>> {
        let first = list.halves[half].taken;
        let before = |&at: &u32| {
            let before = list.taken[at as usize].before;
            (before != 0).then_some(before)
        };
        let all = std::iter::successors((first != 0).then_some(first), before);
        all.map(|at| &self.steps[list.taken[at as usize].step as usize])
    }
}

impl<const R: usize> List<R> {
    /// Removes halves that cost as much as another in all rows but one, no less in that one, and lose no less. Whether they
    /// were worth it.
    fn prune(&mut self, row: usize, rows: &[bool]) -> bool {
        let before = self.halves.len();
        let others = |half: &Half<R>| {
            let mut costs = half.costs;
            costs[row] = 0.0;
            costs
        };
        // what a half loses but for costs that are the same
        let lost = |half: &Half<R>| half.extra - if rows[row] { half.costs[row] } else { 0.0 };
        let keys = self.halves.iter();
        let keys: Vec<u64> = keys
            .map(|half| hash(&others(half).map(f64::to_bits)))
            .collect();
        let mut order = in_buckets(&keys);
        for bucket in
            order.chunk_by_mut(|&i, &k| bucket(keys[i], before) == bucket(keys[k], before))
        {
            bucket.sort_unstable_by(|&i, &k| {
                let (x, y) = (&self.halves[i], &self.halves[k]);
                let by_key = keys[i].cmp(&keys[k]);
                by_key
                    .then_with(|| x.costs[row].total_cmp(&y.costs[row]))
                    .then_with(|| x.extra.total_cmp(&y.extra))
                    .then_with(|| i.cmp(&k))
            });
        }
        let mut beaten = vec![false; before];
        let mut last: Option<(Numbers<R>, f64)> = None;
        for i in order {
            let (costs, loss) = (others(&self.halves[i]), lost(&self.halves[i]));
            beaten[i] = last.is_some_and(|(same, least)| same == costs && least <= loss);
            if !beaten[i] {
                last = Some((costs, loss));
            }
        }
        let mut beaten = beaten.into_iter();
        self.halves.retain(|_| !beaten.next().expect("one each"));
        self.halves.len() < before - before / WORTH
    }
}

impl<const R: usize> Halves<R> {
    /// Splits groups by their steps; `room` is the largest reach that is of use.
    pub(crate) fn new(mut groups: Vec<Vec<Step<R>>>, room: f64) -> Self {
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
        left: Numbers<R>,
        rows: &[bool],
        rounding: f64,
        mut offer: impl FnMut(&mut dyn Iterator<Item = &Step<R>>) -> bool,
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

/// Which of about as many buckets as there are keys one falls in.
fn bucket(key: u64, keys: usize) -> usize {
    (key >> 32) as usize & (keys.next_power_of_two() - 1)
}

/// Indices of keys by their buckets.
fn in_buckets(keys: &[u64]) -> Vec<usize> {
    let mut ends = vec![0; keys.len().next_power_of_two()];
    keys.iter().for_each(|&k| ends[bucket(k, keys.len())] += 1);
    let mut sum = 0;
    for end in &mut ends {
        sum += *end;
        *end = sum;
    }
    let mut order = vec![0; keys.len()];
    for (i, &k) in keys.iter().enumerate().rev() {
        let end = &mut ends[bucket(k, keys.len())];
        *end -= 1;
        order[*end] = i;
    }
    order
}

fn hash<const R: usize>(words: &[u64; R]) -> u64 {
    let mix = |hash: u64, word: &u64| (hash.rotate_left(5) ^ word).wrapping_mul(MIXER);
    words.iter().fold(0, mix)
}

/// Halves by what they cost, in cells; those of a cell are chained, those that add least first.
struct Cells<'a, const R: usize> {
    halves: &'a [Half<R>],
    tight: &'a [usize],
    width: f64,
    heads: Vec<u32>,
    next: Vec<u32>,
}

/// A cell; rows without a price stay 0.
type Cell<const R: usize> = [i64; R];

impl<'a, const R: usize> Cells<'a, R> {
    fn new(halves: &'a [Half<R>], tight: &'a [usize], width: f64) -> Self {
        let mut cells = Self {
            halves,
            tight,
            width,
            heads: vec![END; 2 * halves.len().next_power_of_two()],
            next: vec![END; halves.len()],
        };
        let mut order: Vec<(f64, u32)> = (0..).zip(halves).map(|(i, h)| (h.extra, i)).collect();
        order.sort_unstable_by(|(a, i), (b, k)| b.total_cmp(a).then(i.cmp(k)));
        for (_, half) in order {
            let slot = cells.slot(&cells.cell(&halves[half as usize].costs, 0.0));
            cells.next[half as usize] = cells.heads[slot];
            cells.heads[slot] = half;
        }
        cells
    }

    fn cell(&self, costs: &Numbers<R>, less: f64) -> Cell<R> {
        let mut cell = [0; R];
        for &r in self.tight {
            cell[r] = ((costs[r] - less) / self.width).floor() as i64;
        }
        cell
    }

    fn slot(&self, cell: &Cell<R>) -> usize {
        (hash(&cell.map(|c| c as u64)) >> 32) as usize & (self.heads.len() - 1)
    }

    /// Visits all halves that add at most `room` and cost at most that much less than is wanted; others too.
    fn near(&self, want: &Numbers<R>, room: f64, mut visit: impl FnMut(usize)) {
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
