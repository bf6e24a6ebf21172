"""Resize at fixed sizes, against its own matrix: Eq. (6)."""

import numpy as np
import pytest
from layers import assert_transposed, refusal
from networks import model, node

# id: inputs of Resize on x (N, 2, 4, 6), their values, attributes
RESIZED = {
    "one axis keeps its size": ("x  s", {"s": np.array([1, 1, 1.2, 2], np.float32)}, {}),
    "both axes keep their sizes": ("x  s", {"s": np.array([1, 1, 1.2, 1.1], np.float32)}, {}),
    "scales of one axis": ("x  s", {"s": np.array([1.5], np.float32)}, {"axes": [3]}),
    "scales of axes in another order": ("x  s", {"s": np.array([3, 1.5], np.float32)}, {"axes": [3, 2]}),
    "sizes of axes in another order": ("x   s", {"s": np.array([7, 9])}, {"axes": [-1, -2]}),
}


def net(inputs, tensors, size=(4, 6), **attributes):
    """At opset 18, where `axes` and `keep_aspect_ratio_policy` came."""
    return model([node("Resize", inputs, "y", **attributes)], ["N", 2, *size], tensors, opset=18)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("coordinates", ["asymmetric", "half_pixel"])
@pytest.mark.parametrize("case", RESIZED)
def test_each_axis_by_itself(case, coordinates, mode):
    inputs, tensors, attributes = RESIZED[case]
    attributes |= {"mode": mode, "coordinate_transformation_mode": coordinates}
    assert_transposed(net(inputs, tensors, **attributes), 2, 4, 6)


def test_an_aspect_ratio_to_keep_is_refused():
    source = net("x   s", {"s": np.array([8, 8])}, axes=[2, 3], keep_aspect_ratio_policy="not_larger")
    assert refusal(source)[1:] == (
        "it is told to keep the aspect ratio",
        "give the size that it comes to, or choose --at before this node",
    )


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_absurd_scales_are_refused(mode):
    source = net("x  s", {"s": np.array([1, 1, 2**14, 2**14], np.float32)}, size=(2**12, 2**12), mode=mode)
    assert "is absurdly large" in refusal(source)[1]
