"""--fully-convolutional: the head slides, and nothing else changes."""

import numpy as np
import onnx
import pytest
from layers import assert_close
from networks import cnn, he, model, node, run

import revgraph
from revgraph import reference
from revgraph.errors import RevgraphError

rng = np.random.default_rng(5)


def classifier(head: str) -> onnx.ModelProto:
    """13 x 13 pictures, stride 2 in all, no padding: it slides exactly. `head` says how it is written."""
    w = {
        "w": he(rng, 4, 3, 4, 4),
        "f": he(rng, 7, 4 * 5 * 5),
        "g": he(rng, 7, 5),
        "b": np.arange(7, dtype=np.float32),
    }
    flatten = node("Reshape", "p to", "flat") if head == "Reshape, MatMul" else node("Flatten", "p", "flat")
    if head == "Reshape, MatMul":
        w |= {"to": np.array([0, -1]), "f": np.ascontiguousarray(w["f"].T)}
        first = [node("MatMul", "flat f", "m"), node("Add", "m b", "h")]
    else:
        first = [node("Gemm", "flat f b", "h", transB=1)]
    trunk = [node("Conv", "x w", "c"), node("Relu", "c", "r")]
    trunk.append(node("MaxPool", "r", "p", kernel_shape=[2, 2], strides=[2, 2]))
    rest = [node("Relu", "h", "hr"), node("Gemm", "hr g", "logits"), node("Softmax", "logits", "prob")]
    return model([*trunk, flatten, *first, *rest], ["N", 3, 13, 13], w)


HEADS = ("Flatten, Gemm", "Reshape, MatMul")


@pytest.mark.parametrize("head", HEADS)
def test_at_the_size_it_was_trained_at_nothing_changes(head):
    source = classifier(head)
    x = rng.standard_normal((2, 3, 13, 13)).astype(np.float32)
    pair = revgraph.compile(source, variant="salinet", fully_convolutional=True)
    sliding, still = revgraph.Session(pair), revgraph.Session(revgraph.compile(source, variant="salinet"))
    a, b = sliding.forward(x), still.forward(x)
    assert pair.at == "logits"
    assert a.y.shape == (2, 5, 1, 1)
    assert_close(a.y[..., 0, 0], b.y)
    assert_close(a.outputs["prob"][..., 0, 0], b.outputs["prob"])
    p = rng.standard_normal((2, 5)).astype(np.float32)
    assert_close(sliding.reverse(a, p[..., None, None]), still.reverse(b, p))


@pytest.mark.parametrize("head", HEADS)
def test_on_a_larger_picture_each_position_is_the_classifier_on_its_crop(head):
    source = classifier(head)
    x = rng.standard_normal((1, 3, 19, 17)).astype(np.float32)
    y = revgraph.Session(revgraph.compile(source, variant="salinet", fully_convolutional=True)).forward(x).y
    assert y.shape == (1, 5, 4, 3)
    for i in range(4):
        for j in range(3):
            crop = x[..., 2 * i : 2 * i + 13, 2 * j : 2 * j + 13]
            assert_close(y[..., i, j], reference.forward(source, {"x": np.ascontiguousarray(crop)})["logits"])


@pytest.mark.parametrize("variant", revgraph.VARIANTS)
def test_its_reversal_is_the_sum_of_the_crops(variant):
    """Rectification apart, reversing all positions at once adds what each gives alone."""
    source = classifier("Flatten, Gemm")
    x = rng.standard_normal((1, 3, 15, 17)).astype(np.float32)
    pair = revgraph.compile(source, variant=variant, fully_convolutional=True)
    session = revgraph.Session(pair)
    trace = session.forward(x)
    at = (0, 3, 1, 2)
    p = np.zeros_like(trace.y)
    p[at] = 1
    crop = np.ascontiguousarray(x[..., 2:15, 4:17])
    alone = np.zeros((1, 5), np.float32)
    alone[0, 3] = 1
    tensors = reference.forward(source, {"x": crop})
    wanted = np.zeros(x.shape)
    wanted[..., 2:15, 4:17] = reference.reverse(
        source, tensors, variant=variant, at="logits", to="x", p=alone
    )["x"]
    assert_close(session.reverse(trace, p), wanted)


def test_a_globally_pooled_head_takes_any_size():
    source = cnn()
    session = revgraph.Session(revgraph.compile(source, variant="desalinet", fully_convolutional=True))
    x = rng.standard_normal((2, 3, 21, 12)).astype(np.float32)
    trace = session.forward(x)
    assert trace.y.shape == (2, 5, 1, 1)
    assert session.reverse(trace, np.ones_like(trace.y)).shape == x.shape


def test_it_is_noted_in_the_files():
    pairs = [revgraph.compile(cnn(), variant="salinet", fully_convolutional=flag) for flag in (False, True)]
    assert [pair.metadata["fully_convolutional"] for pair in pairs] == ["false", "true"]
    assert pairs[0].metadata["pair"] != pairs[1].metadata["pair"]


def test_without_a_head_only_the_size_becomes_free():
    nodes = [node("Conv", "x w", "c"), node("Relu", "c", "y")]
    weights = {"w": he(rng, 4, 3, 3, 3)}
    compiled = revgraph.compile(
        model(nodes, [1, 3, 8, 8], weights), variant="salinet", fully_convolutional=True
    )
    x = rng.standard_normal((1, 3, 11, 9)).astype(np.float32)
    trace = revgraph.Session(compiled).forward(x)
    assert_close(trace.y, run(model(nodes, [1, 3, 11, 9], weights), x=x)["y"])
    assert revgraph.Session(compiled).reverse(trace, trace.y).shape == x.shape


def test_what_cannot_slide_is_refused():
    nodes = [node("Flatten", "x", "f"), node("Softmax", "f", "s"), node("Concat", "s f", "y", axis=1)]
    source = model(nodes, [1, 3, 8, 8])
    with pytest.raises(RevgraphError, match="behind the flattened"):
        revgraph.compile(source, variant="salinet", fully_convolutional=True)
    head = [node("Conv", "x w", "c"), node("Flatten", "c", "f"), node("Gemm", "f v", "y")]
    weights = {"w": he(rng, 4, 3, 3, 3), "v": he(rng, 4 * 6 * 6, 5)}
    with pytest.raises(RevgraphError, match="the size of its maps is not known"):
        revgraph.compile(model(head, [1, 3, "H", "W"], weights), variant="salinet", fully_convolutional=True)
    assert run(source, x=np.ones((1, 3, 8, 8), np.float32))
