#!/usr/bin/env python3
"""Latency of compiled objects beside onnxruntime and, where it is installed, OpenVINO: interleaved, in one run.

    python benches/peers.py [MODEL.onnx …] [--lowbit PATH] [--cpu C] [--threads 1] [--rounds 7] [--secs 0.3] [--least] [--json]

Without models, every model of ../shared/zoo/models is taken. A TOML file of the model's name beside the model or in the folder
above describes its data, and calibrates both sides. Peers run float, in OpenVINO's own choice of precision (bfloat16 where the processor has it), and statically
quantised to 8 bits (U8S8, per channel: the fastest format on x86; and by NNCF where it is installed), batch 1, inputs bound once. On one
thread everything is pinned to one core; on more, peers are timed on one thread too and their better figure counts, and so is
Lowbit. In every round each side is timed once; a figure is the median over rounds (with --least, the least) of the round's median. A ratio is the peer's time
over ours: above 1 Lowbit is faster.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnx

ROOT = pathlib.Path(__file__).resolve().parent.parent
ZOO = ROOT.parent / "shared" / "zoo" / "models"


def feeds(model):
    rng = np.random.default_rng(1)
    graph = onnx.load(model, load_external_data=False).graph
    constants = {t.name for t in graph.initializer}
    found = {}
    for port in graph.input:
        if port.name not in constants:
            shape = [d.dim_value or 1 for d in port.type.tensor_type.shape.dim]
            kind = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(port.type.tensor_type.elem_type))
            x = rng.uniform(-1, 1, shape) if kind.kind == "f" else np.ones(shape)
            found[port.name] = x.astype(kind)
    return found


def quantised(model, folder):
    """The model with 8-bit weights and activations; speed does not depend on the data that calibrates it."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.rest = iter([feeds(model)] * 2)

        def get_next(self):
            return next(self.rest, None)

    prepared, result = folder / "prepared.onnx", folder / "int8.onnx"
    quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
    quantize_static(str(prepared), str(result), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
                    weight_type=QuantType.QInt8, activation_type=QuantType.QUInt8)
    return result


def onnxruntime_call(model, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for name, x in feeds(model).items():
        binding.bind_cpu_input(name, x)
    for output in session.get_outputs():
        binding.bind_output(output.name, "cpu")
    return lambda: session.run_with_iobinding(binding)


def openvino_call(model, threads, precision=None, inputs=None):
    import openvino

    config = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False}
    config |= {"INFERENCE_PRECISION_HINT": precision} if precision else {}
    inputs = inputs or feeds(model)
    model = str(model) if isinstance(model, pathlib.Path) else model
    compiled = openvino.Core().compile_model(model, "CPU", config)
    request = compiled.create_infer_request()
    for port, x in zip(compiled.inputs, inputs.values()):
        request.set_tensor(port, openvino.Tensor(x))
    return request.infer


def nncf_model(model):
    """What NNCF makes of a model; speed does not depend on the samples."""
    import nncf
    import openvino

    samples = [feeds(model)] * 2
    return nncf.quantize(openvino.Core().read_model(str(model)), nncf.Dataset(samples), subset_size=len(samples))


def timed(call, seconds):
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e6)
    return statistics.median(times)


def compile_object(model, folder, options):
    command = [options.lowbit, "compile", model, "-o", folder, "--eval", "none"]
    described = [model.with_suffix(".toml"), model.parent.parent / (model.stem + ".toml")]
    described = [path for path in described if path.exists()]
    command += ["--data", described[0]] if described else []
    command += ["--cpu", options.cpu] if options.cpu else []
    command += ["--threads", options.threads] if options.threads > 1 else []
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    return folder


def object_time(folder, options, threads):
    command = [options.lowbit, "bench", str(folder), "--threads", str(threads), "--json"]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(run.stdout)["median_us"]


