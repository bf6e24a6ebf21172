"""Local response normalisation in the reference, as it is written in several nodes."""

import numpy as np
import onnx
import pytest
from equations import (
    CUBE,
    RELUS,
    VARIANTS,
    assert_derivative,
    by_onnxruntime,
    floats,
    forward,
    ints,
    layer,
    network,
    nodes_of,
    reverse,
)
from onnx import helper

from revgraph import reference

SIZE, ALPHA, BETA, BIAS = 3, 0.7, 0.6, 1.3
LRN = layer("LRN", size=SIZE, alpha=ALPHA, beta=BETA, bias=BIAS)


def band(channels: int, before: int, after: int) -> np.ndarray:
    """1 where channel k is one of those around channel c, (c, k)."""
    c, k = np.indices((channels, channels))
    return ((k >= c - before) & (k <= c + after)).astype(np.float32)


NUMBERS = {"a": ALPHA, "a_n": ALPHA / 3, "b": BETA, "minus": -BETA, "k": BIAS, "zero": 0, "n": 3, "two": 2}
WEIGHTS = {
    **{name: np.float32(value) for name, value in {**NUMBERS, "eps": 1e-6}.items()},
    **{f"i{i}": ints(i) for i in (0, 1, 2, 6, 7, 8)},
    "one": ints(1),
    "last": ints(-1),
    "around": ints(0, 1, 0, 0, 0, 1, 0, 0),
    "deep": ints(0, 0, 1, 0, 0, 0, 0, 1, 0, 0),
    "rows": ints(0, 1, 6, -1),
    "shape": ints(0, 6, 3, 4),
    "columns": np.add.outer(np.arange(6), np.arange(3)),
    "band": band(6, 1, 1),
    "kernel": ALPHA / 3 * band(6, 1, 1)[:, :, None, None],
    "nearly": (ALPHA / 3 * band(6, 1, 1) * (1 + 1e-4 * np.eye(6, k=1)))[:, :, None, None].astype(np.float32),
    "ones": np.ones((1, 1, 3, 1, 1), np.float32),
    "all": np.ones((6, 6, 1, 1), np.float32),
    "s": floats(6, 1, 1),
}

POWER = ["d = Add m k", "e = Pow d b", "y = Div x e"]
TAIL = ["m = Mul w a", *POWER]
SUM_TAIL = ["m = Mul w a_n", *POWER]
SQUARE = "q = Mul x x"
PADDED = [SQUARE, "f = Pad q around"]
SLICES = [f"p{i} = Slice f i{i} i{i + 6} one" for i in range(3)]
SPELLED = {
    "pooled, torch": [
        SQUARE,
        "u = Unsqueeze q one",
        "f = Pad u deep",
        "g = AveragePool f kernel_shape=[3,1,1]",
        "w = Squeeze g one",
        *TAIL,
    ],
    "pooled in the plane": [
        SQUARE,
        "u = Reshape q rows",
        "g = AveragePool u kernel_shape=[3,1] pads=[1,0,1,0] count_include_pad=1",
        "w = Reshape g shape",
        *TAIL,
    ],
    "pooled and multiplied again": [
        SQUARE,
        "u = Unsqueeze q one",
        "f = Pad u deep zero",
        "g = AveragePool f kernel_shape=[3,1,1]",
        "h = Mul g n",
        "w = Squeeze h one",
        *SUM_TAIL,
    ],
    "by the window's length": [
        "u = Unsqueeze x one",
        "g = LpPool u kernel_shape=[3,1,1] pads=[1,0,0,1,0,0]",
        "h = Mul g g",
        "w = Squeeze h one",
        *SUM_TAIL,
    ],
    "convolved": [SQUARE, "m = Conv q kernel", *POWER],
    "convolved by ones": [
        SQUARE,
        "u = Unsqueeze q one",
        "g = Conv u ones pads=[1,0,0,1,0,0]",
        "w = Squeeze g one",
        *SUM_TAIL,
    ],
    "a sum of slices": [*PADDED, *SLICES, "w = Sum p0 p1 p2", *SUM_TAIL],
    "added one by one": [*PADDED, *SLICES, "v = Add p2 p0", "w = Add p1 v", *SUM_TAIL],
    "a reduction of slices": [
        *PADDED,
        *SLICES,
        *(f"v{i} = Unsqueeze p{i} last" for i in range(3)),
        "g = Concat v0 v1 v2 axis=-1",
        "w = ReduceSum g last keepdims=0",
        *SUM_TAIL,
    ],
    "a mean of gathered channels": [
        *PADDED,
        "g = Gather f columns axis=1",
        "w = ReduceMean g axes=[2] keepdims=0",
        *TAIL,
    ],
    "channels last": [
        SQUARE,
        "t = Transpose q perm=[0,2,3,1]",
        "g = MatMul t band",
        "w = Transpose g perm=[0,3,1,2]",
        *SUM_TAIL,
    ],
    "times the inverse": [SQUARE, "m = Conv q kernel", "d = Add k m", "e = Pow d minus", "y = Mul e x"],
    "by logarithms": [
        "q = Pow x two",
        "m = Conv q kernel",
        "d = Add m k",
        "l = Log d",
        "h = Mul l b",
        "e = Exp h",
        "r = Reciprocal e",
        "y = Mul x r",
    ],
    "held off zero": [
        SQUARE,
        "m = Conv q kernel",
        "c = Add m k",
        "d = Clip c eps",
        "e = Pow d b",
        "y = Div x e",
    ],
}


