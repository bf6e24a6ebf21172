"""What is served, without a network between: requests checked, run together, finished."""

import asyncio
import io
import json
import zipfile
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networks
import numpy as np
import onnx
import pytest
from PIL import Image

import revgraph
from revgraph import cli, picture, recipe
from revgraph.errors import RevgraphError
from revgraph.explain import Explainer
from revgraph.finite import NotFiniteError
from revgraph.serving.kserve.batches import Batches
from revgraph.serving.kserve.service import Service

RECIPE = """
title = "five classes"
[input]
channels = "BGR"
scale = 1.0
mean = [0.1, 0.2, 0.3]
std = [1.0, 1.0, 1.0]
[labels]
file = "names.txt"
count = 5
"""


@pytest.fixture(scope="module")
def explainer(tmp_path_factory: pytest.TempPathFactory) -> Explainer:
    folder = tmp_path_factory.mktemp("recipe")
    (folder / "five.toml").write_text(RECIPE)
    (folder / "names.txt").write_text("ant\nbee\ncat\ndog\neel\n")
    session = revgraph.Session(networks.cnn(), variant="desalinet", bottleneck="packed")
    return Explainer(session, recipe.load(str(folder / "five.toml")))


@pytest.fixture(scope="module")
def service(explainer: Explainer) -> Service:
    return Service(explainer.session, explainer)


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 3, 8, 8)).astype(np.float32)


def png(seed: int = 0, size: tuple[int, int] = (8, 8)) -> bytes:
    content = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def of_bytes(*data: bytes) -> np.ndarray:
    return np.array([*data, None], object)[:-1]


def asked(service: Service, *wanted: str, **given: Any) -> dict[str, np.ndarray]:
    job = service.job(given, wanted)
    (answer,) = service.run([job])
    return service.finish(job, answer)


def one_hot(y: np.ndarray, channels: Sequence[int]) -> np.ndarray:
    p = np.zeros((len(channels), *y.shape[1:]), y.dtype)
    p[np.arange(len(channels)), channels] = 1
    return p


def test_a_tensor_gives_the_networks_outputs_and_x_hat_of_the_strongest(service, explainer):
    x = images(2)
    found = asked(service, x=x)
    trace = explainer.session.forward(x)
    assert list(found) == ["prob", "logits", "x_hat"]
    np.testing.assert_array_equal(found["prob"], trace.outputs["prob"])
    p = one_hot(trace.y, trace.y.argmax(1))
    np.testing.assert_allclose(found["x_hat"], explainer.session.reverse(trace, p), rtol=1e-6)


def test_scores_alone_are_those_of_the_model(service, explainer):
    x = images(3)
    found = asked(service, "prob", "logits", "channel", x=x)
    trace = explainer.session.forward(x)
    np.testing.assert_allclose(found["prob"], trace.outputs["prob"], rtol=1e-6)
    np.testing.assert_allclose(found["logits"], trace.y, rtol=1e-6)
    assert found["channel"].tolist() == trace.y.argmax(1).tolist()


def test_a_class_or_a_projection_says_whose_x_hat(service, explainer):
    x = images(2)
    trace = explainer.session.forward(x)
    expected = explainer.session.reverse(trace, one_hot(trace.y, [4, 1]))
    by_class = asked(service, "x_hat", "channel", "label", x=x, **{"class": np.array([4, 1])})
    np.testing.assert_allclose(by_class["x_hat"], expected, rtol=1e-6)
    assert by_class["channel"].tolist() == [4, 1]
    assert by_class["label"].tolist() == [b"eel", b"bee"]
    by_p = asked(service, "x_hat", "channel", x=x, p=one_hot(trace.y, [4, 1]))
    np.testing.assert_allclose(by_p["x_hat"], expected, rtol=1e-6)
    assert asked(service, "channel", x=x, p=np.ones_like(trace.y))["channel"].tolist() == [-1, -1]


def test_several_classes_of_one_image(service, explainer):
    x, classes = images(1), [3, 0, 3]
    trace = explainer.session.forward(x)
    found = asked(service, "x_hat", "label", x=x, **{"class": np.array(classes)})
    expected = explainer.session.reverse(trace, one_hot(trace.y, classes))
    np.testing.assert_allclose(found["x_hat"], expected, rtol=1e-6)
    assert found["label"].tolist() == [b"dog", b"ant", b"dog"]


