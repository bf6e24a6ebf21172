"""What accelerators are given: no Indices, no scattering, symmetric pads; placed by CUDA's own provider."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import test_architectures
from layers import NETS, assert_close, fire, reverse, weights
from networks import model, node, picture

import revgraph
from revgraph.compiler import PRECISIONS
from revgraph.lower.devices import CUDA, TENSORRT, WEB

WINDOWS = {
    "AlexNet's": {"kernel_shape": [3, 3], "strides": [2, 2]},
    "ResNet's": {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
    "SqueezeNet's": {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
    "VGG's": {"kernel_shape": [2, 2], "strides": [2, 2]},
    "GoogLeNet's": {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]},
    "of one element": {"kernel_shape": [1, 1], "strides": [2, 2]},
    "with gaps": {"kernel_shape": [2, 2], "strides": [3, 4]},
    "unlike axes": {"kernel_shape": [3, 2], "strides": [2, 3], "pads": [1, 0, 2, 1], "dilations": [2, 1]},
    "of one row": {"kernel_shape": [1, 9], "strides": [1, 2], "pads": [0, 4, 0, 4]},
}


def pool(*size: int, **window) -> onnx.ModelProto:
    return model([node("Relu", "x", "r"), node("MaxPool", "r", "y", **window)], ["N", 2, *size])


def check(net: onnx.ModelProto, *size: int) -> None:
    """Few different numbers, so that most windows have several maxima, and sums have no rounding."""
    rng = np.random.default_rng(0)
    x = rng.integers(-2, 3, (2, 2, *size)).astype(np.float32)
    for variant in revgraph.VARIANTS:
        session = revgraph.Session(revgraph.compile(net, variant=variant, target="cuda"))
        trace = session.forward(x)
        kinds = [tap.numpy().dtype for name, tap in trace.taps.items() if name.endswith("/switches")]
        assert kinds == [np.uint8] * (not variant.endswith("centre"))
        p = rng.integers(-3, 4, trace.y.shape).astype(np.float32)
        np.testing.assert_array_equal(session.reverse(trace, p), reverse(net, x, p, variant))


@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
def test_the_switches_are_portables(window):
    check(pool(10, 9, **window), 10, 9)


def test_pools_have_one_axis_or_three():
    check(pool(9, kernel_shape=[3], strides=[2], pads=[1, 1]), 9)
    check(pool(5, 6, 4, kernel_shape=[2, 3, 2], strides=[2, 2, 1], pads=[0, 1, 1, 0, 1, 0]), 5, 6, 4)


def test_a_window_in_the_padding_of_negative_numbers():
    """What the padding holds is below any number of the map."""
    net = model(
        [node("MaxPool", "x", "y", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)], ["N", 1, 7, 7]
    )
    x, p = -1 - np.abs(picture(2, 1, 7, 7)), picture(2, 1, 4, 4)
    np.testing.assert_array_equal(reverse(net, x, p, target="cuda"), reverse(net, x, p))


@pytest.mark.parametrize(
    ("size", "window", "why"),
    [
        (("H", "W"), [3, 3], "the size of its maps is known at run time only"),
        (("H", 20), [3, 3], "the size of its maps is known at run time only"),
        ((20, "W"), [3, 3], "the size of its maps is known at run time only"),
        ((20, 20), [17, 16], "its windows have 272 elements, and the most are 256"),
    ],
)
def test_what_would_need_indices_is_refused(size, window, why):
    """CUDA would number them otherwise where maxima are equal."""
    net = model([node("Relu", "x", "r"), node("MaxPool", "r", "y", kernel_shape=window)], ["N", 2, *size])
    for target in "cuda", "tensorrt", "web":
        with pytest.raises(revgraph.RevgraphError, match=f"cannot pool without Indices at 'y': {why}"):
            revgraph.compile(net, variant="salinet", target=target)
    revgraph.compile(net, variant="salinet-centre", target="cuda")


def test_the_most_elements_of_a_window():
    check(pool(17, 16, kernel_shape=[16, 16]), 17, 16)


@pytest.mark.parametrize("window", ["AlexNet's", "GoogLeNet's", "of one element"])
def test_halves_choose_the_first_of_equals_too(window):
    nodes = [node("Cast", "x", "h", to=onnx.TensorProto.FLOAT16),
             node("MaxPool", "h", "m", **WINDOWS[window]), node("Cast", "m", "y", to=1)]  # fmt: skip
    net, rng = model(nodes, ["N", 2, 10, 9]), np.random.default_rng(0)
    x = rng.integers(-2, 3, (2, 2, 10, 9)).astype(np.float32)
    p = rng.integers(1, 4, revgraph.Session(net, variant="salinet").forward(x).y.shape).astype(np.float32)
    assert_close(reverse(net, x, p, target="cuda"), reverse(net, x, p), rtol=1e-3)


@pytest.mark.parametrize("variant", revgraph.VARIANTS)
def test_a_window_of_one_element_moves_nothing(variant):
    """Unpooling it is what comes back from y itself, which the skip connection reads as well."""
    nodes = [
        node("MaxPool", "x", "m", kernel_shape=[1, 1]),
        node("MaxPool", "m", "n", kernel_shape=[1, 1]),
        node("Add", "n m", "y"),
    ]
    for net in model(nodes[:1], ["N", 2, 4, 4]), model(nodes, ["N", 2, 4, 4]):
        x, p = picture(2, 2, 4, 4), picture(2, 2, 4, 4)
        expected = p * min(len(net.graph.node), 2)
        np.testing.assert_array_equal(reverse(net, x, p, variant, target="cuda"), expected)


def test_pools_of_bytes():
    """As in quantised networks: nothing is below zero in the padding either."""
    tensors = {"s": np.float32(0.1), "z": np.uint8(3)}
    window = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}
    nodes = [
        node("QuantizeLinear", "x s z", "q"),
        node("MaxPool", "q", "m", **window),
        node("DequantizeLinear", "m s z", "y"),
    ]
    net = model(nodes, ["N", 2, 9, 9], tensors)
    x, p = picture(2, 2, 9, 9), picture(2, 2, 5, 5)
    assert_close(reverse(net, x, p, target="cuda"), reverse(net, x, p))


@pytest.mark.parametrize(
    "conv",
    [
        {"pads": [0, 1, 2, 1]},
        {"pads": [2, 0, 0, 1], "strides": [2, 3]},
        {"pads": [1, 1, 0, 0], "strides": [2, 2], "dilations": [2, 1]},
    ],
    ids=str,
)
def test_pads_that_differ_are_cut_off(conv):
    net = model([node("Conv", "x w", "y", **conv)], ["N", 3, 10, 9], {"w": weights(4, 3, 3, 3)})
    x = picture(2, 3, 10, 9)
    p = picture(*revgraph.Session(revgraph.compile(net, variant="salinet")).forward(x).y.shape)
    assert_close(reverse(net, x, p, target="cuda"), reverse(net, x, p))
    assert_symmetric(revgraph.compile(net, variant="salinet", target="cuda"))


def assert_symmetric(pair: revgraph.Compiled) -> None:
    for n in pair.reversed.graph.node:
        if n.op_type == "ConvTranspose":
            pads = next((list(a.ints) for a in n.attribute if a.name == "pads"), [0, 0])
            assert pads[: len(pads) // 2] == pads[len(pads) // 2 :]


@pytest.mark.parametrize("variant", revgraph.VARIANTS)
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("target", [CUDA.name, TENSORRT.name, WEB.name])
def test_nothing_is_emitted_that_they_do_not_run(target, name, variant):
    pair = revgraph.compile(NETS[name](), variant=variant, target=target)
    nodes = [*pair.forward.graph.node, *pair.reversed.graph.node]
    assert {n.op_type for n in nodes}.isdisjoint({"MaxUnpool", "ScatterElements", "ScatterND", "Col2Im"})
    assert all(len(n.output) == 1 for n in nodes if n.op_type == "MaxPool")
    assert_symmetric(pair)
    assert 17 <= pair.forward.opset_import[0].version <= 21


# ----- On the real providers -----


@pytest.fixture(scope="module")
def networks(tmp_path_factory) -> list[Path]:
    """Fused files of every test network and architecture, of a static batch."""
    folder, files = tmp_path_factory.mktemp("cuda"), []
    nets = {name: net() for name, net in NETS.items()}
    for net in nets.values():
        net.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    nets |= {name: test_architectures.reweighted(name, False) for name in test_architectures.MODELS}
    for name, net in nets.items():
        for variant in ("salinet", "deconvnet-centre") if name in NETS else ("desalinet",):
            for precision in PRECISIONS:
                files.append(folder / f"{name}.{variant}.{precision}.onnx")
                pair = revgraph.compile(net, variant=variant, target="cuda", precision=precision)
                onnx.save(pair.fused(), files[-1])
    return files


@pytest.mark.heavy
def test_cuda_takes_every_node(shared, networks):
    script = shared / "gpu" / "cuda_placement.py"
    if not script.exists():
        pytest.skip(f"no way to ask CUDA's provider without a GPU: '{script}' does not exist")
    for precision in PRECISIONS:  # apart, for the script keeps all of its networks
        files = [str(path) for path in networks if f".{precision}." in path.name]
        command = [sys.executable, str(script), *files]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900)
        if done.returncode == 2:
            pytest.skip(f"CUDA's provider could not be set up: {done.stderr.strip().splitlines()[-1]}")
        assert done.returncode == 0, done.stdout
        assert done.stdout.count("0 on CPU, 0 memcpy, cuda graph: accepted") == len(files)


RUN = """
import * as ort from "onnxruntime-web/wasm";
import { readFileSync } from "node:fs";
const given = JSON.parse(readFileSync(process.argv[2]));
ort.env.wasm.numThreads = 1;
const session = await ort.InferenceSession.create(readFileSync(process.argv[3]));
const feeds = {};
for (const [name, { shape, data }] of Object.entries(given)) {
  feeds[name] = new ort.Tensor("float32", Float32Array.from(data), shape);
}
const { x_hat } = await session.run(feeds);
console.log(JSON.stringify({ shape: x_hat.dims, data: Array.from(x_hat.data) }));
"""


@pytest.mark.heavy
def test_a_browsers_runtime_gives_the_same_numbers(tmp_path):
    """onnxruntime-web, compiled to WebAssembly, in Node."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("Node.js and npm are not installed")
    install = ["npm", "install", "--no-audit", "--no-fund", "--silent", "onnxruntime-web@1.30.0"]
    (tmp_path / "package.json").write_text('{"type": "module"}')
    done = subprocess.run(install, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    if done.returncode:
        pytest.skip(f"onnxruntime-web could not be installed: {done.stderr.strip()[-200:]}")
    (tmp_path / "run.mjs").write_text(RUN)
    # float16 keeps 11 bits, and a dozen layers round.
    for variant, precision, rtol in [
        ("salinet", "fp32", 1e-5),
        ("deconvnet-centre", "fp32", 1e-5),
        ("identity", "fp16", 1e-2),
    ]:
        net = fire()
        x, p = picture(2, 3, 16, 14), picture(2, 4, 2, 2)
        pair = revgraph.compile(net, variant=variant, target="web", precision=precision)
        onnx.save(pair.fused(), tmp_path / "net.onnx")
        feeds = {"x": x, "p": p}
        given = {name: {"shape": a.shape, "data": a.ravel().tolist()} for name, a in feeds.items()}
        (tmp_path / "feeds.json").write_text(json.dumps(given))
        command = ["node", "run.mjs", "feeds.json", "net.onnx"]
        found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert found.returncode == 0, found.stderr
        x_hat = json.loads(found.stdout)
        assert_close(
            np.array(x_hat["data"], np.float32).reshape(x_hat["shape"]),
            reverse(net, x, p, variant),
            rtol=rtol,
        )
