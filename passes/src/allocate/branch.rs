//! The exact search where no layers share a tensor: branch and bound, the most promising node first. At each node prices
//! are tuned to the options that are left, and the plans nearest to the bound that they prove are searched at once, by
//! halves that meet ([`super::meet`]). Where none is found, all plans are farther away, and a group is fixed: the one that
//! moves costs most for the least loss.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::ops::Range;
use std::rc::Rc;

use super::budget::{Budget, slackened};
use super::meet::{Halves, Step};
use super::problem::{Choice, Group, Problem};

/// Rows that the search can price.
pub(crate) const MOST_ROWS: usize = Budget::ALL.len();

/// One number a row; rows that there are not stay 0.
pub(crate) type Numbers<const R: usize> = [f64; R];

/// What a search found.
pub(crate) struct Found {
    /// The best plan, where one is better than what was known.
    pub(crate) best: Option<Vec<usize>>,
    /// Every plan was tried or ruled out.
    pub(crate) complete: bool,
}

/// Changes of the prices at a node.
const STEPS: usize = 60;
/// What is left of a direction along which prices went too far.
const SQUEEZE: f64 = 0.5;
/// Expected gains that end the tuning, in shares of what an exchange changes.
const STILL: f64 = 1e-7;
/// Share of losses that may be rounding.
const ROUNDING: f64 = 1e-11;

/// Searches for the plan of least loss among those that lose less than `known`, or among all. It gives up after so much
/// `work`: options that are priced, halves that are listed, pairs that are tried.
pub(crate) fn branch(problem: &Problem, prices: &[f64], known: Option<f64>, work: usize) -> Found {
    let of_rows = match problem.rows.len() {
        0 | 1 => branch_of::<1>,
        2 => branch_of::<2>,
        3 => branch_of::<3>,
        _ => branch_of::<MOST_ROWS>,
    };
    of_rows(problem, prices, known, work)
}

/// The same with room for so many rows: plans are listed by the hundred thousand, and each carries a number a row.
fn branch_of<const R: usize>(
    problem: &Problem,
    prices: &[f64],
    known: Option<f64>,
    work: usize,
) -> Found {
    let mut search = Search::<R>::new(problem, known);
    let mut scaled = [0.0; R];
    for (r, price) in prices.iter().enumerate() {
        scaled[r] = price / search.scales[r];
    }
    let mut nodes = BinaryHeap::from([Node {
        lower: f64::NEG_INFINITY,
        prices: scaled,
        options: problem.groups.iter().map(useful).collect(),
    }]);
    while let Some(node) = nodes.pop() {
        if search.is_ruled_out(node.lower) {
            break;
        }
        if search.work > work {
            return search.ended(false);
        }
        nodes.extend(search.explore(node));
    }
    search.ended(true)
}

/// What is left to choose.
struct Node<const R: usize> {
    /// No plan of the node loses less.
    lower: f64,
    prices: Numbers<R>,
    /// Options of each group.
    options: Vec<Rc<[usize]>>,
}

impl<const R: usize> Ord for Node<R> {
    fn cmp(&self, other: &Self) -> Ordering {
        other.lower.total_cmp(&self.lower)
    }
}

impl<const R: usize> PartialOrd for Node<R> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<const R: usize> PartialEq for Node<R> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<const R: usize> Eq for Node<R> {}

#[derive(Clone, Copy)]
struct Item<const R: usize> {
    loss: f64,
    costs: Numbers<R>,
}

/// A node's options as they are priced again and again: those of groups with more than one side by side, the others summed.
struct Open<const R: usize> {
    settled: Item<R>,
    items: Vec<Item<R>>,
    /// Where each group's items are.
    groups: Vec<Range<usize>>,
}

/// What prices prove at a node.
#[derive(Clone)]
struct Bound<const R: usize> {
    prices: Numbers<R>,
    bound: f64,
    /// Costs of the cheapest plan over the limits.
    over: Numbers<R>,
    /// Its options.
    cheapest: Vec<usize>,
}

