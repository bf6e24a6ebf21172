"""Activations in the reference: the four choices for rectifiers, and rectifiers as exporters write them."""

import math
from collections.abc import Iterator

import numpy as np
import onnx
import pytest
from equations import (
    CUBE,
    RELUS,
    assert_derivative,
    by_onnxruntime,
    floats,
    forward,
    layer,
    network,
    operator_id,
    reverse,
)
from onnx import helper

from revgraph import reference

X = 3 * CUBE
LO, HI = np.array(-0.5, np.float32), np.array(0.7, np.float32)

RECTIFIERS = [
    (7, layer("Relu"), {}),
    (7, layer("Clip", min=-0.5, max=0.7), {}),
    (10, layer("Clip", max=0.7), {}),
    (11, layer("Clip", *"xlh"), {"l": LO, "h": HI}),
    (17, layer("Clip", "x", "", "h"), {"h": HI}),
    (17, layer("Clip"), {}),
    (17, layer("Clip", *"xlh"), {"l": HI, "h": LO}),
    (7, layer("LeakyRelu"), {}),
    (17, layer("LeakyRelu", alpha=-0.3), {}),
    (9, layer("PRelu", *"xs"), {"s": floats(6, 1, 1)}),
    (17, layer("PRelu", *"xs"), {"s": -floats(1)}),
    (17, layer("Elu"), {}),
    (22, layer("Elu", alpha=2.0), {}),
    (17, layer("Selu"), {}),
    (22, layer("Selu", alpha=1.1, gamma=0.6), {}),
    (17, layer("Celu"), {}),
    (28, layer("Celu", alpha=2.0), {}),
    (17, layer("ThresholdedRelu"), {}),
    (22, layer("ThresholdedRelu", alpha=0.5), {}),
    (17, layer("Softplus"), {}),
    (14, layer("HardSwish"), {}),
    (20, layer("Gelu"), {}),
    (20, layer("Gelu", approximate="tanh"), {}),
    (18, layer("Mish"), {}),
    (24, layer("Swish"), {}),
    (24, layer("Swish", alpha=1.7), {}),
]
SQUASHERS = [
    (17, layer("Sigmoid"), {}),
    (17, layer("HardSigmoid"), {}),
    (22, layer("HardSigmoid", alpha=0.1, beta=0.3), {}),
    (17, layer("Tanh"), {}),
    (17, layer("Erf"), {}),
    (12, layer("Softmax", axis=2), {}),
    (17, layer("Softmax", axis=1), {}),
    (11, layer("LogSoftmax"), {}),
]
ROWS = pytest.mark.parametrize(("opset", "node", "weights"), [*RECTIFIERS, *SQUASHERS], ids=operator_id)


@ROWS
def test_activations_agree_with_onnxruntime(
    opset: int, node: onnx.NodeProto, weights: dict[str, np.ndarray]
) -> None:
    model = network([node], X, weights, opset)
    # float32 rounding, and onnxruntime's own approximations of exp, tanh and erf
    np.testing.assert_allclose(forward(model, X), by_onnxruntime(model, X), rtol=2e-5, atol=2e-6)


@ROWS
def test_activations_reverse_to_their_derivative(
    opset: int, node: onnx.NodeProto, weights: dict[str, np.ndarray]
) -> None:
    assert_derivative(network([node], X, weights, opset), X)


# ----- The four choices, restated; the slope by central differences at each pixel -----


def choices(y_hat: np.ndarray, slope: np.ndarray) -> dict[str, np.ndarray]:
    """Eqs. (7) and (10) with r the slope in place of the mask."""
    return {
        "identity": y_hat,
        "deconvnet": np.where(y_hat > 0, y_hat, 0),
        "salinet": y_hat * slope,
        "desalinet": np.where(y_hat * slope > 0, y_hat * slope, 0),
    }


