"""Devices: what is named, what is there, and what is handed over without a copy."""

import json
import sys

import numpy as np
import onnxruntime
import pytest
from networks import cnn, picture

import revgraph
from revgraph import cli, doctor, runtime
from revgraph.errors import RevgraphError
from revgraph.runtime import Device
from revgraph.session import Session
from revgraph.weights import LightModel


@pytest.mark.parametrize(
    ("name", "device"),
    [
        ("cpu", Device()),
        ("cuda", Device("cuda")),
        ("cuda:0", Device("cuda")),
        ("cuda:11", Device("cuda", 11)),
    ],
)
def test_devices_have_names(name, device):
    assert Device.of(name) == device


@pytest.mark.parametrize("name", ["", "gpu", "CUDA", "cpu:0", "cuda:", "cuda:-1", "cuda:1 ", "cuda:1234"])
def test_other_names_are_refused(name, capsys):
    with pytest.raises(RevgraphError, match="unknown device"):
        Device.of(name)
    with pytest.raises(SystemExit):
        cli.main(["demo", f"--device={name}"])
    assert "known: cpu, cuda, cuda:0" in capsys.readouterr().err


# ----- Where onnxruntime is not -----


@pytest.mark.parametrize(
    "use",
    [
        lambda: runtime.ort_value(np.zeros(1)),
        lambda: runtime.ort_values({"w": np.zeros(1)}),
        lambda: runtime.open_light(LightModel(cnn(), {}), {}, 0),
        runtime.check_cuda,
    ],
    ids=["ort_value", "ort_values", "open_light", "check_cuda"],
)
def test_whatever_needs_onnxruntime_says_what_to_install(monkeypatch, use):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        RevgraphError, match=r'onnxruntime is not installed \(pip install "revgraph\[cpu\]"\)'
    ):
        use()


# ----- Where CUDA is not -----


@pytest.fixture
def no_cuda(monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])


def test_a_session_never_runs_elsewhere_instead(no_cuda):
    pair = revgraph.compile(cnn(), variant="salinet", target="cuda")
    with pytest.raises(RevgraphError, match=r"cannot run on CUDA: this onnxruntime .* is built for CPUs"):
        Session(pair, device="cuda")


def test_what_the_loader_misses_is_named(monkeypatch, tmp_path, capfd):
    """A provider whose libraries are absent, as where there is no NVIDIA driver."""
    capi = tmp_path / "capi"
    capi.mkdir()
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [runtime.CUDA])
    monkeypatch.setattr(onnxruntime, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(RevgraphError, match=r"there is no CUDA provider in '.*capi'"):
        runtime.check_cuda()
    (capi / "libonnxruntime_providers_cuda.so").write_bytes(b"no library")
    with pytest.raises(RevgraphError, match=r"cannot run on CUDA: .*libonnxruntime_providers_shared\.so"):
        runtime.check_cuda()
    assert capfd.readouterr() == ("", "")


def test_commands_say_so_in_one_line(no_cuda, capsys, tmp_path):
    assert cli.main(["demo", "-o", str(tmp_path / "out"), "--device", "cuda"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "revgraph[gpu]" in err
    assert not (tmp_path / "out").exists()


# ----- Doctor -----


def test_doctor_says_what_runs_and_why_not_the_rest(no_cuda, capsys):
    assert cli.main(["doctor", "--json"]) == 0
    found = {row["what"]: row for row in json.loads(capsys.readouterr().out)}
    assert found["cpu"]["works"] is True
    assert found["cuda"]["works"] is False
    assert "revgraph[gpu]" in found["cuda"]["about"]
    assert {"onnxruntime", "[demo]", "[draw]", "[compare]"} <= found.keys()
    assert cli.main(["doctor"]) == 0
    assert ["cuda", "no"] in [line.split()[:2] for line in capsys.readouterr().out.splitlines()]


def test_doctor_without_onnxruntime(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert cli.main(["doctor"]) == 1
    assert "revgraph[cpu]" in capsys.readouterr().out


def test_a_device_that_computes_something_else_does_not_work(monkeypatch):
    monkeypatch.setattr(Session, "reverse", lambda self, trace, p: p)
    (found,) = (f for f in doctor.examine() if f.what == "cpu")
    assert not found.works
    assert "[1.0, 1.0] in place of [3.0, 0.0]" in found.about


# ----- Handed over -----


class Foreign:
    """Another library's tensor: it has a DLPack protocol and nothing else."""

    def __init__(self, values):
        self._values = values

    def __dlpack__(self, **options):
        return self._values.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._values.__dlpack_device__()


def test_tensors_that_speak_dlpack_go_in_and_come_out():
    session = Session(revgraph.compile(cnn(), variant="desalinet"))
    x = picture(2, 3, 8, 8)
    trace = session.forward(Foreign(x))
    p = picture(*trace.y.shape)
    x_hat = session.reverse_on_device(trace, Foreign(p))
    np.testing.assert_array_equal(np.from_dlpack(x_hat), session.reverse(session.forward(x), p))


def test_they_have_to_fit_too():
    session = Session(revgraph.compile(cnn(), variant="desalinet"))
    with pytest.raises(RevgraphError, match=r"it is float64 \(1, 3, 8, 8\)"):
        session.forward(Foreign(np.zeros((1, 3, 8, 8))))
    trace = session.forward(picture(1, 3, 8, 8))
    with pytest.raises(RevgraphError, match=r"p does not fit: it is float32 \(1, 3\)"):
        session.reverse(trace, Foreign(np.zeros((1, 3), np.float32)))


@pytest.mark.parametrize("given", [[1.0, 2.0], None, "x"], ids=str)
def test_what_is_no_tensor_is_refused(given):
    session = Session(revgraph.compile(cnn(), variant="desalinet"))
    with pytest.raises(RevgraphError, match=f"cannot take a {type(given).__name__}"):
        session.forward(given)