def model_of(lines: list[str], x: np.ndarray = CUBE) -> onnx.ModelProto:
    return network(nodes_of(*lines), x, WEIGHTS)


def recognised(model: onnx.ModelProto, x: np.ndarray, at: str = "y") -> list[onnx.NodeProto]:
    return reference.recognised(model, at, reference.forward(model, {"x": x}))


def numbers(one: onnx.NodeProto) -> dict[str, float]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in one.attribute}


EACH = pytest.mark.parametrize("lines", SPELLED.values(), ids=SPELLED)


@EACH
def test_a_written_lrn_is_recognised_and_its_numbers_are_read(lines: list[str]) -> None:
    (one,) = recognised(model_of(lines), CUBE)
    assert (one.op_type, *one.input, *one.output) == ("LRN", "x", "y")
    # float32, as the model's own numbers are
    assert numbers(one) == pytest.approx({"size": SIZE, "alpha": ALPHA, "beta": BETA, "bias": BIAS}, rel=1e-6)


@EACH
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_written_lrn_reverses_as_one(lines: list[str], variant: str) -> None:
    model, one = model_of(lines), network([LRN], CUBE)
    p = np.random.default_rng(0).standard_normal(CUBE.shape)
    # the numbers are float32
    np.testing.assert_allclose(forward(model, CUBE), forward(one, CUBE), rtol=1e-6)
    for lrn in (None, "identity", "bp"):
        expected = reverse(one, CUBE, p, variant, lrn)
        np.testing.assert_allclose(reverse(model, CUBE, p, variant, lrn), expected, rtol=1e-5, atol=1e-6)


@EACH
def test_a_written_lrn_is_what_onnxruntime_runs_and_reverses_to_its_derivative(lines: list[str]) -> None:
    model = model_of(lines)
    # float32 rounding of a dozen operators
    np.testing.assert_allclose(forward(model, CUBE), by_onnxruntime(model, CUBE), rtol=1e-5, atol=1e-6)
    assert_derivative(model, CUBE)


@pytest.mark.parametrize("beta", [0.5, 0.75, 1.0])
def test_the_power_may_be_written_by_roots(beta: float) -> None:
    roots = {
        0.5: ["e = Sqrt d"],
        0.75: ["g = Sqrt d", "h = Sqrt g", "e = Mul g h"],
        1.0: ["e = Identity d"],
    }
    model = model_of([SQUARE, "m = Conv q kernel", "d = Add m k", *roots[beta], "y = Div x e"])
    (one,) = recognised(model, CUBE)
    assert numbers(one)["beta"] == pytest.approx(beta, rel=1e-6)
    assert_derivative(model, CUBE)


