//! How long the allocator takes to prove its plan: `cargo bench --bench solver -- [SEEDS]`.
//!
//! Programs of 300 layers with 12 choices each under three budgets that bind, of several kinds, from seeds 0, 1, …; a line a
//! kind, and one for each program that takes longer than the limit that is kept.

use std::time::Instant;

use lowbit_passes::allocate::{Budget, Limits, Refusal, allocate};
use lowbit_report::Sensitivity;

#[path = "../passes/src/allocate/instances.rs"]
mod instances;

use instances::{KINDS, Random, alike};

const LAYERS: usize = 300;
const CHOICES: usize = 12;
const SEEDS: u64 = 30;
/// Seconds that no program may take.
const LIMIT: f64 = 2.0;
const BUDGETS: [Budget; 3] = [Budget::Size, Budget::Bops, Budget::Latency];

/// Limits at shares of the way from the least to the most that plans cost, loosened until some plan keeps them.
fn limits(r: &mut Random, table: &Sensitivity) -> Limits {
    let mut limits = Limits::default();
    for budget in BUDGETS {
        let costs = |l: &lowbit_report::SensitiveLayer| -> Vec<f64> {
            l.choices.iter().filter_map(|c| budget.cost(l, c)).collect()
        };
        let sum = |f: fn(f64, f64) -> f64| -> f64 {
            let each = table.layers.iter().map(costs);
            each.filter_map(|c| c.into_iter().reduce(f)).sum()
        };
        let (least, most) = (sum(f64::min), sum(f64::max));
        let limit = least + (most - least) * (0.1 + 0.4 * r.unit());
        limits = limits.with(budget, Some(limit / budget.unit(&table.layers)));
    }
    while let Err(Refusal::Infeasible(why)) = allocate(table, &limits, &[]) {
        for l in why.least {
            limits = limits.with(l.budget, limits.of(l.budget).map(|x| 1.2 * x));
        }
    }
    limits
}

fn main() {
    let mut arguments = std::env::args().filter(|a| a != "--bench").skip(1);
    let seeds = arguments.next().map_or(Ok(SEEDS), |n| n.parse());
    let Ok(seeds) = seeds else {
        eprintln!("usage: cargo bench --bench solver -- [SEEDS]");
        std::process::exit(2);
    };
    println!("kind         median s    max s   of it seed");
    for (name, kind) in KINDS.iter().chain(&[("alike", alike as instances::Kind)]) {
        let mut times = Vec::new();
        for seed in 0..seeds {
            let mut r = Random(seed);
            let table = kind(&mut r, LAYERS, CHOICES);
            let limits = limits(&mut r, &table);
            let start = Instant::now();
            let found = allocate(&table, &limits, &[]).expect("the limits can be kept");
            let seconds = start.elapsed().as_secs_f64();
            let binding = found
                .certificate
                .prices
                .iter()
                .filter(|p| p.1 > 0.0)
                .count();
            if seconds > LIMIT {
                println!("{name}, seed {seed}: {seconds:.3} s, {binding} budgets bind");
            }
            times.push((seconds, seed));
        }
        times.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (median, (most, seed)) = (times[times.len() / 2].0, times[times.len() - 1]);
        println!("{name:12} {median:8.3} {most:8.3} {seed:12}");
    }
}
