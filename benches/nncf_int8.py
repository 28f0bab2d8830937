#!/usr/bin/env python3
"""Accuracy of NNCF's 8-bit quantisation, for the table of `cargo xtask tables accuracy`.

    python benches/nncf_int8.py [MODEL …] [--zoo FOLDER] [--output target/tables/nncf.json]

Without names, every model of ../shared/zoo that has data is taken. A model is quantised with NNCF's defaults for OpenVINO (for
transformers those of its model type) on the calibration split, of which NNCF takes 300 samples, and run by OpenVINO on the whole
evaluation split. The file has drop, disagreement and divergence of each model against its float form, as the table counts them;
models measured before stay in it. `score.py` beside the models says what their descriptors mean.
"""
import argparse
import json
import logging
import pathlib
import sys

import numpy as np
import openvino

ROOT = pathlib.Path(__file__).resolve().parent.parent
TRANSFORMERS = "vit"


def logarithms(x):
    """Logarithms of the distributions over classes that rows of logits or of probabilities stand for."""
    x = x.astype(np.float64)
    if x.min() >= 0 and np.allclose(x.sum(1), 1, atol=0.05):
        x = np.log(np.maximum(x, 1e-12))
    x = x - x.max(1, keepdims=True)
    return x - np.log(np.exp(x).sum(1, keepdims=True))


def divergence(expected, found):
    p, q = logarithms(expected), logarithms(found)
    return float((np.exp(p) * (p - q)).sum(1).mean())


def run(model, samples):
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.Core().compile_model(model, "CPU", config).create_infer_request()
    return np.stack([request.infer([x])[0].reshape(-1) for x in samples])


def measure(name, zoo, score):
    import nncf

    path = zoo / "models" / f"{name}.onnx"
    data = score.Data(str(zoo / f"{name}.toml"), str(path))
    model = openvino.Core().read_model(path)
    kind = nncf.ModelType.TRANSFORMER if TRANSFORMERS in name else None
    calibration = nncf.Dataset([data.sample(i) for i in data.calibrate])
    quantised = nncf.quantize(model, calibration, model_type=kind)
    samples = [data.sample(i) for i in data.evaluate]
    expected, found = run(model, samples), run(quantised, samples)
    accuracy = [score.metric(name, data, list(data.evaluate), x) for x in (expected, found)]
    cell = {"drop": 100 * (accuracy[0] - accuracy[1])}
    if data.labels is not None:
        cell["disagreement"] = 100 * float((expected.argmax(1) != found.argmax(1)).mean())
        cell["divergence"] = divergence(expected, found)
    return cell


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--zoo", type=pathlib.Path, default=ROOT.parent / "shared" / "zoo")
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "target" / "tables" / "nncf.json")
    options = parser.parse_args()
    sys.path.insert(0, str(options.zoo))
    import score

    logging.disable(logging.INFO)
    described = sorted(p.stem for p in options.zoo.glob("*.toml"))
    names = options.models or [n for n in described if (options.zoo / "models" / f"{n}.onnx").exists()]
    found = json.loads(options.output.read_text()) if options.output.exists() else {}
    for name in names:
        try:
            found[name] = measure(name, options.zoo, score)
        except Exception as error:  # a model that NNCF cannot quantise leaves the others their rows
            print(f"{name}: {str(error).splitlines()[0]}", file=sys.stderr)
            continue
        print(name, found[name], flush=True)
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
