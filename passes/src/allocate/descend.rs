//! The exact search where no layers share a tensor: depth first, one group fixed at a time. At each node the prices are
//! tuned anew to what is left, which costs microseconds, and the bound that they prove rules out options or the node.

use super::budget::{Budget, slackened};
use super::problem::{Choice, Problem};

/// Rows that the search can price.
pub(crate) const MOST_ROWS: usize = Budget::ALL.len();

/// One number a row; rows that there are not stay 0.
type Numbers = [f64; MOST_ROWS];

/// What a search found.
pub(crate) struct Descent {
    /// The best plan, where one is better than what was known.
    pub(crate) best: Option<Vec<usize>>,
    /// Every plan was tried or ruled out.
    pub(crate) complete: bool,
}

/// Changes of the prices at a node.
const STEPS: usize = 14;
/// Changes without a better bound after which steps become shorter.
const PATIENCE: usize = 2;
/// Share of losses that may be rounding.
const ROUNDING: f64 = 1e-11;

/// Searches for a plan that loses less than `known`, while no more than `work` options are priced.
pub(crate) fn descend(problem: &Problem, prices: &[f64], known: f64, work: usize) -> Descent {
    let mut search = Search::new(problem, known, work);
    let mut scaled = Numbers::default();
    for (r, price) in prices.iter().enumerate() {
        scaled[r] = price / search.scales[r];
    }
    search.dive(&search.root(), &scaled);
    Descent {
        complete: search.left > 0,
        best: search.best,
    }
}

#[derive(Clone, Copy)]
struct Item {
    loss: f64,
    costs: Numbers,
}

struct Search<'a> {
    problem: &'a Problem,
    /// Options of each group, costs scaled.
    items: Vec<Vec<Item>>,
    limits: Numbers,
    scales: Numbers,
    /// The loss that a plan must beat.
    known: f64,
    best: Option<Vec<usize>>,
    /// What exchanging one group's option changes, about: the reach of a step while nothing is known.
    typical: f64,
    /// Losses closer than this are the same.
    rounding: f64,
    /// Options that may still be priced.
    left: usize,
}

/// What is left to choose.
#[derive(Clone)]
struct Node {
    /// Option of each group that is fixed.
    picks: Vec<usize>,
    /// Their loss and costs.
    fixed: Item,
    /// Groups with more than one option left, and where theirs are in `options`.
    open: Vec<(usize, std::ops::Range<usize>)>,
    options: Vec<usize>,
}

/// What prices prove at a node.
#[derive(Clone)]
struct Bound {
    prices: Numbers,
    bound: f64,
    /// Costs of the cheapest plan over the limits.
    over: Numbers,
    /// Its options, by open group.
    cheapest: Vec<usize>,
}

fn dot(a: &Numbers, b: &Numbers) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

impl Item {
    fn priced(&self, prices: &Numbers) -> f64 {
        self.loss + dot(&self.costs, prices)
    }

    fn add(&mut self, other: &Self) {
        self.loss += other.loss;
        self.costs
            .iter_mut()
            .zip(&other.costs)
            .for_each(|(a, b)| *a += b);
    }
}

impl<'a> Search<'a> {
    fn new(problem: &'a Problem, known: f64, work: usize) -> Self {
        let rows = problem.rows.len();
        let groups = problem.groups.len() as f64;
        let spread = |of: &dyn Fn(&Choice) -> f64| {
            let each = problem.groups.iter().map(|g| {
                let all = || g.options.iter().map(of);
                all().fold(f64::NEG_INFINITY, f64::max) - all().fold(f64::INFINITY, f64::min)
            });
            each.sum::<f64>() / groups
        };
        let mut scales = [1.0; MOST_ROWS];
        let mut limits = Numbers::default();
        for r in 0..rows {
            let mean = spread(&|c| c.costs[r]);
            scales[r] = if mean > 0.0 { 1.0 / mean } else { 1.0 };
            limits[r] = slackened(problem.rows[r].limit) * scales[r];
        }
        let item = |c: &Choice| {
            let mut costs = Numbers::default();
            for r in 0..rows {
                costs[r] = c.costs[r] * scales[r];
            }
            Item {
                loss: c.loss,
                costs,
            }
        };
        let largest = problem
            .groups
            .iter()
            .flat_map(|g| &g.options)
            .map(|c| c.loss.abs());
        Self {
            items: problem
                .groups
                .iter()
                .map(|g| g.options.iter().map(item).collect())
                .collect(),
            limits,
            scales,
            known,
            best: None,
            typical: spread(&|c| c.loss),
            rounding: ROUNDING * largest.fold(0.0, f64::max),
            left: work,
            problem,
        }
    }

