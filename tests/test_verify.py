"""The proof passes on what is right, and fails on whatever was tampered with, past the digest."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from layers import mixed, weights
from networks import cnn, model, node, overflowing
from onnx import numpy_helper
from test_architectures import MODELS, reweighted

import revgraph
from revgraph.cli import main
from revgraph.verify import Check, verify
from revgraph.weights import LightModel, detach

EXPORTED = Path(__file__).parent / "exported"


def failures(checks: list[Check]) -> list[str]:
    return [check.what for check in checks if check.passed is False]


@pytest.mark.parametrize("variant", revgraph.VARIANTS)
@pytest.mark.parametrize(
    "net", [cnn(), cnn("N", False), mixed(), mixed(2)], ids=["cnn", "y", "mixed", "batch 2"]
)
def test_what_is_right_passes(net, variant):
    checks = list(verify(revgraph.compile(net, variant=variant), net))
    assert failures(checks) == []
    assert sum(check.passed is None for check in checks) <= 4


@pytest.mark.parametrize(
    "path", sorted(EXPORTED.glob("*/*.onnx")), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_every_exported_network_passes(path):
    for variant in "salinet", "desalinet-centre":
        assert failures(list(verify(revgraph.compile(path, variant=variant), path))) == []


def test_each_check_has_its_figure():
    net = cnn()
    checks = {check.what: check for check in verify(revgraph.compile(net, variant="salinet"), net)}
    assert len(checks) == 9
    for what, check in checks.items():
        assert check.verdict == "PASSED", what
        assert check.figure is None or check.figure < 1e-4, what


def test_checks_that_do_not_apply_say_why():
    net = cnn(1)
    checks = {check.what: check for check in verify(revgraph.compile(net, variant="identity"))}
    skipped = {what: check.detail for what, check in checks.items() if check.verdict == "SKIPPED"}
    assert skipped == {
        "derivative by central differences": "only salinet with LRN by BP is one, not identity",
        "signs at each ReLU, Eq. (10)": "identity passes ReLU by",
        "outputs of the model": "no model was given",
        "two images as one batch": "the batch is fixed at 1",
    }


def test_a_batch_that_is_free_by_its_name_alone():
    """Beside the path an output is reshaped to the elements of one image."""
    nodes = [node("Relu", "x", "y"), node("Reshape", "y flat", "z")]
    net = model(nodes, ["N", 3, 4, 4], {"flat": np.array([48])}, outputs=["y", "z"])
    found = {check.what: check for check in verify(revgraph.compile(net, variant="salinet", at="y"), net)}
    assert found["two images as one batch"].passed is None
    assert found["two images as one batch"].detail == "the network itself runs for one image only"
    assert found["projections of one image at once"].passed


def test_pictures_of_bytes_and_of_any_size():
    """An integer input, a Cast behind it, free sizes, and a second input that is held constant."""
    nodes = [
        node("Cast", "x", "real", to=onnx.TensorProto.FLOAT),
        node("Conv", "real w", "c", strides=[2, 2]),
        node("Relu", "c", "r"),
        node("Mul", "r other", "y"),
    ]
    net = model(nodes, ["N", 3, "H", "W"], {"w": weights(4, 3, 3, 3), "other": np.ones(1, np.float32)})
    net.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    assert failures(list(verify(revgraph.compile(net, variant="salinet"), net))) == []


# ----- Tampering, with a digest that fits -----


def changed(light: LightModel, change: Callable[[onnx.GraphProto], object]) -> LightModel:
    whole = light.whole()
    change(whole.graph)
    return detach(whole)


def flipped(graph: onnx.GraphProto) -> None:
    """One weight of one kernel changes its sign."""
    kernel = next(tensor for tensor in graph.initializer if tensor.name == "w2")
    values = numpy_helper.to_array(kernel).copy()
    values.reshape(-1)[np.abs(values).argmax()] *= -1
    kernel.CopyFrom(numpy_helper.from_array(values, kernel.name))


def rewired(graph: onnx.GraphProto) -> None:
    """What the first ReLU's gate reads is p, past the convolution between."""
    gate = next(n for n in graph.node if n.op_type == "Mul" and n.name.startswith("ra/"))
    gate.input[:] = ["p", gate.input[1]]


def swapped(first: str, second: str) -> Callable[[onnx.GraphProto], None]:
    """Two taps change places."""
    other = {first: second, second: first}

    def change(graph: onnx.GraphProto) -> None:
        for each in graph.node:
            each.input[:] = [other.get(name, name) for name in each.input]

    return change