@pytest.mark.parametrize("channels", [3, 4, 5, 6, 9])
@pytest.mark.parametrize("n", [2, 3, 4, 5, 6, 7, 8])
def test_windows_are_onnx_s_and_may_be_wider_than_the_picture(n: int, channels: int) -> None:
    """The window may be longer than what it sees: then any that sees as much is as good."""
    x = np.random.default_rng(0).standard_normal((2, channels, 3)).astype(np.float32)
    before, after = (n - 1) // 2, n // 2
    lines = [SQUARE, "u = Unsqueeze q one", f"g = AveragePool u kernel_shape=[{n},1] count_include_pad=1"]
    lines[-1] += f" pads=[{before},0,{after},0]"
    model = model_of([*lines, "w = Squeeze g one", *TAIL], x)
    (one,) = recognised(model, x)
    assert numbers(one)["size"] == min(before, channels - 1) + min(after, channels - 1) + 1
    assert numbers(one)["alpha"] / numbers(one)["size"] == pytest.approx(ALPHA / n, rel=1e-6)
    assert_derivative(model, x)


CHANNELS_LAST = {
    "convolved": ["v = Unsqueeze q one", "g = Conv v long pads=[0,0,1,0,0,1]", "w = Squeeze g one"],
    "sliced": [*PADDED[1:], *SLICES, "w = Sum p0 p1 p2"],
    "multiplied": ["w = MatMul q band"],
    "turned": ["t = Transpose q perm=[0,3,1,2]", "c = Conv t narrow", "w = Transpose c perm=[0,2,3,1]"],
}


@pytest.mark.parametrize("lines", CHANNELS_LAST.values(), ids=CHANNELS_LAST)
@pytest.mark.parametrize("variant", RELUS)
def test_channels_may_come_last(lines: list[str], variant: str) -> None:
    """As frameworks write it that have them there: the picture is turned, normalised, and turned back."""
    last = {"around": ints(0, 0, 0, 1, 0, 0, 0, 1), "one": ints(1), "band": band(4, 1, 1)}
    last |= {f"i{i + 6}": ints(i + 4) for i in range(3)}
    last |= {"long": np.ones((1, 1, 1, 1, 3), np.float32), "narrow": band(4, 1, 1)[:, :, None, None]}
    slices = [line.replace(" one", " three") if "Slice" in line else line for line in lines]
    model = network(nodes_of(SQUARE, *slices, *SUM_TAIL), CUBE, {**WEIGHTS, **last, "three": ints(3)})
    turned = np.moveaxis(CUBE, 3, 1)
    p, one = np.random.default_rng(0).standard_normal(CUBE.shape), network([LRN], turned)
    np.testing.assert_allclose(np.moveaxis(forward(model, CUBE), 3, 1), forward(one, turned), rtol=1e-6)
    x_hat = np.moveaxis(reverse(model, CUBE, p, variant), 3, 1)
    expected = reverse(one, turned, np.moveaxis(p, 3, 1), variant)
    # the numbers are float32
    np.testing.assert_allclose(x_hat, expected, rtol=1e-5, atol=1e-6)