struct Search<'a, const R: usize> {
    problem: &'a Problem,
    /// Options of each group, costs scaled.
    items: Vec<Vec<Item<R>>>,
    limits: Numbers<R>,
    scales: Numbers<R>,
    /// The loss that a plan must beat.
    known: f64,
    best: Option<Vec<usize>>,
    /// What exchanging one group's option changes, about: the reach of a step while nothing is known.
    typical: f64,
    /// Losses closer than this are the same.
    rounding: f64,
    /// Options priced, halves listed and pairs tried.
    work: usize,
}

fn dot<const R: usize>(a: &Numbers<R>, b: &Numbers<R>) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Rows of a matrix.
type Matrix<const R: usize> = [Numbers<R>; R];

fn unit<const R: usize>() -> Matrix<R> {
    let mut unit = [[0.0; R]; R];
    (0..R).for_each(|r| unit[r][r] = 1.0);
    unit
}

fn norm<const R: usize>(a: &Numbers<R>) -> f64 {
    dot(a, a).sqrt()
}

/// A matrix, or its transpose, times a vector.
fn turn<const R: usize>(matrix: &Matrix<R>, x: &Numbers<R>, transposed: bool) -> Numbers<R> {
    let mut product = [0.0; R];
    for (r, row) in matrix.iter().enumerate() {
        for (c, m) in row.iter().enumerate() {
            match transposed {
                true => product[c] += m * x[r],
                false => product[r] += m * x[c],
            }
        }
    }
    product
}

/// Shrinks space along a unit vector to half.
fn squeeze<const R: usize>(matrix: &mut Matrix<R>, along: &Numbers<R>) {
    for row in matrix {
        let part = (SQUEEZE - 1.0) * dot(row, along);
        row.iter_mut().zip(along).for_each(|(m, a)| *m += part * a);
    }
}

impl<const R: usize> Item<R> {
    fn add(&mut self, other: &Self) {
        self.loss += other.loss;
        let costs = self.costs.iter_mut().zip(&other.costs);
        costs.for_each(|(sum, cost)| *sum += cost);
    }

    fn priced(&self, prices: &Numbers<R>) -> f64 {
        self.loss + dot(&self.costs, prices)
    }
}

impl<const R: usize> Open<R> {
    fn new(items: &[Vec<Item<R>>], options: &[Rc<[usize]>]) -> Self {
        let mut open = Self {
            settled: Item {
                loss: 0.0,
                costs: [0.0; R],
            },
            items: Vec::new(),
            groups: Vec::new(),
        };
        for (items, options) in items.iter().zip(options) {
            if let [only] = **options {
                open.settled.add(&items[only]);
            } else {
                let start = open.items.len();
                open.items.extend(options.iter().map(|&o| items[o]));
                open.groups.push(start..open.items.len());
            }
        }
        open
    }

    /// Loss and costs of the cheapest plan.
    fn cheapest(&self, prices: &Numbers<R>) -> Item<R> {
        let mut sum = self.settled;
        for group in &self.groups {
            let (first, others) = self.items[group.clone()]
                .split_first()
                .expect("a group has options");
            let (mut best, mut least) = (first, first.priced(prices));
            for item in others {
                let value = item.priced(prices);
                if value < least {
                    (best, least) = (item, value);
                }
            }
            sum.add(best);
        }
        sum
    }
}

/// Options that no other is as good as in everything; the first of equal ones.
fn useful(group: &Group) -> Rc<[usize]> {
    let no_worse = |a: &Choice, b: &Choice| {
        a.loss <= b.loss && a.costs.iter().zip(&b.costs).all(|(a, b)| a <= b)
    };
    let beats = |a: usize, b: usize| {
        let (x, y) = (&group.options[a], &group.options[b]);
        no_worse(x, y) && (a < b || !no_worse(y, x))
    };
    let all = 0..group.options.len();
    let kept = |&o: &usize| !all.clone().any(|other| other != o && beats(other, o));
    all.clone().filter(kept).collect()
}