def slopes(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    return (forward(model, x + 1e-6) - forward(model, x - 1e-6)) / 2e-6


def assert_choices(model: onnx.ModelProto, x: np.ndarray, p: np.ndarray) -> None:
    for relu, expected in choices(p, slopes(model, x)).items():
        for variant in (relu, f"{relu}-centre"):
            # central differences
            np.testing.assert_allclose(reverse(model, x, p, variant), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("opset", "node", "weights"), RECTIFIERS, ids=operator_id)
def test_rectifiers_take_the_four_choices(
    opset: int, node: onnx.NodeProto, weights: dict[str, np.ndarray]
) -> None:
    model = network([node], X, weights, opset)
    assert_choices(model, X.astype(np.float64), np.random.default_rng(0).standard_normal(X.shape))


@pytest.mark.parametrize(("opset", "node", "weights"), SQUASHERS, ids=operator_id)
def test_squashers_back_propagate_in_every_variant(
    opset: int, node: onnx.NodeProto, weights: dict[str, np.ndarray]
) -> None:
    model, p = network([node], X, weights, opset), np.random.default_rng(0).standard_normal(X.shape)
    for relu in RELUS:
        np.testing.assert_array_equal(reverse(model, X, p, relu), reverse(model, X, p, "salinet"))


@pytest.mark.parametrize(
    ("node", "x", "slope"),
    [
        (layer("Relu"), [0.0], [0.0]),
        (layer("Clip", min=0.0, max=6.0), [0.0, 3.0, 6.0], [0.0, 1.0, 0.0]),
        (layer("LeakyRelu", alpha=0.25), [-1.0, 0.0, 1.0], [0.25, 0.25, 1.0]),
        (layer("Elu", alpha=2.0), [0.0], [2.0]),
        (layer("Selu", alpha=2.0, gamma=3.0), [0.0], [6.0]),
        (layer("ThresholdedRelu", alpha=1.0), [1.0, 1.5], [0.0, 1.0]),
        (layer("HardSwish"), [-3.0, 0.0, 3.0], [0.0, 0.5, 1.0]),
        (layer("HardSigmoid", alpha=0.25, beta=0.5), [-2.0, 0.0, 2.0], [0.0, 0.25, 0.0]),
        (layer("Swish"), [0.0], [0.5]),
        (layer("Gelu"), [0.0], [0.5]),
        (layer("Softplus"), [-800.0, 0.0, 800.0], [0.0, 0.5, 1.0]),
        (layer("Mish"), [-800.0, 800.0], [0.0, 1.0]),
        (layer("Abs"), [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]),
    ],
    ids=operator_id,
)
def test_slopes_at_kinks_and_far_out(node: onnx.NodeProto, x: list[float], slope: list[float]) -> None:
    here = np.array([x])
    x_hat = reverse(network([node], here, opset=10), here, np.ones_like(here), "salinet")
    np.testing.assert_allclose(x_hat, [slope])


@pytest.mark.parametrize(("op_type", "slope"), [("Max", [0, 0, 1]), ("Min", [1, 0, 0])])
def test_max_and_min_with_a_constant_are_strict(op_type: str, slope: list[float]) -> None:
    x = np.array([[1.0, 2.0, 3.0]])
    model = network([layer(op_type, *"cx")], x, {"c": np.array(2.0)})
    for relu in RELUS:
        np.testing.assert_array_equal(reverse(model, x, np.ones((1, 3)), relu), [slope])


# ----- As exporters write them -----

CONSTANTS = {
    "zero": 0.0, "half": 0.5, "one": 1.0, "near": 1.02, "three": 3.0, "six": 6.0, "sixth": 1 / 6, "two": 2.0,
    "root2": math.sqrt(2), "rsqrt2": math.sqrt(0.5), "root": math.sqrt(2 / math.pi), "c": 0.044715,
}  # fmt: skip


def written(text: str) -> list[onnx.NodeProto]:
    """Nodes from lines such as "y = Mul(x, s)"; numbers beside names are in CONSTANTS."""
    return list(_nodes(text))


def _nodes(text: str) -> Iterator[onnx.NodeProto]:
    for line in text.strip().splitlines():
        output, _, call = line.strip().partition(" = ")
        op_type, _, inputs = call.rstrip(")").partition("(")
        hard = {"alpha": 1 / 6, "beta": 0.5} if op_type == "HardSigmoid" else {}
        yield helper.make_node(op_type, inputs.split(", "), [output], **hard)


def model_of(text: str, x: np.ndarray, kind: type = np.float32, opset: int = 17) -> onnx.ModelProto:
    weights = {name: np.array(value, kind) for name, value in CONSTANTS.items()}
    return network(written(text), x, weights, opset)


WRITTEN = [
    ("Swish", "s = Sigmoid(x)\n y = Mul(x, s)"),
    ("Swish", "s = Sigmoid(x)\n y = Mul(s, x)"),
    ("HardSwish", "s = HardSigmoid(x)\n y = Mul(x, s)"),
    ("HardSwish", "a = Add(x, three)\n b = Clip(a, zero, six)\n c2 = Mul(x, b)\n y = Div(c2, six)"),
    ("HardSwish", "a = Add(three, x)\n b = Clip(a, zero, six)\n c2 = Div(b, six)\n y = Mul(c2, x)"),
    ("HardSwish", "a = Add(x, three)\n b = Clip(a, zero, six)\n c2 = Mul(b, sixth)\n y = Mul(x, c2)"),
    ("HardSwish", "a = Add(x, three)\n b = Clip(a, zero, six)\n c2 = Mul(x, sixth)\n y = Mul(c2, b)"),
    ("HardSwish", "a = Add(x, three)\n b = Max(a, zero)\n d = Min(b, six)\n e = Mul(x, d)\n y = Div(e, six)"),
    ("HardSwish", "a = Add(x, three)\n b = Relu(a)\n d = Min(six, b)\n e = Div(d, six)\n y = Mul(x, e)"),
    ("HardSwish", "a = Mul(x, sixth)\n b = Add(a, half)\n d = Clip(b, zero, one)\n y = Mul(x, d)"),
    ("Mish", "a = Softplus(x)\n b = Tanh(a)\n y = Mul(x, b)"),
    ("Mish", "a = Exp(x)\n b = Add(a, one)\n d = Log(b)\n e = Tanh(d)\n y = Mul(e, x)"),
    ("Gelu", "a = Div(x, root2)\n b = Erf(a)\n d = Add(b, one)\n e = Mul(x, d)\n y = Mul(e, half)"),
    ("Gelu", "a = Mul(x, rsqrt2)\n b = Erf(a)\n d = Add(one, b)\n e = Mul(half, x)\n y = Mul(e, d)"),
    ("Gelu", "a = Div(x, root2)\n b = Erf(a)\n d = Add(b, one)\n e = Mul(d, half)\n y = Mul(x, e)"),
    (
        "Gelu",
        "r = Sqrt(two)\n a = Div(x, r)\n b = Erf(a)\n d = Add(b, one)\n e = Mul(x, d)\n y = Div(e, two)",
    ),
    (
        "Gelu approximate = 'tanh'",
        """a = Pow(x, three)
        b = Mul(a, c)
        d = Add(x, b)
        e = Mul(d, root)
        f = Tanh(e)
        g = Add(f, one)
        h = Mul(x, half)
        y = Mul(h, g)""",
    ),
    (
        "Gelu approximate = 'tanh'",
        """a = Mul(x, x)
        b = Mul(c, a)
        d = Add(one, b)
        e = Mul(x, root)
        f = Mul(e, d)
        g = Tanh(f)
        h = Add(g, one)
        i = Mul(x, h)
        y = Mul(half, i)""",
    ),
    ("Relu", "y = Max(x, zero)"),
    ("Relu", "y = Max(zero, x)"),
    ("Clip max = 6 min = 0", "a = Max(x, zero)\n y = Min(a, six)"),
    ("Clip max = 6 min = 0", "a = Min(six, x)\n y = Max(a, zero)"),
    ("Clip max = 6 min = 0", "a = Relu(x)\n y = Min(a, six)"),
    ("Clip max = 3 min = 0.5", "a = Max(x, half)\n y = Min(three, a)"),
]
SPELLED = pytest.mark.parametrize(("name", "text"), WRITTEN)


def names(model: onnx.ModelProto, at: str | None = None) -> list[str]:
    """What is recognised, its attributes behind the operator."""
    return [
        " ".join([one.op_type, *(helper.printable_attribute(a) for a in one.attribute)])
        for one in reference.recognised(model, at)
    ]


@SPELLED
@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_exported_activations_are_recognised(name: str, text: str, kind: type) -> None:
    (one,) = reference.recognised(model_of(text, X.astype(kind), kind))
    assert names(model_of(text, X.astype(kind), kind)) == [name]
    assert (*one.input, *one.output) == ("x", "y")


@SPELLED
def test_exported_activations_take_the_four_choices(name: str, text: str) -> None:
    x, p = X.astype(np.float64), np.random.default_rng(0).standard_normal(X.shape)
    model = model_of(text, x, np.float64)
    assert_choices(model, x, p)
    inner = {node.output[0] for node in model.graph.node} - {"y"}
    tensors = reference.forward(model, {"x": x})
    x_hats = reference.reverse(model, tensors, variant="desalinet", at="y", to="x", p=p)
    assert not inner & x_hats.keys()


SILU = "s = Sigmoid(x)\n z = Mul(x, s)\n y = Relu(z)"


@pytest.mark.parametrize(
    ("text", "at"),
    [
        pytest.param("s = Sigmoid(x)\n z = Mul(x, s)\n y = Add(z, s)", "y", id="its inside is read too"),
        pytest.param("y = Sigmoid(x)\n z = Mul(x, y)", "z", id="its inside is an output"),
        pytest.param(SILU, "s", id="the reversal starts inside"),
        pytest.param("a = Mul(x, two)\n s = Sigmoid(a)\n y = Mul(x, s)", "y", id="another slope"),
        pytest.param("a = Div(x, root2)\n b = Erf(a)\n d = Add(b, one)\n y = Mul(x, d)", "y", id="no half"),
        pytest.param("a = Mul(x, near)\n s = Sigmoid(a)\n y = Mul(x, s)", "y", id="nearly the slope"),
        pytest.param("a = Neg(x)\n s = Sigmoid(a)\n y = Mul(x, s)", "y", id="another sign"),
        pytest.param("a = Add(x, two)\n s = Sigmoid(a)\n y = Mul(x, s)", "y", id="a gate of something else"),
        pytest.param("y = Max(x, one)", "y", id="a floor that is not zero"),
        pytest.param("y = Min(x, six)", "y", id="a ceiling alone"),
        pytest.param("a = Add(x, x)\n y = Max(x, a)", "y", id="two activations"),
        pytest.param("a = Add(x, two)\n b = Max(x, a)\n y = Mul(x, b)", "y", id="two activations as a gate"),
        pytest.param("a = Add(x, two)\n b = HardSigmoid(a)\n y = Mul(x, b)", "y", id="a shifted ramp"),
    ],
)  # fmt: skip
def test_what_only_looks_like_an_activation_is_back_propagated(text: str, at: str) -> None:
    x = X.astype(np.float64)
    model = model_of(text, x, np.float64)
    assert names(model, at) == []
    tensors, p = reference.forward(model, {"x": x}), np.random.default_rng(0).standard_normal(X.shape)
    by = {v: reference.reverse(model, tensors, variant=v, at=at, to="x", p=p)["x"] for v in RELUS}
    np.testing.assert_array_equal(by["identity"], by["salinet"])


@pytest.mark.parametrize("bounds", ["one, six", "zero, three", "zero"])
def test_another_ramp_is_no_hard_swish(bounds: str) -> None:
    assert (
        names(model_of(f"a = Add(x, three)\n b = Clip(a, {bounds})\n d = Mul(x, b)\n y = Div(d, six)", X))
        == []
    )


def test_patterns_are_found_one_after_the_other() -> None:
    text = "s = Sigmoid(x)\n u = Mul(x, s)\n t = Sigmoid(u)\n v = Mul(t, u)"
    assert names(model_of(f"{text}\n w = Mul(v, half)\n y = Max(w, zero)", X)) == ["Swish", "Swish", "Relu"]


def test_a_pattern_may_end_where_the_reversal_starts() -> None:
    assert names(model_of(SILU, X), "z") == ["Swish"]


def test_constants_of_a_pattern_may_be_nodes() -> None:
    half = helper.make_node("Constant", [], ["nought"], value_float=0.0)
    x = X.astype(np.float64)
    model = network([half, layer("Max", "x", "nought")], x)
    assert names(model) == ["Relu"]


# ----- Networks of them -----


def gated(x: np.ndarray) -> onnx.ModelProto:
    """Squeeze-and-excitation as exporters write it, in a block with SiLU."""
    text = "s = Sigmoid(x)\n u = Mul(x, s)\n g = GlobalAveragePool(u)\n h = Conv(g, W)\n r = Relu(h)"
    text += "\n e = Conv(r, V)\n t = Sigmoid(e)\n v = Mul(u, t)\n y = Add(x, v)"
    rng = np.random.default_rng(6)
    return network(written(text), x, {"W": rng.random((3, 6, 1, 1)), "V": rng.random((6, 3, 1, 1)) - 0.5})


def test_squeeze_and_excitation_takes_the_product_rule() -> None:
    assert_derivative(gated(CUBE.astype(np.float64)), CUBE)


@pytest.mark.parametrize("relu", RELUS)
def test_squeeze_and_excitation_by_hand(relu: str) -> None:
    """Only SiLU and ReLU take the variant's choice; the two branches of the product back-propagate."""
    x, p = CUBE.astype(np.float64), np.random.default_rng(7).standard_normal(CUBE.shape)
    model = gated(x)
    a = reference.forward(model, {"x": x})
    t_hat = (p * a["u"]).sum(axis=(2, 3), keepdims=True)
    e_hat = t_hat * a["t"] * (1 - a["t"])
    r_hat = np.einsum("nchw,cd->ndhw", e_hat, a["V"][:, :, 0, 0])
    h_hat = choices(r_hat, a["h"] > 0)[relu]
    g_hat = np.einsum("nchw,cd->ndhw", h_hat, a["W"][:, :, 0, 0])
    u_hat = p * a["t"] + g_hat / 12
    slope = a["s"] + x * a["s"] * (1 - a["s"])
    np.testing.assert_allclose(reverse(model, x, p, relu), p + choices(u_hat, slope)[relu])