NO_LRN = {
    "the length over all channels": ["m = ReduceL2 x axes=[1]", "e = Max m eps", "y = Div x e"],
    "the length and a constant": [
        "m = ReduceSumSquare x axes=[1]",
        "d = Add m eps",
        "e = Sqrt d",
        "y = Div x e",
    ],
    "the length by convolution": [SQUARE, "m = Conv q all", "d = Add m eps", "e = Sqrt d", "y = Div x e"],
    "the root mean square": [SQUARE, "m = ReduceMean q axes=[1]", *POWER],
    "the root mean square, pooled": [
        SQUARE,
        "u = Reshape q rows",
        "g = AveragePool u kernel_shape=[6,1]",
        "f = Expand g rows_of_x",
        "m = Reshape f shape",
        *POWER,
    ],
    "layers": [
        "c = ReduceMean x axes=[1]",
        "h = Sub x c",
        "q = Mul h h",
        "m = ReduceMean q axes=[1]",
        "d = Add m eps",
        "e = Sqrt d",
        "y = Div h e",
    ],
    "instances": [
        "c = ReduceMean x axes=[2,3]",
        "h = Sub x c",
        "q = Mul h h",
        "m = ReduceMean q axes=[2,3]",
        "d = Add m eps",
        "e = Sqrt d",
        "y = Div h e",
    ],
    "no constant": [SQUARE, "m = Conv q kernel", "e = Pow m b", "y = Div x e"],
    "each pixel alone": [SQUARE, "d = Add q k", "e = Sqrt d", "y = Div x e"],
    "pixels around": [
        SQUARE,
        "m = AveragePool q kernel_shape=[3,3] pads=[1,1,1,1] count_include_pad=1",
        *POWER,
    ],
    "pixels in a row": [
        SQUARE,
        "w = AveragePool q kernel_shape=[1,3] pads=[0,1,0,1] count_include_pad=1",
        *TAIL,
    ],
    "pixels in a column": [
        SQUARE,
        "w = AveragePool q kernel_shape=[3,1] pads=[1,0,1,0] count_include_pad=1",
        *TAIL,
    ],
    "pads that do not count": [
        SQUARE,
        "u = Reshape q rows",
        "g = AveragePool u kernel_shape=[3,1] pads=[1,0,1,0]",
        "w = Reshape g shape",
        *TAIL,
    ],
    "channels that mirror": [SQUARE, "f = Pad q around mode='edge'", *SLICES, "w = Sum p0 p1 p2", *SUM_TAIL],
    "a window to one side": [
        SQUARE,
        "u = Reshape q rows",
        "g = AveragePool u kernel_shape=[3,1] pads=[2,0,0,0] count_include_pad=1",
        "w = Reshape g shape",
        *TAIL,
    ],
    "an even window, as torch has it": [
        SQUARE,
        "u = Reshape q rows",
        "g = AveragePool u kernel_shape=[2,1] pads=[1,0,0,0] count_include_pad=1",
        "w = Reshape g shape",
        *TAIL,
    ],
    "weights that are nearly one": [SQUARE, "m = Conv q nearly", *POWER],
    "weights of channels": [SQUARE, "h = Conv q kernel", "m = Mul h s", *POWER],
    "of magnitudes": ["q = Sqrt sq", "m = Conv q kernel", *POWER],
    "of values": ["m = Conv x kernel", "h = Mul m m", "d = Add h k", "e = Pow d b", "y = Div x e"],
    "another tensor's": ["z = Tanh x", "q = Mul z z", "m = Conv q kernel", *POWER],
    "multiplied": [SQUARE, "m = Conv q kernel", "d = Add m k", "e = Pow d b", "y = Mul x e"],
    "an exponential": [SQUARE, "m = Conv q kernel", "e = Exp m", "y = Div x e"],
    "a logarithm": [SQUARE, "m = Conv q kernel", "d = Add m k", "l = Log d", "e = Add l k", "y = Div x e"],
    "a square": [SQUARE, "y = Mul x q"],
    "its inside is read": [
        SQUARE,
        "m = Conv q kernel",
        "d = Add m k",
        "e = Pow d b",
        "r = Div x e",
        "y = Add r m",
    ],
}


