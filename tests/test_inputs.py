"""What users bring: every opset, half precision, pictures as bytes, channels last, sizes known late."""

import numpy as np
import onnx
import pytest
from layers import assert_close
from networks import cnn, he, model, node, run
from onnx import helper, numpy_helper

import revgraph
from revgraph import reference

rng = np.random.default_rng(3)
NEWEST = onnx.defs.onnx_opset_version()


def agree(source: onnx.ModelProto, x: np.ndarray, variant: str, tolerance: float = 1e-5) -> np.ndarray:
    """x_hat, after it has been compared with the oracle's."""
    session = revgraph.Session(revgraph.compile(source, variant=variant), threads=1)
    trace = session.forward(x)
    p = rng.standard_normal(trace.y.shape).astype(trace.y.dtype)
    x_hat, at, to = session.reverse(trace, p), session.pair.at, source.graph.input[0].name
    wanted = reference.reverse(
        source, reference.forward(source, {to: x}), variant=variant, at=at, to=to, p=p
    )[to]
    assert np.abs(wanted).max() > 0
    assert np.abs(x_hat - wanted).max() <= tolerance * np.abs(wanted).max()
    return x_hat


# ---------------------------------------------------------------- opsets


def of_opset(opset: int) -> onnx.ModelProto:
    """A network whose operators were all written otherwise in some opset."""
    w = {"w": he(rng, 4, 3, 3, 3), "b": np.full(4, 0.1, np.float32), "one": np.ones(4, np.float32)}
    w |= {"nought": np.zeros(4, np.float32), "gw": he(rng, 4, 5), "gb": np.zeros(5, np.float32)}
    nodes = [
        node("Conv", "x w b", "conv", pads=[1] * 4),
        node("BatchNormalization", "conv one nought nought one", "bn"),
        node("Relu", "bn", "relu"),
        node("MaxPool", "relu", "pool", kernel_shape=[3, 3], strides=[2, 2]),
        *changed(opset, w),
        node("GlobalAveragePool", "up", "gap"),
        node("Squeeze", "gap", "squeezed", axes=[2, 3])
        if opset < 13
        else node("Squeeze", "gap hw", "squeezed"),
        node("Dropout", "squeezed", "drop", **({"ratio": 0.5} if opset < 12 else {})),
        node("Gemm", "drop gw gb", "logits"),
        node("Softmax", "logits", "prob", axis=1),
    ]
    source = model(
        nodes, ["N", 3, 9, 9], w, opset=opset, ir_version=3 if opset < 9 else 8 if opset < 23 else 13
    )
    source.graph.output[0].CopyFrom(helper.make_tensor_value_info("prob", onnx.TensorProto.FLOAT, ["N", 5]))
    if opset < 9:  # before IR 4 every initializer is an input too
        values = [
            helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in source.graph.initializer
        ]
        source.graph.input.extend(values)
    return source


