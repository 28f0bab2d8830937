use super::*;
use instances::{KINDS, Random, alike, noisy};
use lowbit_report::{MemoryStep, SensitiveChoice, SensitiveLayer, Sensitivity, Tie};

/// Limits between the least and the most of three budgets.
fn limits(r: &mut Random, table: &Sensitivity) -> Limits {
    let mut limits = Limits::default();
    let start = r.below(5);
    for k in 0..3 {
        let budget = Budget::ALL[(start + 2 * k) % 5];
        let extreme = |f: fn(f64, f64) -> f64, from: f64| -> f64 {
            let of = |l: &SensitiveLayer| {
                let costs = l.choices.iter().map(|c| budget.cost(l, c).unwrap());
                costs.fold(from, f)
            };
            table.layers.iter().map(of).sum()
        };
        let (lo, hi) = (extreme(f64::min, f64::INFINITY), extreme(f64::max, 0.0));
        let limit = lo + (hi - lo) * (0.05 + 0.8 * r.unit());
        limits = limits.with(budget, Some(limit / budget.unit(&table.layers)));
    }
    limits
}

/// Tries all plans, layer by layer, but for those that the least of what is left shows to be too large.
struct Brute<'a> {
    table: &'a Sensitivity,
    layers: &'a [SensitiveLayer],
    ram: f64,
    limits: Vec<f64>,
    /// Loss and costs, by layer and choice.
    numbers: Vec<Vec<Vec<f64>>>,
    /// Least loss and costs of all layers from each on.
    rest: Vec<Vec<f64>>,
    best: Option<f64>,
}

/// The least loss of all plans.
fn brute(table: &Sensitivity, limits: &Limits) -> Option<f64> {
    let layers = &table.layers;
    let sums = || limits.given().filter(|g| g.0 != Budget::Ram);
    let budgets: Vec<Budget> = sums().map(|g| g.0).collect();
    let row = |l: &SensitiveLayer, c: &SensitiveChoice| -> Vec<f64> {
        let costs = budgets.iter().map(|b| b.cost(l, c).unwrap());
        [c.loss].into_iter().chain(costs).collect()
    };
    let of =
        |l: &SensitiveLayer| -> Vec<Vec<f64>> { l.choices.iter().map(|c| row(l, c)).collect() };
    let numbers: Vec<Vec<Vec<f64>>> = layers.iter().map(of).collect();
    let mut rest = vec![vec![0.0; budgets.len() + 1]];
    for choices in numbers.iter().rev() {
        let least = |k: usize| choices.iter().map(|c| c[k]).fold(f64::INFINITY, f64::min);
        let last = &rest[rest.len() - 1];
        rest.push(last.iter().enumerate().map(|(k, r)| r + least(k)).collect());
    }
    rest.reverse();
    let mut brute = Brute {
        table,
        layers,
        ram: limits.ram.unwrap_or(f64::INFINITY),
        limits: sums()
            .map(|(b, l)| l * b.unit(layers) - b.fixed(table))
            .collect(),
        numbers,
        rest,
        best: None,
    };
    brute.descend(&mut Vec::new(), &vec![0.0; budgets.len() + 1]);
    brute.best
}

impl Brute<'_> {
    fn descend(&mut self, picks: &mut Vec<usize>, sums: &[f64]) {
        let l = picks.len();
        let least: Vec<f64> = sums.iter().zip(&self.rest[l]).map(|(s, r)| s + r).collect();
        let over = least[1..]
            .iter()
            .zip(&self.limits)
            .any(|(s, l)| *s > l * (1.0 + 1e-12));
        if over || self.best.is_some_and(|b| least[0] >= b) {
            return;
        }
        if l == self.layers.len() {
            if totals(self.table, picks)
                .get("arena_bytes")
                .is_none_or(|&b| b <= self.ram)
            {
                self.best = Some(sums[0]);
            }
            return;
        }
        for c in 0..self.numbers[l].len() {
            if self.agrees(picks, c) {
                let new = sums.iter().zip(&self.numbers[l][c]).map(|(s, x)| s + x);
                let new: Vec<f64> = new.collect();
                picks.push(c);
                self.descend(picks, &new);
                picks.pop();
            }
        }
    }

    /// Whether the next layer's choice fits the ties and shared tensors of those before it.
    fn agrees(&self, picks: &[usize], c: usize) -> bool {
        let layer = &self.layers[picks.len()];
        self.layers.iter().zip(picks).all(|(p, &k)| {
            let tied = layer.tie.is_some() && p.tie == layer.tie;
            let shares = layer.reads.is_some() && p.reads == layer.reads;
            let format = &layer.choices[c].activation;
            (!tied || k == c) && (!shares || &p.choices[k].activation == format)
        })
    }
}

