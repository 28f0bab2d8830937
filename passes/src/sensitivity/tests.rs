use std::convert::Infallible;

use lowbit_ir::derive::hessian_vector;
use lowbit_ir::eval::run;
use lowbit_ir::ops::{Conv, Pool, PoolKind, Unary, UnaryFn};
use lowbit_ir::{DType, Graph, Tensor, Type, ValueId};

use super::random::Random;
use super::*;
use crate::calibrate::{Method, calibrate};
use crate::loss::Objective;
use crate::quantize::{Fit, Ranges, Solver};

/// Two convolutions, a pool and a classifier over four classes.
fn network(dtype: DType) -> Graph {
    let mut g = Graph::new("network");
    let mut random = Random::new(9, 0);
    let mut constant = |g: &mut Graph, shape: &[usize], size: f64| {
        let n = shape.iter().product();
        let x = (0..n)
            .map(|_| size * (2.0 * random.uniform() - 1.0))
            .collect();
        g.constant("c", Tensor::from_f64(dtype, shape, x))
    };
    let conv = |pad: usize| Conv {
        stride: [1, 1],
        dilation: [1, 1],
        pad: [[pad, pad], [pad, pad]],
        groups: 1,
    };
    let pool = Pool {
        kind: PoolKind::Mean,
        kernel: [4, 4],
        stride: [1, 1],
        dilation: [1, 1],
        pad: [[0, 0], [0, 0]],
    };
    let x = g.input("x", Type::new(dtype, [1, 4, 4, 2]));
    let w = constant(&mut g, &[3, 3, 3, 2], 0.5);
    let first = g.push("first", conv(1), &[x, w]).unwrap();
    let relu = g.push("relu", Unary(UnaryFn::Relu), &[first]).unwrap();
    let w = constant(&mut g, &[3, 1, 1, 3], 0.9);
    let second = g.push("second", conv(0), &[relu, w]).unwrap();
    let tanh = g.push("tanh", Unary(UnaryFn::Tanh), &[second]).unwrap();
    let mean = g.push("mean", pool, &[tanh]).unwrap();
    let w = constant(&mut g, &[4, 1, 1, 3], 2.0);
    let last = g.push("last", conv(0), &[mean, w]).unwrap();
    g.output("y", last);
    g
}

struct Within(f64);

impl Ranges for Within {
    fn range(&self, _: ValueId, _: u32) -> (f64, f64) {
        (-self.0, self.0)
    }
    fn extremes(&self, v: ValueId) -> (f64, f64) {
        self.range(v, 8)
    }
}

fn sample_of(dtype: DType) -> impl Fn(usize) -> Result<Vec<Tensor>, Infallible> + Sync {
    move |i| {
        let mut random = Random::new(77, i as u64);
        let x = (0..32).map(|_| 2.0 * random.uniform() - 1.0).collect();
        Ok(vec![Tensor::from_f64(dtype, [1, 4, 4, 2], x)])
    }
}

fn effort(error: f64, most: usize) -> Effort {
    Effort {
        error,
        most,
        seed: 3,
    }
}

fn study(graph: &Graph) -> Study<'_> {
    Study::new(graph, &Within(1.5), Objective::new(graph, true))
}

/// The trace of each layer's Hessian over samples, one unit vector after the other.
fn exact_traces(study: &Study<'_>, n: usize) -> Vec<f64> {
    let mut graph = study.graph.clone();
    let scores = graph.outputs()[0].value;
    graph.clear_outputs();
    let loss = study.objective.emit(&mut graph).unwrap();
    let by: Vec<ValueId> = study.layers.iter().map(|l| l.weight).collect();
    let mut directions = Vec::new();
    for &w in &by {
        let ty = graph.ty(w).clone();
        directions.push(graph.input("v", ty));
    }
    let products = hessian_vector(&mut graph, loss, &by, &directions).unwrap();
    products.iter().for_each(|&v| graph.output("hv", v));
    let sample = sample_of(DType::F64);
    let mut traces = vec![0.0; by.len()];
    for i in 0..n {
        let x = sample(i).unwrap();
        let mut float = study.graph.clone();
        float.clear_outputs();
        float.output("scores", scores);
        let target = run(&float, &x).unwrap();
        for (l, layer) in study.layers.iter().enumerate() {
            for k in 0..layer.params {
                let vectors = study.layers.iter().enumerate().map(|(o, other)| {
                    let mut v = vec![0.0; other.params];
                    if o == l {
                        v[k] = 1.0;
                    }
                    Tensor::new(study.graph.shape(other.weight), v)
                });
                let inputs: Vec<Tensor> = x.iter().chain(&target).cloned().chain(vectors).collect();
                traces[l] += run(&graph, &inputs).unwrap()[l].to_f64()[k] / n as f64;
            }
        }
    }
    traces
}

