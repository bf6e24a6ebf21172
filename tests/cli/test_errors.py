"""Bad input: one line on stderr, nothing on stdout, status 1, nothing left behind. Wrong usage: status 2."""

import errno
import os
import shutil
import tempfile

import networks
import numpy as np
import onnx
import pytest
from networks import cnn, node
from onnx import helper
from PIL import Image

from revgraph import cli

COMPILE = "compile {} --variant desalinet -o out"


def cycle():
    net = cnn()
    net.graph.node[0].input[0] = "relu2"
    return net


def unknown(domain, op="Fancy"):
    net = cnn()
    net.graph.node[1].op_type, net.graph.node[1].domain = op, domain
    if domain:
        net.opset_import.append(helper.make_opsetid(domain, 1))
    return net


def outside():
    net = cnn()
    tensor = next(t for t in net.graph.initializer if t.name == "w2")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret.data")
    return net


def two_inputs():
    net = networks.model([node("Add", "x z", "y")], [1, 3, 8, 8])
    net.graph.input.append(helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [1, 3, 8, 8]))
    net.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 3, 8, 8]))
    return net


def called_class():
    net = cnn()
    net.graph.input[0].name = net.graph.node[0].input[0] = "class"
    return net


def reserved():
    net = cnn()
    net.graph.input[0].name = net.graph.node[0].input[0] = "p"
    return net


def free_size():
    return networks.model([node("Relu", "x", "y")], ["N", 3, "H", "W"])


MODELS = {
    "net": cnn(),
    "cycle": cycle(),
    "custom": unknown("com.microsoft"),
    "unknown": unknown(""),
    "norule": unknown("", "Hardmax"),
    "outside": outside(),
    "two": two_inputs(),
    "reserved": reserved(),
    "class": called_class(),
    "free": free_size(),
    "grey": networks.model([node("Relu", "x", "y")], [1, 1, 8, 8]),
    "flat": networks.model([node("Relu", "x", "y")], [1, 8]),
}


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stage")
    for name, net in MODELS.items():
        (folder / f"{name}.onnx").write_bytes(net.SerializeToString())
    content = MODELS["net"].SerializeToString()
    (folder / "empty.onnx").touch()
    (folder / "cut.onnx").write_bytes(content[: len(content) // 2])
    (folder / "random.onnx").write_bytes(np.random.default_rng(0).bytes(5000))
    (folder / "text.onnx").write_text("a text")
    (folder / "none").mkdir()
    (folder / "bad").mkdir()
    (folder / "bad" / "cat.png").write_bytes(b"not a picture")
    (folder / "secret.data").write_bytes(bytes(4320))
    pixels = np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8)
    for name in ("cat.png", "pictures/a.png", "pictures/b.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / name)
    (folder / "odd.toml").write_text("title = 3")
    np.save(folder / "p.npy", np.ones((2, 2)))
    for variant in ("desalinet", "salinet"):
        assert (
            cli.main(
                ["-q", "compile", str(folder / "net.onnx"), "--variant", variant, "-o", str(folder / "two")]
            )
            == 0
        )
    shutil.copytree(folder / "two", folder / "torn")
    (folder / "torn" / "net.salinet.reversed.onnx").unlink()
    for part in ("forward", "reversed"):
        (folder / "torn" / f"net.desalinet.{part}.onnx").unlink()
    return folder


def contents(folder):
    return {str(path.relative_to(folder)): path.is_file() and path.read_bytes() for path in folder.rglob("*")}


@pytest.fixture
def refused(stage, tmp_path, monkeypatch, capfd):
    def call(line):
        folder = tmp_path / "work"
        shutil.copytree(stage, folder)
        monkeypatch.chdir(folder)
        before = contents(tmp_path)
        capfd.readouterr()
        status = cli.main(line.split(" "))
        out, err = capfd.readouterr()
        assert contents(tmp_path) == before, "something was left behind"
        assert out == ""
        assert status == 1
        assert err.endswith("\n")
        assert len(err.splitlines()) == 1, err
        assert err.startswith("revgraph: error: ")
        return err.strip()

    return call


@pytest.mark.parametrize("command", [COMPILE, "inspect {}", "run {} cat.png --recipe caffe -o out.png"])
@pytest.mark.parametrize(
    ("model", "what"),
    [
        ("missing.onnx", "cannot read 'missing.onnx': there is no such file"),
        ("empty.onnx", "it is empty"),
        ("cut.onnx", "cut short"),
        ("random.onnx", "not an ONNX file"),
        ("text.onnx", "not an ONNX file"),
        ("net.onnx/more.onnx", ""),
        ("n" * 300, "name too long"),
        ("cycle.onnx", "not valid ONNX"),
        ("outside.onnx", "the data of 'w2' lies outside its folder"),
        ("unknown.onnx", "node 'relu1' (Fancy): ONNX has no such operator"),
        ("custom.onnx", "node 'relu1' (com.microsoft.Fancy): 'com.microsoft' is not ONNX's own domain"),
        ("reserved.onnx", "input or output called 'p'"),
        ("net.onnx --at nowhere", "no layer 'nowhere'"),
        ("net.onnx --at x", "it is an input of the model"),
        ("two.onnx", "it depends on several inputs, 'x', 'z'"),
    ],
)
def test_a_bad_model(refused, command, model, what):
    assert what in refused(command.format(model))


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (COMPILE.format("none"), "it is a folder"),
        ("inspect none", "it is a folder"),
        ("run none cat.png -o out.png", "no compilation in 'none'"),
        (COMPILE.format("norule.onnx"), "no rule for Hardmax (rules exist for"),
        (COMPILE.format("net.onnx --input z"), "no input 'z'"),
        (COMPILE.format("class.onnx --fused --choose class"), "input or output called 'class'"),
        (COMPILE.format("imagenet"), "no network in recipe 'imagenet'"),
        ("compile net.onnx --variant salinet -o net.onnx", "cannot write"),
        ("compile net.onnx --variant salinet -o net.onnx/deeper/out", "cannot write"),
        ("compile net.onnx --variant salinet -o " + "n" * 300, "cannot write"),
    ],
)
def test_a_compilation_that_cannot_be(refused, line, what):
    assert what in refused(line)