def peers(model, folder, threads):
    """Calls by name and number of threads; a peer that cannot run this model is left out, and said so."""
    made, failed = {}, {}
    quantized = {}

    def once(name, make):
        if name not in quantized:
            quantized[name] = make()
        return quantized[name]

    makers = {"onnxruntime float": lambda n: onnxruntime_call(model, n),
              "onnxruntime int8": lambda n: onnxruntime_call(once("qdq", lambda: quantised(model, folder)), n)}
    try:
        import openvino  # noqa: F401

        makers["openvino float"] = lambda n: openvino_call(model, n, "f32")
        makers["openvino default"] = lambda n: openvino_call(model, n)
        makers["openvino int8"] = lambda n: openvino_call(folder / "int8.onnx", n)
        import nncf  # noqa: F401

        makers["openvino NNCF int8"] = lambda n: openvino_call(once("nncf", lambda: nncf_model(model)), n, inputs=feeds(model))
    except ImportError:
        pass
    for name, make in makers.items():
        for n in sorted({1, threads}):
            try:
                made[name, n] = make(n)
            except Exception as error:  # whatever it is, it belongs in the table
                failed[name] = str(error).splitlines()[0][:120]
    return made, failed


def measure(model, options):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        built = pathlib.Path(options.objects) / model.stem if options.objects else folder / "object"
        if not (built / "report.json").exists():
            compile_object(model, built, options)
        calls, failed = peers(model, folder, options.threads)
        for call in calls.values():
            timed(call, 0.1)
        counts = sorted({1, options.threads})
        rounds = {key: [] for key in [*(("lowbit", n) for n in counts), *calls]}
        for _ in range(options.rounds):
            for n in counts:
                rounds["lowbit", n].append(object_time(built, options, n))
            for key, call in calls.items():
                rounds[key].append(timed(call, options.secs))
    median = {}
    for (name, _), times in rounds.items():
        us = min(times) if options.least else statistics.median(times)
        median[name] = min(us, median.get(name, us))
    return {"model": model.stem, "median_us": median, "failed": failed,
            "ratio": {name: us / median["lowbit"] for name, us in median.items() if name != "lowbit"}}


def row(result, names):
    best = min((us, name) for name, us in result["median_us"].items() if name != "lowbit")
    cells = [result["model"], f"{result['median_us']['lowbit']:.1f}", f"{best[0] / result['median_us']['lowbit']:.2f}×"]
    for name in names:
        us, ratio = result["median_us"].get(name), result["ratio"].get(name)
        cells += ["–", "–"] if us is None else [f"{us:.1f}", f"{ratio:.2f}×"]
    return "| " + " | ".join(cells) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=pathlib.Path)
    parser.add_argument("--lowbit", default=str(ROOT / "target" / "release" / "lowbit"))
    parser.add_argument("--cpu", help="what --cpu of `lowbit compile` takes")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--objects", help="a folder of compiled objects, one folder a model, to take or to fill")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--secs", type=float, default=0.3)
    parser.add_argument("--least", action="store_true", help="take the least of the rounds, where other machines disturb this one")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    models = options.models or sorted(ZOO.glob("*.onnx"))
    if not models:
        sys.exit(f"no models: name some, or put them into {ZOO}")
    table = os.fdopen(os.dup(1), "w")  # some peers print on standard output
    os.dup2(2, 1)
    if options.threads == 1:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    names = ["onnxruntime float", "onnxruntime int8", "openvino float", "openvino default", "openvino int8", "openvino NNCF int8"]
    results = []
    for model in models:
        try:
            results.append(measure(model, options))
        except subprocess.CalledProcessError as error:
            print(f"{model.stem}: {error.stderr.strip()[-200:]}", file=sys.stderr)
            continue
        print(f"measured {model.stem}", file=sys.stderr)
    if options.json:
        print(json.dumps(results), file=table)
        return
    names = [n for n in names if any(n in r["median_us"] for r in results)]
    print("| model | Lowbit µs | best peer | " + " | ".join(f"{n} µs | ratio" for n in names) + " |", file=table)
    print("|---" * (3 + 2 * len(names)) + "|", file=table)
    for result in results:
        print(row(result, names), file=table)
        for name, why in result["failed"].items():
            print(f"{result['model']}: {name} failed: {why}", file=sys.stderr)


if __name__ == "__main__":
    main()
