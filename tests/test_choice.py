"""The choice of p inside a fused file: what `neuron` projects and a Session reverses, in one run."""

import json

import networks
import numpy as np
import onnx
import onnxruntime
import pytest
from layers import assert_close, mixed
from networks import cnn, he, model, node, picture
from onnx import TensorProto, helper, numpy_helper

import revgraph
from revgraph import choice, neuron, storing
from revgraph.cli import main
from revgraph.errors import RevgraphError
from revgraph.weights import LightModel

LAYERS = [(cnn(), "logits"), (cnn(), "relu2"), (mixed(), "y"), (mixed(), "cat"), (mixed(), "pool2")]


def compiled(net=None, variant="desalinet", **options):
    return revgraph.compile(net or cnn(), variant=variant, **options)


def project(y, classes=None):
    """What `neuron` makes of it: max, or each image's own class."""
    rng = np.random.default_rng(0)
    if classes is None:
        return neuron.project(neuron.parse("max"), y, rng)
    specs = [neuron.parse(f"class:{c}") for c in classes]
    return np.concatenate([neuron.project(spec, row[None], rng) for spec, row in zip(specs, y, strict=True)])


def run(fused, x, classes=None):
    """Every output by name."""
    onnx.checker.check_model(fused, full_check=True)
    return networks.run(fused, x=x, **({} if classes is None else {"class": np.array(classes)}))


def agree(made, x, classes=None, rtol=1e-5):
    """One run of the fused file against a Session's two, and the p that was chosen."""
    fused = made.fused("max" if classes is None else "class")
    session = revgraph.Session(made, threads=1)
    trace = session.forward(x)
    p = project(trace.y, classes)
    found = run(fused, x, classes)
    assert_close(found[made.at], trace.y, rtol)
    assert_close(found["x_hat"], session.reverse(trace, p), rtol)
    assert found["x_hat"].dtype == x.dtype
    return p


def dims(value):
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


# ----- Whole networks -----


@pytest.mark.parametrize("variant", ["identity", "salinet", "desalinet-centre"])
@pytest.mark.parametrize(("net", "at"), LAYERS, ids=lambda value: value if isinstance(value, str) else "")
def test_one_run_gives_what_a_session_gives(net, at, variant):
    made = compiled(net, variant, at=at)
    x = picture(3, *dims(net.graph.input[0])[1:])
    assert (agree(made, x) != 0).sum() == 3
    assert (agree(made, x, [0, 3, 1]) != 0).sum() >= 3


@pytest.mark.parametrize("size", [(8, 8), (11, 6)])
def test_the_size_may_be_free(size):
    nodes = [node("Conv", "x w", "conv"), node("Relu", "conv", "relu"), node("Flatten", "relu", "flat")]
    net = model(nodes, ["N", 3, "H", "W"], {"w": he(np.random.default_rng(0), 4, 3, 3, 3)})
    for at in "conv", "relu":
        made = compiled(net, at=at)
        agree(made, picture(3, 3, *size))
        agree(made, picture(3, 3, *size), [3, 0, 2])
    agree(compiled(net, at="flat"), picture(3, 3, *size))


def test_a_classifier_made_fully_convolutional_chooses_by_class():
    net = model(
        [node("Flatten", "x", "flat"), node("Gemm", "flat w", "y")],
        ["N", 3, 4, 4],
        {"w": he(np.random.default_rng(0), 5, 48).T.copy()},
    )
    made = compiled(net, fully_convolutional=True)
    p = agree(made, picture(2, 3, 6, 7), [4, 1])
    assert p.shape == (2, 5, 3, 4)


@pytest.mark.parametrize("batch", ["N", 2])
def test_what_it_takes_and_gives(batch):
    made = compiled(cnn(batch))
    for choose, inputs in (("max", []), ("class", [("class", [batch])])):
        graph = made.fused(choose).graph
        assert [(v.name, dims(v)) for v in graph.input] == [("x", [batch, 3, 8, 8]), *inputs]
        assert [v.name for v in graph.output] == ["prob", "logits", "x_hat"]
        assert dims(graph.output[-1]) == [batch, 3, 8, 8]  # a row per image, not P
        agree(made, picture(2, 3, 8, 8), [1, 4] if inputs else None)
    assert made.fused("class").graph.input[1].type.tensor_type.elem_type == TensorProto.INT64