fn near(exact: f64, found: Trace, what: &str) {
    let sigmas = (exact - found.mean).abs() / found.standard_error;
    assert!(sigmas < 4.0, "{what}: {exact}, found {found:?}");
    assert!(found.standard_error < 0.1 * exact, "{what}: {found:?}");
}

#[test]
fn both_estimates_of_the_trace_are_within_their_errors_of_the_exact_one() {
    let graph = network(DType::F64);
    let study = study(&graph);
    let n = 16;
    let exact = exact_traces(&study, n);
    let sample = sample_of(DType::F64);
    let quiet = |_, _| {};
    let bent = Curvature::new(&study, n, &sample, quiet).unwrap();
    let drawn = gauss_newton(&study, &bent, effort(0.0, 1600), &sample, quiet).unwrap();
    assert_eq!(drawn.draws, 1600);
    // what is expected of the traces need not be right
    let expected = [drawn.weights[0], Trace::default(), drawn.weights[2]];
    let probed = hutchinson(
        &study,
        (&bent, &expected),
        effort(0.0, 3200),
        &sample,
        quiet,
    )
    .unwrap();
    assert_eq!(probed.probes, 3200);
    for (l, layer) in study.layers.iter().enumerate() {
        near(
            exact[l],
            probed.layers[l],
            &format!("hutchinson, {}", layer.name),
        );
        near(
            exact[l],
            drawn.weights[l],
            &format!("gradients, {}", layer.name),
        );
    }
}

#[test]
fn estimates_go_on_until_every_trace_is_as_exact_as_asked() {
    let graph = network(DType::F32);
    let study = study(&graph);
    let sample = sample_of(DType::F32);
    let bent = Curvature::new(&study, 32, &sample, |_, _| {}).unwrap();
    let run = |error| {
        let found = gauss_newton(&study, &bent, effort(error, 10_000), &sample, |_, _| {}).unwrap();
        assert!(worst_error(&found.weights) <= error, "{:?}", found.weights);
        found.draws
    };
    let (loose, tight) = (run(0.2), run(0.05));
    assert!(loose < tight && tight < 10_000, "{loose} {tight}");
    let few = gauss_newton(&study, &bent, effort(0.0, 70), &sample, |_, _| {}).unwrap();
    assert_eq!(few.draws, 70);
}

#[test]
fn a_layer_alone_loses_what_the_whole_network_with_it_loses() {
    let graph = network(DType::F32);
    let study = study(&graph);
    let sample = sample_of(DType::F32);
    let found = measure(&study, 5, &sample, |_, _| {}).unwrap();
    for (l, layer) in study.layers.iter().enumerate() {
        for (f, rounded) in study.rounded[l].iter().enumerate() {
            let mut other = graph.clone();
            other.replace_constant(layer.weight, rounded.clone());
            let loss = |i: usize| {
                let x = sample(i).unwrap();
                let (a, b) = (run(&graph, &x).unwrap(), run(&other, &x).unwrap());
                study.objective.loss(&a, &b) / 5.0
            };
            let expected: f64 = (0..5).map(loss).sum();
            assert!(
                (expected - found.loss[l][f]).abs() < 1e-15,
                "{}: {f}",
                layer.name
            );
        }
        let by_bits = &found.loss[l][..6];
        assert!(
            by_bits[0] < by_bits[3] && by_bits[3] < by_bits[5],
            "{by_bits:?}"
        );
    }
}

/// `−log p` of a class with a layer's weights replaced.
fn surprise(study: &Study<'_>, layer: usize, weights: Vec<f64>, x: &[Tensor], class: usize) -> f64 {
    let mut graph = study.graph.clone();
    let w = study.layers[layer].weight;
    graph.replace_constant(w, Tensor::new(study.graph.shape(w), weights));
    let scores = run(&graph, x).unwrap()[0].to_f64();
    scores.iter().map(|s| s.exp()).sum::<f64>().ln() - scores[class]
}

