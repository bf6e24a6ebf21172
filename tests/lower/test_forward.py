"""Forward layers that the cpu target computes in another form: the same outputs."""

import numpy as np
import onnx
import pytest
from layers import assert_close, reverse, weights
from networks import model, node, picture, run

import revgraph
from revgraph.lower import blocks


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 1)


def outputs(net: onnx.ModelProto, x: np.ndarray, **options: str) -> dict[str, np.ndarray]:
    """What the forward graph of a compilation gives under the model's own names."""
    pair = revgraph.compile(net, variant="desalinet", target="cpu", **options)
    found = run(pair.forward, x=x)
    return {output.name: found[output.name] for output in net.graph.output}


def operators(net: onnx.ModelProto, **options: str) -> list[str]:
    pair = revgraph.compile(net, variant="desalinet", target="cpu", **options)
    return [n.op_type for n in pair.forward.graph.node]


def caffe(*extra: onnx.NodeProto, before: str = "Relu") -> onnx.ModelProto:
    """Batch normalisation, then a product and a sum for each channel, as Caffe's models have them."""
    rng = np.random.default_rng(0)
    tensors = {name: rng.uniform(0.5, 1.5, 4).astype(np.float32) for name in "gbmv"} | {
        "w": weights(4, 3, 3, 3),
        "u": weights(2, 4, 1, 1),
        "k": rng.uniform(-1.5, 1.5, (4, 1, 1)).astype(np.float32),
        "o": rng.uniform(-1, 1, (1, 4, 1, 1)).astype(np.float32),
    }
    nodes = [
        node("Conv", "x w", "c"),
        node(before, "c", "r0"),
        node("BatchNormalization", "r0 g b m v", "n"),
        node("Mul", "k n", "s"),
        node("Add", "s o", "t"),
        node("Relu", "t", "r"),
        *extra,
        node("Conv", "r u", "y"),
    ]
    return model(nodes, ["N", 3, 8, 8], tensors, ["y", *(n.output[0] for n in extra)])


def test_normalisation_takes_in_the_scale_behind_it():
    net, x = caffe(), picture(2, 3, 8, 8)
    assert {"Mul", "Add"}.isdisjoint(operators(net))
    assert_close(outputs(net, x)["y"], run(net, x=x)["y"])
    p = picture(2, 2, 6, 6)
    assert_close(reverse(net, x, p, "desalinet", target="cpu"), reverse(net, x, p, "desalinet"))


def test_behind_a_convolution_nothing_is_merged():
    """Onnxruntime folds all of it into the convolution by itself."""
    net = caffe(before="Identity")
    (identity,) = (each for each in net.graph.node if each.op_type == "Identity")
    net.graph.node.remove(identity)
    net.graph.node[0].output[0] = "r0"
    assert {"Mul", "Add"} <= set(operators(net))


def test_other_sums_on_the_way_stay_as_they_are():
    net, x = caffe(), picture(2, 3, 8, 8)
    net.graph.node.insert(0, node("Add", "x x", "twice"))
    net.graph.node[1].input[0] = "twice"
    assert [each for each in operators(net) if each in ("Mul", "Add")] == ["Add"]
    assert_close(outputs(net, x)["y"], run(net, x=x)["y"])


def test_a_normalisation_computed_at_run_time_stays():
    """Beside the way from x to y."""
    net = caffe(node("BatchNormalization", "x z z z z", "n2"), node("Mul", "n2 two", "s2"))
    net.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(2), "two"))
    net.graph.input.append(onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [3]))
    del net.graph.output[1:]
    net.graph.output.append(onnx.helper.make_tensor_value_info("s2", onnx.TensorProto.FLOAT, ["N", 3, 8, 8]))
    assert operators(net, at="y", input="x").count("Mul") == 1


@pytest.mark.parametrize("read", ["n", "s", "t"])
def test_what_something_else_reads_stays(read):
    net, x = caffe(node("Sigmoid", read, "z")), picture(2, 3, 8, 8)
    expected = run(net, x=x)
    for name, values in outputs(net, x, at="y").items():
        assert_close(values, expected[name])


@pytest.mark.parametrize("at", ["n", "s", "t"])
def test_any_layer_may_be_y(at):
    net, x = caffe(), picture(2, 3, 8, 8)
    p = picture(2, 4, 6, 6)
    options = {"at": at}
    assert_close(
        reverse(net, x, p, "desalinet", target="cpu", **options), reverse(net, x, p, "desalinet", **options)
    )


