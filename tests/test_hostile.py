"""What strangers might send: a few bytes that ask for much, and files that are none. All end, in one line."""

import io
import itertools
import os
import struct
import sys

import networks
import numpy as np
import onnx
import pytest
from networks import node
from onnx import helper

import revgraph
from revgraph import graph, model_file, neuron, picture, recipe
from revgraph.dataset import source
from revgraph.errors import RevgraphError
from revgraph.graph import gs
from revgraph.paper.segmentation import truth

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def refusal(net, **options):
    with pytest.raises(RevgraphError) as raised:
        revgraph.compile(net, **{"variant": "desalinet"} | options)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 7000
    return raised.value.why


# ----- Files that are none -----


def project(path):
    return neuron.project(neuron.parse(str(path)), np.ones((1, 5), np.float32), np.random.default_rng(0))


def names(path):
    """The class names of a recipe that says they are there."""
    text = (
        f'title = "t"\n[input]\nchannels = "L"\nscale = 1\nmean = [0]\nstd = [1]\n[labels]\nfile = "{path}"\n'
    )
    (path.parent / "mine.toml").write_text(f"{text}count = 2\n")
    return recipe.load(str(path.parent / "mine.toml")).class_names()


READERS = {
    "model.onnx": model_file.read_model,
    "picture.png": picture.read,
    "p.npy": project,
    "recipe.toml": lambda path: recipe.load(str(path)),
    "names.txt": names,
    "list.csv": lambda path: source.listed(str(path)),
    "manifest.csv": truth.from_manifest,
}


@pytest.mark.skipif(sys.platform == "win32", reason="has neither")
@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("device", ["pipe", "/dev/zero"])
def test_pipes_and_devices_are_not_opened(tmp_path, name, device):
    """The one would wait for ever, the other never end."""
    path = tmp_path / name
    if device == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(device)
    with pytest.raises(RevgraphError, match="it is a device or a pipe"):
        READERS[name](path)


@pytest.mark.skipif(sys.platform == "win32", reason="has neither")
@pytest.mark.parametrize("name", READERS)
def test_a_link_to_itself_is_refused(tmp_path, name):
    path = tmp_path / name
    path.symlink_to(path)
    with pytest.raises(RevgraphError):
        READERS[name](path)


@pytest.mark.parametrize("name", ["model.onnx", "picture.png", "p.npy", "recipe.toml"])
def test_a_name_that_no_file_has_is_refused(tmp_path, name):
    with pytest.raises(RevgraphError):
        READERS[name](tmp_path / f"a\0{name}")


def external(folder, **entries):
    """A model that is read, with one initializer more, in w.bin."""
    net = networks.cnn()
    tensor = net.graph.initializer.add(name="more", data_type=1, dims=[1024])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": "w.bin", **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    (folder / "net.onnx").write_bytes(net.SerializeToString())
    return folder / "net.onnx"


@pytest.mark.skipif(sys.platform == "win32", reason="has neither")
def test_external_data_that_is_no_file_is_refused(tmp_path):
    path = external(tmp_path)
    os.mkfifo(tmp_path / "w.bin")
    assert "there is no file" in refusal(path)
    (tmp_path / "w.bin").unlink()
    (tmp_path / "w.bin").symlink_to("w.bin")
    assert "of 'more'" in refusal(path)  # which Python before 3.13 cannot resolve, and later calls no file


def test_regions_of_external_data_take_no_more_than_the_file(tmp_path):
    """Each of a thousand initializers could ask for all of it but a byte."""
    (tmp_path / "w.bin").write_bytes(bytes(100))
    regions = model_file.Regions()
    regions.read(tmp_path / "w.bin", 0, 60)
    regions.read(tmp_path / "w.bin", 0, 60)  # shared
    regions.read(tmp_path / "w.bin", 60, 40)
    with pytest.raises(ValueError, match="overlap"):
        regions.read(tmp_path / "w.bin", 1, 60)


def test_a_recipe_is_small(tmp_path):
    """A key of many parts takes tomllib a time that grows as their square."""
    (tmp_path / "mine.toml").write_text("a" + ".a" * 10_000 + " = 1")
    with pytest.raises(RevgraphError, match="has more than 16,384 bytes"):
        recipe.load(str(tmp_path / "mine.toml"))