# ----- p by itself: the identity of a network that adds zero is p -----

SHAPES = [(3, 5, 7), (3, 4, 3, 5), (3, 3, 2, 4, 3)]


def plain(shape, dtype=np.float32, flat=False, opset=17):
    """x + 0, or that in one row per image: x_hat is p."""
    nodes = [node("Add", "x zero", "sum"), *([node("Flatten", "sum", "y")] if flat else [])]
    net = model(nodes, ["N", *shape[1:]], {"zero": np.zeros(1, dtype)}, opset=opset)
    for value in (net.graph.input[0], net.graph.output[0]):
        value.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return compiled(net, "identity")


def assert_p(made, y, classes=None):
    found = run(made.fused("max" if classes is None else "class"), y, classes)
    scores = found[made.at]
    assert found["x_hat"].dtype == y.dtype
    np.testing.assert_array_equal(found["x_hat"].reshape(scores.shape), project(scores, classes))


@pytest.mark.parametrize("opset", [17, 18, 21, 23])
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_p_is_neurons_in_every_rank_and_type(shape, dtype, flat, opset):
    made, y = plain(shape, dtype, flat, opset), picture(*shape).astype(dtype)
    assert_p(made, y)
    assert_p(made, y, [1, 0, 2])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_of_equals_the_first_is_taken(shape, dtype):
    made, rng = plain(shape, dtype), np.random.default_rng(0)
    for low, high in ((-2, 3), (-2, 1), (-2, 0), (0, 1)):
        for _ in range(5):
            y = rng.integers(low, high, shape).astype(dtype)
            assert_p(made, y)
            assert_p(made, y, rng.integers(0, shape[1], 3))


def test_a_class_that_is_nowhere_positive_falls_back_to_its_largest_position():
    y = np.full((3, 3, 2, 2), 7, np.float32)
    y[0, 1], y[1, 1], y[2, 1] = [[-4, -1], [-1, -2]], 0, [[-1, 2], [3, 0]]
    expected = np.zeros_like(y)
    expected[0, 1, 0, 1] = expected[1, 1, 0, 0] = expected[2, 1, 0, 1] = expected[2, 1, 1, 0] = 1
    made = plain(y.shape)
    np.testing.assert_array_equal(run(made.fused("class"), y, [1, 1, 1])["x_hat"], expected)
    assert_p(made, y, [1, 1, 1])


def test_the_largest_numbers_of_a_type_are_told_apart():
    y = np.full((3, 3, 4), -65504, np.float16)
    y[1, 2, 3] = y[1, 1, 1] = 65504
    assert_p(plain(y.shape, np.float16), y)
    assert_p(plain(y.shape, np.float16), y, [1, 2, 0])


def test_classes_may_be_counted_from_the_end():
    made, y = plain((2, 5, 3)), picture(2, 5, 3)
    found = [run(made.fused("class"), y, classes)["x_hat"] for classes in ([-1, -5], [4, 0])]
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("c", [5, -6, 1000])
def test_a_class_that_y_does_not_have_fails_and_says_so(c):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    content = compiled().fused("class").SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    feeds = {"x": picture(2, 3, 8, 8), "class": np.array([0, c])}
    with pytest.raises(Exception, match=rf"choice/gather.*idx={c} must be within.*\[-5,4\]"):
        session.run(None, feeds)


def test_where_gather_gives_zero_for_such_a_class_nothing_is_projected():
    """As on CUDA, where it does not fail."""
    made, y = plain((2, 5, 3)), picture(2, 5, 3)
    fused = made.fused("class")
    gather = next(node_ for node_ in fused.graph.node if node_.name == "choice/gather")
    countdown = helper.make_tensor_value_info(gather.input[0], TensorProto.INT64, [5])
    fused.graph.output.append(countdown)  # else onnxruntime before 1.31 merges it, and fails
    gather.op_type, gather.input[:] = "Sub", ["class", "class"]
    assert not run(fused, y, [5, 99])["x_hat"].any()