def test_layers_that_were_merged_are_no_signals():
    pair = revgraph.compile(caffe(), variant="salinet", target="cpu")
    written = {name for n in pair.forward.graph.node for name in n.output} | {"x"}
    assert pair.signals.keys() <= written


@pytest.mark.parametrize("factor", [(6, 1), (6, 6), (1, 1, 6, 1)], ids=str)
def test_a_product_by_place_is_not_the_normalisations(factor):
    net = caffe()
    (stored,) = (t for t in net.graph.initializer if t.name == "k")
    values = np.linspace(0.5, 2, int(np.prod(factor)), dtype=np.float32).reshape(factor)
    stored.CopyFrom(onnx.numpy_helper.from_array(values, "k"))
    x = picture(2, 3, 8, 8)
    assert_close(outputs(net, x)["y"], run(net, x=x)["y"])


def test_a_factor_may_widen_one_channel():
    tensors = {name: np.full(1, 1.5, np.float32) for name in "gbmv"} | {
        "k": np.arange(1, 4, dtype=np.float32).reshape(1, 3, 1, 1),
        "w": weights(2, 3, 1, 1),
    }
    nodes = [
        node("BatchNormalization", "x g b m v", "n"),
        node("Mul", "n k", "s"),
        node("Conv", "s w", "y"),
    ]
    net, x = model(nodes, ["N", 1, 6, 6], tensors), picture(2, 1, 6, 6)
    assert_close(outputs(net, x)["y"], run(net, x=x)["y"])


def test_halves_are_not_merged():
    """The product of two factors may be more than float16 holds, where each of them is not."""
    tensors = {"g": 1000.0, "b": 0.0, "m": 0.0, "v": 1e4, "k": 100.0}
    held = {name: np.full(4, value, np.float16) for name, value in tensors.items()}
    held["k"] = held["k"].reshape(4, 1, 1)
    nodes = [node("BatchNormalization", "x g b m v", "n"), node("Mul", "n k", "s"), node("Relu", "s", "y")]
    net = model(nodes, ["N", 4, 3, 3], held)
    for value in (*net.graph.input, *net.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    pair = revgraph.compile(net, variant="salinet", target="cpu")
    x = np.ones((1, 4, 3, 3), np.float16)
    np.testing.assert_array_equal(run(pair.forward, x=x)["y"], run(net, x=x)["y"])


# ----- LRN -----


def normalised(
    x: np.ndarray, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0
) -> np.ndarray:
    x = x.astype(np.float64)
    s = np.full_like(x, bias)
    for c in range(x.shape[1]):
        near = x[:, max(c - (size - 1) // 2, 0) : c + size // 2 + 1]
        s[:, c] += alpha / size * (near**2).sum(axis=1)
    return x / s**beta


def lrn(channels: int = 7, **attributes: float) -> onnx.ModelProto:
    nodes = [node("Conv", "x w", "c"), node("Relu", "c", "r"), node("LRN", "r", "y", **attributes)]
    return model(nodes, ["N", 3, 6, 5], {"w": weights(channels, 3, 1, 1)})


@pytest.mark.parametrize(
    "attributes",
    [
        {"size": 5},
        {"size": 3, "alpha": 2.0, "bias": 0.5},
        {"size": 1, "alpha": 0.3, "beta": 0.75},
        {"size": 15, "alpha": 1.0, "bias": 2.0},
    ],
    ids=str,
)
def test_the_exponent_of_three_quarters_is_two_square_roots(attributes):
    """Against ONNX's formula: onnxruntime's own errs by 2e-5, adding and taking away by turns."""
    net, x = lrn(**attributes), 5 * picture(2, 3, 6, 5)
    assert "LRN" not in operators(net)
    assert_close(
        outputs(net, x)["y"], normalised(run(lrn(size=1, alpha=1e-30), x=x)["y"], **attributes), rtol=1e-6
    )
    p = picture(2, 7, 6, 5)
    for reversal in "identity", "bp":
        options = {"lrn": reversal}
        assert_close(
            reverse(net, x, p, "desalinet", target="cpu", **options),
            reverse(net, x, p, "desalinet", **options),
        )


def test_other_exponents_stay():
    net, x = lrn(size=3, alpha=2.0, beta=0.6), picture(2, 3, 6, 5)
    assert "LRN" in operators(net)
    assert_close(outputs(net, x)["y"], run(net, x=x)["y"])
