"""Damaged and inconsistent models: compiled, or refused in one line, and memory is left for others."""

import numpy as np
import onnx
import pytest
from networks import cnn

import revgraph
from revgraph.errors import RevgraphError

CONTENT = cnn().SerializeToString(deterministic=True)


def weight(net, name):
    return next(tensor for tensor in net.graph.initializer if tensor.name == name)


def attribute(net, node, name):
    found = next(each for each in net.graph.node if each.name == node)
    return next(each for each in found.attribute if each.name == name)


def dim(net, axis):
    return net.graph.input[0].type.tensor_type.shape.dim[axis]


def compiles_or_refuses(model, variant="desalinet"):
    """True if it compiled. Any exception but RevgraphError is a bug."""
    try:
        revgraph.compile(model, variant=variant)
    except RevgraphError:
        return False
    return True


# ----- Bytes -----


@pytest.mark.parametrize("end", range(1, len(CONTENT), 211))
def test_a_model_cut_short_is_refused(tmp_path, end):
    (tmp_path / "net.onnx").write_bytes(CONTENT[:end])
    assert not compiles_or_refuses(tmp_path / "net.onnx")


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (b"relu1", "a node or tensor"),
        (b"Softmax", "an operator"),
        (b"kernel_shape", "an attribute"),
        (b"w2", "a weight"),
        (b"net", "the graph"),
    ],
)
@pytest.mark.parametrize("count", [1, -1])
def test_names_that_are_no_text_are_refused(tmp_path, text, where, count):
    """Protobuf hands on bytes that are not UTF-8."""
    (tmp_path / "net.onnx").write_bytes(CONTENT.replace(text, b"\xd0" + text[1:], count))
    assert not compiles_or_refuses(tmp_path / "net.onnx"), where


@pytest.mark.parametrize("seed", range(10))
def test_changed_bytes_do_no_harm(tmp_path, seed):
    rng = np.random.default_rng(seed)
    weights = [tensor.raw_data for tensor in cnn().graph.initializer]
    texts = np.ones(len(CONTENT), bool)  # all that is not the numbers of a weight
    for data in weights:
        start = CONTENT.index(data)
        texts[start : start + len(data)] = False
    places = np.flatnonzero(texts)
    for _ in range(20):
        content = bytearray(CONTENT)
        content[rng.choice(places)] = rng.integers(256)
        (tmp_path / "net.onnx").write_bytes(content)
        compiles_or_refuses(tmp_path / "net.onnx")


# ----- Fields -----


def set_dims(name, axis, size):
    def change(net):
        weight(net, name).dims[axis] = size

    return change


def set_type(name, element):
    def change(net):
        weight(net, name).data_type = element

    return change


def set_attribute(node, name, axis, value):
    def change(net):
        attribute(net, node, name).ints[axis] = value

    return change


def set_input(axis, size):
    def change(net):
        dim(net, axis).dim_value = size

    return change


def set_element(element):
    def change(net):
        net.graph.input[0].type.tensor_type.elem_type = element

    return change


HUGE = (2**40, 2**62)  # so large that no machine tries


@pytest.mark.parametrize("variant", ["desalinet", "desalinet-centre"])
@pytest.mark.parametrize(
    "change",
    [
        set_input(1, 89),  # the convolution takes 3 channels
        set_input(1, 1),
        set_dims("w2", 1, 11),
        set_dims("w2", 0, -1),
        set_dims("w3", 1, 13),
        *(set_dims("w2", 0, size) for size in HUGE),
        *(set_type(name, element) for name in ("w2", "b3") for element in (0, 7, 8, 17, 25, 29, 110)),
        *(set_element(element) for element in (0, 8, 14, 99)),
        set_attribute("pool1", "kernel_shape", 0, 0),
        set_attribute("pool1", "strides", 0, 0),
        set_attribute("pool1", "strides", 0, -1),
        set_attribute("conv1", "pads", 0, -3),
    ],
)
def test_fields_that_contradict_each_other_are_refused(change, variant):
    net = cnn()
    change(net)
    with pytest.raises(RevgraphError) as raised:
        revgraph.compile(net, variant=variant)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("size", HUGE)
@pytest.mark.parametrize("variant", ["desalinet", "desalinet-centre"])
@pytest.mark.parametrize(
    ("node", "name"), [("pool1", "kernel_shape"), ("pool1", "strides"), ("conv1", "pads")]
)
def test_absurd_windows_take_no_memory(node, name, variant, size):
    net = cnn()
    dim(net, 3).dim_param = "W"
    attribute(net, node, name).ints[1] = size
    compiles_or_refuses(net, variant)


def mutate(net, rng):
    """One change that keeps the model readable and most often makes it wrong."""
    graph = net.graph
    node = graph.node[rng.integers(len(graph.node))]
    tensor = graph.initializer[rng.integers(len(graph.initializer))]
    sizes = (0, -1, 1, 2, 3, 7, 100)
    names = [name for each in graph.node for name in (*each.input, *each.output)]
    match rng.integers(8):
        case 0 if node.attribute:
            chosen = node.attribute[rng.integers(len(node.attribute))]
            if chosen.ints:
                chosen.ints[rng.integers(len(chosen.ints))] = rng.choice(sizes)
            else:
                chosen.i = rng.choice(sizes)
        case 1 if node.attribute:
            del node.attribute[rng.integers(len(node.attribute))]
        case 2 if node.attribute and node.attribute[0].ints:
            del node.attribute[0].ints[0]
        case 3:
            del node.input[rng.integers(len(node.input))]
        case 4:
            node.input[rng.integers(len(node.input))] = rng.choice(names)
        case 5 if tensor.dims:
            tensor.dims[rng.integers(len(tensor.dims))] = rng.choice(sizes)
        case 6:
            node.op_type = rng.choice(
                ("Relu", "Conv", "Gemm", "LRN", "Reshape", "Dropout", "If", "Loop", "Cast")
            )
        case _:
            node.output[0] = rng.choice(("", "x", "p", "x_hat", "w1", "prob", "relu1"))


@pytest.mark.parametrize("seed", range(10))
def test_contradictory_models_do_no_harm(seed):
    rng = np.random.default_rng(seed)
    for _ in range(20):
        net = cnn()
        mutate(net, rng)
        compiles_or_refuses(net)


def test_a_model_without_a_graph_is_refused():
    assert not compiles_or_refuses(onnx.ModelProto(ir_version=8))
    assert not compiles_or_refuses(onnx.ModelProto())
