"""--precision fp16: what computes in float16, what stays in float32, and that the numbers stay."""

import numpy as np
import onnx
import pytest
from layers import NETS, assert_close, mixed, refusal, weights
from networks import cnn, he, model, node, picture, run

import revgraph
from revgraph.verify import verify


def half(net: onnx.ModelProto, variant: str = "salinet", **options: str) -> onnx.ModelProto:
    return revgraph.compile(net, variant=variant, precision="fp16", **options).forward


def types(net: onnx.ModelProto) -> dict[str, str]:
    """The element type of every tensor that ONNX can tell."""
    inferred = onnx.shape_inference.infer_shapes(net, strict_mode=True).graph
    values = [*inferred.value_info, *inferred.input, *inferred.output]
    found = {value.name: value.type.tensor_type.elem_type for value in values}
    found |= {tensor.name: tensor.data_type for tensor in net.graph.initializer}
    return {name: onnx.TensorProto.DataType.Name(kind) for name, kind in found.items()}


def read_as(net: onnx.ModelProto) -> dict[str, str]:
    """The element type that each node reads first."""
    known = types(net)
    return {n.name: known[n.input[0]] for n in net.graph.node if n.input and n.input[0] in known}


@pytest.mark.parametrize("variant", revgraph.VARIANTS)
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("target", ["portable", "cuda"])
def test_the_proof_passes(target, name, variant):
    net = NETS[name]()
    pair = revgraph.compile(net, variant=variant, target=target, precision="fp16")
    checks = list(verify(pair, net))
    assert [check.what for check in checks if check.passed is False] == []
    assert checks[-1].what == "float16 against float32"
    if name != "mixed":  # where one switch of a few hangs on it; elsewhere a dozen layers err by 2^-11 each
        assert checks[-1].figure < 1e-2


def test_inputs_outputs_and_y_stay():
    net = cnn()
    pair = revgraph.compile(net, variant="desalinet", at="relu2", precision="fp16")
    known = types(pair.forward)
    assert [known[name] for name in ("x", "prob", "relu2")] == ["FLOAT"] * 3
    assert types(pair.reversed)["p"] == types(pair.reversed)["x_hat"] == "FLOAT"
    reads = read_as(pair.forward)
    layers = ("conv1", "relu1", "pool1", "conv2", "relu2", "gap", "flat", "logits")
    assert [reads[name] for name in layers] == ["FLOAT16"] * 8
    assert reads["prob"] == "FLOAT"


def test_what_is_float32_for_nothing_is_not_stored():
    """Weights once, and each of them once cast."""
    kinds = [tensor.data_type for tensor in half(cnn()).graph.initializer]
    assert onnx.TensorProto.FLOAT not in kinds
    casts = [
        n.input[0] for n in half(mixed()).graph.node if n.op_type == "Cast" and "/switches" not in n.name
    ]
    assert len(casts) == len(set(casts))


@pytest.mark.parametrize(
    "nodes",
    [
        [node("LRN", "c", "y", size=3)],
        [node("InstanceNormalization", "c g b", "y")],
        [node("Mul", "c c", "y")],
        [node("ReduceL2", "c", "y", axes=[2, 3])],
        [node("Exp", "c", "y")],
        [node("Softmax", "c", "y", axis=1)],
        [node("Pow", "c two", "s"), node("ReduceMean", "s", "y", axes=[1])],
    ],
    ids=lambda nodes: nodes[-1].op_type,
)
def test_squares_and_powers_stay_in_float32(nodes):
    tensors = {"w": weights(4, 3, 3, 3), "g": weights(4), "b": weights(4), "two": np.float32(2)}
    net = model([node("Conv", "x w", "c"), *nodes], ["N", 3, 8, 8], tensors)
    x = 300 * np.abs(picture(2, 3, 8, 8))  # 300^2 is more than float16 holds
    reads = read_as(half(net))
    assert reads["c"] == "FLOAT16"
    assert {reads[n.name] for n in nodes} == {"FLOAT"}
    if nodes[0].op_type != "Exp":
        assert_close(run(half(net), x=x)["y"], run(net, x=x)["y"], 1e-2)


