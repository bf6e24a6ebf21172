"""The reference reversed by back-propagation, against derivatives (Eq. 3)."""

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from equations import (
    CUBE,
    FLAT,
    IMAGES,
    INTS,
    OPERATORS,
    RANKED,
    VARIANTS,
    WINDOWS,
    Random,
    assert_derivative,
    branching_network,
    by_onnxruntime,
    forward,
    ints,
    layer,
    network,
    nodes_of,
    operator_id,
    random_pad,
    random_transposed_window,
    random_window,
    reverse,
)
from onnx import helper


@pytest.mark.parametrize(("op_type", "rank", "seed"), WINDOWS)
def test_windows_reverse_to_their_derivative(op_type: str, rank: int, seed: int) -> None:
    assert_derivative(*random_window(op_type, rank, seed))


@pytest.mark.parametrize(("rank", "seed"), RANKED)
@pytest.mark.parametrize("random", [random_transposed_window, random_pad])
def test_transposed_windows_and_pads_reverse_to_their_derivative(
    random: Random, rank: int, seed: int
) -> None:
    assert_derivative(*random(rank, seed))


ONLY_FORWARD = {
    *("Cast", "CastLike", "Ceil", "ConstantOfShape", "Equal", "Floor", "Greater", "LessOrEqual", "Range"),
    *("ReduceProd", "Round", "Shape", "Size"),
}

DIFFERENTIABLE = [row for row in OPERATORS if row[1] is not INTS and row[2].op_type not in ONLY_FORWARD]


@pytest.mark.parametrize(("opset", "x", "node", "weights"), DIFFERENTIABLE, ids=operator_id)
def test_operators_reverse_to_their_derivative(
    opset: int, x: np.ndarray, node: onnx.NodeProto, weights: dict[str, np.ndarray]
) -> None:
    assert_derivative(network([node], x, weights, opset), x)


TOGETHER = [
    pytest.param(CUBE, ["e = Tanh x", "f = MatMul w e", "y = MatMul x f"], id="MatMul"),
    pytest.param(CUBE, ["e = ReduceMax x", "f = Mul e w", "y = MatMul x f"], id="MatMul, one stretched"),
    pytest.param(FLAT[0], ["e = Exp x", "f = MatMul x e", "y = Reshape f one"], id="MatMul, two vectors"),
    pytest.param(FLAT[0], ["e = Mul m x", "y = MatMul e x"], id="MatMul by a vector of the picture"),
    pytest.param(FLAT[0], ["e = Mul m x", "f = Transpose e", "y = MatMul x f"], id="a vector by a MatMul"),
    pytest.param(FLAT, ["e = Tanh x", "f = Transpose e", "s = ReduceMean x", "y = Gemm x f s"], id="Gemm"),
    pytest.param(CUBE, ["e = Neg x", "f = Tanh e", "y = Max e x f"], id="Max"),
    pytest.param(CUBE, ["e = Neg x", "f = Softmax x", "y = Min x e c f"], id="Min with a constant"),
    pytest.param(CUBE, ["e = ReduceMean x", "y = Max e x"], id="Max, one stretched"),
    pytest.param(CUBE, ["k = Greater x c", "e = Exp x", "y = Where k e x"], id="Where"),
    pytest.param(CUBE, ["e = ReduceMean x", "k = Less e x", "y = Where k e x"], id="Where, one stretched"),
    pytest.param(CUBE, ["k = Less x c", "e = CastLike k x", "y = Mul e x"], id="a mask"),
]  # fmt: skip


@pytest.mark.parametrize(("x", "lines"), TOGETHER)
def test_operands_that_all_come_from_the_picture_reverse_to_their_derivative(
    x: np.ndarray, lines: list[str]
) -> None:
    rng = np.random.default_rng(9)
    shapes = {"w": (4, 3), "m": (5, 6), "c": (6, 1, 1)}
    weights = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    model = network(nodes_of(*lines), x, {**weights, "one": ints(1)})
    # float32 sums of a few products
    np.testing.assert_allclose(forward(model, x), by_onnxruntime(model, x), rtol=1e-5, atol=1e-5)
    assert_derivative(model, x)


