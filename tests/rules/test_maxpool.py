"""Max pooling against loops over its windows: Eq. (9), and unpooling to the centre (Sect. 2.2)."""

import numpy as np
import pytest
from layers import refusal, reverse
from networks import model, node, picture, run

# id: spatial size, attributes, padding before the first element
POOLS = {
    "2x2/2": ((6, 4), {"kernel_shape": [2, 2], "strides": [2, 2]}, (0, 0)),
    "2x2/2, a remainder": ((7, 5), {"kernel_shape": [2, 2], "strides": [2, 2]}, (0, 0)),
    "2x2/2, ceil_mode": ((7, 5), {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}, (0, 0)),
    "2x2/2, padded": ((6, 5), {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [1, 1, 1, 0]}, (1, 1)),
    "2x2/3": ((8, 7), {"kernel_shape": [2, 2], "strides": [3, 3]}, (0, 0)),
    "3x3/2": ((7, 9), {"kernel_shape": [3, 3], "strides": [2, 2]}, (0, 0)),
    "3x3/2, padded": ((7, 6), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}, (1, 1)),
    "3x3/2, ceil_mode": ((8, 6), {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, (0, 0)),
    "3x3/1": ((5, 5), {"kernel_shape": [3, 3], "pads": [2, 2, 2, 2]}, (2, 2)),
    "2x4/1x3, one pad": ((6, 8), {"kernel_shape": [2, 4], "strides": [1, 3], "pads": [0, 3, 1, 0]}, (0, 3)),
    "dilated": ((8, 9), {"kernel_shape": [3, 2], "strides": [2, 1], "dilations": [2, 3]}, (0, 0)),
    "dilated, disjoint": ((8, 9), {"kernel_shape": [2, 2], "strides": [3, 4], "dilations": [2, 3]}, (0, 0)),
    "dilated, padded": ((6, 6), {"kernel_shape": [3, 2], "dilations": [2, 2], "pads": [2, 1, 2, 1]}, (2, 1)),
    "column-major Indices": ((7, 5), {"kernel_shape": [3, 3], "strides": [2, 2], "storage_order": 1}, (0, 0)),
    "SAME_UPPER": ((6, 5), {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"}, (0, 0)),
    "SAME_LOWER": ((6, 5), {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "SAME_LOWER"}, (1, 1)),
    "VALID": ((6, 5), {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "VALID"}, (0, 0)),
    "1-D, 2/2": ((7,), {"kernel_shape": [2], "strides": [2]}, (0,)),
    "1-D, 3/2": ((8,), {"kernel_shape": [3], "strides": [2], "pads": [1, 1], "ceil_mode": 1}, (1,)),
    "3-D, 2/2": ((4, 5, 6), {"kernel_shape": [2] * 3, "strides": [2] * 3}, (0, 0, 0)),
    "3-D, 3/2": ((5, 4, 7), {"kernel_shape": [3, 2, 3], "strides": [2, 1, 2]}, (0, 0, 0)),
}


def net(case):
    size, attributes, begin = POOLS[case]
    return model([node("MaxPool", "x", "y", **attributes)], ["N", 2, *size]), size, attributes, begin


def routes(x, outputs, attributes, begin):
    """For each image, channel and window: s(u), its first maximum in row-major order, and its centre.

    Either is a position in the plane; None for a centre that falls into the padding.
    """
    kernel, ones = attributes["kernel_shape"], [1] * len(begin)
    strides, dilations = attributes.get("strides", ones), attributes.get("dilations", ones)
    for n, c, *u in np.ndindex(*x.shape[:2], *outputs):
        first = centre = None
        for tap in np.ndindex(*kernel):
            v = tuple(
                i * s + t * d - b for i, s, t, d, b in zip(u, strides, tap, dilations, begin, strict=True)
            )
            if not all(0 <= i < n for i, n in zip(v, x.shape[2:], strict=True)):
                continue
            if first is None or x[n, c][v] > x[n, c][first]:
                first = v
            if all(t == (k - 1) // 2 for t, k in zip(tap, kernel, strict=True)):
                centre = v
        yield (n, c, *u), (n, c, *first), centre and (n, c, *centre)


def pictures(size, seed):
    """Distinct values, and then so few that most windows hold equal maxima."""
    rng = np.random.default_rng(seed)
    return picture(2, 2, *size), rng.integers(-1, 2, (2, 2, *size)).astype(np.float32)


@pytest.mark.parametrize("case", POOLS)
@pytest.mark.parametrize("ties", [False, True])
def test_max_pooling(case, ties):
    source, size, attributes, begin = net(case)
    x = pictures(size, seed=3)[ties]
    y = run(source, x=x)["y"]
    # Small integers add exactly, in whatever order.
    p = np.random.default_rng(4).integers(-9, 10, y.shape).astype(np.float32)
    by_switches, by_centre = np.zeros_like(x), np.zeros_like(x)
    for u, first, centre in routes(x, y.shape[2:], attributes, begin):
        assert y[u] == x[first]
        by_switches[first] += p[u]
        if centre is not None:
            by_centre[centre] += p[u]
    np.testing.assert_array_equal(reverse(source, x, p, "deconvnet"), by_switches)
    np.testing.assert_array_equal(reverse(source, x, p, "deconvnet-centre"), by_centre)


def test_the_centre_of_2x2_is_its_top_left():
    source = net("2x2/2")[0]
    x_hat = reverse(source, picture(1, 2, 6, 4), np.ones((1, 2, 3, 2), np.float32), "salinet-centre")
    assert (x_hat[..., ::2, ::2] == 1).all()
    assert x_hat.sum() == 12


# ----- Over whole axes, and of several tensors -----


@pytest.mark.parametrize("axes", [[2], [3], [1], [2, 3], [1, 3], [3, 2], [1, 2, 3]])
@pytest.mark.parametrize("op", ["ReduceMax", "ReduceMin"])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_extrema_along_axes(op, axes, keepdims):
    """Among equal ones the first in row-major order; the centre is the middle, before it of two."""
    source = model([node(op, "x", "y", axes=axes, keepdims=keepdims)], ["N", 3, 4, 5])
    x = np.random.default_rng(0).integers(-1, 2, (2, 3, 4, 5)).astype(np.float32)
    flip = 1 if op == "ReduceMax" else -1
    y = run(source, x=x)["y"]
    p = np.random.default_rng(1).integers(1, 9, y.shape).astype(np.float32)
    kept = p.reshape([1 if i in axes else n for i, n in enumerate(x.shape)])
    first, middle = np.zeros_like(x), np.zeros_like(x)
    for u in np.ndindex(*kept.shape):
        window = tuple(slice(None) if i in axes else n for i, n in enumerate(u))
        at = np.unravel_index((flip * x[window]).argmax(), x[window].shape)
        first[window][at] = kept[u]
        middle[window][tuple((n - 1) // 2 for n in x[window].shape)] = kept[u]
    np.testing.assert_array_equal(reverse(source, x, p, "salinet"), first)
    np.testing.assert_array_equal(reverse(source, x, p, "salinet-centre"), middle)


@pytest.mark.parametrize("variant", ["identity", "desalinet-centre"])
@pytest.mark.parametrize(("op", "flip"), [("Max", 1), ("Min", -1)])
def test_the_first_of_equal_tensors_is_chosen(op, flip, variant):
    """x, x turned round and their mean: where x is even about the middle, all three are equal."""
    nodes = [
        node("Slice", "x s e one s", "turned"),
        node("Add", "x turned", "sum"),
        node("Mul", "sum half", "mean"),
        node(op, "mean x turned", "y"),
    ]
    tensors = {name: np.array([n]) for name, n in {"s": -1, "e": -99, "one": 2}.items()}
    source = model(nodes, ["N", 1, 5], tensors | {"half": np.float32(0.5)})
    x = flip * np.array([[[1, 5, 3, 2, 1]]], np.float32)  # in the middle, and at both ends, there are ties
    p = np.array([[[1, 2, 4, 8, 16]]], np.float32)
    # At the ends and in the middle the mean is chosen, whose x_hat is halved between x and x turned round.
    ends = (1 + 16) / 2
    np.testing.assert_array_equal(reverse(source, x, p, variant), [[[ends, 2 + 8, 4, 0, ends]]])


def test_extrema_of_no_axes_are_the_numbers_themselves():
    source = model([node("ReduceMax", "x", "y", noop_with_empty_axes=1)], ["N", 3, 4], opset=18)
    x, p = picture(2, 3, 4), picture(2, 3, 4, seed=1)
    for variant in "salinet", "salinet-centre":
        np.testing.assert_array_equal(reverse(source, x, p, variant), p)


def test_dilations_beside_same_pads_are_refused():
    layer = node("MaxPool", "x", "y", kernel_shape=[3, 3], dilations=[2, 2], auto_pad="SAME_UPPER")
    assert refusal(model([layer], ["N", 2, 8, 8])) == (
        "cannot take node 'y' (MaxPool)",
        "onnxruntime ignores or refuses dilations beside auto_pad SAME",
        "export it with explicit pads",
    )


def test_a_model_that_reads_column_major_indices_itself_is_refused():
    pool = node("MaxPool", "x", "y", kernel_shape=[2, 2], strides=[2, 2], storage_order=1)
    pool.output.append("indices")
    source = model([pool, node("Cast", "indices", "z", to=1)], ["N", 2, 4, 4], outputs=["y", "z"])
    assert refusal(source) == (
        "cannot reverse node 'y' (MaxPool)",
        "its Indices are column-major",
        "export it with storage_order 0",
    )
