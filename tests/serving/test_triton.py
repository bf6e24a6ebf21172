"""A repository for Triton: its own schema reads the configs, and its backend's rules, restated, hold."""

from pathlib import Path
from typing import Any

import networks
import numpy as np
import onnx
import pytest
from triton_rules import Server

import revgraph
from revgraph import cli
from revgraph.errors import RevgraphError
from revgraph.serving import triton


def packaged(folder: Path, net: onnx.ModelProto, **options: Any) -> tuple[Server, revgraph.Session]:
    compiled = revgraph.compile(net, variant="desalinet", target="cpu")
    for path, (content, _) in triton.repository(folder, compiled, **options).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else b"".join(content))
    return Server(folder), revgraph.Session(compiled)


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 3, 8, 8)).astype(np.float32)


def test_the_ensemble_and_the_fused_model_give_what_a_session_does(tmp_path: Path) -> None:
    server, session = packaged(tmp_path, networks.cnn())
    assert sorted(server.configs) == [
        "net.desalinet",
        "net.desalinet.forward",
        "net.desalinet.max",
        "net.desalinet.reversed",
    ]
    x = images(3)
    trace = session.forward(x)
    p = one_hot(trace.y)
    x_hat = session.reverse(trace, p)
    found = server.infer("net.desalinet", x=x, p=p)
    np.testing.assert_allclose(found["x_hat"], x_hat, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["prob"], trace.outputs["prob"], rtol=1e-5)
    np.testing.assert_allclose(server.infer("net.desalinet.max", x=x)["x_hat"], x_hat, rtol=1e-5, atol=1e-6)


def one_hot(y: np.ndarray) -> np.ndarray:
    return (y == y.max(axis=1, keepdims=True)).astype(y.dtype)


def test_requests_that_the_server_joins_get_what_each_would_alone(tmp_path: Path) -> None:
    """The forward model batches one way and the reversed another: rows stay with their bottleneck."""
    server, _ = packaged(tmp_path, networks.cnn())
    x = images(5)
    p = one_hot(server.infer("net.desalinet.forward", x=x)["logits"])
    alone = [server.infer("net.desalinet", x=x[i : i + 1], p=p[i : i + 1])["x_hat"] for i in range(5)]
    together = server.infer("net.desalinet.forward", x=x)
    taps = {t.name: together[t.name] for t in server.configs["net.desalinet.reversed"].input if t.name != "p"}
    order = [3, 0, 4]
    joined = server.infer("net.desalinet.reversed", p=p[order], **{k: v[order] for k, v in taps.items()})
    np.testing.assert_allclose(joined["x_hat"], np.concatenate(alone)[order], rtol=1e-5, atol=1e-6)


def test_a_class_for_each_picture_is_an_input_of_one_axis(tmp_path: Path) -> None:
    server, session = packaged(tmp_path, networks.cnn(), choose="class")
    (declared,) = [t for t in server.configs["net.desalinet.class"].input if t.name == "class"]
    assert list(declared.dims) == [1]
    assert list(declared.reshape.shape) == []
    x = images(2)
    trace = session.forward(x)
    p = np.zeros_like(trace.y)
    p[[0, 1], [4, 2]] = 1
    found = server.infer("net.desalinet.class", x=x, **{"class": np.array([[4], [2]])})
    np.testing.assert_allclose(found["x_hat"], session.reverse(trace, p), rtol=1e-5, atol=1e-6)


def test_a_network_of_one_picture_is_not_batched(tmp_path: Path) -> None:
    server, session = packaged(tmp_path, networks.cnn(batch=1))
    assert {config.max_batch_size for config in server.configs.values()} == {0}
    assert not any(config.HasField("dynamic_batching") for config in server.configs.values())
    x = images(1)
    trace = session.forward(x)
    p = one_hot(trace.y)
    found = server.infer("net.desalinet", x=x, p=p)["x_hat"]
    np.testing.assert_allclose(found, session.reverse(trace, p), rtol=1e-5, atol=1e-6)


def test_all_models_are_on_one_device(tmp_path: Path) -> None:
    server, _ = packaged(tmp_path, networks.cnn(), device="cuda:1", batch=4)
    for config in server.configs.values():
        assert config.max_batch_size == 4
        if config.platform != "ensemble":
            (group,) = config.instance_group
            assert (group.kind, list(group.gpus)) == (group.KIND_GPU, [1])


def test_a_type_that_triton_does_not_know_is_refused(tmp_path: Path) -> None:
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.BFLOAT16, [1])
    with pytest.raises(RevgraphError, match=r"cannot package .* Triton: 'x' is of type bfloat16 \(it knows"):
        triton._tensor(value)


def test_the_command_writes_it_and_says_what(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(networks.cnn(), tmp_path / "net.onnx")
    out = tmp_path / "models"
    assert cli.main(["package", str(tmp_path / "net.onnx"), "--for", "triton", "-o", str(out)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0].strip() for line in printed] == [
        str(out / "net.desalinet.forward" / "1" / "model.onnx"),
        str(out / "net.desalinet.reversed" / "1" / "model.onnx"),
        str(out / "net.desalinet.max" / "1" / "model.onnx"),
        str(out / "net.desalinet" / "config.pbtxt"),
    ]
    Server(out)
    assert cli.main(["package", str(tmp_path / "none.onnx"), "--for", "triton", "-o", str(out)]) == 1
    assert capsys.readouterr().err.startswith("revgraph: error: ")