def changed(opset: int, w: dict[str, np.ndarray]) -> list[onnx.NodeProto]:
    """pool -> up, by operators whose attributes became inputs."""
    w |= {"hw": np.array([2, 3]), "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "halves": np.array([1, 3])}
    w |= {"low": np.float32(0), "high": np.float32(6), "start": np.array([1]), "end": np.array([4])}
    w |= {"axis": np.array([2]), "scales": np.array([1, 1, 2, 2], np.float32), "roi": np.zeros(0, np.float32)}
    clip = (
        node("Clip", "pool", "clip", min=0.0, max=6.0)
        if opset < 11
        else node("Clip", "pool low high", "clip")
    )
    pads = w["pads"].tolist()
    pad = node("Pad", "clip", "pad", pads=pads) if opset < 11 else node("Pad", "clip pads", "pad")
    old = {"starts": [1], "ends": [4], "axes": [2]}
    crop = node("Slice", "pad", "crop", **old) if opset < 10 else node("Slice", "pad start end axis", "crop")
    split = helper.make_node(
        "Split", ["crop"] if opset < 13 else ["crop", "halves"], ["first", "second"], axis=1
    )
    if opset < 13:
        split.attribute.append(helper.make_attribute("split", [1, 3]))
    return [clip, pad, crop, split, node("Concat", "second first", "joined", axis=1), resize(opset)]


def resize(opset: int) -> onnx.NodeProto:
    if opset < 9:
        return node("Upsample", "joined", "up", scales=[1.0, 1.0, 2.0, 2.0], mode="nearest")
    if opset < 11:
        return node("Upsample" if opset == 9 else "Resize", "joined scales", "up", mode="nearest")
    floor = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return node("Resize", "joined roi scales", "up", mode="nearest", **floor)


@pytest.mark.parametrize("opset", range(7, NEWEST + 1))
def test_every_opset(opset):
    source = of_opset(opset)
    agree(source, rng.standard_normal((2, 3, 9, 9)).astype(np.float32), "desalinet")
    pair = revgraph.compile(source, variant="desalinet")
    assert pair.at == "logits"
    for compiled in (pair.forward, pair.reversed):
        assert [(entry.domain, 17 <= entry.version <= 21) for entry in compiled.opset_import] == [("", True)]
        assert 8 <= compiled.ir_version <= 10


# ---------------------------------------------------------------- types


@pytest.mark.parametrize("variant", revgraph.VARIANTS)
@pytest.mark.parametrize("kernel", [2, 3], ids=["disjoint windows", "overlapping windows"])
def test_half_precision(variant, kernel):
    source = cnn()
    pool = next(n for n in source.graph.node if n.op_type == "MaxPool")
    next(a for a in pool.attribute if a.name == "kernel_shape").ints[:] = [kernel, kernel]
    for tensor in source.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for value in (*source.graph.input, *source.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    # float16 keeps 11 bits, and a dozen layers round.
    x_hat = agree(source, rng.standard_normal((2, 3, 8, 8)).astype(np.float16), variant, 1e-2)
    assert x_hat.dtype == np.float16


def bytes_in(nodes, weights) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", onnx.TensorProto.UINT8, ["N", 8, 8, 3])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 4, 6, 6])
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "net", [x], [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("cast_first", [True, False])
def test_pictures_as_bytes_with_channels_last(cast_first):
    turn = {"perm": [0, 3, 1, 2]}
    if cast_first:
        nodes = [
            node("Cast", "x", "f", to=1),
            node("Sub", "f mean", "g"),
            node("Transpose", "g", "t", **turn),
        ]
    else:
        nodes = [
            node("Transpose", "x", "u", **turn),
            node("Cast", "u", "f", to=1),
            node("Sub", "f mean", "t"),
        ]
    nodes += [node("Conv", "t w", "c"), node("Relu", "c", "y")]
    source = bytes_in(nodes, {"w": he(rng, 4, 3, 3, 3), "mean": np.float32(128)})
    x_hat = agree(source, rng.integers(0, 256, (2, 8, 8, 3)).astype(np.uint8), "desalinet")
    assert (x_hat.dtype, x_hat.shape) == (np.float32, (2, 8, 8, 3))


def test_rounding_in_the_middle_is_refused():
    nodes = [node("Relu", "x", "r"), node("Cast", "r", "i", to=6), node("Cast", "i", "y", to=1)]
    with pytest.raises(revgraph.RevgraphError, match=r"cannot reverse node 'i'.*it rounds to int32"):
        revgraph.compile(model(nodes, [1, 3, 8, 8]), variant="desalinet")


# ---------------------------------------------------------------- sizes known at run time only


@pytest.mark.parametrize("variant", ["salinet", "desalinet", "deconvnet-centre"])
def test_one_compilation_serves_pictures_of_several_sizes(variant):
    ones = np.ones(4, np.float32)
    w = {
        "w": he(rng, 4, 3, 3, 3),
        "v": he(rng, 4, 4, 3, 3),
        "one": ones,
        "nought": ones * 0,
        "g": he(rng, 4, 5),
    }
    nodes = [
        node("Conv", "x w", "c1", strides=[2, 2], pads=[1] * 4),
        node("Relu", "c1", "r1"),
        node("MaxPool", "r1", "p1", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4),
        node("Conv", "p1 v", "c2", pads=[1] * 4),
        node("BatchNormalization", "c2 one nought nought one", "bn"),
        node("Sigmoid", "bn", "s"),
        node("Mul", "bn s", "silu"),
        node("Add", "silu p1", "sum"),
        node("MaxPool", "sum", "p2", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
        node("AveragePool", "p2", "p3", kernel_shape=[2, 2], strides=[1, 1]),
        node("ReduceMean", "p3", "mean", axes=[2, 3], keepdims=0),
        node("Gemm", "mean g", "y"),
    ]
    source = model(nodes, ["N", 3, "H", "W"], w)
    session = revgraph.Session(revgraph.compile(source, variant=variant), threads=1)
    for size in ((33, 40), (37, 29), (64, 64)):
        x = rng.standard_normal((2, 3, *size)).astype(np.float32)
        trace = session.forward(x)
        p = rng.standard_normal(trace.y.shape).astype(np.float32)
        tensors = reference.forward(source, {"x": x})
        wanted = reference.reverse(source, tensors, variant=variant, at="y", to="x", p=p)["x"]
        assert_close(session.reverse(trace, p), wanted)
        for name, tap in trace.taps.items():
            assert tap.numpy().shape[0] == 2, name


@pytest.mark.parametrize("opset", [7, 9, 10, 11, 13])
def test_linear_resizing_keeps_its_coordinates(opset):
    """Before opset 11 they were asymmetric; onnx's converter does not say so in what it writes."""
    w = {"scales": np.array([1, 1, 2, 2], np.float32), "roi": np.zeros(0, np.float32)}
    if opset == 7:
        resized = node("Upsample", "x", "y", scales=[1.0, 1.0, 2.0, 2.0], mode="linear")
    elif opset < 11:
        resized = node("Upsample" if opset == 9 else "Resize", "x scales", "y", mode="linear")
    else:
        resized = node("Resize", "x roi scales", "y", mode="linear")
    source = model([resized], [2, 3, 5, 5], w, opset=opset)
    source.graph.output[0].CopyFrom(
        helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2, 3, 10, 10])
    )
    x = rng.standard_normal((2, 3, 5, 5)).astype(np.float32)
    session = revgraph.Session(revgraph.compile(source, variant="salinet"))
    assert_close(session.forward(x).y, run(source, x=x)["y"])
    agree(source, x, "salinet")


@pytest.mark.parametrize("pool", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("kernel", [[1, 1], [1, 3]])
def test_same_padding_decides_beside_ceil_mode(pool, kernel):
    attributes = {"kernel_shape": kernel, "strides": [2, 2], "auto_pad": "SAME_UPPER", "ceil_mode": 1}
    source = model([node("Relu", "x", "r"), node(pool, "r", "y", **attributes)], ["N", 4, 10, 10])
    pair = revgraph.compile(source, variant="desalinet")
    assert [d.dim_value for d in pair.forward.graph.output[0].type.tensor_type.shape.dim[2:]] == [5, 5]


def test_average_pooling_that_counts_its_padding_takes_any_size():
    attributes = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4, "count_include_pad": 1}
    source = model([node("Relu", "x", "r"), node("AveragePool", "r", "y", **attributes)], ["N", 4, "H", "W"])
    agree(source, rng.standard_normal((2, 4, 9, 6)).astype(np.float32), "salinet")


def test_a_shape_computed_with_allowzero_is_no_shape_of_zeros():
    w = {"at": np.array(0), "ax": np.array([0]), "rest": np.array([-1])}
    nodes = [
        node("Relu", "x", "r"),
        node("Shape", "r", "s"),
        node("Gather", "s at", "n"),
        node("Unsqueeze", "n ax", "u"),
    ]
    nodes += [node("Concat", "u rest", "to", axis=0), node("Reshape", "r to", "y", allowzero=1)]
    agree(model(nodes, ["N", 4, 3, 3], w), rng.standard_normal((2, 4, 3, 3)).astype(np.float32), "salinet")
