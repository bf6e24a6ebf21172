"""What `inspect` says of a model agrees with what `compile` does to it."""

import numpy as np
import onnx
import pytest
from networks import cnn, he, model, node, picture

import revgraph
from revgraph.errors import RevgraphError
from revgraph.inspect import inspect
from revgraph.variants import NAMED


def test_it_names_both_ends_and_every_layer_between():
    x, y, layers = inspect(cnn())
    assert (x, y) == ("x", "logits")
    assert [layer.name for layer in layers] == [n.name for n in cnn().graph.node][:-1]
    assert [layer.op for layer in layers] == [n.op_type for n in cnn().graph.node][:-1]
    assert list(layers[0].shape) == ["N", 10, 8, 8]
    assert all(layer.problem is None for layer in layers)


def test_it_looks_at_files_too(tmp_path):
    onnx.save(cnn(), tmp_path / "net.onnx")
    assert inspect(tmp_path / "net.onnx") == inspect(str(tmp_path / "net.onnx")) == inspect(cnn())


@pytest.mark.parametrize("at", ["conv1", "pool1", "gap"])
def test_it_stops_at_the_layer(at):
    _, y, layers = inspect(cnn(), at)
    assert y == layers[-1].name == at


def test_it_shows_the_rules_of_the_named_variants():
    _, _, layers = inspect(cnn())
    found = {layer.name: dict(zip(NAMED, layer.rules, strict=True)) for layer in layers}
    assert found["relu1"] == {"deconvnet": "RU", "salinet": "RU^BP", "desalinet": "RU o RU^BP"}
    assert set(found["pool1"].values()) == {"MP^BP"}
    assert set(found["conv1"].values()) == {"transposed"}


def test_the_bottleneck_is_counted_in_bytes_per_image():
    _, _, layers = inspect(cnn())
    found = {layer.name: list(layer.bottleneck) for layer in layers if any(layer.bottleneck)}
    mask, switches = 10 * 8 * 8, 10 * 4 * 4 * 8
    assert found == {"relu1": [0, mask, mask], "pool1": [switches] * 3, "relu2": [0, 48, 48]}


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("net", [cnn(), cnn(softmax=False)])
@pytest.mark.parametrize("variant", NAMED)
def test_its_bytes_are_those_that_cross(variant, net, n):
    _, _, layers = inspect(net)
    session = revgraph.Session(revgraph.compile(net, variant=variant))
    trace = session.forward(picture(n, 3, 8, 8))
    crossing = sum(tap.numpy().nbytes for tap in trace.taps.values())
    column = NAMED.index(variant)
    assert n * sum(layer.bottleneck[column] for layer in layers) == crossing


def test_sizes_known_at_run_time_only_are_said_to_be():
    weights = {"w": he(np.random.default_rng(0), 4, 3, 3, 3)}
    nodes = [node("Conv", "x w", "a"), node("Relu", "a", "b"), node("GlobalAveragePool", "b", "y")]
    _, _, layers = inspect(model(nodes, ["N", 3, "H", "W"], weights))
    relu = next(layer for layer in layers if layer.name == "b")
    assert list(relu.bottleneck) == [0, None, None]
    assert relu.problem is None


def broken():
    """Two layers that cannot be reversed among three that can."""
    nodes = [
        node("Relu", "x", "a"),
        node("Hardmax", "a", "b", axis=1),
        node("Relu", "b", "c"),
        node("Det", "c", "d"),
        node("Relu", "d", "y"),
    ]
    return model(nodes, ["N", 3, 4, 4])


def test_it_goes_on_past_what_cannot_be_reversed():
    _, _, layers = inspect(broken())
    problems = {layer.name: layer.problem for layer in layers if layer.problem}
    assert problems.keys() == {"b", "d"}
    for name, op in (("b", "Hardmax"), ("d", "Det")):
        assert f"cannot reverse node '{name}'" in problems[name]
        assert f"no rule for {op} (rules exist for" in problems[name]
    assert all(list(layer.rules) == [] for layer in layers if layer.problem)
    assert [layer.name for layer in layers if layer.rules] == ["a", "c", "y"]


def test_what_compile_refuses_inspect_has_named():
    with pytest.raises(RevgraphError) as raised:
        revgraph.compile(broken(), variant="desalinet")
    assert str(raised.value) in {layer.problem for layer in inspect(broken())[2]}


def test_layers_that_share_an_input_are_each_counted():
    nodes = [
        node("Relu", "x", "a"),
        node("Relu", "x", "b"),
        node("Relu", "x", "c"),
        node("Sum", "a b c", "y"),
    ]
    _, _, layers = inspect(model(nodes, ["N", 3, 4, 4]))
    assert [list(layer.bottleneck) for layer in layers] == [[0, 48, 48]] * 3 + [[0, 0, 0]]


def test_the_model_is_left_as_it_was():
    net = cnn()
    before = net.SerializeToString(deterministic=True)
    assert inspect(net) == inspect(net)
    assert net.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"at": "nowhere"}, "no layer 'nowhere'"),
        ({"input": "z"}, "no input 'z'"),
        ({"at": "x"}, "is an input"),
    ],
)
def test_what_compile_would_refuse_at_once_is_refused(options, match):
    with pytest.raises(RevgraphError, match=match):
        inspect(cnn(), **options)


def test_an_activation_of_several_nodes_is_one_layer():
    nodes = [node("Sigmoid", "x", "s"), node("Mul", "x s", "silu"), node("Relu", "silu", "y")]
    _, _, layers = inspect(model(nodes, [1, 3, 4, 4]))
    assert [(found.name, found.op) for found in layers] == [("silu", "Silu"), ("y", "Relu")]