def test_a_picture_is_fed_and_drawn_as_everywhere_else(service, explainer):
    data = png()
    x = explainer.feed(picture.decode(io.BytesIO(data)))
    found = asked(service, "x_hat", "x_hat_png", "saliency_png", picture=of_bytes(data, data))
    np.testing.assert_allclose(found["x_hat"][1:], asked(service, "x_hat", x=x)["x_hat"], rtol=1e-6)
    rgb = explainer.rgb(found["x_hat"][1])
    for name, pixels in {"x_hat_png": picture.tone_map(rgb), "saliency_png": picture.grey(rgb)}.items():
        drawn = np.asarray(Image.open(io.BytesIO(found[name][1])))
        np.testing.assert_array_equal(drawn, np.asarray(picture.image_of(pixels)))


def test_a_bottleneck_is_kept_for_later(service, explainer):
    x = images(2)
    kept = asked(service, "bottleneck", x=x)["bottleneck"]
    later = asked(service, bottleneck=kept, **{"class": np.array([4, 1])})
    trace = explainer.session.forward(x)
    assert list(later) == ["logits", "x_hat"]
    np.testing.assert_array_equal(later["logits"], trace.y)
    expected = explainer.session.reverse(trace, one_hot(trace.y, [4, 1]))
    np.testing.assert_allclose(later["x_hat"], expected, rtol=1e-6)
    with pytest.raises(RevgraphError, match="cannot tell 'prob': the bottleneck does not hold it"):
        asked(service, "prob", bottleneck=kept)


def test_a_bottleneck_is_offered_where_it_is_packed():
    plain = Service(revgraph.Session(networks.cnn(), variant="desalinet"))
    assert "bottleneck" not in plain.inputs.keys() | plain.outputs.keys()
    assert plain.inputs.keys() == {"x", "class", "p"}
    with pytest.raises(RevgraphError, match="unknown output 'bottleneck': 'net' has none"):
        plain.job({"x": images(1)}, ["bottleneck"])


def tampered(data: bytes, **changes: Any) -> bytes:
    arrays = {**np.load(io.BytesIO(data)), **changes}
    content = io.BytesIO()
    np.savez_compressed(content, **{name: array for name, array in arrays.items() if array is not None})
    return content.getvalue()


def test_a_strangers_bottleneck_is_refused(service, explainer):
    kept = asked(service, "bottleneck", x=images(1))["bottleneck"][0]
    (tap, *_) = explainer.session.pair.taps
    for bad, why in {
        b"": "not a NumPy archive",
        kept[:100]: "not a NumPy archive",
        tampered(kept, digest=np.array("0" * 64)): "another compilation's",
        tampered(kept, **{tap: None}): "other tensors",
        tampered(kept, **{tap: np.zeros((1, 3, 3))}): f"input '{tap}' does not fit",
        tampered(kept, **{tap: np.zeros((1, 3), np.uint8)}): f"input '{tap}' does not fit",
        tampered(kept, logits=np.zeros((1, 3), np.float32)): "input 'logits' does not fit",
        tampered(kept, logits=np.zeros((2, 5), np.float32)): "not of one image",
        tampered(kept, logits=np.array([{}], object)): "allow_pickle",
        tampered(kept, logits=np.zeros((1, 9_000_000), np.float32)): "it claims 36,0",
        without_magic(kept): "not a NumPy archive|does not fit",
    }.items():
        with pytest.raises(RevgraphError, match=why):
            asked(service, "x_hat", bottleneck=of_bytes(bad))


def without_magic(data: bytes) -> bytes:
    """An archive of which one member is no array."""
    content = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(content, "w") as new:
        for name in old.namelist():
            new.writestr(name, b"nothing" if name.startswith("logits") else old.read(name))
    return content.getvalue()


def test_a_bottleneck_of_a_free_size_is_not_offered():
    weights = {"w": networks.he(np.random.default_rng(0), 4, 3, 3, 3)}
    nodes = [networks.node("Conv", "x w", "conv"), networks.node("Relu", "conv", "y")]
    net = networks.model(nodes, ["N", 3, "H", "W"], weights)
    free = Service(revgraph.Session(net, variant="salinet", bottleneck="packed"))
    assert "bottleneck" not in free.inputs.keys() | free.outputs.keys()
    with pytest.raises(RevgraphError, match=r"p does not fit: it is \[1, 4, 5, 5\]"):
        asked(free, "channel", x=images(1), p=np.ones((1, 4, 5, 5), np.float32))


