"""Channels first or last."""

import numpy as np
import pytest
from networks import picture

from revgraph.errors import RevgraphError
from revgraph.layout import laid_out, saliency


@pytest.mark.parametrize("channels", [1, 3])
def test_the_saliency_map_is_over_the_channels_wherever_they_lie(channels):
    x_hat = picture(channels, 5, 7)
    expected = np.abs(x_hat).max(axis=0)
    np.testing.assert_array_equal(saliency(x_hat), expected)
    np.testing.assert_array_equal(saliency(np.moveaxis(x_hat, 0, -1)), expected)


def test_an_array_takes_the_layout_that_fits():
    x = picture(2, 3, 5, 7)
    assert laid_out(x, ["N", 3, 5, 7], "x") is x
    np.testing.assert_array_equal(laid_out(x, ["N", 5, 7, 3], "x"), x.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(laid_out(x.transpose(0, 2, 3, 1), [1, 3, None, "W"], "x"), x)
    with pytest.raises(RevgraphError, match="the two networks differ in x: one is \\[2, 3, 5, 7\\]"):
        laid_out(x, ["N", 4, 5, 7], "x")