def without(operator: str) -> Callable[[onnx.GraphProto], None]:
    """The operators of one kind pass on what they are given."""

    def change(graph: onnx.GraphProto) -> None:
        for each in [n for n in graph.node if n.op_type == operator]:
            each.op_type = "Identity"
            del each.input[1:], each.attribute[:]

    return change


def twins() -> onnx.ModelProto:
    """Two ReLUs of one shape, whose masks could change places unnoticed by onnxruntime."""
    nodes = [node("Conv", "x w", "a", pads=[1] * 4), node("Relu", "a", "ra")]
    nodes += [node("Conv", "ra v", "b", pads=[1] * 4), node("Relu", "b", "y")]
    return model(nodes, ["N", 3, 6, 6], {"w": weights(3, 3, 3, 3), "v": weights(3, 3, 3, 4)[..., :3]})


LAYERS, NETWORK = "reversed layers, one by one", "reversed network, from y to x"


@pytest.mark.parametrize("variant", ["salinet", "desalinet", "identity-centre"])
def test_one_weights_sign(variant):
    pair = revgraph.compile(cnn(), variant=variant)
    tampered = replace(pair, light_reversed=changed(pair.light_reversed, flipped))
    assert LAYERS in failures(list(verify(tampered)))


def test_one_wire():
    pair = revgraph.compile(twins(), variant="salinet")
    tampered = replace(pair, light_reversed=changed(pair.light_reversed, rewired))
    assert LAYERS in failures(list(verify(tampered)))


@pytest.mark.parametrize("variant", ["salinet", "desalinet"])
def test_taps_that_changed_places(variant):
    pair = revgraph.compile(twins(), variant=variant)
    tampered = replace(pair, light_reversed=changed(pair.light_reversed, swapped("ra/mask", "y/mask")))
    assert {LAYERS, NETWORK} <= set(failures(list(verify(tampered))))


def test_what_is_not_rectified_shows_in_the_signs():
    pair = revgraph.compile(twins(), variant="deconvnet")
    tampered = replace(pair, light_reversed=changed(pair.light_reversed, without("Relu")))
    assert "signs at each ReLU, Eq. (10)" in failures(list(verify(tampered)))


def test_a_forward_graph_that_computes_something_else():
    net = cnn()
    pair = revgraph.compile(net, variant="salinet")
    both = {side: changed(getattr(pair, side), flipped) for side in ("light_forward", "light_reversed")}
    assert failures(list(verify(replace(pair, **both), net))) == ["outputs of the model"]


def test_another_model():
    checks = list(verify(revgraph.compile(cnn(), variant="salinet"), cnn(1)))
    assert failures(checks) == ["outputs of the model"]
    assert "it was compiled from another model" in [check.detail for check in checks]


def test_not_a_number():
    def spoilt(graph: onnx.GraphProto) -> None:
        kernel = next(tensor for tensor in graph.initializer if tensor.name == "w2")
        kernel.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(kernel) * np.float32(np.nan), "w2"))

    pair = revgraph.compile(cnn(), variant="salinet")
    checks = list(verify(replace(pair, light_reversed=changed(pair.light_reversed, spoilt))))
    assert {FINITE, LAYERS} <= set(failures(checks))
    assert checks[0].detail.startswith("x_hat of 'pool1' holds ")


FINITE = "finite numbers"


@pytest.mark.parametrize("target", ["portable", "cpu", "web"])
def test_a_layer_that_overflows_is_named(target):
    """Random x and p are about 1; the factors' products are not."""
    (failed,) = (
        check
        for check in verify(
            revgraph.compile(overflowing(1e20, 1e19, 1e-20), variant="salinet", target=target)
        )
        if check.what == FINITE
    )
    assert failed.verdict == "FAILED"
    assert re.match(r"layer 'conv2' holds .*\d infinite of 192 numbers, the first at \[0, 0, ", failed.detail)
    (failed,) = (
        check
        for check in verify(
            revgraph.compile(overflowing(3e38, 1e-30, 1e-5), variant="salinet", target=target)
        )
        if check.what == FINITE
    )
    assert failed.detail.startswith("layer 'conv1' holds ")


def test_float16_that_overflows_inside_is_named_without_the_model():
    """What a ReLU then shuts, or a sigmoid saturates, leaves y finite."""
    net = overflowing(500.0, 500.0, 1e-6)
    sigmoid = node("Sigmoid", "conv2", "s")
    net.graph.node.insert(2, sigmoid)
    net.graph.node[3].input[0] = "s"
    pair = revgraph.compile(net, variant="salinet", precision="fp16")
    failed = {check.what: check.detail for check in verify(pair) if check.passed is False}
    assert failed[FINITE].startswith("layer 'conv2' holds ")
    assert FINITE not in failures(list(verify(revgraph.compile(net, variant="salinet"))))


