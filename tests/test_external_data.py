"""External data: read from beside the model, and from nowhere else."""

import os
from pathlib import Path

import networks
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import revgraph
from revgraph import model_file
from revgraph.errors import RevgraphError

LENGTH = 1080 * 4
"""Bytes of w2."""


def refused(path, why):
    with pytest.raises(RevgraphError) as raised:
        model_file.read_model(path)
    assert raised.value.what == f"cannot read '{path}'"
    assert why in raised.value.why
    return raised.value


def external(folder, location, attribute=None, **entries):
    """A net in `folder` whose initializer w2, or the Constant in a node or function, lies in `location`."""
    values = np.arange(1080, dtype=np.float32).reshape(12, 10, 3, 3)
    net = networks.cnn()
    tensor = next(t for t in net.graph.initializer if t.name == "w2")
    if attribute is not None:
        net.graph.initializer.remove(tensor)
        tensor = onnx.TensorProto(name="w2", data_type=onnx.TensorProto.FLOAT, dims=values.shape)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    if attribute is not None:
        constant = helper.make_node("Constant", [], ["w2"], name="w2", value=tensor)
        if attribute == "function":
            opset = [helper.make_opsetid("", 17)]
            net.functions.append(helper.make_function("mine", "Weights", [], ["w2"], [constant], opset))
            net.opset_import.append(helper.make_opsetid("mine", 1))
            constant = helper.make_node("Weights", [], ["w2"], name="w2", domain="mine")
        net.graph.node.insert(0, constant)
    folder.mkdir(exist_ok=True)
    path = folder / "net.onnx"
    path.write_bytes(net.SerializeToString())
    return path, values


@pytest.mark.parametrize("location", ["net.data", "weights/net.data", "./weights/../net.data"])
def test_external_data_beside_the_model_is_read(tmp_path, location):
    path, values = external(tmp_path, location, length=LENGTH)
    (tmp_path / "weights").mkdir()
    (tmp_path / location).write_bytes(values.tobytes())
    net, _ = model_file.read_model(path)
    tensor = next(t for t in net.whole().graph.initializer if t.name == "w2")
    np.testing.assert_array_equal(numpy_helper.to_array(tensor), values)
    assert tensor.data_location == onnx.TensorProto.DEFAULT
    assert not tensor.external_data


def test_external_data_is_found_from_any_working_folder(tmp_path, monkeypatch):
    path, values = external(tmp_path / "nets", "net.data")
    (tmp_path / "nets" / "net.data").write_bytes(values.tobytes())
    monkeypatch.chdir(tmp_path / "nets")
    assert model_file.read_model(Path("net.onnx"))[0] == model_file.read_model(path)[0]


def test_external_data_at_an_offset(tmp_path):
    path, values = external(tmp_path, "net.data", offset=64, length=LENGTH)
    (tmp_path / "net.data").write_bytes(bytes(64) + values.tobytes() + bytes(8))
    net, _ = model_file.read_model(path)
    tensor = next(t for t in net.whole().graph.initializer if t.name == "w2")
    np.testing.assert_array_equal(numpy_helper.to_array(tensor), values)


@pytest.mark.parametrize("attribute", [None, "node", "function"])
@pytest.mark.parametrize(
    "location", ["../secret", "{tmp}/secret", "link", "down/../../secret", "linked/secret"]
)
def test_external_data_outside_the_models_folder_is_not_read(tmp_path, location, attribute):
    path, values = external(tmp_path / "nets", location.format(tmp=tmp_path), attribute)
    (tmp_path / "secret").write_bytes(values.tobytes())
    (tmp_path / "nets" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "nets" / "linked").symlink_to(tmp_path, target_is_directory=True)
    refused(path, "the data of 'w2' lies outside its folder")


@pytest.mark.parametrize("attribute", [None, "node", "function"])
def test_external_data_never_comes_from_the_working_folder(tmp_path, monkeypatch, attribute):
    path, values = external(tmp_path / "nets", "secret", attribute)
    (tmp_path / "secret").write_bytes(values.tobytes())
    monkeypatch.chdir(tmp_path)
    refused(path, "cannot be read")


@pytest.mark.parametrize("attribute", [None, "node"])
@pytest.mark.parametrize(
    ("location", "entries"),
    [
        ("none.data", {}),
        ("", {}),
        ("short.data", {"length": LENGTH}),
        ("short.data", {"offset": 1000}),
        ("short.data", {"offset": -1}),
        ("short.data", {"length": -1}),
        ("short.data", {"length": 2**62}),
        ("short.data", {"offset": "a few"}),
        (".", {}),
        ("a\0b", {}),
    ],
)
def test_external_data_that_is_not_there_is_refused(tmp_path, location, entries, attribute):
    path, _ = external(tmp_path, location, attribute, **entries)
    (tmp_path / "short.data").write_bytes(bytes(100))
    refused(path, "")


def test_external_data_shorter_than_its_shape_is_refused(tmp_path):
    path, _ = external(tmp_path, "short.data")
    (tmp_path / "short.data").write_bytes(bytes(100))
    with pytest.raises(RevgraphError, match="w2"):
        revgraph.compile(path, variant="desalinet")


@pytest.mark.parametrize("dims", [[2**20, 2**10], [2**40, 2**20], [-2, -540], [1079], [0]])
def test_nothing_is_read_for_a_shape_that_the_data_does_not_have(tmp_path, dims):
    path, values = external(tmp_path, "w2.data", length=LENGTH)
    (tmp_path / "w2.data").write_bytes(values.tobytes())
    net = onnx.load(path, load_external_data=False)
    next(t for t in net.graph.initializer if t.name == "w2").dims[:] = dims
    path.write_bytes(net.SerializeToString())
    with pytest.raises(RevgraphError, match=r"w2|not valid ONNX"):
        revgraph.compile(path, variant="desalinet")


def test_data_that_several_tensors_share_is_read_once(tmp_path):
    path, values = external(tmp_path, "w2.data", length=LENGTH)
    (tmp_path / "w2.data").write_bytes(values.tobytes())
    net = onnx.load(path, load_external_data=False)
    twin = net.graph.initializer.add()
    twin.CopyFrom(next(t for t in net.graph.initializer if t.name == "w2"))
    twin.name, twin.dims[:] = "twin", [1080]
    path.write_bytes(net.SerializeToString())
    weights = model_file.read_model(path)[0].weights
    assert weights.keys() == {"w2", "twin"}
    assert np.shares_memory(weights["w2"], weights["twin"])


@pytest.mark.parametrize("attribute", ["node", "function"])
def test_constants_of_nodes_count_against_protobufs_limit(tmp_path, monkeypatch, attribute):
    path, values = external(tmp_path, "w2.data", attribute)
    (tmp_path / "w2.data").write_bytes(values.tobytes())
    monkeypatch.setattr(model_file, "MAX_BYTES", path.stat().st_size)
    assert path.stat().st_size < LENGTH
    refused(path, "more than 2 GiB, protobuf's limit")


def test_the_pipe_that_a_location_names_is_not_waited_for(tmp_path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("no named pipes here")
    path, _ = external(tmp_path, "pipe")
    os.mkfifo(tmp_path / "pipe")
    refused(path, "there is no file 'pipe'")
