//! A report of a small network with everything that a page can show.

use lowbit_report::{
    Accuracy, Baseline, Buffer, Choice, HessianTraces, Layer, LayerTrace, Memory, Point, Port,
    Predictor, RankCorrelation, Report, Step, Tried,
};

/// Names as they come, one of them hostile.
const NAMES: [&str; 5] = [
    "conv1",
    "block/conv2",
    "</script><b id=\"broken\">&'",
    "block/conv3",
    "fc",
];
const PARAMS: [u64; 5] = [216, 2304, 4608, 9216, 640];
const CHOSEN: usize = 2;
const FORMATS: [[&str; 5]; 4] = [
    ["int3", "int2", "int2", "ternary", "int4"],
    ["int6", "int4", "int3", "int2", "int6"],
    ["int8", "int5", "int4", "int3", "int8"],
    ["int8", "int8", "int8", "int8", "int8"],
];

fn bits(format: &str) -> f64 {
    lowbit_report::insight::format_bits(format).expect("a known format")
}

fn packed(i: usize, format: &str) -> u64 {
    (PARAMS[i] as f64 * bits(format) / 8.0).ceil() as u64
}

fn loss(i: usize, format: &str) -> f64 {
    (i as f64 + 1.0) * 0.1 * (-1.4 * bits(format)).exp()
}

fn point(formats: &[&str; 5]) -> Point {
    let all = || formats.iter().enumerate();
    let weights: u64 = PARAMS.iter().sum();
    let held: f64 = all().map(|(i, f)| PARAMS[i] as f64 * bits(f)).sum();
    Point {
        bits: held / weights as f64,
        weight_bytes: all().map(|(i, f)| packed(i, f)).sum::<u64>() + 900,
        predicted_loss: all().map(|(i, f)| loss(i, f)).sum(),
        formats: formats.iter().map(ToString::to_string).collect(),
        ..Point::default()
    }
}

fn layer(i: usize) -> Layer {
    let format = FORMATS[CHOSEN][i];
    let choice = |f: &&str| Choice {
        weight_format: (*f).into(),
        activation_format: "int8".into(),
        predicted_loss: loss(i, f),
        weight_bytes: packed(i, f),
    };
    Layer {
        name: NAMES[i].into(),
        op: if i == 4 { "linear" } else { "conv" }.into(),
        params: PARAMS[i],
        macs: PARAMS[i] * 64,
        weight_format: format.into(),
        activation_format: "int8".into(),
        weight_bytes: packed(i, format),
        sensitivity: Some(0.5 + i as f64),
        predicted_loss: Some(loss(i, format)),
        sqnr_db: Some(38.0 - 4.0 * i as f64),
        cosine: Some(0.9999 - 0.0004 * i as f64),
        latency_us: Some(3.0 + 2.5 * i as f64),
        why: format!("reason number {i}"),
        choices: ["int3", "int4", "int5", "int8"]
            .iter()
            .map(choice)
            .collect(),
        rounding: "error feedback".into(),
        rounding_gain_db: Some(2.5),
    }
}

fn memory() -> Memory {
    let buffer = |name: &str, bytes, offset, first, last| Buffer {
        name: name.into(),
        scratch: name == "block/conv2",
        bytes,
        offset,
        first,
        last,
    };
    let buffers = vec![
        buffer("x", 4096, 0, 0, 1),
        buffer("conv1", 8192, 4096, 1, 3),
        buffer("block/conv2", 2048, 12288, 2, 2),
        buffer(NAMES[2], 3000, 0, 2, 4),
    ];
    let live = |call: usize| {
        let alive = buffers.iter().filter(|b| b.first <= call && call <= b.last);
        alive.map(|b| b.bytes).sum()
    };
    let steps = NAMES.iter().enumerate().map(|(i, name)| Step {
        name: (*name).into(),
        kernel: format!("conv_{i}"),
        live_bytes: live(i),
    });
    Memory {
        steps: steps.collect(),
        buffers,
    }
}

fn predictor() -> Predictor {
    let rank = |(metric, plans, value): (&str, &str, f64)| RankCorrelation {
        metric: metric.into(),
        plans: plans.into(),
        count: 12,
        value,
        low: value - 0.07,
        high: value + 0.03,
    };
    let ranks = [
        ("hessian", "2–8 bits", 0.783),
        ("kl", "2–8 bits", 0.871),
        ("hessian", "average 4.5", 0.86),
        ("kl", "average 4.5", 0.906),
    ];
    let trace = |(i, name): (usize, &&str)| LayerTrace {
        name: (*name).into(),
        gradients: 40.0 / (1.0 + i as f64),
        gradients_error: 1.25,
        probes: Some(41.5 / (1.0 + i as f64)),
        probes_error: Some(3.75),
    };
    Predictor {
        metric: "kl".into(),
        ranks: ranks.map(rank).to_vec(),
        traces: Some(HessianTraces {
            asked_error: 0.05,
            error: 0.047,
            gradients: 512,
            probes_error: Some(0.14),
            probes: Some(256),
            layers: NAMES.iter().enumerate().map(trace).collect(),
        }),
        temperature: Some(2.5),
    }
}

/// The report.
pub(crate) fn report() -> Report {
    let chosen = point(&FORMATS[CHOSEN]);
    let mut r = Report {
        layers: (0..NAMES.len()).map(layer).collect(),
        frontier: FORMATS.iter().map(point).collect(),
        tried: vec![
            Tried {
                plan: "mixed".into(),
                loss: 0.0123,
                returned: true,
                ..Tried::default()
            },
            Tried {
                plan: "int4".into(),
                loss: 0.0345,
                formats: ["int8", "int4", "int4", "int4", "int8"]
                    .map(String::from)
                    .to_vec(),
                ..Tried::default()
            },
        ],
        predictor: Some(predictor()),
        memory: memory(),
        accuracy: Some(Accuracy {
            float_top1: Some(0.912),
            top1: Some(0.9085),
            agreement: Some(0.977),
            sqnr_db: Some(24.6),
            samples: 2000,
            ..Accuracy::default()
        }),
        ..Report::default()
    };
    r.model.name = "small_net".into();
    r.model.path = "models/small net.onnx".into();
    r.model.inputs = vec![Port {
        name: "x".into(),
        shape: vec![1, 3, 32, 32],
        ..Port::default()
    }];
    r.target.triple = "x86_64-unknown-linux-gnu".into();
    r.target.level = "x86-64-v3".into();
    r.budget.bits = Some(4.0);
    r.totals.weight_bytes = chosen.weight_bytes;
    r.totals.avg_weight_bits = chosen.bits;
    r.totals.arena_bytes = 14_336;
    r.totals.arena_lower_bound_bytes = 14_336;
    r.totals.latency_us = Some(41.5);
    r.totals.latency_source = Some("measured".into());
    r.totals.object_bytes = 21_312;
    r.proofs.max_accumulator_bits = 22;
    r.proofs.bit_exact_samples = 8;
    r.reproduce.ranges = "auto".into();
    r.reproduce.estimator = "ste".into();
    r.reproduce.seed = 1;
    for (name, i, top1) in [("uniform8", 3, 0.911), ("uniform4", 1, 0.884)] {
        let p = point(&FORMATS[i]);
        let baseline = Baseline {
            top1: Some(top1),
            agreement: Some(top1 + 0.05),
            avg_weight_bits: p.bits,
            weight_bytes: p.weight_bytes,
        };
        r.baselines.insert(name.into(), baseline);
    }
    r
}
