"""What the portable target writes: standard ONNX, each weight once and as the model has it."""

import networks
import numpy as np
import onnx
import pytest
from layers import assert_close, mixed, weights
from networks import cnn, model, node

import revgraph
from revgraph.graph import DOMAIN

NETS = {"cnn": cnn, "mixed": mixed}


@pytest.fixture(params=[(net, variant) for net in NETS for variant in revgraph.VARIANTS], ids="-".join)
def pair(request):
    net, variant = request.param
    return revgraph.compile(NETS[net](), variant=variant)


def files(pair):
    return pair.forward, pair.reversed, pair.fused()


def initializers(part):
    return {t.name: onnx.numpy_helper.to_array(t) for t in part.graph.initializer}


def test_only_operators_of_onnx_itself(pair):
    for part in files(pair):
        assert [entry.domain for entry in part.opset_import] in ([""], ["ai.onnx"])
        opset = part.opset_import[0].version
        for layer in part.graph.node:
            assert layer.domain != DOMAIN
            assert onnx.defs.has(layer.op_type, opset, ""), layer.op_type
        onnx.checker.check_model(part, full_check=True)


def test_the_operators_are_those_that_every_backend_has(pair):
    known = {"Add", "AveragePool", "Cast", "Concat", "ConvTranspose", "Div", "Expand", "Gather", "Gemm",
             "Identity", "MatMul", "MaxUnpool", "Mul", "Pow", "Range", "ReduceProd", "Relu", "Reshape",
             "ScatterElements", "Shape", "Slice", "Squeeze", "Sub", "Sum", "Transpose"}  # fmt: skip
    assert {layer.op_type for layer in pair.reversed.graph.node} <= known


def test_names_are_unique_in_both_files_together(pair):
    """So that the two can be fused into one."""
    names = [name for part in (pair.forward, pair.reversed) for n in part.graph.node for name in n.output]
    assert len(set(names)) == len(names)
    nodes = [n.name for part in (pair.forward, pair.reversed) for n in part.graph.node]
    assert len(set(nodes)) == len(nodes)


def test_weights_are_the_forward_file_s_own(pair):
    forward, back = initializers(pair.forward), initializers(pair.reversed)
    large = {name for name, values in back.items() if values.size > 64 and name in forward}
    shared = {name for name in back if name in ("w1", "w2", "w3", "w4", "wa", "wb", "wd") and name in forward}
    assert large <= shared
    expected = {"w1", "w2", "w3"} if "w2" in forward else {"w1", "wa", "wb", "wd", "w3", "w4"}
    assert shared == expected
    for name in shared:
        assert back[name].dtype == forward[name].dtype
        assert back[name].tobytes() == forward[name].tobytes()
        readers = [layer for layer in pair.reversed.graph.node if name in layer.input]
        assert {layer.op_type for layer in readers} <= {"ConvTranspose", "Gemm"}


def test_no_weight_is_transposed_at_run_time(pair):
    constants = set(initializers(pair.reversed))
    for layer in pair.reversed.graph.node:
        assert layer.op_type != "Transpose" or not constants.intersection(layer.input)
        assert layer.op_type not in ("Constant", "ConstantOfShape")


def test_nothing_is_stored_that_no_node_reads(pair):
    for part in files(pair):
        read = {name for layer in part.graph.node for name in layer.input}
        names = [t.name for t in part.graph.initializer]
        assert set(names) <= read
        assert len(set(names)) == len(names)


def test_values_of_the_forward_file_are_the_model_s(pair):
    source = cnn() if "prob" in {v.name for v in pair.forward.graph.output} else mixed()
    for name, values in initializers(source).items():
        kept = initializers(pair.forward).get(name, values)
        assert kept.tobytes() == values.tobytes()


@pytest.mark.parametrize("flag", [0, 1])
def test_gemm_reads_the_same_weight_by_the_other_flag(flag):
    net = model(
        [node("Flatten", "x", "f"), node("Gemm", "f w", "y", transB=flag, alpha=0.5)],
        ["N", 3, 4],
        {"w": weights(5, 12) if flag else weights(12, 5)},
    )
    pair = revgraph.compile(net, variant="salinet")
    (gemm,) = (layer for layer in pair.reversed.graph.node if layer.op_type == "Gemm")
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in gemm.attribute}
    assert gemm.input[1] == "w"
    assert attributes.get("transB", 0) == 1 - flag
    assert attributes["alpha"] == 0.5


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 17, 18, 21, onnx.defs.onnx_opset_version()])
@pytest.mark.parametrize("ir", [4, 8, 10])
def test_opset_and_ir_stay_within_what_backends_read(opset, ir):
    source = networks.cnn(softmax=False, opset=opset, ir_version=ir)
    pair = revgraph.compile(source, variant="desalinet")
    for part in files(pair):
        assert 17 <= part.opset_import[0].version <= 21
        assert 8 <= part.ir_version <= 10
        onnx.checker.check_model(part, full_check=True)
    x = networks.picture(2, 3, 8, 8)
    trace = revgraph.Session(pair, threads=1).forward(x)
    assert_close(trace.y, networks.run(networks.cnn(softmax=False), x=x)["logits"])


def test_a_tap_before_a_pad_survives_onnxruntimes_fusion_of_the_pad():
    one = np.ones((1, 1, 1), np.float32)
    tensors = {"pads": np.zeros(6, np.int64), "w": one, "b": one[0, 0]}
    nodes = [node("Softmax", "x", "s", axis=1), node("Pad", "s pads", "t"), node("Conv", "t w b", "y")]
    pair = revgraph.compile(model(nodes, ["N", 1, 3], tensors), variant="identity", at="y")
    assert revgraph.Session(pair).forward(np.ones((1, 1, 3), np.float32)).y.shape == (1, 1, 3)
