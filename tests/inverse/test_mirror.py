"""Each kind of inverse is given what its name says."""

from pathlib import Path

import mirror
import networks
import numpy as np
import onnx
import pytest

import revgraph
from revgraph.errors import RevgraphError

MASKS = ("relu1/mask", "relu2/mask", "relu3/mask")
SWITCHES = ("pool1/switches", "pool2/switches")


@pytest.mark.parametrize("unpooling", mirror.UNPOOLING)
def test_what_each_kind_is_given(network: Path, unpooling: str) -> None:
    pairs = mirror.mirrored(network, "relu3", 23, unpooling)
    assert {kind: set(pair.taps) for kind, pair in pairs.items()} == {
        "nothing": set(),
        "masks": set(MASKS),
        "switches": set(SWITCHES),
        "both": {*MASKS, *SWITCHES},
    }
    for pair in pairs.values():
        (p, *taps) = [value.name for value in pair.reversed.graph.input]
        assert (p, set(taps)) == ("p", set(pair.taps))


def test_up_convolutions_add_to_the_switches(network: Path) -> None:
    """With the filters as compiled they unpool to the centre: both unpoolings of the last pool add up."""
    x = np.random.default_rng(0).standard_normal((2, 3, 23, 23)).astype(np.float32)
    whole = {how: mirror.mirrored(network, "pool1", 23, how) for how in mirror.UNPOOLING}
    found = {}
    for how, kind in ("centre", "nothing"), ("centre", "switches"), ("learned", "switches"):
        session = revgraph.Session(whole[how][kind])
        trace = session.forward(x)
        p = np.abs(trace.y)  # nothing negative for the rectifiers to take
        found[how, kind] = session.reverse(trace, p)
    total = found["centre", "nothing"] + found["centre", "switches"]
    np.testing.assert_allclose(found["learned", "switches"], total, rtol=1e-4, atol=1e-5)
    assert np.abs(found["centre", "nothing"] - found["centre", "switches"]).max() > 0.1


def test_a_network_of_one_picture_is_freed(network: Path, tmp_path: Path) -> None:
    model = onnx.load(network)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, tmp_path / "one.onnx")
    pair = mirror.mirrored(tmp_path / "one.onnx", "relu3", 23, "learned")["both"]
    assert revgraph.Session(pair).forward(np.zeros((3, 3, 23, 23), np.float32)).y.shape[0] == 3


def test_a_bottleneck_of_activations_is_refused(tmp_path: Path) -> None:
    """Whose values all four kinds would be given, "nothing" too."""
    nodes = [
        networks.node("Conv", "x w", "conv1"),
        networks.node("Relu", "conv1", "relu1"),
        networks.node("Mul", "relu1 conv1", "product"),
    ]
    weights = {"w": networks.he(np.random.default_rng(0), 4, 3, 3, 3)}
    onnx.save(networks.model(nodes, ["N", 3, 9, 9], weights), tmp_path / "product.onnx")
    with pytest.raises(RevgraphError, match=r"from 'product': all would be given 'product/value.*\(--at"):
        mirror.mirrored(tmp_path / "product.onnx", "product", 9, "centre")


def test_an_unknown_layer_is_refused_as_compile_does(network: Path) -> None:
    with pytest.raises(RevgraphError, match="relu3"):
        mirror.mirrored(network, "relu4", 23, "centre")