    fn root(&self) -> Node {
        let mut node = Node {
            picks: vec![0; self.items.len()],
            fixed: Item {
                loss: 0.0,
                costs: Numbers::default(),
            },
            open: Vec::new(),
            options: Vec::new(),
        };
        for (g, items) in self.items.iter().enumerate() {
            self.keep(&mut node, g, 0..items.len());
        }
        node
    }

    /// Leaves options to a group.
    fn keep(&self, node: &mut Node, group: usize, options: impl Iterator<Item = usize>) {
        let start = node.options.len();
        node.options.extend(options);
        if let [only] = node.options[start..] {
            node.options.truncate(start);
            node.picks[group] = only;
            node.fixed.add(&self.items[group][only]);
        } else {
            node.open.push((group, start..node.options.len()));
        }
    }

    fn is_ruled_out(&self, bound: f64) -> bool {
        bound >= self.known - self.rounding
    }

    fn dive(&mut self, node: &Node, prices: &Numbers) {
        let most = (STEPS + 1) * node.options.len() + node.picks.len();
        self.left = self.left.saturating_sub(most);
        if self.left == 0 || self.breaks(node) {
            return;
        }
        let found = self.tune(node, prices);
        if self.is_ruled_out(found.bound) {
            return;
        }
        let (group, mut options) = match self.branch(node, &found.prices) {
            Some(branch) => branch,
            None => return self.offer(node.picks.clone()),
        };
        options.sort_by(|a, b| a.1.total_cmp(&b.1));
        for &(option, extra) in &options {
            if self.is_ruled_out(found.bound + extra) {
                return;
            }
            let child = self.child(node, &found, (group, option, extra));
            self.dive(&child, &found.prices);
        }
    }

    /// Whether no plan of a node keeps some limit.
    fn breaks(&self, node: &Node) -> bool {
        (0..self.problem.rows.len()).any(|r| {
            let least = |(g, range): &(usize, std::ops::Range<usize>)| {
                let options = node.options[range.clone()].iter();
                options
                    .map(|&o| self.items[*g][o].costs[r])
                    .fold(f64::INFINITY, f64::min)
            };
            let sum: f64 = node.open.iter().map(least).sum();
            node.fixed.costs[r] + sum > self.limits[r]
        })
    }

    fn bound(&self, node: &Node, prices: &Numbers) -> Bound {
        let (mut sum, mut cheapest) = (node.fixed, Vec::with_capacity(node.open.len()));
        for (g, range) in &node.open {
            let items = &self.items[*g];
            let (mut best, mut least) = (0, f64::INFINITY);
            for &o in &node.options[range.clone()] {
                let value = items[o].priced(prices);
                if value < least {
                    (best, least) = (o, value);
                }
            }
            sum.add(&items[best]);
            cheapest.push(best);
        }
        let mut over = sum.costs;
        over.iter_mut().zip(&self.limits).for_each(|(o, l)| *o -= l);
        Bound {
            prices: *prices,
            bound: sum.loss + dot(prices, &over),
            over,
            cheapest,
        }
    }