@pytest.mark.parametrize("recipe", ["", " --recipe caffe"])
@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("run net.onnx none.png -o out.png", "no such file"),
        ("run net.onnx net.onnx -o out.png", "not a picture"),
        ("run net.onnx bad -o out", "not a picture"),
        ("run net.onnx cat.png bad/cat.png -o out", "not a picture"),
        ("run net.onnx none -o out", "no pictures in 'none'"),
        ("run net.onnx " + "n" * 300 + " -o out", "name too long"),
        ("run net.onnx pictures -o out.png", "there are 2 results"),
        ("run net.onnx cat.png --neuron max --neuron centre -o out.png", "there are 2 results"),
        ("run net.onnx cat.png -o cat.png/out.png", "cannot write"),
        ("run net.onnx pictures -o cat.png/out", "cannot write"),
        ("run net.onnx pictures -o net.onnx", "cannot write"),
        ("run net.onnx cat.png -o out.bmp", "cannot write picture 'out.bmp': unknown suffix '.bmp'"),
        ("run net.onnx cat.png -o " + "n" * 300 + ".png", "too long"),
        ("run net.onnx cat.png --neuron nonsense -o out.png", "unknown neuron 'nonsense'"),
        ("run net.onnx cat.png --neuron class:5 -o out.png", "y has no channel 5"),
        ("run net.onnx cat.png --neuron class:one -o out.png", "bad neuron 'class:one'"),
        ("run net.onnx cat.png --neuron p.npy -o out.png", "p.npy"),
        ("run net.onnx cat.png --neuron none.npy -o out.png", "none.npy"),
        ("run two cat.png -o out.png", "several compilations in 'two': net.desalinet, net.salinet"),
        ("run two cat.png --variant identity -o out.png", "no compilation for identity in 'two'"),
        ("run two cat.png --variant salinet --at pool1 -o out.png", "it was compiled at 'logits'"),
        ("run torn cat.png -o out.png", "net.salinet.reversed.onnx"),
        ("run grey.onnx cat.png -o out.png", "cannot feed pictures to this network"),
        ("run flat.onnx cat.png -o out.png", "3 to 5 axes"),
    ],
)
def test_a_run_that_cannot_be(refused, line, what, recipe):
    assert what in refused(line + recipe)