def test_x_hat_of_a_layer_that_overflows_is_named():
    net = overflowing(1e-30, 1e30, 1.0)
    pair = revgraph.compile(net, variant="salinet")
    assert FINITE not in failures(list(verify(pair)))

    def steep(graph: onnx.GraphProto) -> None:
        kernel = next(tensor for tensor in graph.initializer if tensor.name == "w2")
        kernel.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(kernel) * np.float32(3e8), "w2"))

    checks = list(verify(replace(pair, light_reversed=changed(pair.light_reversed, steep))))
    (detail,) = (check.detail for check in checks if check.what == FINITE)
    assert re.match(r"x_hat of 'conv1' holds \d+ infinite of 192 numbers", detail)


def test_denormal_weights_are_counted():
    net = cnn()
    kernel = numpy_helper.to_array(net.graph.initializer[0]).copy()
    kernel.flat[:4] = 1e-40, 0, -1e-44, 1e-37
    net.graph.initializer[0].CopyFrom(numpy_helper.from_array(kernel, net.graph.initializer[0].name))
    checks = {check.what: check for check in verify(revgraph.compile(net, variant="salinet"), net)}
    assert failures(list(checks.values())) == []
    assert checks[FINITE].detail == "2 weights are denormal, and may be taken for zero"


# ----- The command -----


@pytest.fixture
def compiled(tmp_path: Path) -> tuple[Path, Path]:
    path, folder = tmp_path / "net.onnx", tmp_path / "out"
    onnx.save(cnn(), path)
    revgraph.compile(path, variant="salinet").save(folder)
    return path, folder


@pytest.mark.parametrize("fused", [False, True])
def test_the_command_ends_in_its_verdict(compiled, capsys, fused):
    path, folder = compiled
    revgraph.compile(path, variant="salinet").save(folder, fused=fused)
    assert main(["verify", str(folder), "--model", str(path)]) == 0
    *lines, verdict = capsys.readouterr().out.splitlines()
    assert verdict == "PASSED"
    assert len(lines) == 9
    assert all(line.startswith("PASSED ") for line in lines)


def test_as_json(compiled, capsys):
    assert main(["verify", str(compiled[1]), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["passed"] is True
    assert [check["passed"] for check in found["checks"]].count(None) == 1


def test_a_failure_is_exit_status_1(compiled, capsys, monkeypatch):
    monkeypatch.setattr("revgraph.verify.checks.linear", lambda run: Check("linear in p", False, 0.5, ""))
    assert main(["verify", str(compiled[1])]) == 1
    out, err = capsys.readouterr()
    assert "FAILED  linear in p" in out
    assert out.endswith("\nFAILED\n")
    assert err == ""


def test_a_model_that_cannot_be_read_is_refused_before_any_check(compiled, capsys):
    path, folder = compiled
    path.write_bytes(b"")
    assert main(["verify", str(folder), "--model", str(path)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"revgraph: error: cannot read '{path}': it is empty (give the path of an .onnx file)\n"


def test_a_tampered_file_is_refused_before_any_check(compiled, capsys):
    path, folder = compiled
    reversed_file = folder / "net.salinet.reversed.onnx"
    net = onnx.load(reversed_file)
    flipped(net.graph)
    onnx.save(net, reversed_file)
    assert main(["verify", str(folder)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "are not as revgraph wrote them: their digest differs" in err
    revgraph.compile(path, variant="desalinet").save(folder / "other")
    (folder / "other" / "net.desalinet.reversed.onnx").replace(reversed_file)
    assert main(["verify", str(folder)]) == 1
    assert "do not belong together" in capsys.readouterr().err


# ----- Real networks -----


@pytest.mark.heavy
@pytest.mark.parametrize("name", MODELS)
def test_the_architectures_pass(name):
    net = reweighted(name, dynamic=True)
    for variant in "salinet", "desalinet-centre":
        assert failures(list(verify(revgraph.compile(net, variant=variant), net))) == []


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["squeezenet1_0", "resnet18", "resnet50"])
@pytest.mark.parametrize("variant", ["salinet", "desalinet", "deconvnet"])
def test_the_trained_networks_pass(shared, name, variant):
    path = shared / "models" / f"{name}.onnx"
    assert failures(list(verify(revgraph.compile(path, variant=variant), path))) == []