def test_an_output_named_twice_is_made_once(service):
    assert service.job({"x": images(1)}, ["x_hat", "prob"] * 1000).wanted == ("x_hat", "prob")


@pytest.mark.parametrize(
    ("given", "wanted", "why"),
    [
        ({}, [], "nothing to explain: no image was given"),
        ({"x": images(1), "picture": of_bytes(b"")}, [], "'x' and 'picture' were given: one says it all"),
        (
            {"x": images(1), "class": np.array([0]), "p": one_hot(images(1)[:, 0, 0, :5], [0])},
            [],
            "'class' and",
        ),
        ({"x": images(1), "y": images(1)}, [], "unknown input 'y': 'net' has none"),
        ({"x": images(1)}, ["scores"], "unknown output 'scores': 'net' has none"),
        ({"x": images(1)[:, :2]}, [], r"input 'x' does not fit: it is float32 \[1, 2, 8, 8\]"),
        ({"x": images(1).astype(float)}, [], "it is float64"),
        ({"x": images(0)}, [], r"it is float32 \[0, 3, 8, 8\]"),
        ({"x": images(1), "class": np.array([5])}, [], "unknown class 5: 'logits' has 5 channels"),
        ({"x": images(1), "class": np.array([-1])}, [], "unknown class -1"),
        ({"x": images(3), "class": np.array([1, 2])}, [], "there are 2 for 3 images"),
        (
            {"x": images(1), "p": np.full((1, 5), np.nan, np.float32)},
            [],
            "cannot explain this: input 'p' holds 5 NaN",
        ),
        ({"x": images(9)}, [], "input 'x' has 9 rows: the server takes 8 at once"),
        ({"picture": of_bytes(*[b""] * 9)}, [], "input 'picture' has 9 rows"),
        ({"x": images(1), "class": np.zeros(9, int)}, [], "input 'class' has 9 rows"),
        ({"picture": of_bytes(b"GIF89a")}, [], "cannot read this picture"),
        ({"picture": of_bytes(b"")}, [], "the file is empty"),
    ],
)
def test_what_cannot_be_done_is_said(service, given, wanted, why):
    with pytest.raises(RevgraphError, match=why):
        service.job(given, wanted)


def test_a_picture_that_claims_too_many_pixels_is_not_decoded(service, monkeypatch):
    monkeypatch.setattr("revgraph.serving.kserve.service.PIXELS", 63)
    with pytest.raises(RevgraphError, match="too large: it has 8 x 8 pixels, 63 at most"):
        service.job({"picture": of_bytes(png())})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_x_that_is_not_finite_is_refused_before_it_runs(service, value):
    x = images(2)
    x[1, 2, 3, 4] = value
    with pytest.raises(
        RevgraphError, match=r"'x' holds 1 (NaN|infinite) of 384 numbers, the first at \[1, 2, 3, 4\]"
    ):
        service.job({"x": x})


def test_what_overflows_is_refused_by_itself():
    """Others of the same batch are answered when they run alone."""
    overflows = Service(revgraph.Session(networks.overflowing(1.0, 1.0, 2e38), variant="salinet"))
    jobs = [overflows.job({"x": np.full((1, 3, 8, 8), level, np.float32)}, ["x_hat"]) for level in (1, 0.1)]
    assert jobs[0].key == jobs[1].key
    with pytest.raises(
        NotFiniteError, match=r"y holds 192 infinite of 384 numbers, .*; the first layer that does is 'y'"
    ):
        overflows.run(jobs)
    (answer,) = overflows.run(jobs[1:])
    assert np.isfinite(overflows.finish(jobs[1], answer)["x_hat"]).all()
    with pytest.raises(NotFiniteError, match="x_hat holds 192 NaN of 192"):
        asked(
            overflows, "x_hat", x=np.zeros((1, 3, 8, 8), np.float32), p=np.full((1, 3, 8, 8), 9, np.float32)
        )