/// How many instances: all of them where the code is optimised.
fn scaled(n: usize) -> usize {
    if cfg!(debug_assertions) { n / 2 } else { n }
}

fn same_as_brute_force(table: &Sensitivity, limits: &Limits) -> bool {
    match (allocate(table, limits, &[]), brute(table, limits)) {
        (Ok(found), Some(best)) => {
            assert!(
                (found.objective - best).abs() <= 1e-9 * best,
                "{} is not {best}",
                found.objective
            );
            assert!(found.certificate.bound <= best * (1.0 + 1e-9));
            true
        }
        (Err(Refusal::Infeasible(_)), None) => false,
        (found, best) => panic!("{found:?} against {best:?}"),
    }
}

#[test]
fn small_programs_are_solved_as_by_trying_all_plans() {
    let mut r = Random(7);
    let (mut feasible, count) = (0, 500);
    for _ in 0..count {
        let (layers, choices) = (1 + r.below(12), 1 + r.below(8));
        let table = noisy(&mut r, layers, choices);
        let limits = limits(&mut r, &table);
        feasible += usize::from(same_as_brute_force(&table, &limits));
    }
    assert!(
        feasible > count / 4 && feasible < count,
        "{feasible} of {count}"
    );
}

#[test]
fn ties_and_shared_tensors_are_kept_as_by_trying_all_plans() {
    let mut r = Random(11);
    let mut feasible = 0;
    for _ in 0..scaled(120) {
        let layers = 2 + r.below(7);
        let mut table = noisy(&mut r, layers, 6);
        for l in &mut table.layers {
            l.tie = (r.below(3) == 0).then_some(Tie::Number(r.below(2) as i64));
            l.reads = (r.below(2) == 0).then(|| format!("t{}", r.below(2)));
        }
        let limits = limits(&mut r, &table);
        let contradicts = matches!(allocate(&table, &limits, &[]), Err(Refusal::Table(_)));
        if contradicts {
            assert_eq!(brute(&table, &limits), None);
        } else {
            feasible += usize::from(same_as_brute_force(&table, &limits));
        }
    }
    assert!(feasible > 10, "{feasible}");
}

/// A table whose choices need memory at some of five steps, and whose plans have costs beside their layers.
fn scheduled(r: &mut Random, layers: usize, choices: usize) -> Sensitivity {
    let mut table = noisy(r, layers, choices);
    for s in 0..5 {
        table.steps.push(MemoryStep {
            name: format!("step{s}"),
            bytes: (1000 + r.below(2000)) as f64,
        });
    }
    for c in table.layers.iter_mut().flat_map(|l| &mut l.choices) {
        for _ in 0..r.below(4) {
            let bytes = r.below(1500) as f64;
            c.step_bytes.insert(format!("step{}", r.below(5)), bytes);
        }
    }
    table.fixed.latency_us = 5.0 * r.unit();
    table.fixed.weight_bytes = 500.0 * r.unit();
    table
}