/// The limit of a row, or the largest sum under it where costs are whole numbers with a common divisor.
fn attainable(problem: &Problem, row: usize) -> f64 {
    let costs = |g: &Group| g.options.iter().map(|c| c.costs[row]).collect::<Vec<f64>>();
    let least = |g: &Group| costs(g).into_iter().fold(f64::INFINITY, f64::min);
    let most = |g: &Group| costs(g).into_iter().fold(f64::NEG_INFINITY, f64::max);
    // no limit is as good as one that every plan keeps
    let all = slackened(problem.groups.iter().map(most).sum());
    let limit = slackened(problem.rows[row].limit).min(all);
    let (mut sum, mut divisor) = (0.0, 0.0_f64);
    for g in &problem.groups {
        let least = least(g);
        sum += least;
        for c in &g.options {
            let mut rest = c.costs[row] - least;
            if rest.fract() != 0.0 {
                return limit;
            }
            while rest > 0.0 {
                (divisor, rest) = (rest, divisor % rest);
            }
        }
    }
    if divisor == 0.0 || sum > limit {
        return limit;
    }
    let most = sum + ((limit - sum) / divisor).floor() * divisor;
    slackened(most).min(limit)
}

/// The mean over the groups of how far a number of their options spreads.
fn spread(problem: &Problem, of: &dyn Fn(&Choice) -> f64) -> f64 {
    let each = problem.groups.iter().map(|g| {
        let all = || g.options.iter().map(of);
        all().fold(f64::NEG_INFINITY, f64::max) - all().fold(f64::INFINITY, f64::min)
    });
    each.sum::<f64>() / problem.groups.len() as f64
}

impl<'a, const R: usize> Search<'a, R> {
    fn new(problem: &'a Problem, known: Option<f64>) -> Self {
        let rows = problem.rows.len();
        let mut scales = [1.0; R];
        let mut limits = [0.0; R];
        for r in 0..rows {
            let mean = spread(problem, &|c| c.costs[r]);
            scales[r] = if mean > 0.0 { 1.0 / mean } else { 1.0 };
            limits[r] = attainable(problem, r) * scales[r];
        }
        let item = |c: &Choice| {
            let mut costs = [0.0; R];
            for r in 0..rows {
                costs[r] = c.costs[r] * scales[r];
            }
            Item {
                loss: c.loss,
                costs,
            }
        };
        let items = problem.groups.iter();
        let items: Vec<Vec<Item<R>>> = items
            .map(|g| g.options.iter().map(item).collect())
            .collect();
        let largest = items.iter().flatten().map(|i| i.loss.abs());
        let largest = largest.fold(0.0, f64::max);
        let most = |g: &Vec<Item<R>>| g.iter().map(|i| i.loss).fold(f64::NEG_INFINITY, f64::max);
        let above = || items.iter().map(most).sum::<f64>() + largest.max(1.0);
        Self {
            known: known.unwrap_or_else(above),
            limits,
            scales,
            best: None,
            typical: spread(problem, &|c| c.loss),
            rounding: ROUNDING * largest,
            work: 0,
            problem,
            items,
        }
    }

    fn ended(self, complete: bool) -> Found {
        Found {
            best: self.best,
            complete,
        }
    }

    fn is_ruled_out(&self, bound: f64) -> bool {
        bound >= self.known - self.rounding
    }

    /// Searches near a node's bound; what is left of it when that does not end it.
    fn explore(&mut self, mut node: Node<R>) -> Vec<Node<R>> {
        if self.breaks(&node) {
            return Vec::new();
        }
        let found = self.tune(&node);
        if self.is_ruled_out(found.bound) {
            return Vec::new();
        }
        self.narrow(&mut node, &found);
        let room = self.known - found.bound;
        let mut halves = Halves::new(self.steps(&node, &found), room);
        if halves.reach > 0.0 {
            let mut left = found.over;
            left.iter_mut()
                .zip(self.worth(&found.prices))
                .for_each(|(over, worth)| *over *= -worth);
            let rows = found.prices[..self.problem.rows.len()].iter();
            let rows: Vec<bool> = rows.map(|&p| p > 0.0).collect();
            let rounding = self.rounding;
            let plan = halves.meet(left, &rows, rounding, |steps| {
                let mut picks = found.cheapest.clone();
                steps.for_each(|s| picks[s.group] = s.option);
                self.offer(picks)
            });
            self.work += halves.work;
            if plan || halves.reach >= room {
                return Vec::new();
            }
        }
        self.children(&node, &found, found.bound + halves.reach)
    }

