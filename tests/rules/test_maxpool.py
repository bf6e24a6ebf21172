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
