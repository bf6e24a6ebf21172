"""On a GPU: what it computes is what the CPU does. `tools/gpu/run.py` runs these, and then times it.

Masks and switches that hang on a rounding are decided otherwise now and then, and show as more than any
rounding. So the forward graphs are compared by themselves, and the reversed ones on the bottleneck that the
GPU left.
"""

import os
from functools import cache

import numpy as np
import onnx
import onnxruntime
import pytest
import test_architectures
from layers import NETS
from networks import model, node, picture

import revgraph
from revgraph import RevgraphError, capture
from revgraph.cli import main
from revgraph.compiler import PRECISIONS
from revgraph.runtime import Device, check_cuda
from revgraph.session import Trace

pytestmark = pytest.mark.gpu

DEVICE = os.environ.get("REVGRAPH_GPU", "cuda")
"""Another of several, "cuda:1"; or "cpu", to try the tests themselves."""

KIND = Device.of(DEVICE).kind

# In float32 without TF32 only the order of sums differs. float16 keeps 11 bits, and some dozens of layers
# round; the CPU that it is held against rounds less often.
TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2}

LARGE = ("light_bvlc_alexnet", "light_squeezenet")
BATCHES = (1, 8, 64)


@pytest.fixture(scope="module", autouse=True)
def gpu() -> None:
    if KIND == "cuda":
        try:
            check_cuda()
        except RevgraphError as error:
            pytest.skip(str(error))


@cache
def network(name: str) -> onnx.ModelProto:
    return NETS[name]() if name in NETS else test_architectures.reweighted(name, True)


def pictures(net: onnx.ModelProto, n: int, seed: int = 0) -> np.ndarray:
    x = next(value for value in net.graph.input if len(value.type.tensor_type.shape.dim) == 4)
    return picture(n, *(dim.dim_value for dim in x.type.tensor_type.shape.dim[1:]), seed=seed)


def relative(actual: np.ndarray, expected: np.ndarray) -> float:
    assert actual.shape == expected.shape
    actual, expected = actual.astype(np.float64), expected.astype(np.float64)
    return float(np.abs(actual - expected).max() / max(np.abs(expected).max(), 1e-30))


def on_cpu(trace: Trace) -> Trace:
    """The same bottleneck, in the CPU's memory."""
    values = {name: value.numpy() for name, value in trace.taps.items()}
    taps = {name: onnxruntime.OrtValue.ortvalue_from_numpy(value) for name, value in values.items()}
    return Trace(trace.y, trace.outputs, taps)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("variant", revgraph.VARIANTS)
@pytest.mark.parametrize("name", [*NETS, *LARGE])
def test_all_variants_are_the_cpus(name, variant, precision):
    net = network(name)
    pair = revgraph.compile(net, variant=variant, target="cuda", precision=precision)
    gpu, cpu = revgraph.Session(pair, device=DEVICE), revgraph.Session(pair)
    # The large ones of 64 take the CPU minutes: one variant is enough to know that they are 64.
    for n in BATCHES if name in NETS or variant == "desalinet" else BATCHES[:2]:
        x = pictures(net, n)
        trace = gpu.forward(x)
        assert {value.device_name() for value in trace.taps.values()} <= {KIND}
        assert relative(trace.y, cpu.forward(x).y) <= TOLERANCE[precision]
        p = picture(*trace.y.shape, seed=1)
        assert relative(gpu.reverse(trace, p), cpu.reverse(on_cpu(trace), p)) <= TOLERANCE[precision]