def test_outputs_beside_y_may_be_infinite_but_not_nan():
    """The logarithm of zero says something, its product with zero nothing."""
    nodes = [
        networks.node("Relu", "x", "y"),
        networks.node("Log", "y", "log"),
        networks.node("Mul", "y log", "nan"),
    ]
    net = networks.model(nodes, ["N", 3, 8, 8], outputs=["y", "log", "nan"])
    service = Service(revgraph.Session(net, variant="salinet", at="y"))
    x = images(1)
    x[0, 1, 2, 3] = -1
    assert asked(service, "y", "log", x=x)["log"][0, 1, 2, 3] == -np.inf
    with pytest.raises(NotFiniteError, match=r"cannot tell 'nan': it holds \d+ NaN of 192 numbers"):
        asked(service, "nan", x=x)


def test_a_bottleneck_that_is_not_finite_is_refused(service):
    kept = asked(service, "bottleneck", x=images(1))["bottleneck"][0]
    archive = dict(np.load(io.BytesIO(kept)))
    archive["logits"][0, 1] = np.nan
    content = io.BytesIO()
    np.savez(content, **archive)
    with pytest.raises(RevgraphError, match="cannot read this bottleneck: 'logits' holds 1 NaN of 5 numbers"):
        service.job({"bottleneck": of_bytes(content.getvalue())})


def test_networks_that_cannot_be_served_say_why():
    net = networks.cnn()
    net.graph.input.append(onnx.helper.make_tensor_value_info("other", onnx.TensorProto.FLOAT, [1]))
    with pytest.raises(RevgraphError, match="cannot serve 'net': it has inputs beside 'x': other"):
        Service(revgraph.Session(net, variant="salinet", input="x"))
    net = networks.cnn(softmax=False)
    net.graph.node[-1].output[0] = net.graph.output[0].name = "channel"
    with pytest.raises(RevgraphError, match="its output 'channel' is called like one of the server's"):
        Service(revgraph.Session(net, variant="salinet"))


# ----- Batches -----


def test_joined_requests_get_what_each_would_alone(service):
    jobs = [service.job({"x": images(1 + i % 2, seed=i), "class": np.arange(1 + i % 2)}) for i in range(4)]
    assert len({job.key for job in jobs}) == 1
    for job, answer in zip(jobs, service.run(jobs), strict=True):
        (alone,) = service.run([job])
        for name, array in service.finish(job, alone).items():
            np.testing.assert_allclose(service.finish(job, answer)[name], array, rtol=1e-5, atol=1e-7)


def test_only_like_goes_with_like(service):
    x, one = images(2), images(1)
    alone = service.job({"x": one, "class": np.array([1, 2])})
    assert alone.key is None
    keys = [
        service.job({"x": x}, [name]).key for name in ("prob", "label", "x_hat", "x_hat_png", "bottleneck")
    ]
    assert len(set(keys)) == 3  # scores alone, with the reversed graph, and with the bottleneck
    kept = asked(service, "bottleneck", x=one)["bottleneck"]
    later = [service.job(given, ["x_hat"]).key for given in ({"x": one}, {"bottleneck": kept})]
    assert later[0] != later[1]
    assert (keys[0], keys[2]) == (keys[1], keys[3])
    both = [service.job({"x": x}, ["x_hat", "bottleneck"]), service.job({"x": one}, ["x_hat"])]
    assert both[0].key != both[1].key
    fixed = Service(revgraph.Session(networks.cnn(batch=1), variant="desalinet"))
    assert fixed.job({"x": one}).key is None


@dataclass(frozen=True)
class Number:
    value: int
    key: Hashable = "number"
    rows: int = 1