    /// Moves prices towards the largest bound; plans on the way that keep the limits are offered.
    fn tune(&mut self, node: &Node, prices: &Numbers) -> Bound {
        let mut now = self.bound(node, prices);
        let mut best = now.clone();
        let (mut direction, mut length, mut waited) = (Numbers::default(), 1.0, 0);
        for _ in 0..STEPS {
            self.consider(node, &now);
            if self.is_ruled_out(best.bound) {
                break;
            }
            // steps back and forth are straightened by what is left of the last direction
            let old = dot(&direction, &direction);
            let turn = dot(&now.over, &direction);
            let memory = if old > 0.0 && turn < 0.0 {
                -1.5 * turn / old
            } else {
                0.0
            };
            let rows = now.over.iter().zip(&now.prices);
            for (d, (over, &price)) in direction.iter_mut().zip(rows) {
                *d = over + memory * *d;
                if price == 0.0 && *d < 0.0 {
                    *d = 0.0;
                }
            }
            let norm = dot(&direction, &direction);
            if norm == 0.0 {
                break;
            }
            let reach = (self.known - now.bound).min(self.typical);
            let mut next = now.prices;
            for (p, d) in next.iter_mut().zip(&direction) {
                *p = (*p + length * reach / norm * d).max(0.0);
            }
            now = self.bound(node, &next);
            if now.bound > best.bound {
                best = now.clone();
                waited = 0;
            } else {
                waited += 1;
                if waited % PATIENCE == 0 {
                    length *= 0.5;
                }
            }
        }
        best
    }

    /// Offers the cheapest plan of a node where it keeps the limits and beats what is known.
    fn consider(&mut self, node: &Node, found: &Bound) {
        let loss = found.bound - dot(&found.prices, &found.over);
        if found.over.iter().any(|&o| o > 0.0) || self.is_ruled_out(loss) {
            return;
        }
        let mut picks = node.picks.clone();
        for ((g, _), &o) in node.open.iter().zip(&found.cheapest) {
            picks[*g] = o;
        }
        self.offer(picks);
    }

    fn offer(&mut self, picks: Vec<usize>) {
        let loss = self.problem.loss(&picks);
        if loss < self.known && self.problem.admits(&picks) {
            self.known = loss;
            self.best = Some(picks);
        }
    }

    /// The group that is most undecided: its two cheapest options are closest, for how much their costs differ. With its
    /// options, and what each adds to the bound.
    fn branch(&self, node: &Node, prices: &Numbers) -> Option<(usize, Vec<(usize, f64)>)> {
        let doubt = |(g, range): &(usize, std::ops::Range<usize>)| {
            let items = &self.items[*g];
            let (mut first, mut second) = ((f64::INFINITY, 0), (f64::INFINITY, 0));
            for &o in &node.options[range.clone()] {
                let value = (items[o].priced(prices), o);
                if value.0 < first.0 {
                    (first, second) = (value, first);
                } else if value.0 < second.0 {
                    second = value;
                }
            }
            let (a, b) = (&items[first.1].costs, &items[second.1].costs);
            let paid = prices.iter().zip(a.iter().zip(b));
            let apart: f64 = paid.map(|(p, (a, b))| p * (a - b).abs()).sum();
            (second.0 - first.0) / apart.max(1e-300)
        };
        let doubts = node.open.iter().map(|open| (doubt(open), open));
        let (_, (g, range)) = doubts.min_by(|a, b| a.0.total_cmp(&b.0))?;
        let options = &node.options[range.clone()];
        let value = |o: usize| self.items[*g][o].priced(prices);
        let least = options
            .iter()
            .map(|&o| value(o))
            .fold(f64::INFINITY, f64::min);
        Some((*g, options.iter().map(|&o| (o, value(o) - least)).collect()))
    }

    /// A node with one group fixed, and without options that the bound rules out.
    fn child(
        &self,
        node: &Node,
        found: &Bound,
        (group, option, extra): (usize, usize, f64),
    ) -> Node {
        let mut child = Node {
            picks: node.picks.clone(),
            fixed: node.fixed,
            open: Vec::with_capacity(node.open.len()),
            options: Vec::with_capacity(node.options.len()),
        };
        let bound = found.bound + extra;
        for ((g, range), &cheapest) in node.open.iter().zip(&found.cheapest) {
            if *g == group {
                self.keep(&mut child, group, [option].into_iter());
                continue;
            }
            let value = |o: usize| self.items[*g][o].priced(&found.prices);
            let least = value(cheapest);
            let near = |&o: &usize| o == cheapest || !self.is_ruled_out(bound + value(o) - least);
            self.keep(
                &mut child,
                *g,
                node.options[range.clone()].iter().copied().filter(near),
            );
        }
        child
    }
}
