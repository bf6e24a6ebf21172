"""Branches and sequences in the reference: the nodes that they come down to, run and reversed."""

import numpy as np
import onnx
import pytest
from equations import (
    CUBE,
    VARIANTS,
    assert_derivative,
    by_onnxruntime,
    forward,
    ints,
    layer,
    network,
    nodes_of,
    reverse,
)
from onnx import helper, numpy_helper

from revgraph.errors import RevgraphError


def branch(*nodes: onnx.NodeProto, output: str = "out", **weights: np.ndarray) -> onnx.GraphProto:
    initializers = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    return helper.make_graph(nodes, "branch", [], [onnx.ValueInfoProto(name=output)], initializers)


def choice(
    condition: str, then: onnx.GraphProto, otherwise: onnx.GraphProto, output: str = "z"
) -> onnx.NodeProto:
    return layer("If", condition, output=output, then_branch=then, else_branch=otherwise)


def assert_agrees(model: onnx.ModelProto, x: np.ndarray = CUBE) -> None:
    # float32 rounding of a few operators
    np.testing.assert_allclose(forward(model, x), by_onnxruntime(model, x), rtol=1e-5, atol=1e-6)
    assert_derivative(model, x)


# ----- If -----


@pytest.mark.parametrize("taken", [True, False])
def test_the_taken_branch_runs_and_reverses(taken: bool) -> None:
    """Both call their tensors the same, one has an initializer, both see x and t of the outer graph."""
    then = branch(*nodes_of("in = Mul t w", "out = Add in x"), w=CUBE[0])
    otherwise = branch(*nodes_of("in = Sigmoid t", "out = Mul in in"))
    nodes = [*nodes_of("t = Tanh x"), choice("k", then, otherwise), *nodes_of("y = Mul z t")]
    assert_agrees(network(nodes, CUBE, {"k": np.array([taken])}))


def test_branches_of_two_may_call_their_tensors_the_same() -> None:
    first, second = (
        branch(*nodes_of("in = Exp x", "out = Neg in")),
        branch(*nodes_of("in = Tanh x", "out = Neg in")),
    )
    nodes = [choice("k", first, second, "a"), choice("not_k", first, second, "b"), *nodes_of("y = Mul a b")]
    assert_agrees(network(nodes, CUBE, {"k": np.array(True), "not_k": np.array(False)}))