class Doubler:
    """Doubles numbers, and notes what came together; refuses those below zero."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.rows: list[int] = []

    def __call__(self, jobs: Sequence[Number]) -> list[int]:
        self.batches.append([job.value for job in jobs])
        if any(job.value < 0 for job in jobs):
            raise RevgraphError("cannot double", "it is below zero", "another")
        return [2 * job.value for job in jobs]


def gathered(doubler: Doubler, jobs: Sequence[Number], most: int = 4) -> list[Any]:
    async def all_of_them() -> list[Any]:
        batches = Batches[Number, int](doubler, most, ThreadPoolExecutor(1), doubler.rows.append)
        return await asyncio.gather(*map(batches.answer, jobs), return_exceptions=True)

    return asyncio.run(all_of_them())


def test_what_waits_is_run_together_up_to_the_limit():
    doubler = Doubler()
    assert gathered(doubler, [Number(i) for i in range(10)]) == [2 * i for i in range(10)]
    assert max(map(len, doubler.batches)) == 4
    assert sum(map(len, doubler.batches)) == 10


def test_rows_count_and_keys_keep_apart():
    doubler = Doubler()
    jobs = [
        Number(0),
        Number(3, "other"),
        Number(4, None),
        Number(1, rows=3),
        Number(2, rows=9),
        Number(5, None),
    ]
    assert gathered(doubler, jobs) == [0, 6, 8, 2, 4, 10]
    assert sorted(doubler.batches) == [[0, 1], [2], [3], [4], [5]]
    assert sorted(doubler.rows) == [1, 1, 1, 4, 9]


def test_one_to_blame_does_not_fail_the_others():
    found = gathered(Doubler(), [Number(1), Number(-1), Number(2)])
    assert found[0] == 2
    assert found[2] == 4
    assert isinstance(found[1], RevgraphError)


def test_what_was_given_up_is_not_run():
    doubler = Doubler()

    async def given_up() -> int:
        batches = Batches[Number, int](doubler, 1, ThreadPoolExecutor(1), doubler.rows.append)
        tasks = [asyncio.create_task(batches.answer(Number(i))) for i in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        return await tasks[2]

    assert asyncio.run(given_up()) == 4
    assert doubler.batches == [[0], [2]]


# ----- The container -----


def test_a_container_holds_what_it_serves(tmp_path, capsys):
    onnx.save(networks.cnn(), tmp_path / "Net 1.onnx")
    (tmp_path / "five.toml").write_text(RECIPE)
    (tmp_path / "names.txt").write_text("ant\nbee\ncat\ndog\neel\n")
    command = ["package", str(tmp_path / "Net 1.onnx"), "--for", "kserve", "-o", str(tmp_path / "served")]
    options = ["--recipe", str(tmp_path / "five.toml"), "--device", "cpu", "--batch", "3"]
    assert cli.main([*command, *options, "--bottleneck", "packed"]) == 0
    written = sorted(path.name for path in (tmp_path / "served").iterdir())
    assert written == [
        "Dockerfile",
        "Net 1.desalinet.forward.onnx",
        "Net 1.desalinet.reversed.onnx",
        "five.toml",
        "inferenceservice.json",
        "names.txt",
    ]
    assert capsys.readouterr().out.count("\n") == len(written)
    lines = (tmp_path / "served" / "Dockerfile").read_text().splitlines()
    wanted = f'RUN pip install --no-cache-dir --find-links . "revgraph[cpu,serve]=={revgraph.__version__}"'
    assert wanted in lines
    run = json.loads(lines[-1].removeprefix("CMD "))
    assert run[:3] == ["revgraph", "serve", "."]
    assert run[-2:] == ["--recipe", "five.toml"]
    assert revgraph.load(tmp_path / "served").metadata["bottleneck"] == "packed"
    service = json.loads((tmp_path / "served" / "inferenceservice.json").read_text())
    assert service["metadata"]["name"] == "net-1"


def test_class_names_from_elsewhere_are_refused(tmp_path, capsys):
    onnx.save(networks.cnn(), tmp_path / "net.onnx")
    (tmp_path / "five.toml").write_text(RECIPE.replace("names.txt", "../names.txt"))
    command = ["package", str(tmp_path / "net.onnx"), "--for", "kserve", "-o", str(tmp_path / "served")]
    assert cli.main([*command, "--recipe", str(tmp_path / "five.toml")]) == 1
    assert "put them beside it" in capsys.readouterr().err
    assert not (tmp_path / "served").exists()


def test_without_kserve_one_line_says_what_is_missing(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "uvicorn", None)
    monkeypatch.delitem(__import__("sys").modules, "revgraph.serving.kserve.server", raising=False)
    onnx.save(networks.cnn(), tmp_path / "net.onnx")
    assert cli.main(["serve", str(tmp_path / "net.onnx")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("revgraph: error: cannot serve: ")
    assert 'pip install "revgraph[serve]"' in error