#[test]
fn memory_is_bounded_at_every_step_as_by_trying_all_plans() {
    let mut r = Random(13);
    let mut feasible = 0;
    let count = scaled(160);
    for _ in 0..count {
        let layers = 2 + r.below(6);
        let mut table = scheduled(&mut r, layers, 5);
        for l in &mut table.layers {
            l.reads = (r.below(3) == 0).then(|| "t".into());
        }
        let limits = limits(&mut r, &table).with(Budget::Ram, Some((2500 + r.below(3500)) as f64));
        if matches!(allocate(&table, &limits, &[]), Err(Refusal::Table(_))) {
            assert_eq!(brute(&table, &limits), None);
        } else {
            feasible += usize::from(same_as_brute_force(&table, &limits));
        }
    }
    assert!(
        feasible > count / 8 && feasible < count,
        "{feasible} of {count}"
    );
}

#[test]
fn the_least_memory_is_exact_and_names_its_steps() {
    let mut r = Random(17);
    for _ in 0..scaled(20) {
        let table = scheduled(&mut r, 6, 5);
        let ram = |bytes| Limits {
            ram: Some(bytes),
            ..Limits::default()
        };
        let Err(Refusal::Infeasible(why)) = allocate(&table, &ram(900.0), &[]) else {
            panic!("no step has so few bytes");
        };
        let least = &why.least[0];
        let found = allocate(&table, &ram(least.alone), &[]).unwrap();
        assert_eq!(found.totals["arena_bytes"], least.alone);
        assert!(allocate(&table, &ram(least.alone - 1.0), &[]).is_err());
        let step = &least.layers[0];
        assert!(step.0.starts_with("step") && step.1 == 1.0, "{step:?}");
        let mut wrong = found.clone();
        wrong.choice = vec![0; 6];
        let lower = ram(totals(&table, &wrong.choice)["arena_bytes"] - 1.0);
        let breach = check(&table, &lower, &[], &wrong);
        assert!(matches!(breach, Err(Breach::Step(..))), "{breach:?}");
    }
}

#[test]
fn memory_needs_a_schedule() {
    let mut r = Random(19);
    let ram = Limits {
        ram: Some(1e9),
        ..Limits::default()
    };
    let bare = noisy(&mut r, 3, 3);
    let found = allocate(&bare, &ram, &[]).unwrap_err();
    assert_eq!(found, Refusal::Table(TableError::NoSteps));
    let mut odd = scheduled(&mut r, 3, 3);
    odd.layers[1].choices[2]
        .step_bytes
        .insert("nowhere".into(), 1.0);
    let found = allocate(&odd, &ram, &[]).unwrap_err().to_string();
    assert!(
        found.contains("layer1") && found.contains("nowhere"),
        "{found}"
    );
}

/// Work that a search may take: a fraction of a second.
const MOST_WORK: usize = 30_000_000;

#[test]
fn large_programs_are_proved_optimal_with_little_work() {
    for (name, kind) in KINDS {
        let mut found = 0;
        for seed in 0..scaled(30) as u64 {
            let mut r = Random(seed);
            let table = kind(&mut r, 300, 12);
            let limits = limits(&mut r, &table);
            let problem = Problem::new(&table, &limits, &[]).unwrap();
            let Ok(prices) = relax::prices(&problem) else {
                continue;
            };
            let searched = branch::branch(&problem, &prices, None, MOST_WORK);
            assert!(searched.complete, "{name}, seed {seed}");
            found += usize::from(searched.best.is_some());
        }
        assert!(found > 0, "no program of kind {name} has a plan");
    }
}

#[test]
fn layers_of_a_few_sizes_are_proved_optimal() {
    let mut r = Random(2);
    let table = alike(&mut r, 300, 12);
    let limits = limits(&mut r, &table);
    let found = allocate(&table, &limits, &[]).unwrap();
    assert_eq!(check(&table, &limits, &[], &found), Ok(()));
}

