#!/usr/bin/env python3
"""Makes digits.onnx, digits.npz and digits.toml: a small CNN on the handwritten digits that scikit-learn ships.

    pip install onnx==1.17.0 numpy scikit-learn
    python make_digits.py

Everything is seeded. The network: conv 3x3 - BN - ReLU, a residual block of two more, max pooling, a depthwise and a
pointwise convolution, mean pooling, a linear layer. It is trained here with numpy and a written-out backward pass.
"""
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits

RNG = np.random.default_rng(7)
EPOCHS, BATCH, RATE = 40, 32, 0.004


def patches(x, k):
    p = k // 2
    x = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    return np.lib.stride_tricks.sliding_window_view(x, (k, k), axis=(2, 3))  # n c h w k k


class Conv:
    def __init__(self, c, o, k, groups=1):
        self.groups, self.k = groups, k
        self.w = RNG.normal(0, np.sqrt(2 / (c // groups * k * k)), (o, c // groups, k, k))
        self.g, self.b = np.ones(o), np.zeros(o)
        self.mean, self.var = np.zeros(o), np.ones(o)

    def params(self):
        return [(self, "w"), (self, "g"), (self, "b")]

    def forward(self, x, train):
        self.x = x
        p = patches(x, self.k)
        if self.groups == 1:
            y = np.einsum("nchwij,ocij->nohw", p, self.w, optimize=True)
        else:
            y = np.einsum("nchwij,cij->nchw", p, self.w[:, 0], optimize=True)
        self.p = p
        if train:
            m, v = y.mean((0, 2, 3)), y.var((0, 2, 3))
            self.mean, self.var = 0.9 * self.mean + 0.1 * m, 0.9 * self.var + 0.1 * v
        else:
            m, v = self.mean, self.var
        self.s = 1 / np.sqrt(v + 1e-5)
        self.n = (y - m[:, None, None]) * self.s[:, None, None]
        return self.n * self.g[:, None, None] + self.b[:, None, None]

    def backward(self, d):
        self.dg, self.db = (d * self.n).sum((0, 2, 3)), d.sum((0, 2, 3))
        d = d * self.g[:, None, None]
        count = d.shape[0] * d.shape[2] * d.shape[3]
        d = (d - d.sum((0, 2, 3))[:, None, None] / count - self.n * (d * self.n).sum((0, 2, 3))[:, None, None] / count)
        d = d * self.s[:, None, None]
        flipped = self.w[:, :, ::-1, ::-1]
        q = patches(d, self.k)
        if self.groups == 1:
            self.dw = np.einsum("nchwij,nohw->ocij", self.p, d, optimize=True)
            return np.einsum("nohwij,ocij->nchw", q, flipped, optimize=True)
        self.dw = np.einsum("nchwij,nchw->cij", self.p, d, optimize=True)[:, None]
        return np.einsum("nchwij,cij->nchw", q, flipped[:, 0], optimize=True)


def relu(x):
    return np.maximum(x, 0), x > 0


class Net:
    def __init__(self):
        self.a, self.r1, self.r2 = Conv(1, 16, 3), Conv(16, 16, 3), Conv(16, 16, 3)
        self.d, self.p = Conv(16, 16, 3, groups=16), Conv(16, 32, 1)
        self.w, self.b = RNG.normal(0, 0.2, (32, 10)), np.zeros(10)

    def forward(self, x, train):
        self.h0, self.m0 = relu(self.a.forward(x, train))
        h, self.m1 = relu(self.r1.forward(self.h0, train))
        h, self.m2 = relu(self.r2.forward(h, train) + self.h0)
        n, c, hh, ww = h.shape
        blocks = h.reshape(n, c, hh // 2, 2, ww // 2, 2)
        y = blocks.max((3, 5))
        self.pick = blocks == y[:, :, :, None, :, None]
        h, self.m3 = relu(self.d.forward(y, train))
        h, self.m4 = relu(self.p.forward(h, train))
        self.mean = h.mean((2, 3))
        return self.mean @ self.w + self.b

    def backward(self, d):
        self.dw, self.db = self.mean.T @ d, d.sum(0)
        d = (d @ self.w.T)[:, :, None, None] / self.m4[0, 0].size * self.m4
        d = self.d.backward(self.p.backward(d) * self.m3)
        d = (self.pick * d[:, :, :, None, :, None]).reshape(self.m2.shape) * self.m2
        skip = d
        d = self.r1.backward(self.r2.backward(d) * self.m1) + skip
        self.a.backward(d * self.m0)

    def params(self):
        convs = [self.a, self.r1, self.r2, self.d, self.p]
        return [q for c in convs for q in c.params()] + [(self, "w"), (self, "b")]


def train(net, x, y):
    state = {}
    t = 0
    for epoch in range(EPOCHS):
        rate = RATE * 0.5 * (1 + np.cos(np.pi * epoch / EPOCHS))
        for idx in np.array_split(RNG.permutation(len(x)), len(x) // BATCH):
            t += 1
            z = net.forward(x[idx], True)
            e = np.exp(z - z.max(1, keepdims=True))
            d = e / e.sum(1, keepdims=True)
            d[np.arange(len(idx)), y[idx]] -= 1
            net.backward(d / len(idx))
            for i, (owner, name) in enumerate(net.params()):
                grad = getattr(owner, "d" + name)
                m, v = state.get(i, (0, 0))
                m, v = 0.9 * m + 0.1 * grad, 0.99 * v + 0.01 * grad * grad
                state[i] = m, v
                step = rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.99**t)) + 1e-8)
                setattr(owner, name, getattr(owner, name) - step)


def export(net, path):
    nodes, weights = [], []

    def const(name, value):
        weights.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
        return name

    def conv(name, layer, x):
        w = const(name + ".weight", layer.w)
        k = layer.k
        nodes.append(helper.make_node("Conv", [x, w], [name + "_out"], name, kernel_shape=[k, k], pads=[k // 2] * 4, group=layer.groups))
        bn = [const(f"{name}.bn.{s}", v) for s, v in (("scale", layer.g), ("bias", layer.b), ("mean", layer.mean), ("var", layer.var))]
        nodes.append(helper.make_node("BatchNormalization", [name + "_out", *bn], [name + "_bn"], name + "_bn", epsilon=1e-5))
        return name + "_bn"

    def op(kind, inputs, name, **attrs):
        nodes.append(helper.make_node(kind, inputs, [name], name, **attrs))
        return name

    stem = op("Relu", [conv("stem", net.a, "image")], "stem_relu")
    h = op("Relu", [conv("block1", net.r1, stem)], "block1_relu")
    h = op("Add", [conv("block2", net.r2, h), stem], "block_add")
    h = op("MaxPool", [op("Relu", [h], "block_relu")], "pool", kernel_shape=[2, 2], strides=[2, 2])
    h = op("Relu", [conv("depthwise", net.d, h)], "depthwise_relu")
    h = op("Relu", [conv("pointwise", net.p, h)], "pointwise_relu")
    h = op("Flatten", [op("GlobalAveragePool", [h], "mean")], "flat")
    op("Gemm", [h, const("fc.weight", net.w), const("fc.bias", net.b)], "logits")
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="make_digits.py")
    model.ir_version = 8
    onnx.checker.check_model(model)
    onnx.save(model, path)


DESCRIPTOR = """# handwritten digits of scikit-learn: 8x8 pixels of 0..16
[input.x]
file = "digits.npz"
array = "x"
scale = 0.0625

[labels]
file = "digits.npz"
array = "y"

[split]
calibrate = "0..400"
evaluate = "1000..1797"
"""


def samples_header(x, y, path):
    rows = ",\n    ".join("{" + ", ".join(str(v) for v in s.reshape(-1)) + "}" for s in x)
    text = "/* Handwritten digits, 8x8 pixels of 0..16, and what they show. Written by tests/models/make_digits.py. */\n"
    text += f"#define SAMPLES {len(x)}\nstatic const unsigned char samples[SAMPLES][64] = {{\n    {rows}\n}};\n"
    text += "static const int labels[SAMPLES] = {" + ", ".join(map(str, y)) + "};\n"
    open(path, "w").write(text)


def main():
    digits = load_digits()
    order = RNG.permutation(len(digits.target))
    x, y = digits.images[order].astype(np.uint8), digits.target[order].astype(np.uint8)
    net = Net()
    real = (x / 16.0)[:, None]
    train(net, real[:1000], y[:1000])
    right = (net.forward(real[1000:], False).argmax(1) == y[1000:]).mean()
    print(f"accuracy on {len(x) - 1000} test samples: {right:.4f}")
    np.savez_compressed("digits.npz", x=x[:, None], y=y)
    export(net, "digits.onnx")
    open("digits.toml", "w").write(DESCRIPTOR)
    samples_header(x[1000:1200], y[1000:1200], "../../examples/c/samples.h")


if __name__ == "__main__":
    main()