#[test]
fn fisher_weighs_squared_errors_by_squared_gradients() {
    let graph = network(DType::F64);
    let study = study(&graph);
    let (sample, n, layer) = (sample_of(DType::F64), 3, 1);
    let draws = Draws { count: 1, seed: 1 };
    let found = fisher(&study, n, &sample, |i| Some(i % 4), draws, |_, _| {}).unwrap();
    let w = graph.as_const(study.layers[layer].weight).unwrap().to_f64();
    let mut expected = vec![0.0; WEIGHTS.len()];
    for i in 0..n {
        let x = sample(i).unwrap();
        for k in 0..w.len() {
            let at = |step: f64| {
                let mut moved = w.clone();
                moved[k] += step;
                surprise(&study, layer, moved, &x, i % 4)
            };
            let gradient = (at(1e-5) - at(-1e-5)) / 2e-5;
            for (f, sum) in expected.iter_mut().enumerate() {
                let error = study.error(layer, f)[k];
                *sum += 0.5 * gradient * gradient * error * error / n as f64;
            }
        }
    }
    for (f, expected) in expected.iter().enumerate() {
        let found = found[layer][f];
        assert!(
            (expected - found).abs() <= 1e-6 * expected,
            "{f}: {expected} {found}"
        );
    }
}

#[test]
fn a_plan_of_one_format_is_that_network() {
    let graph = network(DType::F32);
    let study = study(&graph);
    let sample = sample_of(DType::F32);
    let plan = vec![3; study.layers.len()];
    let found = plan_loss(&study, &[plan], 4, &sample, |_, _| {}).unwrap()[0];
    let mut other = graph.clone();
    for (l, layer) in study.layers.iter().enumerate() {
        other.replace_constant(layer.weight, study.rounded[l][3].clone());
    }
    let loss = |i: usize| {
        let x = sample(i).unwrap();
        let (a, b) = (run(&graph, &x).unwrap(), run(&other, &x).unwrap());
        study.objective.loss(&a, &b) / 4.0
    };
    assert!((found - (0..4).map(loss).sum::<f64>()).abs() < 1e-15);
}

#[test]
fn corrected_biases_keep_the_mean_of_every_channel() {
    let graph = network(DType::F64);
    let mut study = study(&graph);
    let n = 5;
    let sample = sample_of(DType::F64);
    let mean = |study: &Study<'_>, layer: usize, format: Option<usize>| {
        let channels = study.layers[layer].channels;
        let mut sum = vec![0.0; channels];
        for i in 0..n {
            let values = measured::Values::new(&graph, &sample(i).unwrap()).unwrap();
            let own = values.get(study.layers[layer].output).clone();
            let result = format.map_or(own, |f| {
                measured::layer_results(study, &values, layer).unwrap()[f].clone()
            });
            let pixels = result.len() / channels;
            let all = result.to_f64();
            let terms = all.iter().enumerate();
            terms.for_each(|(i, x)| sum[i % channels] += x / (n * pixels) as f64);
        }
        sum
    };
    let distance = |study: &Study<'_>, layer, format| {
        let pairs = mean(study, layer, None).into_iter();
        let pairs = pairs.zip(mean(study, layer, Some(format)));
        pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    };
    let narrow = 5;
    let before: Vec<f64> = (0..3).map(|l| distance(&study, l, narrow)).collect();
    study.correct(n, &sample, |_, _| {}).unwrap();
    for (layer, before) in before.into_iter().enumerate() {
        let after = distance(&study, layer, narrow);
        assert!(before > 1e-3 && after < 1e-12, "{layer}: {before} {after}");
    }
}

#[test]
fn random_plans_are_of_their_kind() {
    let graph = network(DType::F32);
    let study = study(&graph);
    let total: usize = study.layers.iter().map(|l| l.params).sum();
    for number in 0..50 {
        let bits = |kind| -> Vec<u32> {
            let plan = random_plan(&study.layers, kind, number, 4);
            plan.iter().map(|&f| WEIGHTS[f].bits()).collect()
        };
        assert!(bits(PlanKind::Any).iter().all(|b| (2..=8).contains(b)));
        assert!(bits(PlanKind::AtLeast3).iter().all(|b| (3..=8).contains(b)));
        let average = bits(PlanKind::Average);
        let pairs = average.iter().zip(&study.layers);
        let sum: usize = pairs.map(|(&b, l)| b as usize * l.params).sum();
        assert!((sum as f64 / total as f64 - 4.5).abs() <= 0.15, "{number}");
    }
    let of = |number| random_plan_of(&study.layers, &[0, 2], number, 4);
    assert!((0..50).all(|number| of(number)[1] == 0));
    assert!((0..50).any(|number| of(number)[0] != of(number)[2]));
    assert_ne!(
        random_plan(&study.layers, PlanKind::Any, 0, 1),
        random_plan(&study.layers, PlanKind::Any, 1, 1)
    );
}