#[test]
fn pins_are_kept_and_the_checker_sees_every_breach() {
    let mut r = Random(5);
    let table = noisy(&mut r, 6, 6);
    let limits = Limits {
        bits: Some(5.0),
        ..Limits::default()
    };
    let pin = Pin {
        layer: "layer2".into(),
        weight: Some("int8".into()),
        activation: None,
    };
    let pins = [pin];
    let found = allocate(&table, &limits, &pins).unwrap();
    assert_eq!(found.choice[2], 0);
    let breach = |change: &dyn Fn(&mut Allocation)| {
        let mut wrong = found.clone();
        change(&mut wrong);
        check(&table, &limits, &pins, &wrong).unwrap_err()
    };
    assert_eq!(breach(&|a| a.choice[0] = 9), Breach::Choice);
    assert!(matches!(breach(&|a| a.choice[2] = 1), Breach::Pin(_)));
    assert!(matches!(
        breach(&|a| a.choice = vec![0; 6]),
        Breach::Budget(..)
    ));
    assert!(matches!(
        breach(&|a| a.objective *= 1.1),
        Breach::Objective(..)
    ));
    assert!(matches!(breach(&|a| a.bound *= 1.1), Breach::Bound(..)));
    assert!(matches!(
        breach(&|a| a.certificate.bound += 1.0),
        Breach::Bound(..)
    ));
}

#[test]
fn an_infeasible_budget_names_the_least_that_can_be_met() {
    let mut r = Random(9);
    let table = noisy(&mut r, 8, 6);
    let too_small = Limits {
        bits: Some(1.0),
        size: Some(10.0),
        ..Limits::default()
    };
    let Err(Refusal::Infeasible(why)) = allocate(&table, &too_small, &[]) else {
        panic!("the budget is met");
    };
    for least in &why.least {
        let exactly = Limits::default().with(least.budget, Some(least.alone));
        allocate(&table, &exactly, &[]).unwrap();
        let less = Limits::default().with(least.budget, Some(0.999 * least.alone));
        assert!(matches!(
            allocate(&table, &less, &[]),
            Err(Refusal::Infeasible(_))
        ));
        assert_eq!(least.layers.len(), 3);
        let told = least.budget.least(least.alone);
        let (number, unit) = told.split_once(' ').unwrap();
        assert_eq!(unit, least.budget.unit_name());
        assert!(number.len() <= 6, "{told}");
        let typed = Limits::default().with(least.budget, number.parse().ok());
        allocate(&table, &typed, &[]).unwrap();
        assert!(
            why.to_string()
                .contains(&format!(", {told} is the smallest")),
            "{why}"
        );
    }
}

#[test]
fn a_least_that_is_whole_is_told_to_the_last_digit() {
    let told = Budget::Bops.least(12_345_678_901.0);
    assert_eq!(told, "12345678901 bit operations");
}

#[test]
fn faults_of_the_table_name_the_layer() {
    let mut r = Random(2);
    let good = noisy(&mut r, 3, 3);
    let bits = Limits {
        bits: Some(8.0),
        ..Limits::default()
    };
    let message = |change: &dyn Fn(&mut Sensitivity), pins: &[Pin]| {
        let mut bad = good.clone();
        change(&mut bad);
        allocate(&bad, &bits, pins).unwrap_err().to_string()
    };
    let cases = [
        (
            message(&|t| t.layers[1].choices[2].loss = f64::NAN, &[]),
            "'layer1', choice 2: loss is NaN",
        ),
        (
            message(&|t| t.layers[2].params = None, &[]),
            "'layer2', choice 0: --bits needs params",
        ),
        (
            message(&|t| t.layers[0].choices.clear(), &[]),
            "'layer0' has no choices",
        ),
        (
            message(&|t| t.layers[0].name = "layer1".into(), &[]),
            "two layers are named 'layer1'",
        ),
        (message(&|t| t.layers.clear(), &[]), "no layers"),
    ];
    for (found, expected) in cases {
        assert!(found.contains(expected), "{found}");
    }
    let pin = Pin {
        layer: "layer9".into(),
        ..Pin::default()
    };
    assert!(message(&|_| {}, &[pin]).contains("there is no such layer"));
}