def test_a_normalisation_out_of_several_nodes_stays_whole():
    """Local response normalisation as exporters write it: none of its nodes is in float16."""
    tensors = {
        "w": weights(4, 3, 3, 3),
        "half": np.float32(0.75),
        "alpha": np.float32(1e-2),
        "one": np.float32(1),
        "axis": np.array([1]),
    }
    nodes = [
        node("Conv", "x w", "c"),
        node("Mul", "c c", "square"),
        node("Unsqueeze", "square axis", "planes"),
        node(
            "AveragePool", "planes", "mean", kernel_shape=[3, 1, 1], pads=[1, 0, 0] * 2, count_include_pad=1
        ),
        node("Squeeze", "mean axis", "sums"),
        node("Mul", "sums alpha", "scaled"),
        node("Add", "scaled one", "s"),
        node("Pow", "s half", "power"),
        node("Div", "c power", "y"),
    ]
    net = model(nodes, ["N", 3, 8, 8], tensors)
    reads = read_as(half(net, lrn="bp"))
    assert reads["c"] == "FLOAT16"
    assert {reads[n.name] for n in nodes[1:]} == {"FLOAT"}
    assert [check.what for check in verify(revgraph.compile(net, variant="salinet", precision="fp16"), net)
            if check.passed is False] == []  # fmt: skip


def test_an_activation_out_of_several_nodes_is_still_recognised():
    tensors = {
        "w": weights(4, 3, 3, 3),
        "root": np.float32(2**0.5),
        "one": np.float32(1),
        "half": np.float32(0.5),
    }
    nodes = [
        node("Conv", "x w", "c"),
        node("Div", "c root", "u"),
        node("Erf", "u", "e"),
        node("Add", "e one", "f"),
        node("Mul", "c f", "g"),
        node("Mul", "g half", "y"),
    ]
    net = model(nodes, ["N", 3, 8, 8], tensors)
    pair = revgraph.compile(net, variant="salinet", precision="fp16")
    assert pair.beyond_paper == revgraph.compile(net, variant="salinet").beyond_paper != ()
    assert {read_as(pair.forward)[name] for name in ("u", "e", "f", "g", "y")} == {"FLOAT16"}


@pytest.mark.parametrize("size", [1e-24, 1e-9, 1e9, 1e20])
def test_weights_that_float16_cannot_hold_stay(size):
    net = model(
        [node("Conv", "x v", "a"), node("Conv", "a w", "y")],
        ["N", 3, 9, 9],
        {"v": weights(4, 3, 3, 3), "w": weights(4, 4, 3, 3) * np.float32(size)},
    )
    reads, x = read_as(half(net)), picture(2, 3, 9, 9)
    assert (reads["a"], reads["y"]) == ("FLOAT16", "FLOAT")
    assert_close(run(half(net), x=x)["y"], run(net, x=x)["y"], 3e-3)


@pytest.mark.parametrize("before", ["Conv", "Relu"])
def test_batch_normalisation_is_a_factor_and_a_summand(before):
    """Into the convolution before, or on their own; a variance of 1e-9 is nothing in float16."""
    rng = np.random.default_rng(1)
    statistics = [
        rng.uniform(0.5, 2, 4), rng.normal(size=4), rng.normal(size=4), rng.uniform(0.5, 2, 4) * 1e-9
    ]  # fmt: skip
    tensors = dict(zip("gbmv", (a.astype(np.float32) for a in statistics), strict=True))
    nodes = [
        node("Conv", "x w", "a"),
        *([node("Relu", "a", "r")] if before == "Relu" else []),
        node("BatchNormalization", f"{'r' if before == 'Relu' else 'a'} g b m v", "y", epsilon=1e-9),
    ]
    net = model(nodes, ["N", 3, 8, 8], tensors | {"w": he(rng, 4, 3, 3, 3) * np.float32(1e-3)})
    x = picture(2, 3, 8, 8)
    compiled = half(net)
    assert [n.op_type for n in compiled.graph.node].count("BatchNormalization") == (before == "Relu")
    assert_close(run(compiled, x=x)["y"], run(net, x=x)["y"], 3e-3)
    assert {read_as(compiled)[name] for name in ("a", "y") if name in read_as(compiled)} == {"FLOAT16"}


def test_a_convolution_that_others_read_keeps_its_normalisation():
    tensors = {"w": weights(4, 3, 3, 3)} | {name: np.abs(weights(4)) for name in "gbmv"}
    nodes = [
        node("Conv", "x w", "a"),
        node("BatchNormalization", "a g b m v", "n"),
        node("Add", "a n", "y"),
    ]
    net = model(nodes, ["N", 3, 8, 8], tensors)
    assert_close(run(half(net), x=picture(1, 3, 8, 8))["y"], run(net, x=picture(1, 3, 8, 8))["y"], 3e-3)


def test_an_average_over_a_large_map_stays():
    """Reversed it is a factor of one over its elements: 1 / 6400 has ten bits in float16, not eleven."""
    for size, kind in (64, "FLOAT16"), (80, "FLOAT"):
        net = model([node("Relu", "x", "r"), node("GlobalAveragePool", "r", "y")], ["N", 2, size, size])
        assert read_as(half(net))["y"] == kind