def test_other_inputs_stay():
    net = model([node("Add", "x z", "sum"), node("Relu", "sum", "y")], ["N", 3, 4])
    net.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 3, 4]))
    net.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3, 4]))
    fused = compiled(net, "salinet", input="x").fused("class")
    assert [value.name for value in fused.graph.input] == ["x", "z", "class"]
    x, z = picture(2, 3, 4), picture(2, 3, 4, seed=1)
    found = networks.run(fused, x=x, z=z, **{"class": np.array([2, 0])})
    np.testing.assert_array_equal(found["x_hat"], project(found["y"], [2, 0]) * (x + z > 0))


# ----- The name `class` -----


def called(old, net=None):
    """The network with a tensor renamed `class`."""
    net = net or cnn()
    for node_ in net.graph.node:
        for names in (node_.input, node_.output):
            names[:] = ["class" if name == old else name for name in names]
    for value in (*net.graph.input, *net.graph.output, *net.graph.initializer):
        value.name = "class" if value.name == old else value.name
    return net


@pytest.mark.parametrize("old", ["relu1", "w2", "b1", "conv2"])
def test_an_inner_tensor_called_class_gives_way(tmp_path, old):
    made, x = compiled(called(old)), picture(3, 3, 8, 8)
    agree(made, x, [0, 3, 1])
    agree(made, x)
    made.save(tmp_path, fused=True, choose="class")
    again = revgraph.load(tmp_path)
    inner = {name for node_ in again.forward.graph.node for name in node_.output} | {"x"}
    assert again.signals.keys() <= inner
    assert main(["verify", str(tmp_path)]) == 0
    agree(again, x, [0, 3, 1])


def test_a_large_weight_called_class_is_stored_once_still():
    tensors = {"class": he(np.random.default_rng(0), 400, 3, 3, 3)}
    made = compiled(
        model([node("Conv", "x class", "conv"), node("Relu", "conv", "y")], ["N", 3, 5, 5], tensors)
    )
    assert made.light_forward.weights.keys() == {"class"}
    agree(made, picture(2, 3, 5, 5), [399, 0])
    assert [t.name for t in made.fused("class").graph.initializer if np.prod(t.dims) > 1000] == ["class_1"]


@pytest.mark.parametrize("old", ["x", "prob", "logits"])
def test_an_input_or_output_called_class_is_refused(tmp_path, old):
    made = compiled(called(old), at="class" if old == "logits" else "logits")
    match = "cannot choose by class in a model with an input or output called 'class': .*rename it"
    with pytest.raises(RevgraphError, match=match):
        made.fused("class")
    with pytest.raises(RevgraphError, match=match):
        made.save(tmp_path, fused=True, choose="class")
    assert list(tmp_path.iterdir()) == []
    assert "x_hat" in [value.name for value in made.fused("max").graph.output]


def test_inside_branches_the_name_gives_way_too():
    def branch(operator):
        value = onnx.ValueInfoProto(name="class")
        return helper.make_graph([node(operator, "outer", "class")], operator, [], [value])

    both = node("If", "c", "out", then_branch=branch("Relu"), else_branch=branch("Neg"))
    net = model([both], ["N", 3, 4], {"c": np.array(True)})
    light, new = choice.give_way(LightModel(net, {}))
    assert new == "class_1"
    inner = [attribute.g for attribute in light.model.graph.node[0].attribute]
    assert [(graph.node[0].output[0], graph.output[0].name) for graph in inner] == [(new, new)] * 2
    assert inner[0].node[0].input == ["outer"]
    assert [attribute.g.output[0].name for attribute in net.graph.node[0].attribute] == ["class"] * 2


# ----- Files -----


@pytest.mark.parametrize("choose", ["max", "class", None])
@pytest.mark.parametrize("limit", [storing.ONE_FILE, 0])
def test_a_saved_file_is_taken_apart_again(tmp_path, monkeypatch, choose, limit):
    monkeypatch.setattr(storing, "ONE_FILE", limit)
    made, x = compiled(mixed()), picture(3, 4, 9, 9)
    written = made.save(tmp_path, fused=True, choose=choose)
    assert [path.suffix for path in written] == [".onnx", ".weights"][: 1 if limit else 2]
    noted = {entry.key: entry.value for entry in onnx.load(written[0]).metadata_props}
    assert noted["revgraph.choose"] == (choose or "none")
    again = revgraph.load(tmp_path)
    for part, original in ((again.forward, made.forward), (again.reversed, made.reversed)):
        onnx.checker.check_model(part, full_check=True)
        assert [(v.name, dims(v)) for v in part.graph.input] == [
            (v.name, dims(v)) for v in original.graph.input
        ]
        assert [v.name for v in part.graph.output] == [v.name for v in original.graph.output]
    assert dims(again.reversed.graph.output[0]) == dims(made.reversed.graph.output[0])
    assert again.metadata | {"digest": ""} == made.metadata | {"digest": ""}
    agree(again, x)
    again.save(tmp_path / "again", fused=True, choose="class")
    agree(revgraph.load(tmp_path / "again"), x, [4, 0, 2])
    session = revgraph.Session(again)
    assert session.reverse(session.forward(x[:1]), np.eye(5, dtype=np.float32)).shape == (5, 4, 9, 9)