    /// Whether no plan of a node keeps some limit.
    fn breaks(&self, node: &Node<R>) -> bool {
        (0..self.problem.rows.len()).any(|r| {
            let least = |(items, options): (&Vec<Item<R>>, &Rc<[usize]>)| {
                let costs = options.iter().map(|&o| items[o].costs[r]);
                costs.fold(f64::INFINITY, f64::min)
            };
            let sum: f64 = self.items.iter().zip(&node.options).map(least).sum();
            sum > self.limits[r]
        })
    }

    fn bound(&mut self, node: &Node<R>, prices: &Numbers<R>) -> Bound<R> {
        let mut cheapest = Vec::with_capacity(node.options.len());
        let (mut loss, mut over) = (0.0, [0.0; R]);
        for (items, options) in self.items.iter().zip(&node.options) {
            self.work += options.len();
            let (mut best, mut least) = (options[0], f64::INFINITY);
            for &o in options.iter() {
                let value = items[o].priced(prices);
                if value < least {
                    (best, least) = (o, value);
                }
            }
            cheapest.push(best);
            loss += items[best].loss;
            let costs = over.iter_mut().zip(&items[best].costs);
            costs.for_each(|(sum, cost)| *sum += cost);
        }
        over.iter_mut().zip(&self.limits).for_each(|(o, l)| *o -= l);
        Bound {
            prices: *prices,
            bound: loss + dot(prices, &over),
            over,
            cheapest,
        }
    }

    /// Moves prices towards the largest bound by Shor's r-algorithm: budgets that go together make a ridge, and space is
    /// stretched along it. Plans on the way that keep the limits are offered.
    fn tune(&mut self, node: &Node<R>) -> Bound<R> {
        let rows = self.problem.rows.len();
        let open = Open::new(&self.items, &node.options);
        let (mut point, mut prices) = (node.prices, node.prices);
        let (mut bound, mut over) = self.value(&open, &prices);
        let mut space = unit();
        let mut length = (self.known - bound).min(self.typical) / norm(&over).max(1e-300);
        for _ in 0..STEPS {
            if self.is_ruled_out(bound) || length * norm(&over) < STILL * self.typical {
                break;
            }
            let turned = turn(&space, &over, true);
            let size = norm(&turned);
            if size == 0.0 {
                break;
            }
            let direction = turn(&space, &turned.map(|x| x / size), false);
            for (p, d) in point.iter_mut().zip(&direction).take(rows) {
                *p += length * d;
            }
            let inside = point.map(|p| p.max(0.0));
            let (now, mut next) = self.value(&open, &inside);
            if next.iter().all(|&o| o <= 0.0) {
                let plan = self.bound(node, &inside).cheapest;
                self.offer(plan);
            }
            // a price below 0 is pushed back
            for r in 0..rows {
                if point[r] < 0.0 {
                    next[r] = next[r].abs().max(1.0);
                }
            }
            if now > bound {
                (bound, prices) = (now, inside);
            }
            // ahead is still up: longer steps; behind: shorter
            length *= if dot(&next, &direction) > 0.0 {
                1.3
            } else {
                0.75
            };
            let mut change = turn(&space, &next, true);
            change.iter_mut().zip(&turned).for_each(|(c, t)| *c -= t);
            let size = norm(&change);
            if size > 0.0 {
                squeeze(&mut space, &change.map(|c| c / size));
            }
            over = next;
        }
        self.bound(node, &prices)
    }