/// Both estimates of all traces, over 7 samples.
fn traces(
    study: &Study<'_>,
    sample: &(impl Fn(usize) -> Result<Vec<Tensor>, Infallible> + Sync),
) -> (GaussNewton, Traces) {
    let quiet = |_, _| {};
    let bent = Curvature::new(study, 7, sample, quiet).unwrap();
    let drawn = gauss_newton(study, &bent, effort(0.0, 100), sample, quiet).unwrap();
    let expected = (&bent, &drawn.weights[..]);
    let probed = hutchinson(study, expected, effort(0.0, 14), sample, quiet).unwrap();
    (drawn, probed)
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let graph = network(DType::F32);
    let study = study(&graph);
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let sample = sample_of(DType::F32);
            let draws = Draws { count: 2, seed: 1 };
            (
                measure(&study, 7, &sample, |_, _| {}).unwrap(),
                fisher(
                    &study,
                    7,
                    &sample,
                    |i| (i > 3).then_some(i % 4),
                    draws,
                    |_, _| {},
                )
                .unwrap(),
                traces(&study, &sample),
            )
        })
    };
    assert_eq!(on(1), on(3));
}

#[test]
fn a_layer_and_a_sample_that_are_not_finite_are_named() {
    let graph = network(DType::F32);
    let study = study(&graph);
    let bad = |i: usize| {
        let mut x = vec![0.5f32; 32];
        if i == 2 {
            x[7] = f32::NAN;
        }
        Ok::<_, Infallible>(vec![Tensor::new([1, 4, 4, 2], x)])
    };
    let error = measure(&study, 4, bad, |_, _| {}).unwrap_err().to_string();
    assert!(
        error.starts_with("layer 'first', sample 2: the loss is NaN"),
        "{error}"
    );
    let draws = Draws { count: 1, seed: 1 };
    let error = fisher(&study, 4, bad, |_| None, draws, |_, _| {}).unwrap_err();
    let bent = Curvature::new(&study, 4, bad, |_, _| {}).unwrap();
    let other = gauss_newton(&study, &bent, effort(0.1, 64), bad, |_, _| {}).unwrap_err();
    assert_eq!(error.to_string(), other.to_string());
    let error = error.to_string();
    assert!(
        error.starts_with("layer 'first', sample 2: the squared gradient"),
        "{error}"
    );
}

/// Inputs whose pixels are nearly alike: errors of weights that cancel are not seen.
fn alike(i: usize) -> Result<Vec<Tensor>, Infallible> {
    let mut random = Random::new(78, i as u64);
    let base = 2.0 * random.uniform() - 1.0;
    let x = (0..32).map(|_| base + 0.2 * random.uniform()).collect();
    Ok(vec![Tensor::from_f64(DType::F32, [1, 4, 4, 2], x)])
}

#[test]
fn layers_that_are_fitted_lose_less_than_rounded_ones() {
    let graph = network(DType::F32);
    let samples: Vec<Vec<Tensor>> = (100..164).map(|i| alike(i).unwrap()).collect();
    let stats = calibrate(&graph, 64, |i| alike(100 + i), |_| true, |_, _| {}).unwrap();
    let ranges = stats.ranges(Method::Mse);
    let [mut plain, mut fitted] =
        [(); 2].map(|()| Study::new(&graph, &ranges, Objective::new(&graph, true)));
    let fit = Fit {
        samples: &samples,
        mean: &|v| stats.mean(v),
        solver: Solver::Feedback,
        low_bits: 6,
        correct: true,
    };
    fitted.fit(&ranges, &fit, &mut |_, _| {}).unwrap();
    let [before, after] = [&mut plain, &mut fitted].map(|study| {
        study.correct(64, |i| alike(100 + i), |_, _| {}).unwrap();
        measure(study, 32, alike, |_, _| {}).unwrap().loss
    });
    let column = WEIGHTS.iter().position(|f| f.bits() == 3).unwrap();
    let total = |losses: &[Vec<f64>]| -> f64 { losses.iter().map(|l| l[column]).sum() };
    let gain = total(&before) / total(&after);
    assert!(gain > 1.5, "{gain}: {before:?} {after:?}");
    let eight = |study: &Study<'_>| study.rounded[0][0].to_f64();
    assert_eq!(
        eight(&plain),
        eight(&fitted),
        "8 bits are rounded to nearest"
    );
    for share in fitted.shares().concat() {
        assert!(share > 0.0 && share < 100.0, "{share}");
    }
}
