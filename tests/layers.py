"""What the tests of single layers share: weights, runs, and Eq. (6) restated on a layer's own matrix."""

import numpy as np
import onnx
import pytest
from networks import cnn, he, model, node, run

import revgraph


def weights(*shape: int) -> np.ndarray:
    """Seeded by their shape."""
    return he(np.random.default_rng(shape), *shape)


def reverse(
    net: onnx.ModelProto, x: np.ndarray, p: np.ndarray, variant: str = "salinet", **options: str
) -> np.ndarray:
    """x_hat of the compiled network."""
    session = revgraph.Session(revgraph.compile(net, variant=variant, **options), threads=1)
    return session.reverse(session.forward(x), p)


def assert_close(actual: np.ndarray, expected: np.ndarray, rtol: float = 1e-5) -> None:
    """Equal to `rtol` of the largest number: float32 sums of some hundred terms err by about 1e-6 of that."""
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=rtol * np.abs(expected).max())


def assert_transposed(net: onnx.ModelProto, *shape: int, variant: str = "salinet") -> None:
    """Eq. (6): x_hat = A^T y_hat where y = A x + b, and r is empty, or the size where only the run knows it.

    Row i of A^T is what onnxruntime makes of the i-th unit vector, less what it makes of zero.
    """
    size = int(np.prod(shape))
    rng = np.random.default_rng(size)
    units = np.concatenate([np.zeros((1, size)), np.eye(size)]).reshape(-1, *shape).astype(np.float32)
    b, *columns = run(net, x=units)["y"].astype(np.float64).reshape(size + 1, -1)
    pair = revgraph.compile(net, variant=variant)
    fixed = all(dim.dim_value for dim in net.graph.input[0].type.tensor_type.shape.dim[1:])
    assert [tap for tap in pair.taps if fixed or "/size" not in tap] == []
    session = revgraph.Session(pair, threads=1)
    trace = session.forward(rng.standard_normal((3, *shape)).astype(np.float32))
    p = rng.standard_normal(trace.y.shape).astype(np.float32)
    assert_close(session.reverse(trace, p), (p.reshape(3, -1) @ (columns - b).T).reshape(3, *shape))


def refusal(net: onnx.ModelProto, **options: str) -> tuple[str, str, str]:
    """What, why and the remedy of the error that compiling ends in."""
    with pytest.raises(revgraph.RevgraphError) as caught:
        revgraph.compile(net, variant="salinet", **options)
    return caught.value.what, caught.value.why, caught.value.remedy


def mixed(batch: int | str = "N") -> onnx.ModelProto:
    """A network with a layer of every kind, branches among them; x is (N, 4, 9, 9), y is (N, 5)."""
    tensors = {
        "w1": weights(6, 4, 3, 3),
        "b1": weights(6),
        **{
            name: np.random.default_rng(i).uniform(0.5, 1.5, 6).astype(np.float32)
            for i, name in enumerate("gbmv")
        },
        "wa": weights(2, 6, 1, 1),
        "wb": weights(4, 3, 3, 3),
        "wd": weights(12, 12, 1, 1),
        "split": np.array([0, 3, 4, 4, 4]),
        "join": np.array([0, -1, 4, 4]),
        "w3": weights(48, 7),
        "w4": weights(5, 7),
        "b4": weights(5),
    }
    nodes = [
        node("Conv", "x w1 b1", "conv1", pads=[1, 1, 1, 1]),
        node("BatchNormalization", "conv1 g b m v", "bn1"),
        node("Relu", "bn1", "relu1"),
        node("LRN", "relu1", "norm1", size=3, alpha=0.5),
        node("MaxPool", "norm1", "pool1", kernel_shape=[3, 3], strides=[2, 2]),
        node("Conv", "pool1 wa", "left"),
        node("Conv", "pool1 wb", "middle", pads=[1, 1, 1, 1], group=2),
        node("Relu", "middle", "rm"),
        node("AveragePool", "pool1", "right", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Concat", "left rm right", "cat", axis=1),
        node("Conv", "cat wd", "onward"),
        node("Add", "onward cat", "sum"),
        node("Relu", "sum", "sumr"),
        node("Reshape", "sumr split", "groups"),
        node("Transpose", "groups", "swapped", perm=[0, 2, 1, 3, 4]),
        node("Reshape", "swapped join", "shuffled"),
        node("MaxPool", "shuffled", "pool2", kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", "pool2", "flat"),
        node("MatMul", "flat w3", "fc1"),
        node("Relu", "fc1", "fc1r"),
        node("Dropout", "fc1r", "drop"),
        node("Gemm", "drop w4 b4", "y", transB=1),
    ]
    return model(nodes, [batch, 4, 9, 9], tensors)


def fire():
    """Concat, overlapping and disjoint pools, LRN and shared uses, as SqueezeNet and GoogLeNet have them."""
    nodes = [
        node("Conv", "x w1", "c1", pads=[1] * 4),
        node("Relu", "c1", "r1"),
        node("LRN", "r1", "n1", size=3, alpha=0.5),
        node("MaxPool", "n1", "p1", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", "p1 wa", "ca"),
        node("Relu", "ca", "ra"),
        node("Conv", "p1 wb", "cb", pads=[1] * 4),
        node("Relu", "cb", "rb"),
        node("Concat", "ra rb", "cat", axis=1),
        node("Conv", "cat wd", "cd"),
        node("Conv", "cat we", "ce", pads=[1] * 4),
        node("Add", "cd ce", "s"),
        node("Relu", "s", "rs"),
        node("MaxPool", "rs", "p2", kernel_shape=[3, 3], strides=[2, 2]),
        node("Conv", "p2 wf", "y", strides=[2, 2], pads=[1] * 4),
    ]
    tensors = {
        "w1": weights(8, 3, 3, 3),
        "wa": weights(4, 8, 1, 1),
        "wb": weights(6, 8, 3, 3),
        "wd": weights(8, 10, 1, 1),
        "we": weights(8, 10, 3, 3),
        "wf": weights(4, 8, 3, 3),
    }
    return model(nodes, ["N", 3, 16, 14], tensors)


NETS = {"cnn": cnn, "mixed": mixed, "fire": fire}
