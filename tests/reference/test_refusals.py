"""What the reference refuses, and how it says so."""

import numpy as np
import onnx
import pytest
from equations import forward, layer, network, reverse
from onnx import helper

from revgraph.errors import RevgraphError

EMPTY = helper.make_graph([], "empty", [], [])

SAME = {"kernel_shape": [2], "auto_pad": "SAME_UPPER"}


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (layer("Floor"), "^cannot reverse node 'Floor of y': the reference has no reversed layer for"),
        (layer("Det"), "^cannot run node 'Det of y': the reference has no rule for Det .rules exist for A"),
        (layer("Loop", "n", "", "x", body=EMPTY), "the reference has no rule for Loop"),
        (layer("Pow", "W", "x"), "input 1 of this Pow, 'x', is not constant"),
        (layer("Dropout", "x", "", "yes"), "it drops at random"),
        (layer("Conv", "W", "x"), "input 1 of this Conv, 'x', is not constant"),
        (layer("Cast", to=onnx.TensorProto.INT32), "it rounds to integers"),
        (layer("BatchNormalization", *"xWWWW", training_mode=1), "it normalises by the batch"),
        (layer("MaxPool", kernel_shape=[3], dilations=[2]), "its window is wider than the padded picture"),
        (layer("MaxPool", **SAME, dilations=[2]), "onnxruntime ignores dilations"),
        (layer("AveragePool", **SAME, dilations=[2]), "onnxruntime ignores dilations"),
        (layer("MaxPool", **(SAME | {"kernel_shape": [1]}), strides=[3]), "crops where strides outrun"),
        (layer("Identity", "W"), "cannot reverse from 'y': it does not depend on 'x'"),
        (layer("Identity", "z"), "no value for 'z'"),
    ],
)
def test_what_cannot_be_done_is_refused(node: onnx.NodeProto, message: str) -> None:
    x = np.ones((2, 2, 3))
    model = network([node], x, {"W": x, "n": np.array(2), "yes": np.array(True)}, opset=19)
    with pytest.raises(RevgraphError, match=message):
        reverse(model, x, forward(model, x), "salinet")


@pytest.mark.parametrize(
    ("rows", "variant", "lrn", "message"),
    [
        (3, "salinet", None, r"p is \(3, 4\) and 'y' is \(2, 4\)"),
        (2, "salient", None, "choose from identity, deconvnet"),
        (2, "salinet", "gradient", "choose from identity, bp"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    rows: int, variant: str, lrn: str | None, message: str
) -> None:
    x = np.ones((2, 4))
    with pytest.raises(RevgraphError, match=message):
        reverse(network([layer("Relu")], x), x, np.ones((rows, 4)), variant, lrn)
