//! One model on every target: every object that can run here gives the same bytes.

use std::path::Path;

use lowbit::{Error, Options, Pin, Runner, Silent, Tuning};

const SAMPLES: usize = 64;

/// Bytes of each output of each sample.
type Outputs = Vec<Vec<Vec<u8>>>;

fn outputs(triple: &str, level: &str, pins: &[Pin]) -> Result<Outputs, Error> {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models");
    let options = Options {
        data: Some(models.join("digits.toml")),
        target: Some(triple.into()),
        cpu: Some(level.into()),
        eval: Some(0),
        pins: pins.to_vec(),
        uniform: !pins.is_empty(),
        tuning: Tuning {
            effort: Some(0),
            ..Tuning::default()
        },
        ..Options::new(models.join("digits.onnx"))
    };
    let artefact = lowbit::compile(&options, &Silent)?.artefact;
    let proofs = &artefact.report.proofs;
    assert_eq!(proofs.float_instructions, 0, "{triple} {level}");
    assert!(proofs.undefined_symbols.is_empty(), "{triple} {level}");
    let bytes: usize = artefact.report.model.inputs[0].shape.iter().product();
    Runner::new(&artefact.object, &artefact.report)?.run(&samples(bytes))
}

fn samples(bytes: usize) -> Vec<Vec<Vec<u8>>> {
    let mut state = 1u32;
    let mut byte = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..SAMPLES)
        .map(|_| vec![(0..bytes).map(|_| byte()).collect()])
        .collect()
}

#[test]
fn objects_of_every_level_give_the_same_bytes() {
    same_on_every_level(&[]);
}

#[test]
fn weights_that_are_floats_give_the_same_bytes_on_every_level() {
    let pin = |(layer, format): (&str, &str)| Pin {
        layer: layer.into(),
        weight: Some(format.into()),
        activation: None,
    };
    let formats = [
        ("block1_out", "e2m1"),
        ("block2_out", "e2m2"),
        ("depthwise_out", "e2m3"),
        ("pointwise_out", "e2m1"),
    ];
    same_on_every_level(&formats.map(pin));
}

fn same_on_every_level(pins: &[Pin]) {
    let mut first: Option<(String, Outputs)> = None;
    for level in lowbit::targets() {
        for arch in &level.archs {
            let name = format!("{} on {arch}", level.name);
            match outputs(&format!("{arch}-unknown-linux-gnu"), &level.name, pins) {
                Err(why) => println!("{name}: not run here: {why}"),
                Ok(found) => {
                    let (other, expected) = first.get_or_insert((name.clone(), found.clone()));
                    assert!(&found == expected, "{name} differs from {other}");
                }
            }
        }
    }
    assert!(first.is_some(), "no object can run here");
}