#[test]
fn searches_improve_a_plan_and_keep_the_limits() {
    let mut r = Random(21);
    let table = noisy(&mut r, 8, 6);
    let limits = Limits {
        bits: Some(4.5),
        ..Limits::default()
    };
    let problem = Problem::new(&table, &limits, &[]).unwrap();
    let mut measure = |choice: &[usize]| -> Result<f64, std::convert::Infallible> {
        let picked = table.layers.iter().zip(choice);
        Ok(picked.map(|(l, &c)| l.choices[c].loss).sum())
    };
    let choice = vec![4; 8];
    let start = Scored {
        score: measure(&choice).unwrap(),
        choice,
    };
    let swapped = swaps(&problem, start.clone(), 300, &mut measure).unwrap();
    let how = Search {
        evaluations: 300,
        seed: 1,
    };
    let searched = search(&problem, start.clone(), how, &mut measure).unwrap();
    for better in [swapped, searched] {
        assert!(better.score < start.score, "{better:?} {start:?}");
        assert!(problem.admits(&problem.picks(&better.choice)));
        assert_eq!(measure(&better.choice).unwrap(), better.score);
    }
}

/// Traces, perturbations, sizes, operations and latencies that HAWQ-V3 published, with its assignments.
#[test]
fn hawq_v3_is_reproduced() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../shared/golden/hawq_ilp.json"
    );
    let Ok(text) = std::fs::read_to_string(path) else {
        println!("{path} is not there: not compared with HAWQ-V3");
        return;
    };
    let golden: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut identical = 0;
    for net in ["resnet18", "resnet50"] {
        let table = hawq(&golden[net]);
        let total: f64 = table.layers.iter().map(|l| l.choices[0].loss).sum();
        for (name, expected) in golden[net]["expected"].as_object().unwrap() {
            let limit = expected["limit"].as_f64();
            let limits = match name.split('_').next().unwrap() {
                "modelsize" => Limits {
                    size: limit,
                    ..Limits::default()
                },
                "bops" => Limits {
                    bops: limit,
                    ..Limits::default()
                },
                _ => Limits {
                    latency: limit.map(|x| x / 1000.0),
                    ..Limits::default()
                },
            };
            let found = allocate(&table, &limits, &[]).unwrap();
            let gain = expected["gain"].as_f64().unwrap();
            assert!(
                (total - found.objective - gain).abs() < 1e-9,
                "{net} {name}"
            );
            let bits: Vec<i64> = found.choice.iter().map(|&c| [4, 8][c]).collect();
            let of = |key: &str| serde_json::from_value::<Vec<i64>>(expected[key].clone()).unwrap();
            assert_eq!(bits, of("bits"), "{net} {name}");
            identical += usize::from(bits == of("published_bits"));
        }
    }
    assert_eq!(identical, 17);
}

fn hawq(net: &serde_json::Value) -> Sensitivity {
    let column = |key: &str| serde_json::from_value::<Vec<f64>>(net[key].clone()).unwrap();
    let tied: Vec<Vec<usize>> = serde_json::from_value(net["tied"].clone()).unwrap();
    let [trace, dw4, dw8, params, macs, lat4, lat8] =
        ["trace", "dw4", "dw8", "params", "macs", "lat4", "lat8"].map(column);
    let layer = |l: usize| {
        let choice = |bits: f64, dw: f64, latency: f64| SensitiveChoice {
            weight: format!("int{bits}"),
            activation: format!("int{bits}"),
            loss: trace[l] * dw,
            weight_bytes: Some(params[l] * bits / 8.0),
            bops: Some(macs[l] * bits * bits / 1024.0),
            latency_us: Some(latency),
            ..SensitiveChoice::default()
        };
        SensitiveLayer {
            name: format!("layer{l}"),
            params: Some(params[l]),
            tie: tied
                .iter()
                .position(|t| t.contains(&l))
                .map(|t| Tie::Number(t as i64)),
            choices: vec![choice(4.0, dw4[l], lat4[l]), choice(8.0, dw8[l], lat8[l])],
            ..SensitiveLayer::default()
        }
    };
    Sensitivity {
        layers: (0..trace.len()).map(layer).collect(),
        ..Sensitivity::default()
    }
}