def test_what_only_describes_the_data_keeps_its_type():
    tensors = {"w": weights(4, 3, 3, 3), "scales": np.array([1, 1, 2, 2], np.float32)}
    nodes = [node("Conv", "x w", "c"), node("Resize", "c  scales", "y", mode="linear")]
    net, x = model(nodes, ["N", 3, 6, 6], tensors), picture(2, 3, 6, 6)
    compiled = half(net)
    assert (read_as(compiled)["y"], types(compiled)["scales"]) == ("FLOAT16", "FLOAT")
    assert_close(run(compiled, x=x)["y"], run(net, x=x)["y"], 3e-3)


def test_sizes_computed_in_float32_stay():
    """As exporters write an interpolation by a factor: float16 has no odd numbers above 2048."""
    tensors = {"w": weights(4, 3, 1, 1), "two": np.float32(2), "ones": np.ones(2, np.float32)}
    bounds = {"from": np.array([2]), "to": np.array([4])}
    nodes = [
        node("Conv", "x w", "c"),
        node("Shape", "c", "s"),
        node("Slice", "s from to", "hw"),
        node("Cast", "hw", "f", to=onnx.TensorProto.FLOAT),
        node("Mul", "f two", "g"),
        node("Div", "g f", "q"),
        node("Concat", "ones q", "scales", axis=0),
        node("Resize", "c  scales", "y", mode="nearest"),
    ]
    net = model(nodes, ["N", 3, "H", "W"], tensors | bounds)
    x = picture(1, 3, 2, 2051)
    compiled = half(net, at="c")
    assert_close(run(compiled, x=x)["y"], run(net, x=x)["y"], 3e-3)
    assert {read_as(compiled)[name] for name in ("g", "q", "scales")} == {"FLOAT"}


def test_bounds_that_nothing_exceeds(capfd):
    tensors = {"w": weights(4, 3, 3, 3), "lo": np.float32(0), "hi": np.float32(3.4028235e38)}
    nodes = [node("Conv", "x w", "c"), node("Clip", "c lo hi", "y")]
    net = model(nodes, ["N", 3, 6, 6], tensors)
    assert read_as(half(net))["y"] == "FLOAT16"
    assert_close(run(half(net), x=picture(1, 3, 6, 6))["y"], run(net, x=picture(1, 3, 6, 6))["y"], 3e-3)
    assert capfd.readouterr().err == ""


def test_float16_beyond_y_alone():
    """Nothing of it between x and y: the proof holds it to float16's outputs all the same."""
    tensors = {"w": weights(4, 3, 3, 3)}
    nodes = [node("LRN", "x", "a", size=3), node("Softmax", "a", "y", axis=1), node("Conv", "y w", "z")]
    net = model(nodes, ["N", 3, 6, 6], tensors, ["z"])
    pair = revgraph.compile(net, variant="salinet", at="y", precision="fp16")
    assert pair.scales == {}
    assert [check.what for check in verify(pair, net) if check.passed is False] == []


def test_what_the_body_of_an_if_reads_stays():
    branch = onnx.helper.make_graph(
        [node("Neg", "a", "out")], "b", [], [onnx.helper.make_tensor_value_info("out", 1, None)]
    )
    nodes = [
        node("Relu", "x", "a"),
        node("If", "flag", "c", then_branch=branch, else_branch=branch),
        node("Add", "a c", "z"),
        node("Relu", "a", "y"),
    ]
    net = model(nodes, ["N", 3, 4, 4], {}, ["y", "z"])
    net.graph.input.append(onnx.helper.make_tensor_value_info("flag", onnx.TensorProto.BOOL, []))
    compiled = revgraph.compile(net, variant="salinet", at="y", input="x", precision="fp16").forward
    x = picture(1, 3, 4, 4)
    np.testing.assert_allclose(run(compiled, x=x, flag=np.array(True))["y"], np.maximum(x, 0), rtol=1e-3)
    pair = revgraph.compile(net, variant="salinet", at="y", input="x", precision="fp16")
    assert [check.what for check in verify(pair, net) if check.passed is False] == []


def test_what_is_refused():
    what, why, remedy = refusal(cnn(), precision="bf16")
    assert what == "cannot compile for bf16"
    assert why == "onnxruntime's CUDA has no ConvTranspose, MaxPool or Greater of bfloat16"
    assert remedy == "compile with --precision fp16"
    assert refusal(cnn(), precision="fp8")[0] == "unknown precision"
    what, why, _ = refusal(cnn(), precision="fp16", target="cpu")
    assert (what, why) == (
        "cannot compile for fp16", "onnxruntime's CPU computes in float32, and would only cast to and fro"
    )  # fmt: skip
    net = model([node("Exp", "x", "y")], ["N", 3, 4, 4])
    assert refusal(net, precision="fp16")[1] == "no layer of it computes in float32, or float16 suits none"
