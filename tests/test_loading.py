"""Which files `load` reads, and which it refuses."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from networks import cnn
from onnx import helper

import revgraph
from revgraph import pair, weights
from revgraph.errors import RevgraphError


def compiled(net=None, variant="desalinet", **options):
    return revgraph.compile(net or cnn(), variant=variant, **options)


def refused(folder, match, variant=None):
    with pytest.raises(RevgraphError, match=match) as raised:
        revgraph.load(folder, variant)
    assert "\n" not in str(raised.value)


def test_a_folder_without_compilations_is_refused(tmp_path):
    refused(tmp_path, "no compilation in .*revgraph compile")
    refused(tmp_path / "none", "there is no such folder")
    onnx.save(cnn(), tmp_path / "net.onnx")
    refused(tmp_path, "no compilation in")
    compiled().save(tmp_path)
    refused(tmp_path, "no compilation for salinet", "salinet")


def test_several_compilations_need_a_variant(tmp_path):
    compiled().save(tmp_path)
    compiled(variant="salinet").save(tmp_path, fused=True)
    refused(tmp_path, r"several compilations.*net\.desalinet, net\.salinet.*--variant")
    assert revgraph.load(tmp_path, "salinet").variant == "salinet"
    compiled(variant="salinet-centre").save(tmp_path)
    assert revgraph.load(tmp_path, "salinet").variant == "salinet"


@pytest.mark.parametrize("name", ["net.onnx", "squeezenet1.1-7.onnx", "net.v2.onnx"])
def test_the_model_itself_may_lie_beside_its_compilation(tmp_path, name):
    onnx.save(cnn(), tmp_path / name)
    compiled(tmp_path / name).save(tmp_path)
    assert revgraph.load(tmp_path).variant == "desalinet"


def test_half_a_pair_is_refused(tmp_path):
    forward, backward = compiled().save(tmp_path)
    backward.unlink()
    refused(tmp_path, "reversed.onnx.*no such file")
    compiled().save(tmp_path)
    forward.unlink()
    refused(tmp_path, "forward.onnx|no compilation")


@pytest.mark.parametrize("other", [{"at": "relu2"}, {"net": cnn(batch=2)}, {"lrn": "bp"}])
def test_files_of_different_compilations_refuse_each_other(tmp_path, other):
    _, backward = compiled().save(tmp_path / "a")
    _, foreign = compiled(**other).save(tmp_path / "b")
    backward.write_bytes(foreign.read_bytes())
    refused(tmp_path / "a", "do not belong together: they come from different compilations")


def rewrite(path, change):
    model = onnx.load(path)
    change(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


def weight_byte(model):
    tensor = max(model.graph.initializer, key=lambda t: len(t.raw_data))
    data = bytearray(tensor.raw_data)
    data[5] ^= 1
    tensor.raw_data = bytes(data)


def attribute(model):
    node = next(n for n in model.graph.node if n.op_type in ("Conv", "ConvTranspose"))
    attribute = next(a for a in node.attribute if a.name == "pads")
    attribute.ints[0] += 1


def swapped_taps(model):
    nodes = [n for n in model.graph.node if set(n.output) & {"relu1/mask", "relu2/mask"}]
    for node in nodes or model.graph.node:
        for field in (node.output, node.input):
            swap = {"relu1/mask": "relu2/mask", "relu2/mask": "relu1/mask"}
            field[:] = [swap.get(name, name) for name in field]


def metadata_taps(model):
    props = {entry.key: entry.value for entry in model.metadata_props}
    props["revgraph.taps"] = json.dumps(json.loads(props["revgraph.taps"])[::-1])
    helper.set_model_props(model, props)


def metadata_at(model):
    props = {entry.key: entry.value for entry in model.metadata_props}
    helper.set_model_props(model, props | {"revgraph.at": "nowhere"})


CHANGES = [weight_byte, attribute, swapped_taps, metadata_taps, metadata_at]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("file", [0, 1])
def test_a_tampered_pair_is_refused(tmp_path, file, change):
    rewrite(compiled().save(tmp_path)[file], change)
    refused(tmp_path, "not as revgraph wrote|do not belong together")


@pytest.mark.parametrize("change", CHANGES)
def test_a_tampered_fused_file_is_refused(tmp_path, change):
    rewrite(compiled().save(tmp_path, fused=True)[0], change)
    refused(tmp_path, "not as revgraph wrote it")


@pytest.mark.parametrize("lacking", ["variant", "at", "input", "taps", "pair", "digest"])
@pytest.mark.parametrize("file", [0, 1])
def test_a_file_without_its_metadata_is_refused(tmp_path, file, lacking):
    def strip(model):
        kept = {e.key: e.value for e in model.metadata_props if e.key != f"revgraph.{lacking}"}
        helper.set_model_props(model, kept)

    rewrite(compiled().save(tmp_path)[file], strip)
    refused(tmp_path, "not a file of revgraph's")


@pytest.mark.parametrize("taps", ["", "{}", "null", "[1]", "not json", '["nowhere"]'])
@pytest.mark.parametrize("fused", [False, True])
def test_garbled_taps_are_refused(tmp_path, fused, taps):
    def garble(model):
        props = {entry.key: entry.value for entry in model.metadata_props}
        helper.set_model_props(model, props | {"revgraph.taps": taps})

    for path in compiled().save(tmp_path, fused=fused):
        rewrite(path, garble)
    refused(tmp_path, "revgraph")


def forge(paths, **noted):
    """Change what is noted, and write the digest anew: it is no signature."""
    lights = [weights.detach(onnx.load(path)) for path in paths]
    for light in lights:
        pair.set_metadata(light.model, noted)
    digest = pair.digest_of(*lights)
    for path, light in zip(paths, lights, strict=True):
        pair.set_metadata(light.model, {"digest": digest})
        path.write_bytes(light.whole().SerializeToString())


FORGED = {
    "taps": ["{}", "[[]]", "[" * 9999, '["relu1/mask"]'],
    "signals": ["[]", '{"x": 1}', "nothing"],
    "scales": ["1", '{"x": null}'],
    "beyond_paper": ["null", "[0]"],
    "variant": ["", "../x"],
    "at": ["nowhere", "x"],
    "input": ["nowhere", "prob"],
}


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in FORGED.items() for value in values]
)
@pytest.mark.parametrize("fused", [False, True])
def test_forged_notes_are_refused(tmp_path, fused, key, value):
    forge(compiled().save(tmp_path, fused=fused), **{key: value})
    refused(tmp_path, "is not a file of revgraph's")


@pytest.mark.parametrize("fused", [False, True])
def test_a_forged_compilation_that_is_consistent_is_read(tmp_path, fused):
    """Else the tests before would say little."""
    forge(compiled().save(tmp_path, fused=fused), beyond_paper='["relu1"]')
    assert revgraph.load(tmp_path).beyond_paper == ("relu1",)


def test_a_failed_save_leaves_the_old_files(tmp_path, monkeypatch):
    old = compiled()
    old.save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(self, *args, **kwargs):
        raise OSError(28, "No space left on device", str(self))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", fail)
        with pytest.raises(RevgraphError, match="No space left"):
            compiled(at="pool1").save(tmp_path)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert revgraph.load(tmp_path) == old


KILLED = """
import os, signal, sys
import revgraph

pair = revgraph.compile(sys.argv[1], variant="desalinet", lrn="bp")
replace, left = os.replace, int(sys.argv[3])

def killed(*places):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    replace(*places)

os.replace = killed
pair.save(sys.argv[2])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="SIGKILL and locks of folders are POSIX's")
@pytest.mark.parametrize("moved", [0, 1])
def test_a_save_that_was_killed_between_its_files_is_finished(tmp_path, moved):
    onnx.save(cnn(), tmp_path / "net.onnx")
    out = tmp_path / "out"
    revgraph.compile(tmp_path / "net.onnx", variant="desalinet", lrn="identity").save(out)
    command = [sys.executable, "-c", KILLED, str(tmp_path / "net.onnx"), str(out), str(moved)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert revgraph.load(out).metadata["lrn"] == "bp"
    assert sorted(path.name for path in out.iterdir()) == [
        "net.desalinet.forward.onnx",
        "net.desalinet.reversed.onnx",
    ]