@pytest.mark.parametrize("size", [3, 4])
def test_a_condition_may_be_computed_from_shapes(size: int) -> None:
    """As TorchScript squeezes an axis that may be of one pixel."""
    nodes = nodes_of("s = Shape x", "n = Gather s where", "k = Equal n size")
    nodes += [choice("k", branch(*nodes_of("out = Tanh x")), branch(*nodes_of("out = Identity x")))]
    model = network([*nodes, *nodes_of("y = Neg z")], CUBE, {"where": ints(2), "size": ints(size)})
    assert_agrees(model)
    p = np.random.default_rng(0).standard_normal(CUBE.shape)
    expected = -p * (1 - np.tanh(CUBE.astype(np.float64)) ** 2 if size == 3 else 1)
    np.testing.assert_allclose(reverse(model, CUBE, p, "salinet"), expected, rtol=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
def test_layers_in_a_branch_take_the_choices_of_the_variant(variant: str) -> None:
    x, p = CUBE.astype(np.float64), np.random.default_rng(0).standard_normal(CUBE.shape)
    then = branch(*nodes_of("in = Mul x x", "out = Relu x"))
    model = network([choice("k", then, then), *nodes_of("y = Identity z")], x, {"k": np.array(True)})
    expected = reverse(network([layer("Relu")], x), x, p, variant)
    np.testing.assert_array_equal(reverse(model, x, p, variant), expected)


@pytest.mark.parametrize(
    ("then", "after"),
    [
        pytest.param(["in = Sigmoid x", "out = Mul x in"], "y = Identity z", id="inside of one"),
        pytest.param(["out = Sigmoid x"], "y = Mul z x", id="across its end"),
    ],
)
def test_patterns_are_found_in_branches(then: list[str], after: str) -> None:
    """SiLU, which DeconvNet takes as a rectifier."""
    x, p = CUBE.astype(np.float64), np.random.default_rng(0).standard_normal(CUBE.shape)
    taken, other = branch(*nodes_of(*then)), branch(*nodes_of("out = Neg x"))
    model = network([choice("k", taken, other), *nodes_of(after)], x, {"k": np.array(True)})
    np.testing.assert_array_equal(reverse(model, x, p, "deconvnet"), np.maximum(p, 0))


def test_branches_nest() -> None:
    deep = [branch(*nodes_of("in = Exp out", "deep = Mul in x"), output="deep") for _ in range(2)]
    nested = choice("k", *deep, output="nested")
    then = branch(*nodes_of("out = Tanh x"), nested, *nodes_of("both = Mul nested out"), output="both")
    nodes = [choice("k", then, branch(*nodes_of("out = Identity x"))), *nodes_of("y = Mul z x")]
    assert_agrees(network(nodes, CUBE, {"k": np.array(True)}))


def test_two_outputs_of_a_branch_may_be_one_tensor() -> None:
    then = branch(*nodes_of("out = Tanh x"))
    then.output.add(name="out")
    node = helper.make_node("If", ["k"], ["a", "b"], then_branch=then, else_branch=then)
    assert_derivative(network([node, *nodes_of("y = Mul a b")], CUBE, {"k": np.array(True)}), CUBE)


# ----- Sequences -----

PARTS = {"one": np.array(1), "last": np.array(-1), "four": np.array(4), "sizes": ints(1, 3, 2)}
PARTS["ones"] = np.ones(6, np.int64)
SEQUENCES = [
    ["s = SplitToSequence x four axis=1", "a = SequenceAt s one", "b = SequenceAt s last", "y = Mul a b"],
    ["s = SplitToSequence x sizes axis=-3", "a = SequenceAt s one", "t = Tanh a", "y = Concat t x axis=1"],
    ["s = SplitToSequence x axis=2", "a = SequenceAt s last", "y = Mul a x"],
    ["s = SplitToSequence x axis=2 keepdims=0", "a = SequenceAt s one", "y = Tanh a"],
    ["s = SplitToSequence x one axis=1 keepdims=0", "a = SequenceAt s one", "y = Tanh a"],
    ["s = SplitToSequence x ones axis=1 keepdims=0", "a = SequenceAt s one", "y = Mul a x"],
    ["t = Exp x", "s = SequenceConstruct x t x", "y = ConcatFromSequence s axis=1"],
    ["t = Exp x", "s = SequenceConstruct x t", "y = ConcatFromSequence s axis=-1 new_axis=1"],
    [
        "s = SplitToSequence x axis=1",
        "i = SequenceInsert s x one",
        "e = SequenceErase i last",
        "f = SequenceErase e",
        "j = SequenceInsert f x",
        "y = ConcatFromSequence j axis=1",
    ],
    ["s = SequenceEmpty", "i = SequenceInsert s x", "y = ConcatFromSequence i axis=1"],
    ["s = SplitToSequence x axis=1", "n = SequenceLength s", "m = Cast n to=1", "y = Mul m x"],
    ["s = SequenceConstruct x x", "i = Identity s", "a = SequenceAt i last", "y = Neg a"],
]


@pytest.mark.parametrize("lines", SEQUENCES)
def test_sequences_run_and_reverse(lines: list[str]) -> None:
    assert_agrees(network(nodes_of(*lines), CUBE, PARTS, opset=16))


def test_a_sequence_may_come_out_of_a_branch() -> None:
    then = branch(*nodes_of("t = Exp x", "out = SequenceConstruct x t"))
    otherwise = branch(*nodes_of("out = SplitToSequence x axis=1"))
    nodes = [choice("k", then, otherwise), *nodes_of("a = SequenceAt z one", "y = Mul a x")]
    assert_agrees(network(nodes, CUBE, {**PARTS, "k": np.array(True)}, opset=16))


def test_a_sequence_that_nothing_makes_is_refused() -> None:
    with pytest.raises(
        RevgraphError, match="cannot run node 'SequenceAt': nothing is known to make the sequ"
    ):
        forward(network(nodes_of("y = SequenceAt s one"), CUBE, PARTS), CUBE)