@pytest.mark.parametrize(
    "line",
    [
        "run none.onnx cat.png -o out.gif",
        "compare none.onnx none.onnx cat.png -o out.gif",
        "figure overview --model none.onnx -o out.gif",
        "search pictures --model none.onnx --at y --channel 0 -o out.gif",
    ],
)
def test_a_type_that_is_not_written_is_refused_before_the_work(refused, line):
    assert "cannot write picture 'out.gif': unknown suffix '.gif'" in refused(line)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("run net.onnx cat.png --recipe nonsense -o out.png", "unknown recipe 'nonsense'"),
        ("run net.onnx cat.png --recipe none.toml -o out.png", "cannot read recipe 'none.toml'"),
        ("run net.onnx cat.png --recipe odd.toml -o out.png", "field 'title' must be a text"),
        ("run free.onnx cat.png --recipe caffe -o out.png", "neither it nor the recipe fixes their size"),
    ],
)
def test_a_recipe_that_cannot_be(refused, line, what):
    assert what in refused(line)


def test_a_folder_in_the_way_of_one_picture_stops_all(refused, stage):
    (stage / "taken" / "b.desalinet.png").mkdir(parents=True)
    try:
        assert "b.desalinet.png" in refused("run net.onnx pictures --recipe caffe -o taken")
    finally:
        shutil.rmtree(stage / "taken")


@pytest.mark.parametrize(
    "line",
    ["compile net.onnx --variant salinet -o new/out", "run net.onnx cat.png --recipe caffe -o new/out"],
)
def test_a_full_disk_leaves_nothing(refused, monkeypatch, line):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert "No space left on device" in refused(line)


def test_pictures_where_none_can_be_staged(refused, monkeypatch):
    def fail(*args, **kwargs):
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found", "/tmp")

    monkeypatch.setattr(tempfile, "mkdtemp", fail)
    assert "No usable temporary directory" in refused("run net.onnx cat.png --recipe caffe -o out.png")


@pytest.mark.parametrize(
    "line",
    [
        "",
        "nonsense",
        "comp net.onnx",
        "compile",
        "compile net.onnx",
        "compile net.onnx --variant desalinet",
        "compile net.onnx -o out",
        "compile net.onnx --variant nonsense -o out",
        "compile net.onnx --vari desalinet -o out",
        "compile net.onnx --variant desalinet --target nowhere -o out",
        "compile net.onnx --variant desalinet --lrn maybe -o out",
        "compile net.onnx --variant desalinet --choose max -o out",
        "compile net.onnx --variant desalinet --fused --choose centre -o out",
        "compile net.onnx --variant desalinet --fused --choose -o out",
        "compile net.onnx --variant desalinet --colour red -o out",
        "run net.onnx -o out",
        "run net.onnx cat.png",
        "run net.onnx cat.png -o out --seed one",
        "run net.onnx cat.png -o out --seed -1",
        "run net.onnx cat.png -o out --threads -1",
        "run net.onnx cat.png -o out --threads many",
        "run net.onnx cat.png -o out --device toaster",
        "inspect",
        "inspect net.onnx more",
        "variants more",
        "--quie variants",
    ],
)
def test_wrong_usage(stage, monkeypatch, capfd, line):
    monkeypatch.chdir(stage)
    before = contents(stage)
    with pytest.raises(SystemExit) as left:
        cli.main(line.split())
    out, err = capfd.readouterr()
    assert (left.value.code, out) == (2, "")
    assert "usage: revgraph" in err
    assert "error: " in err
    assert contents(stage) == before


def test_a_bug_keeps_its_traceback(monkeypatch, stage):
    def bug(*args, **kwargs):
        raise ZeroDivisionError

    monkeypatch.chdir(stage)
    monkeypatch.setattr("revgraph.compile", bug)
    with pytest.raises(ZeroDivisionError):
        cli.main(COMPILE.format("net.onnx").split())