def test_a_client_needs_nothing_but_the_file(tmp_path):
    (path,) = compiled().save(tmp_path, fused=True, choose="class")
    x = picture(2, 3, 8, 8)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    prob, logits, x_hat = session.run(None, {"x": x, "class": np.array([3, 0])})
    expected = run(compiled().fused("class"), x, [3, 0])
    for found, name in ((prob, "prob"), (logits, "logits"), (x_hat, "x_hat")):
        np.testing.assert_array_equal(found, expected[name])


def test_each_weight_is_stored_once():
    fused = compiled(mixed()).fused("class")
    stored = [numpy_helper.to_array(t).tobytes() for t in fused.graph.initializer if np.prod(t.dims) > 8]
    assert len(stored) == len(set(stored))
    assert {node_.domain for node_ in fused.graph.node} == {""}
    names = [node_.name for node_ in fused.graph.node]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("choose", ["max", "class"])
def test_verify_passes_on_the_folder(tmp_path, monkeypatch, capsys, choose):
    onnx.save(cnn(), tmp_path / "net.onnx")
    line = f"compile net.onnx --variant salinet --fused --choose {choose} -o out"
    monkeypatch.chdir(tmp_path)
    assert main(line.split()) == 0
    inputs = "2 inputs" if choose == "class" else "1 input"
    assert inputs in capsys.readouterr().out
    assert main(["verify", "out", "--model", "net.onnx"]) == 0
    assert capsys.readouterr().out.endswith("PASSED\n")


def other_choice(net):
    props = {entry.key: entry.value for entry in net.metadata_props}
    helper.set_model_props(net, props | {"revgraph.choose": "max"})


def last_instead_of_first(net):
    flat = next(node_ for node_ in net.graph.node if node_.op_type == "Range")
    flat.input[:] = flat.input[::-1]


def other_signals(net):
    props = {entry.key: entry.value for entry in net.metadata_props}
    helper.set_model_props(net, props | {"revgraph.signals": json.dumps({})})


@pytest.mark.parametrize("change", [other_choice, last_instead_of_first, other_signals])
def test_a_tampered_file_is_refused(tmp_path, change):
    (path,) = compiled().save(tmp_path, fused=True, choose="class")
    net = onnx.load(path)
    change(net)
    path.write_bytes(net.SerializeToString(deterministic=True))
    with pytest.raises(RevgraphError, match="not as revgraph wrote it: its digest differs"):
        revgraph.load(tmp_path)


# ----- What is refused -----


def test_an_unknown_choice_is_refused_with_those_known(tmp_path):
    with pytest.raises(RevgraphError, match=r"unknown choice: 'centre' \(known: max, class\)"):
        compiled().fused("centre")
    with pytest.raises(RevgraphError, match="unknown choice"):
        compiled().save(tmp_path, fused=True, choose="")


def test_a_pair_of_files_is_refused(tmp_path):
    with pytest.raises(RevgraphError, match=r"cannot choose max in two files: .*fuse them"):
        compiled().save(tmp_path / "out", choose="max")
    assert list(tmp_path.iterdir()) == []


def test_a_layer_without_channels_is_refused():
    net = model(
        [node("Add", "x zero", "sum"), node("ReduceSum", "sum axes", "y", keepdims=0)],
        ["N", 3, 4],
        {"zero": np.zeros(1, np.float32), "axes": np.array([1, 2])},
    )
    for choose in ("max", "class"):
        with pytest.raises(RevgraphError, match="cannot choose a neuron of 'y': it has one axis"):
            compiled(net).fused(choose)