@pytest.mark.parametrize("lines", NO_LRN.values(), ids=NO_LRN)
def test_what_only_looks_like_an_lrn_is_back_propagated(lines: list[str]) -> None:
    lines = ["sq = Mul x x"] * ("sq" in " ".join(lines)) + lines
    model = network(nodes_of(*lines), CUBE, {**WEIGHTS, "rows_of_x": ints(2, 1, 6, 12)})
    assert recognised(model, CUBE) == []
    p = np.random.default_rng(0).standard_normal(CUBE.shape)
    for variant in RELUS:
        np.testing.assert_array_equal(
            reverse(model, CUBE, p, variant, "identity"), reverse(model, CUBE, p, "salinet", "bp")
        )
    assert_derivative(model, CUBE)


@pytest.mark.parametrize("at", ["q", "m", "d", "e"])
def test_a_reversal_that_starts_inside_takes_the_nodes_as_they_are(at: str) -> None:
    model = model_of(SPELLED["convolved"])
    assert recognised(model, CUBE, at) == []


def test_an_lrn_that_reads_another_picture_is_left() -> None:
    """Its bias is fed."""
    model = model_of([SQUARE, "m = Conv q kernel", "d = Add m fed", "e = Pow d b", "y = Div x e"])
    model.graph.input.add(name="fed")
    tensors = reference.forward(model, {"x": CUBE, "fed": np.array(1.0)})
    assert reference.recognised(model, "y", tensors) == []


@pytest.mark.parametrize(
    "lines",
    [
        ["w = AveragePool q kernel_shape=[3] pads=[1,1] count_include_pad=1"],
        ["u = Unsqueeze q two_", "g = Conv u wide pads=[0,1,0,1]", "w = Squeeze g two_"],
    ],
)
def test_moments_around_are_no_channels(lines: list[str]) -> None:
    """A signal over time, (N, C, L), normalised by those around."""
    x = CUBE[:, :, 0]
    weights = {
        "two_": ints(2),
        "wide": np.eye(6, dtype=np.float32)[:, :, None, None] * np.ones((1, 3), np.float32),
    }
    model = network(nodes_of(SQUARE, *lines, *TAIL), x, {**WEIGHTS, **weights})
    assert recognised(model, x) == []
    assert_derivative(model, x)


def test_shapes_of_its_inside_may_be_read() -> None:
    """As TorchScript asks whether there is an axis to squeeze, and shapes the rest after the input."""
    squeeze = helper.make_graph(nodes_of("w = Squeeze g one"), "then", [], [onnx.ValueInfoProto(name="w")])
    keep = helper.make_graph(nodes_of("w = Identity g"), "else", [], [onnx.ValueInfoProto(name="w")])
    lines = ["t = Tanh x", "q = Mul t t", *SPELLED["pooled, torch"][1:4]]
    before = nodes_of(*lines, "i = Shape g", "j = Gather i one", "same = Equal j one")
    asked = layer("If", "same", output="v", then_branch=squeeze, else_branch=keep)
    lines = [
        "of_x = Shape x",
        "z = Reshape v of_x",
        "m = Mul z a",
        "d = Add m k",
        "e = Pow d b",
        "r = Div t e",
    ]
    model = network([*before, asked, *nodes_of(*lines, "y = Reshape r of_x")], CUBE, WEIGHTS)
    (one,) = recognised(model, CUBE)
    assert (one.op_type, *one.input, *one.output) == ("LRN", "t", "r")
    assert_derivative(model, CUBE)


def convolved(x: str, y: str) -> list[str]:
    return [
        f"{y}1 = Mul {x} {x}",
        f"{y}2 = Conv {y}1 kernel",
        f"{y}3 = Add {y}2 k",
        f"{y}4 = Pow {y}3 b",
        f"{y} = Div {x} {y}4",
    ]


def test_two_in_a_network_with_activations() -> None:
    lines = ["g = Sigmoid x", "v = Mul x g", *convolved("v", "w"), "u = Relu w", *convolved("u", "z")]
    model = model_of([*lines, "y = Max z zero"])
    assert [one.op_type for one in recognised(model, CUBE)] == ["Swish", "LRN", "LRN", "Relu"]
    assert_derivative(model, CUBE)