    /// The bound that prices prove, and what its plan costs over the limits.
    fn value(&mut self, open: &Open<R>, prices: &Numbers<R>) -> (f64, Numbers<R>) {
        self.work += open.items.len();
        let Item { loss, costs } = open.cheapest(prices);
        let mut over = costs;
        over.iter_mut().zip(&self.limits).for_each(|(o, l)| *o -= l);
        (loss + dot(prices, &over), over)
    }

    /// Removes options that the bound rules out.
    fn narrow(&self, node: &mut Node<R>, found: &Bound<R>) {
        let groups = self.items.iter().zip(&mut node.options);
        for ((items, options), &cheapest) in groups.zip(&found.cheapest) {
            let least = items[cheapest].priced(&found.prices);
            let extra = |o: usize| items[o].priced(&found.prices) - least;
            let stays = |o: usize| o == cheapest || !self.is_ruled_out(found.bound + extra(o));
            if !options.iter().all(|&o| stays(o)) {
                *options = options.iter().copied().filter(|&o| stays(o)).collect();
            }
        }
    }

    /// What a scaled unit of each row's cost is worth; 1 where it has no price.
    fn worth(&self, prices: &Numbers<R>) -> Numbers<R> {
        prices.map(|p| if p > 0.0 { p } else { 1.0 })
    }

    /// What the options of each group add to its cheapest.
    fn steps(&self, node: &Node<R>, found: &Bound<R>) -> Vec<Vec<Step<R>>> {
        let worth = self.worth(&found.prices);
        let group = |group: usize| -> Vec<Step<R>> {
            let (items, cheapest) = (&self.items[group], found.cheapest[group]);
            let from = &items[cheapest];
            let step = |&option: &usize| {
                let mut costs = [0.0; R];
                for (r, cost) in costs.iter_mut().enumerate() {
                    *cost = (items[option].costs[r] - from.costs[r]) * worth[r];
                }
                let extra = items[option].priced(&found.prices) - from.priced(&found.prices);
                Step {
                    group,
                    option,
                    extra,
                    costs,
                }
            };
            let others = node.options[group].iter().filter(|&&o| o != cheapest);
            others.map(step).collect()
        };
        (0..node.options.len()).map(group).collect()
    }

    /// Takes a plan that keeps the limits and loses less than what is known.
    fn offer(&mut self, picks: Vec<usize>) -> bool {
        let loss = self.problem.loss(&picks);
        let better = loss < self.known && self.problem.admits(&picks);
        if better {
            self.known = loss;
            self.best = Some(picks);
        }
        better
    }

    /// A node for each option of the group that moves costs most for what it adds to the loss.
    fn children(&self, node: &Node<R>, found: &Bound<R>, lower: f64) -> Vec<Node<R>> {
        let steps = self.steps(node, found);
        let reach = lower - found.bound;
        let moves = |s: &Step<R>| {
            let priced = s.costs.iter().zip(&found.prices).filter(|(_, p)| **p > 0.0);
            let paid: f64 = priced.map(|(c, _)| c.abs()).sum();
            paid / (s.extra + reach).max(f64::MIN_POSITIVE)
        };
        let most = |steps: &[Step<R>]| steps.iter().map(moves).fold(0.0, f64::max);
        let open = (0..steps.len()).filter(|&g| !steps[g].is_empty());
        let group = open.max_by(|&a, &b| most(&steps[a]).total_cmp(&most(&steps[b])));
        let Some(group) = group else {
            return Vec::new();
        };
        let first = (found.cheapest[group], 0.0);
        let others = steps[group].iter().map(|s| (s.option, s.extra));
        let child = |(option, extra): (usize, f64)| {
            let mut options = node.options.clone();
            options[group] = Rc::from([option]);
            Node {
                lower: lower.max(found.bound + extra),
                prices: found.prices,
                options,
            }
        };
        [first].into_iter().chain(others).map(child).collect()
    }
}