@pytest.mark.parametrize(("op_type", "flip"), [("Max", 1), ("Min", -1)])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_first_extreme_operand_gets_all(op_type: str, flip: int, variant: str) -> None:
    """Operands a = x, the constant b, and c = 3 - x."""
    x, b, p = np.array([[1.0, 2.0, 0.0, 1.5]]), np.array([2.0, 2.0, 3.0, 0.0]), np.array([[5.0, 6, 7, 8]])
    lines = ["t = Mul x s", "e = Sub three x", "c = Mul e s", f"y = {op_type} t b c"]
    model = network(nodes_of(*lines), x, {"b": flip * b, "s": np.array(1.0 * flip), "three": np.array(3.0)})
    # 1, 2, 2: the constant; 2, 2, 1: a; 0, 3, 3: the constant; 1.5, 0, 1.5: a
    np.testing.assert_array_equal(reverse(model, x, p, variant), flip * np.array([[0.0, 6, 0, 8]]))


def test_a_branching_network_agrees_with_onnxruntime_and_reverses_to_its_derivative() -> None:
    model = branching_network(IMAGES)
    # float32 rounding through fourteen layers
    np.testing.assert_allclose(forward(model, IMAGES), by_onnxruntime(model, IMAGES), rtol=1e-4, atol=1e-4)
    assert_derivative(model, IMAGES)


def test_shapes_computed_in_the_graph_are_constants() -> None:
    x = CUBE.astype(np.float64)
    nodes = [
        layer("Shape", "x", output="shape"),
        layer("Gather", "shape", "first", output="n"),
        layer("Concat", "n", "rest", output="sizes", axis=0),
        layer("Reshape", "x", "sizes"),
    ]
    model = network(nodes, x, {"first": ints(0), "rest": ints(-1)})
    np.testing.assert_array_equal(reverse(model, x, forward(model, x), "salinet"), x)


def test_sizes_computed_in_the_graph_are_constants() -> None:
    x = CUBE.astype(np.float64)
    nodes = [
        layer("Size", "x", output="size"),
        layer("Cast", "size", output="n", to=onnx.TensorProto.DOUBLE),
        layer("Div", "x", "n"),
    ]
    model = network(nodes, x)
    np.testing.assert_allclose(reverse(model, x, x, "salinet"), x / x.size, rtol=1e-15)


def split(sizes: Sequence[int] | None, opset: int) -> onnx.ModelProto:
    """Three parts of the channels, of which two go on, each its own way."""
    given = {} if sizes is None else {"n": np.array(sizes)}
    how = {"num_outputs": 3} if opset >= 18 and sizes is None else {}
    if opset < 13 and sizes is not None:
        given, how = {}, {"split": sizes}
    node = helper.make_node("Split", ["x", *given], ["a", "b", "c"], axis=1, **how)
    nodes = [node, layer("Tanh", "c", output="d"), layer("Concat", "d", "a", "c", axis=1)]
    return network(nodes, CUBE, given, opset)


@pytest.mark.parametrize(
    ("sizes", "opset"), [(None, 7), ([1, 3, 2], 11), (None, 13), ([1, 3, 2], 17), (None, 18), ([4, 1, 1], 18)]
)
def test_each_output_of_a_split_sends_back_what_it_gets(sizes: Sequence[int] | None, opset: int) -> None:
    model = split(sizes, opset)
    # float32 rounding of tanh
    np.testing.assert_allclose(forward(model, CUBE), by_onnxruntime(model, CUBE), rtol=1e-5, atol=1e-6)
    assert_derivative(model, CUBE)


def test_a_split_may_be_uneven() -> None:
    nodes = [helper.make_node("Split", ["x"], ["a", "b", "y"], axis=-1, num_outputs=3)]
    x = np.arange(5, dtype=np.float32)
    model = network(nodes, x, opset=18)
    np.testing.assert_array_equal(forward(model, x), by_onnxruntime(model, x))
    np.testing.assert_array_equal(forward(model, x), [4])


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_batch_is_its_images_and_rows_of_p_are_runs(variant: str) -> None:
    model, p = branching_network(IMAGES), np.random.default_rng(5).standard_normal((3, 5))
    whole, images = reverse(model, IMAGES, p, variant), [IMAGES[i : i + 1] for i in range(3)]
    alone = [reverse(model, image, row[None], variant) for image, row in zip(images, p, strict=True)]
    np.testing.assert_allclose(whole, np.concatenate(alone), rtol=1e-12, atol=1e-12)
    runs = [reverse(model, images[0], row[None], variant) for row in p]
    np.testing.assert_allclose(
        reverse(model, images[0], p, variant), np.concatenate(runs), rtol=1e-12, atol=1e-12
    )