WINDOWS = {
    "AlexNet's": {"kernel_shape": [3, 3], "strides": [2, 2]},
    "ResNet's": {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
    "SqueezeNet's": {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
    "VGG's": {"kernel_shape": [2, 2], "strides": [2, 2]},
    "GoogLeNet's": {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]},
}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("size", [1, 2**11], ids=["small", "beyond 2048"])
@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
def test_among_equal_maxima_the_first_is_taken(window, size, precision):
    """Few different numbers, so that most windows have several maxima, and sums have no rounding."""
    net = model([node("Relu", "x", "r"), node("MaxPool", "r", "y", **window)], ["N", 2, 11, 10])
    rng = np.random.default_rng(0)
    x = rng.integers(-2, 3, (3, 2, 11, 10)).astype(np.float32) * size
    for variant in revgraph.VARIANTS:
        portable = revgraph.Session(revgraph.compile(net, variant=variant))
        session = revgraph.Session(net, variant=variant, precision=precision, target="cuda", device=DEVICE)
        traces = session.forward(x), portable.forward(x)
        p = rng.integers(-3, 4, traces[0].y.shape).astype(np.float32)
        # Whole numbers, which float16 scales: another switch would differ by one at least.
        error = 0 if precision == "fp32" else 0.1
        found, expected = session.reverse(traces[0], p), portable.reverse(traces[1], p)
        np.testing.assert_allclose(found, expected, rtol=0, atol=error)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["mixed", "light_squeezenet"])
def test_what_is_captured_is_replayed_on_other_inputs(name, precision, monkeypatch):
    places = []

    class Noted(capture.Place):
        def __init__(self, *given):
            super().__init__(*given)
            places.append(self)

    monkeypatch.setattr(capture, "Place", Noted)
    net = network(name)
    pair = revgraph.compile(net, variant="desalinet", target="cuda", precision=precision)
    captured = revgraph.Session(pair, device=DEVICE)
    plain = revgraph.Session(pair, device=DEVICE, cuda_graph=False)
    for i in range(6):
        for n, rows in (1, 1), (2, 2), (1, 5):
            x = pictures(net, n, seed=i)
            trace, expected = captured.forward(x), plain.forward(x)
            assert relative(trace.y, expected.y) <= TOLERANCE[precision]
            p = picture(rows, *trace.y.shape[1:], seed=i)
            x_hat = plain.reverse(Trace(trace.y, trace.outputs, trace.taps), p)
            assert relative(captured.reverse(trace, p), x_hat) <= TOLERANCE[precision]
    assert len(places) >= (5 if KIND == "cuda" else 0)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_many_neurons_of_one_image(precision):
    net = network("light_squeezenet")
    session = revgraph.Session(net, variant="desalinet", device=DEVICE, target="cuda", precision=precision)
    trace = session.forward(pictures(net, 1))
    p = picture(16, *trace.y.shape[1:])
    one_by_one = np.concatenate([session.reverse(trace, row[None]) for row in p])
    assert relative(session.reverse(trace, p), one_by_one) <= TOLERANCE[precision]


def test_tensors_of_other_libraries_stay_on_the_device():
    torch = pytest.importorskip("torch")
    if KIND == "cuda" and not torch.cuda.is_available():
        pytest.skip("this torch is built for CPUs")
    net = network("fire")
    session = revgraph.Session(net, variant="salinet", device=DEVICE, target="cuda")
    x = pictures(net, 2)
    for _ in range(3):
        trace = session.forward(torch.from_numpy(x).to(DEVICE))
        p = picture(*trace.y.shape)
        x_hat = torch.from_dlpack(session.reverse_on_device(trace, torch.from_numpy(p).to(DEVICE)))
        assert x_hat.device.type == KIND
        assert relative(x_hat.cpu().numpy(), session.reverse(trace, p)) <= TOLERANCE["fp32"]


def test_commands_run_there(tmp_path, capsys):
    """verify too, whose float64 knows nothing of devices."""
    onnx.save(network("fire"), tmp_path / "fire.onnx")
    for precision in PRECISIONS:
        given = ["compile", str(tmp_path / "fire.onnx"), "--variant", "desalinet", "--target", "cuda"]
        assert main([*given, "--precision", precision, "-o", str(tmp_path)]) == 0
        given = ["verify", str(tmp_path), "--model", str(tmp_path / "fire.onnx"), "--device", DEVICE]
        assert main(given) == 0, capsys.readouterr().out
