"""A light model holds what the whole one does, and no large data."""

import networks
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import revgraph
from revgraph import weights
from revgraph.graph import export, gs
from revgraph.weights import LightModel

VALUES = np.arange(2048, dtype=np.float32).reshape(2, 1024)


def holding(*tensors):
    net = networks.cnn()
    net.graph.initializer.extend(tensors)
    return net


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint16", "int64", "bool"])
def test_a_large_initializer_of_an_ordinary_type_is_held_beside(dtype):
    values = VALUES.astype(dtype)
    net = holding(numpy_helper.from_array(values, "large"))
    before = net.SerializeToString(deterministic=True)
    light = weights.detach(net)
    assert light.weights.keys() == {"w2", "large"}
    np.testing.assert_array_equal(light.weights["large"], values)
    assert light.weights["large"].dtype == dtype
    assert light.model.ByteSize() < len(before) - values.nbytes
    assert light.whole() == net
    assert net.SerializeToString(deterministic=True) == before
    assert weights.detach(light.model, light.weights) == light


@pytest.mark.parametrize(
    "tensor",
    [
        numpy_helper.from_array(VALUES[0, :1023], "other"),
        onnx.TensorProto(
            name="other", data_type=onnx.TensorProto.BFLOAT16, dims=[2048], raw_data=bytes(2048 * 2)
        ),
        numpy_helper.from_array(np.full(2048, "text", object), "other"),
        onnx.helper.make_tensor("other", onnx.TensorProto.FLOAT, VALUES.shape, VALUES.ravel()),
        onnx.TensorProto(name="other", data_type=1, dims=[2048], raw_data=bytes(2048 * 4 - 1)),
        onnx.TensorProto(name="other", data_type=1, dims=[-2, -1024], raw_data=bytes(2048 * 4)),
        onnx.TensorProto(name="other", data_type=999, dims=[2048], raw_data=bytes(2048)),
    ],
    ids=["small", "bfloat16", "strings", "not raw", "cut short", "negative", "unknown type"],
)
def test_any_other_stays(tensor):
    net = holding(tensor)
    light = weights.detach(net)
    assert light.weights.keys() == {"w2"}
    assert light.whole() == net


def test_what_a_tensor_says_of_itself_is_kept():
    net = networks.cnn()
    next(t for t in net.graph.initializer if t.name == "w2").doc_string = "of w2"
    assert weights.detach(net).whole() == net
    forward = revgraph.compile(net, variant="desalinet").forward
    assert next(t for t in forward.graph.initializer if t.name == "w2").doc_string == "of w2"


def test_models_differ_by_their_weights_too():
    light = weights.detach(networks.cnn())
    changed = LightModel(light.model, {name: values + 1 for name, values in light.weights.items()})
    assert light == weights.detach(networks.cnn())
    assert light != changed
    assert light != light.model


def test_onnx_takes_weights_as_inputs():
    model = weights.detach(networks.cnn()).as_inputs()
    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.input] == ["x", "w2"]
    assert [tensor.name for tensor in model.graph.initializer] == ["w1", "w3", "b1", "b3"]


def test_a_graph_is_exported_without_a_copy_of_its_constants():
    values = VALUES.copy()
    turned = np.ascontiguousarray(VALUES.T).T
    x = gs.Variable("x", np.dtype(np.float32), VALUES.shape)
    y, z = (gs.Variable(name, np.dtype(np.float32), VALUES.shape) for name in "yz")
    nodes = [
        gs.Node("Add", inputs=[x, gs.Constant("w", values)], outputs=[y]),
        gs.Node("Mul", inputs=[y, gs.Constant("v", turned)], outputs=[z]),
    ]
    light = export(gs.Graph(nodes, [x], [z], opset=17, ir_version=8))
    assert np.shares_memory(light.weights["w"], values)
    onnx.checker.check_model(light.whole(), full_check=True)
    found = networks.run(light.whole(), x=VALUES)["z"]
    np.testing.assert_array_equal(found, (VALUES + VALUES) * VALUES)


def test_the_hash_is_of_the_values_in_order():
    a, b = VALUES, VALUES + 1
    assert weights.sha256(a, b) == weights.sha256(a.copy(), b.copy())
    assert len({weights.sha256(*parts) for parts in ([a], [a, a], [a, b], [b, a], [b"", a], [b"a", a])}) == 5