def test_an_array_that_claims_more_than_there_is_takes_no_memory(tmp_path):
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,)}".ljust(117) + b"\n"
    (tmp_path / "p.npy").write_bytes(b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header)
    with pytest.raises(RevgraphError, match="not a"):
        project(tmp_path / "p.npy")
    pickled = io.BytesIO()
    np.save(pickled, np.array([{}], object), allow_pickle=True)
    (tmp_path / "p.npy").write_bytes(pickled.getvalue())
    with pytest.raises(RevgraphError, match="file of numbers"):
        project(tmp_path / "p.npy")


# ----- Models that ask for much -----


def calling(*functions):
    """A model that calls the last of functions, each given as the operators in it."""
    ours = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    made = []
    for i, operators in enumerate(functions):
        wires = ["a", *(f"t{k}" for k in range(len(operators) - 1)), "b"]
        nodes = [
            helper.make_node(op, [read], [write], domain="" if op == "Relu" else "local")
            for op, read, write in zip(operators, wires[:-1], wires[1:], strict=True)
        ]
        made.append(helper.make_function("local", f"f{i}", ["a"], ["b"], nodes, ours))
    net = networks.cnn()
    net.functions.extend(made)
    net.opset_import.append(ours[1])
    relu = next(n for n in net.graph.node if n.name == "relu1")
    relu.op_type, relu.domain = f"f{len(functions) - 1}", "local"
    return net


def test_functions_that_call_functions_are_inlined():
    assert revgraph.compile(calling(["Relu"], ["f0", "f0"]), variant="desalinet").at == "logits"


def test_functions_that_grow_without_end_are_refused():
    """Forty that each call the one before twice: 2^40 nodes."""
    net = calling(["Relu"], *([f"f{i}"] * 2 for i in range(40)))
    assert "1.09951e+12 nodes" in refusal(net)


def test_a_function_that_calls_itself_is_refused():
    assert refusal(calling(["f0"])) == "its function 'f0' calls itself"
    assert "calls itself" in refusal(calling(["f1"], ["f0"]))


def test_a_function_that_holds_much_is_not_copied_often():
    net = calling(["Relu"])
    held = helper.make_tensor("", onnx.TensorProto.FLOAT, [2**20], np.zeros(2**20, np.float32))
    net.functions[0].node.append(helper.make_node("Constant", [], ["c"], value=held))
    net.graph.node.extend(helper.make_node("f0", ["relu1"], [f"y{i}"], domain="local") for i in range(100))
    assert "once its functions are inlined" in refusal(net)


@pytest.mark.parametrize("what", ["nodes", "initializers"])
def test_models_beyond_measure_are_refused(what):
    net = networks.cnn()
    for i in range(40_000):
        if what == "nodes":
            net.graph.node.add(op_type="Relu", input=["x"], output=[f"y{i}"])
        else:
            net.graph.initializer.add(name=f"w{i}", data_type=1, dims=[1], raw_data=bytes(4))
    assert what in refusal(net)


def branches(depth):
    """A branch within a branch, and so on."""
    inner = node("Relu", "conv1", "relu1")
    for i in range(depth):
        parts = {}
        for name, last in (("then_branch", inner), ("else_branch", node("Neg", "conv1", f"n{i}"))):
            ends = [onnx.ValueInfoProto(name=last.output[0])]
            parts[name] = helper.make_graph([last], f"{name}{i}", [], ends)
        inner = helper.make_node("If", ["go"], ["relu1" if i == depth - 1 else f"r{i}"], f"if{i}", **parts)
    net = networks.cnn()
    next(n for n in net.graph.node if n.name == "relu1").CopyFrom(inner)
    net.graph.input.append(helper.make_tensor_value_info("go", onnx.TensorProto.BOOL, []))
    return net


def test_an_operator_that_ends_the_process_is_refused_before_it_does():
    """onnx reads the type of its input where there is none, as behind layers that contradict each other."""
    net = networks.cnn()
    net.graph.node.insert(1, helper.make_node("RegexFullMatch", ["x"], ["matched"], "match", pattern="a"))
    assert refusal(net) == "onnx's shape inference may end the process at it"


def test_branches_within_branches_end():
    """Protobuf reads no more than about thirty, from a file or handed over."""
    assert "no rule for If" in refusal(branches(20), input="x")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("revgraph.canonical.on_model.MAX_DEPTH", 10)
        assert "more than 10 deep" in refusal(branches(20), input="x")


def test_absurd_names_are_refused_and_do_not_fill_the_screen():
    net = networks.cnn()
    for each in net.graph.node:
        each.name = "n" * 10**6
    assert "1000000 letters" in refusal(net)
    assert refusal(networks.cnn(), at="n" * 10**5)


