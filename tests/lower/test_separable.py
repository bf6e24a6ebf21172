"""Max pools of stride 1 on the cpu target: no Indices, the same switches."""

import numpy as np
import onnx
import pytest
from layers import assert_close, reverse, weights
from networks import model, node, picture

import revgraph
from revgraph.lower import blocks


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 1)


def pool(rectified: bool = True, size: tuple[int | str, int | str] = (9, 7), **window) -> onnx.ModelProto:
    """A pool of what a convolution that changes nothing gives, so that ties stay ties."""
    nodes = [
        node("Conv", "x w", "c"),
        *([node("Relu", "c", "r")] if rectified else []),
        node("MaxPool", "r" if rectified else "c", "y", **window),
    ]
    return model(nodes, ["N", 2, *size], {"w": np.eye(2, dtype=np.float32)[..., None, None]})


def check(net: onnx.ModelProto, x: np.ndarray, variant: str) -> None:
    """Whole numbers, which sum exactly in any order: bit for bit what the portable target gives."""
    pair = revgraph.compile(net, variant=variant, target="cpu")
    assert any("/below" in tap for tap in pair.taps)
    assert not any("/switches" in tap for tap in pair.taps)
    if net.graph.input[0].type.tensor_type.shape.dim[2].dim_value:  # then convolutions take in differences
        assert "Sub" not in {n.op_type for n in pair.reversed.graph.node}
    assert all(len(n.output) == 1 for n in pair.forward.graph.node)  # none writes Indices
    y = revgraph.Session(pair).forward(x).y
    p = np.random.default_rng(1).integers(-3, 4, y.shape).astype(np.float32)
    np.testing.assert_array_equal(reverse(net, x, p, variant, target="cpu"), reverse(net, x, p, variant))


WINDOWS = {
    "GoogLeNet's": {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]},
    "no padding": {"kernel_shape": [3, 3]},
    "torchvision's": {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "ceil_mode": 1},
    "2 x 2": {"kernel_shape": [2, 2]},
    "2 x 2, padded after": {"kernel_shape": [2, 2], "pads": [0, 0, 1, 1]},
    "2 x 2, padded before": {"kernel_shape": [2, 2], "pads": [1, 1, 0, 0]},
    "unlike axes": {"kernel_shape": [2, 5], "pads": [1, 0, 0, 3]},
    "SPP's": {"kernel_shape": [5, 5], "pads": [2, 2, 2, 2]},
    "dilated": {"kernel_shape": [3, 3], "dilations": [2, 2], "pads": [2, 1, 1, 2]},
}


@pytest.mark.parametrize("variant", ["identity", "deconvnet", "salinet", "desalinet"])
@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
def test_the_switches_are_portables(window, variant):
    """Of few different numbers, and of none but negative ones: ties, zeros, and windows over the border."""
    rng = np.random.default_rng(0)
    for rectified, low, high in (True, -2, 3), (False, -2, 3), (False, -3, 0), (True, -3, 1):
        x = rng.integers(low, high, (2, 2, 9, 7)).astype(np.float32)
        check(pool(rectified, **window), x, variant)


@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
def test_sizes_may_be_free(window):
    net = pool(size=("H", "W"), **window)
    for height, width in (9, 7), (6, 11):
        x = np.random.default_rng(0).integers(-2, 3, (2, 2, height, width)).astype(np.float32)
        check(net, x, "deconvnet")


def test_maxima_may_be_close():
    """Neighbouring floats, and tiny ones: down to 3e-32 they differ."""
    x = np.full((1, 2, 9, 7), 1e-30, np.float32)
    x[0, 0, 4, 4] = np.nextafter(np.float32(1e-30), np.float32(1))
    x[0, 1, 2, 3] = np.nextafter(np.float32(1e-30), np.float32(0))
    x[0, 1, 5, 5] = 1e30
    net = pool(kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    check(net, x, "salinet")


def test_some_rows_of_p_share_one_picture():
    net = pool(kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    x, p = picture(1, 2, 9, 7), picture(4, 2, 9, 7)
    assert_close(reverse(net, x, p, target="cpu"), reverse(net, x, p))


@pytest.mark.parametrize(
    "window",
    [
        {"kernel_shape": [3, 3], "strides": [2, 2]},
        {"kernel_shape": [3, 3], "strides": [2, 1]},
        {"kernel_shape": [1, 3]},
        {"kernel_shape": [14, 3], "pads": [7, 0, 7, 0]},
    ],
    ids=str,
)
def test_other_pools_keep_their_indices(window):
    pair = revgraph.compile(pool(**window), variant="salinet", target="cpu")
    assert any(tap.endswith("/switches") for tap in pair.taps)


def test_so_do_packed_ones():
    net = pool(kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    pair = revgraph.compile(net, variant="salinet", target="cpu", bottleneck="packed")
    assert any(tap.endswith("/switches") for tap in pair.taps)


def test_pools_after_one_another():
    """As in SPP blocks, whose pools read each other and are concatenated."""
    window = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        node("Conv", "x w", "c"),
        node("Relu", "c", "r"),
        node("MaxPool", "r", "p1", **window),
        node("MaxPool", "p1", "p2", **window),
        node("Concat", "r p1 p2", "cat", axis=1),
        node("Conv", "cat v", "y"),
    ]
    net = model(nodes, ["N", 3, 8, 8], {"w": weights(4, 3, 1, 1), "v": weights(5, 12, 1, 1)})
    x, p = picture(2, 3, 8, 8), picture(2, 5, 8, 8)
    for variant in revgraph.VARIANTS:
        assert_close(reverse(net, x, p, variant, target="cpu"), reverse(net, x, p, variant))
