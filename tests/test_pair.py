"""What a compilation writes, and which files it reads again."""

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import cnn, picture, run
from onnx import helper, numpy_helper

import revgraph

X = picture(2, 3, 8, 8)


def compiled(net=None, variant="desalinet", **options):
    return revgraph.compile(net or cnn(), variant=variant, **options)


def names(values):
    return [value.name for value in values]


def explain(pair, feed=X):
    session = revgraph.Session(pair)
    trace = session.forward(feed)
    return session.reverse(trace, np.ones_like(trace.y))


def files_in(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def dims(value):
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


# ----- The graphs -----


@pytest.mark.parametrize("batch", ["N", "batch", "P", 1, 2])
def test_inputs_and_outputs_stand_in_the_contracts_order(batch):
    pair = compiled(cnn(batch))
    taps = list(pair.taps)
    assert sorted(taps) == ["pool1/switches", "relu1/mask", "relu2/mask"]
    assert names(pair.forward.graph.input) == ["x"]
    assert names(pair.forward.graph.output) == ["prob", "logits", *taps]
    assert names(pair.reversed.graph.input) == ["p", *taps]
    assert names(pair.reversed.graph.output) == ["x_hat"]
    p, x_hat = pair.reversed.graph.input[0], pair.reversed.graph.output[0]
    assert dims(p)[1:] == [5]
    assert dims(x_hat)[1:] == [3, 8, 8]
    assert isinstance(dims(p)[0], str)
    assert dims(p)[0] == dims(x_hat)[0] != batch
    assert [dims(tap)[0] for tap in pair.reversed.graph.input[1:]] == [batch] * 3


def test_y_that_is_an_output_already_is_not_listed_twice():
    assert names(compiled(cnn(), at="conv1").forward.graph.output) == ["prob", "conv1"]
    assert names(compiled(cnn(softmax=False)).forward.graph.output)[:2] == ["logits", "relu2/mask"]


@pytest.mark.parametrize("variant", revgraph.VARIANTS)
def test_both_files_are_standard_onnx(variant):
    pair = compiled(variant=variant)
    for model in (pair.forward, pair.reversed, pair.fused()):
        onnx.checker.check_model(model, full_check=True)
        assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
        assert 8 <= model.ir_version <= 10
        assert {node.domain for node in model.graph.node} == {""}
        assert len({node.name for node in model.graph.node}) == len(model.graph.node)
    assert set(pair.taps) <= {name for node in pair.forward.graph.node for name in node.output}


def test_the_reversed_graph_stands_in_the_bottleneck_of_its_variant():
    taps = {variant: sorted(compiled(variant=variant).taps) for variant in revgraph.VARIANTS}
    masks, switches = ["relu1/mask", "relu2/mask"], ["pool1/switches"]
    assert taps["identity-centre"] == taps["deconvnet-centre"] == []
    assert taps["identity"] == taps["deconvnet"] == switches
    assert taps["salinet-centre"] == taps["desalinet-centre"] == masks
    assert taps["salinet"] == taps["desalinet"] == [*switches, *masks]


# ----- Metadata -----


def test_the_metadata_says_what_was_done(tmp_path):
    path = tmp_path / "net.onnx"
    onnx.save(cnn(), path)
    pair = compiled(path, variant="salinet", at="pool1", lrn="identity")
    expected = {
        "version": revgraph.__version__,
        "variant": "salinet",
        "at": "pool1",
        "input": "x",
        "lrn": "identity",
        "target": "portable",
        "precision": "fp32",
        "bottleneck": "plain",
        "source_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    for model in (pair.forward, pair.reversed, pair.fused()):
        found = {entry.key: entry.value for entry in model.metadata_props}
        assert found.items() >= {f"revgraph.{key}": value for key, value in expected.items()}.items()
        assert json.loads(found["revgraph.taps"]) == list(pair.taps) == ["relu1/mask", "pool1/switches"][::-1]
        assert {len(found[f"revgraph.{key}"]) for key in ("pair", "digest")} == {64}
    assert (pair.name, pair.variant, pair.at, pair.input) == ("net", "salinet", "pool1", "x")


def test_pair_tells_compilations_apart():
    options = [{}, {"variant": "salinet"}, {"at": "relu2"}, {"lrn": "bp"}, {"net": cnn(batch=1)}]
    pairs = [compiled(**option).metadata["pair"] for option in options]
    assert len(set(pairs)) == len(pairs)
    assert compiled().metadata["pair"] == pairs[0]


def described():
    net = cnn()
    net.doc_string, net.graph.doc_string = "of the model", "of the graph"
    net.graph.input[0].doc_string, net.graph.output[0].doc_string = "of x", "of prob"
    for node in net.graph.node:
        node.doc_string = f"of {node.output[0]}"
    helper.set_model_props(net, {"author": "me", "revgraph.recipe": "caffe"})
    return net


@pytest.mark.parametrize("named", ["names", "no names", "one name"])
@pytest.mark.parametrize("opset", [13, 17])
def test_the_sources_own_words_are_kept(named, opset):
    net = described()
    net.opset_import[0].version = opset
    for node in net.graph.node:
        node.name = {"names": node.name, "no names": "", "one name": "same"}[named]
    pair = compiled(net)
    for model in (pair.forward, pair.fused()):
        assert (model.doc_string, model.graph.doc_string) == ("of the model", "of the graph")
        assert (model.graph.input[0].doc_string, model.graph.output[0].doc_string) == ("of x", "of prob")
        props = {entry.key: entry.value for entry in model.metadata_props}
        assert (props["author"], props["revgraph.recipe"]) == ("me", "caffe")
        docs = {node.output[0]: node.doc_string for node in model.graph.node if node.doc_string}
        assert docs.items() >= {node.output[0]: node.doc_string for node in net.graph.node}.items()


def test_a_compiled_file_compiled_again_says_what_was_done_last():
    once = compiled(variant="salinet", at="pool1")
    forward = onnx.ModelProto()
    forward.CopyFrom(once.forward)
    pair = compiled(forward, at="conv2")
    assert (pair.variant, pair.at, list(pair.taps)) == (
        "desalinet",
        "conv2",
        json.loads(pair.metadata["taps"]),
    )
    assert explain(pair).shape == X.shape


# ----- Saving -----


def test_a_pair_is_two_files_named_after_the_model(tmp_path):
    path = tmp_path / "net.v1.onnx"
    onnx.save(cnn(), path)
    written = compiled(path).save(tmp_path / "out")
    assert [p.name for p in written] == ["net.v1.desalinet.forward.onnx", "net.v1.desalinet.reversed.onnx"]
    assert files_in(tmp_path / "out") == sorted(p.name for p in written)
    assert all(isinstance(p, Path) for p in written)


@pytest.mark.parametrize("name", ["../outside", "{tmp}/outside", "a/b", "..", "torch jit", "a\\b"])
def test_a_models_own_name_leads_nowhere_else(tmp_path, name):
    net = cnn()
    net.graph.name = name.format(tmp=tmp_path)
    pair = compiled(net)
    written = pair.save(tmp_path / "out")
    assert {p.parent for p in written} == {tmp_path / "out"}
    assert all(p.is_file() for p in written)
    np.testing.assert_array_equal(explain(revgraph.load(tmp_path / "out")), explain(pair))


@pytest.mark.parametrize("fused", [False, True])
def test_saving_replaces_the_same_variant_and_nothing_else(tmp_path, fused):
    compiled(variant="salinet").save(tmp_path)
    others = files_in(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    compiled().save(tmp_path, fused=not fused)
    written = compiled(at="pool1").save(tmp_path, fused=fused)
    assert files_in(tmp_path) == sorted([*others, *(p.name for p in written), "notes.txt"])
    assert revgraph.load(tmp_path, "desalinet").at == "pool1"
    assert revgraph.load(tmp_path, "salinet").at == "logits"


def test_a_fused_file_does_both_in_one_run(tmp_path):
    pair = compiled()
    (path,) = pair.save(tmp_path, fused=True)
    assert path.name == "net.desalinet.onnx"
    model = onnx.load(path)
    assert names(model.graph.input) == ["x", "p"]
    assert names(model.graph.output) == ["prob", "logits", "x_hat"]
    found = run(model, x=X, p=np.ones((2, 5), np.float32))
    np.testing.assert_allclose(found["x_hat"], explain(pair), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("variant", revgraph.VARIANTS)
def test_a_fused_file_is_taken_apart_again(tmp_path, variant):
    pair = compiled(variant=variant)
    pair.save(tmp_path, fused=True)
    again = revgraph.load(tmp_path)
    assert (again.variant, again.at, again.input, again.taps) == (
        pair.variant,
        pair.at,
        pair.input,
        pair.taps,
    )
    for part, original in ((again.forward, pair.forward), (again.reversed, pair.reversed)):
        assert names(part.graph.input) == names(original.graph.input)
        assert names(part.graph.output) == names(original.graph.output)
        onnx.checker.check_model(part, full_check=True)
    np.testing.assert_array_equal(explain(again), explain(pair))
    again.save(tmp_path / "again")
    np.testing.assert_array_equal(explain(revgraph.load(tmp_path / "again")), explain(pair))


def test_a_fused_file_stores_each_weight_once():
    pair = compiled()
    stored = [
        numpy_helper.to_array(t).tobytes() for t in pair.fused().graph.initializer if np.prod(t.dims) > 8
    ]
    assert len(stored) == len(set(stored))
    assert set(names(pair.fused().graph.initializer)) >= {"w1", "w2", "w3"}


def test_a_pair_comes_back_as_it_was(tmp_path):
    pair = compiled()
    pair.save(tmp_path)
    assert revgraph.load(str(tmp_path)) == pair
    assert revgraph.load(tmp_path, "desalinet") == pair