def test_long_texts_are_kept():
    net = networks.cnn()
    net.doc_string = "d" * 10**6
    assert revgraph.compile(net, variant="desalinet").forward.doc_string == net.doc_string


@pytest.mark.parametrize("variant", ["desalinet", "desalinet-centre"])
@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("AveragePool", {"kernel_shape": [3, 3], "pads": [1] * 4}),
        ("MaxPool", {"kernel_shape": [3, 3], "pads": [1] * 4}),
        ("GlobalMaxPool", {}),
        ("GlobalAveragePool", {}),
    ],
)
@pytest.mark.parametrize("side", [2**17, 2**31])
def test_pools_of_absurd_pictures_take_no_memory(op, attributes, side, variant):
    net = networks.model([node(op, "x", "y", **attributes)], [1, 3, side, side])
    try:
        compiled = revgraph.compile(net, variant=variant)
    except RevgraphError:
        return
    assert compiled.light_forward.nbytes + compiled.light_reversed.nbytes < 2**20


# ----- Many layers -----


def chain(length, op="Relu", weights=None, **attributes):
    inputs = "".join(f" {name}" for name in weights or {})
    nodes = [node(op, f"{f'y{i - 1}' if i else 'x'}{inputs}", f"y{i}", **attributes) for i in range(length)]
    return networks.model(nodes, ["N", 3, 4, 4], weights)


@pytest.mark.parametrize("target", ["portable", "cpu", "cuda"])
def test_six_hundred_convolutions_are_a_network_like_any(target):
    """onnx-graphsurgeon sorts by recursion, and gave up at two hundred."""
    net = chain(600, "Conv", {"w": np.eye(3, dtype=np.float32)[..., None, None]})
    assert revgraph.compile(net, variant="desalinet", target=target).at == "y599"


@pytest.mark.parametrize("variant", ["desalinet", "desalinet-centre"])
def test_windows_that_lie_far_apart_are_refused_where_each_step_is_a_plane(variant):
    attributes = {"kernel_shape": [2, 2], "strides": [2**20, 2**20]}
    net = networks.model([node("MaxPool", "x", "y", **attributes)], [1, 1, 8, 8])
    assert "its strides span" in refusal(net, variant=variant, target="cuda")
    revgraph.compile(net, variant=variant)


def wide(count):
    """As many inputs as layers, as a reversed graph has taps, and one sum of all."""
    xs = [gs.Variable(f"x{i}", np.float32, [1]) for i in range(count)]
    ys = [gs.Variable(f"y{i}", np.float32, [1]) for i in range(count)]
    total = gs.Variable("y", np.float32, [1])
    nodes = [gs.Node("Relu", y.name, inputs=[x], outputs=[y]) for x, y in zip(xs, ys, strict=True)]
    nodes.append(gs.Node("Sum", "y", inputs=ys, outputs=[total]))
    return gs.Graph(nodes[::-1], xs, [total])


def steps(function, of):
    """How many calls it makes, of whatever: a measure of its work that no clock disturbs."""
    count = itertools.count()
    sys.setprofile(lambda *_: next(count))
    try:
        function(of)
    finally:
        sys.setprofile(None)
    return next(count)


def test_the_work_of_tidying_grows_with_the_graph_and_not_with_its_square():
    few, many = (steps(graph.tidy, wide(n)) for n in (100, 800))
    assert many < 10 * few  # eight times as much; by the square it would be 64


def test_names_are_found_likewise():
    def name(count):
        builder = graph.Builder(gs.Graph(), set())
        return [builder.fresh("relu") for _ in range(count)]

    assert name(3) == ["relu", "relu_1", "relu_2"]
    few, many = (steps(name, n) for n in (100, 800))
    assert many < 10 * few


def test_sorting_refuses_a_cycle():
    a, b = (gs.Variable(name, np.float32, [1]) for name in "ab")
    nodes = [gs.Node("Relu", "f", inputs=[a], outputs=[b]), gs.Node("Relu", "g", inputs=[b], outputs=[a])]
    with pytest.raises(RevgraphError, match="form a cycle"):
        graph.sort(gs.Graph(nodes, [], [b]))


@pytest.mark.parametrize("place", [-4, 3, 2**40])
def test_places_beyond_the_input_are_refused(place):
    net = networks.model([node("Gather", "x at", "y", axis=1)], [1, 3, 4, 4], {"at": np.array([0, place])})
    assert refusal(net) == "it reads beyond the 3 elements of its input"
