"""Models whose weights are more than one file can hold: the whole way from the model to x_hat."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from networks import he, model, node, picture
from onnx import helper
from PIL import Image

import revgraph
from revgraph import cli, storing
from revgraph.errors import RevgraphError

X = picture(2, 3, 8, 8)
NODES = ["Conv", "Relu", "MaxPool", "Flatten", "Gemm", "Relu", "Gemm", "Softmax"]
FILES = ["net.desalinet.forward.onnx", "net.desalinet.reversed.onnx", "net.desalinet.weights"]


def classifier():
    """conv1 relu1 pool1 flat fc1 relu2 logits, and prob (N, 40) last; w2 and w3 are large, w1 is not."""
    rng = np.random.default_rng(0)
    weights = {"w1": he(rng, 16, 3, 3, 3), "w2": he(rng, 32, 256), "w3": he(rng, 40, 32)}
    nodes = [
        node("Conv", "x w1", "conv1", pads=[1] * 4),
        node("Relu", "conv1", "relu1"),
        node("MaxPool", "relu1", "pool1", kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", "pool1", "flat"),
        node("Gemm", "flat w2", "fc1", transB=1),
        node("Relu", "fc1", "relu2"),
        node("Gemm", "relu2 w3", "logits", transB=1),
        node("Softmax", "logits", "prob", axis=1),
    ]
    return model(nodes, ["N", 3, 8, 8], weights)


def compiled(**options):
    return revgraph.compile(classifier(), **{"variant": "desalinet"} | options)


def explain(compilation, x=X):
    session = revgraph.Session(compilation, threads=1)
    trace = session.forward(x)
    return session.reverse(trace, np.ones_like(trace.y))


def files_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def apart(monkeypatch):
    """Every model is too large for one file."""
    monkeypatch.setattr(storing, "ONE_FILE", 0)


# ----- Saving and loading -----


def test_weights_lie_once_in_a_file_beside_both(tmp_path, apart):
    written = compiled().save(tmp_path)
    assert [path.name for path in written] == FILES == files_in(tmp_path)
    parts = [onnx.load(path, load_external_data=False) for path in written[:2]]
    places = [
        {t.name: {e.key: e.value for e in t.external_data} for t in part.graph.initializer if t.external_data}
        for part in parts
    ]
    assert places[0] == places[1]
    assert places[0].keys() == {"w2", "w3"}
    assert {place["location"] for place in places[0].values()} == {FILES[2]}
    assert all(int(place["offset"]) % 4096 == 0 for place in places[0].values())
    held = sum(int(place["length"]) for place in places[0].values())
    assert held == (32 * 256 + 40 * 32) * 4 <= written[2].stat().st_size < held + 2 * 4096


@pytest.mark.parametrize("fully_convolutional", [False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_the_files_give_what_single_files_give(tmp_path, monkeypatch, fused, fully_convolutional):
    one = compiled(fully_convolutional=fully_convolutional)
    one.save(tmp_path / "one", fused=fused)
    monkeypatch.setattr(storing, "ONE_FILE", 0)
    compiled(fully_convolutional=fully_convolutional).save(tmp_path / "apart", fused=fused)
    assert len(files_in(tmp_path / "apart")) == len(files_in(tmp_path / "one")) + 1
    found, again = revgraph.load(tmp_path / "one"), revgraph.load(tmp_path / "apart")
    assert again == found
    assert (again.forward, again.reversed, again.fused()) == (found.forward, found.reversed, found.fused())
    np.testing.assert_array_equal(explain(again), explain(one))
    if fully_convolutional:
        wide = picture(1, 3, 16, 10)
        np.testing.assert_array_equal(explain(again, wide), explain(one, wide))


@pytest.mark.parametrize("fused", [False, True])
def test_the_files_are_ordinary_onnx(tmp_path, apart, fused):
    *models, _ = compiled().save(tmp_path, fused=fused)
    for path in models:
        onnx.checker.check_model(path, full_check=True)
        onnx.checker.check_model(onnx.load(path), full_check=True)
    session = onnxruntime.InferenceSession(models[0], providers=["CPUExecutionProvider"])
    p = np.ones((2, 40), np.float32)
    outputs = session.run(None, {"x": X} | ({"p": p} if fused else {}))
    trace = revgraph.Session(compiled()).forward(X)
    np.testing.assert_allclose(outputs[0], trace.outputs["prob"], rtol=1e-5)
    if fused:
        np.testing.assert_allclose(outputs[-1], explain(compiled()), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("fused", [False, True])
def test_both_graphs_read_the_same_memory(tmp_path, apart, fused):
    made = compiled()
    made.save(tmp_path, fused=fused)
    for compilation in (made, revgraph.load(tmp_path)):
        forward, back = compilation.light_forward.weights, compilation.light_reversed.weights
        assert forward.keys() == back.keys() == {"w2", "w3"}
        assert all(np.shares_memory(forward[name], back[name]) for name in forward)


def test_the_compiled_files_are_a_model_themselves(tmp_path, apart):
    forward, *_ = compiled().save(tmp_path)
    again = revgraph.compile(forward, variant="salinet", at="logits")
    np.testing.assert_array_equal(explain(again), explain(compiled(variant="salinet")))


def test_a_graph_may_be_held_as_one_message(apart):
    """`forward` and `reversed` are copies with weights and all, whatever the files."""
    names = {tensor.name for tensor in compiled().forward.graph.initializer if tensor.raw_data}
    assert names >= {"w1", "w2", "w3"}
    onnx.checker.check_model(compiled().reversed, full_check=True)


# ----- What is refused -----


def refused(folder, match):
    with pytest.raises(RevgraphError, match=match) as raised:
        revgraph.load(folder)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("position", [0, 32 * 256 * 4 + 5])
def test_a_changed_byte_of_a_weight_is_noticed(tmp_path, apart, fused, position):
    *_, data = compiled().save(tmp_path, fused=fused)
    content = bytearray(data.read_bytes())
    content[position] ^= 1
    data.write_bytes(content)
    refused(tmp_path, "not as revgraph wrote")


def test_swapped_weights_are_noticed(tmp_path, apart):
    forward, back, _ = compiled().save(tmp_path)
    for path in (forward, back):
        net = onnx.load(path, load_external_data=False)
        for tensor in net.graph.initializer:
            for entry in tensor.external_data:
                if tensor.name == "w3" and entry.key == "offset":
                    entry.value = "0"
        path.write_bytes(net.SerializeToString(deterministic=True))
    refused(tmp_path, "not as revgraph wrote")


def test_cut_short_or_missing_weights_are_refused(tmp_path, apart):
    *_, data = compiled().save(tmp_path)
    os.truncate(data, data.stat().st_size // 2)
    refused(tmp_path, "the data of 'w[23]' cannot be read: .*does not hold")
    data.unlink()
    refused(tmp_path, "the data of 'w2' cannot be read: there is no file 'net.desalinet.weights'")


def test_weights_of_another_compilation_are_noticed(tmp_path, apart):
    *_, data = compiled().save(tmp_path / "a")
    net = classifier()
    net.graph.initializer[1].raw_data = bytes(len(net.graph.initializer[1].raw_data))
    *_, foreign = revgraph.compile(net, variant="desalinet").save(tmp_path / "b")
    shutil.copyfile(foreign, data)
    refused(tmp_path / "a", "not as revgraph wrote")


# ----- All or nothing -----


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("limit", [0, storing.ONE_FILE])
@pytest.mark.parametrize("before", [0, storing.ONE_FILE])
@pytest.mark.parametrize("fused_before", [False, True])
def test_saving_leaves_no_file_of_the_compilation_before(
    tmp_path, monkeypatch, fused_before, before, fused, limit
):
    monkeypatch.setattr(storing, "ONE_FILE", before)
    compiled(variant="salinet").save(tmp_path)
    others = files_in(tmp_path)
    compiled(at="relu2").save(tmp_path, fused=fused_before)
    monkeypatch.setattr(storing, "ONE_FILE", limit)
    written = compiled().save(tmp_path, fused=fused)
    assert files_in(tmp_path) == sorted([*others, *(path.name for path in written)])
    assert revgraph.load(tmp_path, "desalinet").at == "logits"
    assert revgraph.load(tmp_path, "salinet").at == "logits"


@pytest.mark.parametrize("call", range(3))
def test_a_failure_in_the_middle_leaves_everything_as_it_was(tmp_path, apart, monkeypatch, call):
    old = compiled()
    old.save(tmp_path)
    calls, real = iter(range(10)), Path.open

    def fail(self, *args, **kwargs):
        if next(calls) == call:
            raise OSError(28, "No space left on device", str(self))
        return real(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", fail)
        with pytest.raises(RevgraphError, match="No space left"):
            compiled(at="relu2").save(tmp_path)
    assert files_in(tmp_path) == FILES
    assert revgraph.load(tmp_path) == old


# ----- The command line -----


def test_the_commands_take_them(tmp_path, apart, capsys):
    onnx.save(classifier(), tmp_path / "net.onnx", save_as_external_data=True, size_threshold=0)
    Image.new("RGB", (8, 8), (200, 30, 90)).save(tmp_path / "cat.png")
    out = tmp_path / "out"
    assert cli.main(["compile", str(tmp_path / "net.onnx"), "--variant", "desalinet", "-o", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [Path(line.split()[0]).name for line in lines] == FILES
    assert lines[2].endswith(" bytes")
    arguments = ["--recipe", "imagenet", "-o", str(tmp_path / "cat.out.png")]
    assert cli.main(["run", str(out), str(tmp_path / "cat.png"), *arguments]) == 0
    assert (tmp_path / "cat.out.png").is_file()
    capsys.readouterr()
    assert cli.main(["inspect", str(out / FILES[0]), "--at", "logits", "--json"]) == 0
    layers = json.loads(capsys.readouterr().out)["layers"]
    assert [layer["op"] for layer in layers] == [*NODES[:-1]]


# ----- More than 2 GiB -----

ROWS, COLUMNS, PERIOD = 36000, 16384, 8
"""Of a weight of 2.2 GiB, whose rows repeat."""


@pytest.fixture
def large(tmp_path):
    """A network of one connected layer, its weight beside it; both go at the end."""
    rows = np.random.default_rng(0).standard_normal((PERIOD, COLUMNS), np.float32)
    nodes = [
        node("Relu", "x", "relu"),
        node("MaxPool", "relu", "pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", "pool", "flat"),
        node("Gemm", "flat w", "y", transB=1),
    ]
    x, y = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in {"x": ["N", 4, 128, 128], "y": ["N", ROWS]}.items()
    )
    weight = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[ROWS, COLUMNS])
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="large.data")
    graph = helper.make_graph(nodes, "large", [x], [y], [weight])
    net = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "large.onnx").write_bytes(net.SerializeToString())
    try:
        with (tmp_path / "large.data").open("wb") as file:
            file.writelines(rows.tobytes() for _ in range(ROWS // PERIOD))
        yield tmp_path / "large.onnx", rows
    finally:
        shutil.rmtree(tmp_path)


def peak_of(*command: str) -> int:
    """The most bytes that a process of Python held; of its own parent, who has no other child."""
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, capture_output=True);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    told = [sys.executable, "-c", code, sys.executable, *command]
    done = subprocess.run(told, check=True, capture_output=True, text=True)
    return int(done.stdout) * (1 if sys.platform == "darwin" else 1024)


@pytest.mark.heavy
@pytest.mark.parametrize("fused", [False, True])
def test_more_than_protobuf_holds(large, fused):
    pytest.importorskip("resource")
    path, rows = large
    out = path.parent / "out"
    arguments = ["compile", str(path), "--variant", "deconvnet", "-o", str(out)] + ["--fused"] * fused
    peaks = [peak_of("-m", "revgraph", *arguments)]
    x, p = picture(1, 4, 128, 128), np.random.default_rng(1).standard_normal((2, ROWS), np.float32)
    code = (
        "import sys, numpy as np, revgraph; folder = sys.argv[1];"
        "session = revgraph.Session(revgraph.load(folder));"
        "trace = session.forward(np.load(folder + '/x.npy')); np.save(folder + '/y.npy', trace.y);"
        "np.save(folder + '/x_hat.npy', session.reverse(trace, np.load(folder + '/p.npy')))"
    )
    np.save(out / "x.npy", x)
    np.save(out / "p.npy", p)
    peaks.append(peak_of("-c", code, str(out)))
    assert max(peaks) < 9 * 2**30

    windows = np.maximum(x, 0).reshape(4, 64, 2, 64, 2).transpose(0, 1, 3, 2, 4).reshape(4, 64, 64, 4)
    y = windows.max(-1).reshape(1, -1).astype(np.float64) @ rows.T
    np.testing.assert_allclose(np.load(out / "y.npy"), np.tile(y, ROWS // PERIOD), rtol=1e-3, atol=1e-3)
    signal = (p.reshape(2, -1, PERIOD).sum(1, dtype=np.float64) @ rows).reshape(2, 4, 64, 64, 1)
    chosen = np.arange(4) == windows.argmax(-1)[..., None]
    unpooled = (signal * chosen).reshape(2, 4, 64, 64, 2, 2).transpose(0, 1, 2, 4, 3, 5)
    expected = np.maximum(unpooled.reshape(2, 4, 128, 128), 0)
    np.testing.assert_allclose(np.load(out / "x_hat.npy"), expected, rtol=1e-3, atol=1e-2)
