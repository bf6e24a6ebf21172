"""The paper's figures as commands: what they write, and that their numbers are those of the images."""

import csv
import importlib

import numpy as np
import onnx
import pytest
from networks import alexnet_like, he, model, node
from PIL import Image

from revgraph import RevgraphError, recipe, zoo
from revgraph.cli import main
from revgraph.paper import FIGURES, measure, randomise, sheet
from revgraph.paper.phase import with_random_amplitudes
from revgraph.paper.subject import STRONGEST, Subject


@pytest.fixture(scope="module")
def subject() -> Subject:
    return Subject(alexnet_like(), "net", recipe.load("imagenet"))


@pytest.fixture
def pictures() -> list[tuple[str, Image.Image]]:
    rng = np.random.default_rng(0)
    return [(name, Image.fromarray(rng.integers(0, 255, (60, 70, 3), np.uint8))) for name in ("a", "b")]


def test_where_the_paper_looks(subject):
    assert (subject.layers.middle, subject.layers.pool, subject.layers.logits) == ("relu2", "pool3", "logits")


def test_a_network_that_shrinks_by_strides_has_its_last_maps_for_a_pool():
    tensors = {"w": he(np.random.default_rng(0), 4, 3, 3, 3), "v": he(np.random.default_rng(1), 4, 4, 3, 3)}
    nodes = [
        node("Conv", "x w", "c"),
        node("MaxPool", "c", "m", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", "m v", "d", strides=[2, 2]),
        node("Relu", "d", "maps"),
        node("GlobalAveragePool", "maps", "gap"),
        node("Flatten", "gap", "y"),
    ]
    found = Subject(model(nodes, ["N", 3, 32, 32], tensors), "net", recipe.load("imagenet"))
    assert found.layers.pool == "maps"


@pytest.mark.parametrize("name", [name for name in FIGURES if name != "sanity"])
def test_each_figure_is_drawn_with_its_numbers(name, subject, pictures):
    found = importlib.import_module(f"revgraph.paper.{name}").figure(subject, pictures)
    assert min(found.image.size) > 400
    rows = list(csv.DictReader(sheet.table(found.numbers).decode().splitlines()))
    assert len(rows) == len(found.numbers) > 3
    assert all(row.keys() == rows[0].keys() for row in found.numbers)
    finite = [value for row in found.numbers for value in row.values() if isinstance(value, float)]
    assert np.isfinite(finite).all()


def test_sanity_falls_as_weights_become_random(subject, pictures, monkeypatch):
    sanity = importlib.import_module("revgraph.paper.sanity")
    monkeypatch.setattr(sanity, "STEPS", 2)
    found = sanity.figure(subject, pictures[:1])
    depths = {row["random layers"] for row in found.numbers}
    assert depths == {1, 4}
    salinet = [r["rank correlation"] for r in found.numbers if r["variant"] == "salinet"]
    assert max(salinet) < 0.9


def test_selectivity_holds_the_bottleneck(subject, pictures):
    """The rows differ by p alone: so they are linear in it where the method is."""
    selectivity = importlib.import_module("revgraph.paper.selectivity")
    strongest, another, mixture = selectivity.reversed_by_choice(subject, pictures[0][1], "salinet", "logits")
    assert strongest.any()
    assert another.any()
    assert measure.correlation(strongest, another) < 0.99
    explainer = subject.explainer("salinet", "logits")
    trace = explainer.session.forward(explainer.feed(pictures[0][1]))
    one_by_one = np.concatenate(
        [explainer.session.reverse(trace, row[None]) for row in np.eye(10, dtype=np.float32)]
    )
    c = int(trace.y.argmax())
    np.testing.assert_allclose(strongest, explainer.rgb(one_by_one[c]), rtol=1e-4, atol=1e-6)
    x = np.array([explainer.rgb(each).ravel() for each in one_by_one])
    weights, *_ = np.linalg.lstsq(x.T, mixture.ravel(), rcond=None)
    assert (weights > 0).all()
    np.testing.assert_allclose(weights @ x, mixture.ravel(), atol=1e-4 * np.abs(mixture).max())


def test_support_is_the_architectures(subject, pictures):
    support = importlib.import_module("revgraph.paper.support")
    numbers = support.figure(subject, pictures).numbers
    sizes = {(r["picture"], r["image"]): (r["support height"], r["support width"]) for r in numbers}
    for name in "ab":
        assert sizes[name, "renormalised"] == sizes[name, "DeSaliNet"]
        assert sizes[name, "no bottleneck"] == sizes[name, "no bottleneck, random weights"]
    spread = {(r["picture"], r["image"]): r["concentration"] for r in numbers}
    for name in "ab":  # the same box of another image
        assert spread[name, "no bottleneck"] != spread[name, "no bottleneck, random weights"]


def test_lrn_is_reversed_in_two_ways(subject, pictures):
    numbers = importlib.import_module("revgraph.paper.lrn").figure(subject, pictures).numbers
    assert all(0 < row["relative difference"] < 1 for row in numbers)
    assert all(0.5 < row["correlation"] < 1 for row in numbers)


def test_all_eight_reverse_lrn_as_the_identity(subject, pictures):
    """Fig. 3's caption: SaliNet too."""
    variants = importlib.import_module("revgraph.paper.variants")
    (found,) = (r for r in variants.figure(subject, pictures).numbers if r["variant"] == "salinet")
    identity, bp = (
        subject.explain(pictures[0][1], "salinet", "pool3", STRONGEST, lrn=way)[0]
        for way in ("identity", "bp")
    )
    assert found["edges"] == measure.edges(identity.x_hat, identity.crop)
    assert found["edges"] != measure.edges(bp.x_hat, bp.crop)


def test_networks_without_lrn_have_no_such_figure(pictures):
    plain = Subject(alexnet_like(False), "net", recipe.load("imagenet"))
    with pytest.raises(RevgraphError, match="cannot draw 'lrn' of 'net': it has no local response normal"):
        importlib.import_module("revgraph.paper.lrn").figure(plain, pictures)


def test_grey_pictures_stay_grey_and_names_are_no_formulas():
    grey = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32), np.uint8))
    drawn = np.asarray(sheet.grid([[grey]], ["$\\frac$"], ["a$b^$c"], "$$ \\x")).astype(int)
    assert np.ptp(drawn, axis=2).max() <= 3


def test_what_vanishes_is_said(tmp_path, capsys):
    """A last layer of negative weights: rectified away at the first ReLU on the way back."""
    net = alexnet_like()
    last = next(t for t in net.graph.initializer if t.name == "w4")
    last.CopyFrom(onnx.numpy_helper.from_array(-np.abs(onnx.numpy_helper.to_array(last)), "w4"))
    onnx.save(net, tmp_path / "net.onnx")
    Image.fromarray(np.full((50, 50, 3), 99, np.uint8)).save(tmp_path / "plain.png")
    for name in "overview", "phase":
        given = [
            "figure",
            name,
            "--model",
            str(tmp_path / "net.onnx"),
            "--picture",
            str(tmp_path / "plain.png"),
        ]
        assert main([*given, "-o", str(tmp_path / "out.png")]) == 0
        assert "plain by" in (err := capsys.readouterr().err)
        assert "is all zero: nothing survives after" in err


# ---------------------------------------------------------------- weights


def test_random_weights_are_random_where_they_should_be(subject):
    layers = randomise.products(subject.path)
    assert layers == ["conv1", "conv2", "conv3", "logits"]
    changed = randomise.randomised(subject.model, {"conv1", "logits"}, size=0.01)
    held = {t.name: onnx.numpy_helper.to_array(t) for t in changed.graph.initializer}
    assert abs(held["w4/random"].std() - 0.01) < 1e-3
    assert not held["b/random"].any()
    np.testing.assert_array_equal(held["w2"], onnx.numpy_helper.to_array(subject.model.graph.initializer[1]))
    own = randomise.randomised(subject.model, {"logits"})
    held = {t.name: onnx.numpy_helper.to_array(t) for t in own.graph.initializer}
    assert abs(held["w4/random"].std() / he(np.random.default_rng(0), 10, 300).std() - 1) < 0.1


# ---------------------------------------------------------------- numbers


def test_correlations():
    a = np.arange(12.0).reshape(3, 4)
    assert measure.correlation(a, 3 * a - 1) == pytest.approx(1)
    assert measure.correlation(a, -a) == pytest.approx(-1)
    assert measure.correlation(a, np.ones_like(a)) == 0
    assert measure.rank_correlation(a, np.exp(a)) == pytest.approx(1)
    maps = np.random.default_rng(0).random((2, 16, 16))
    assert measure.similarity(maps[0], 1e-3 * maps[0]) == pytest.approx(1)
    assert measure.similarity(*maps) < 0.5


def test_concentration_of_a_spot_and_of_a_plain():
    spot = np.zeros((10, 10))
    spot[3, 4] = 2
    assert measure.concentration(spot) == 1
    assert measure.concentration(np.ones((10, 10))) == pytest.approx(0.1)
    assert measure.concentration(np.zeros((10, 10))) == 0
    assert measure.box(spot) == (3, 4, 4, 5)
    assert measure.box(np.zeros((4, 4))) == (0, 0, 0, 0)


def test_edges_are_those_of_the_picture_with_their_sign():
    grey = np.zeros((40, 40), np.uint8)
    grey[:, 20:] = 200
    crop = Image.fromarray(grey).convert("RGB")
    fine = np.zeros((3, 40, 40))
    fine[:, :, 19], fine[:, :, 20] = -1, 1
    assert measure.edges(fine, crop) > 0.9
    assert measure.edges(-fine, crop) < -0.9
    assert measure.edges(np.zeros((3, 40, 40)), crop) == 0


def test_phases_are_kept():
    grey = np.random.default_rng(0).random((16, 16))
    found = np.fft.fft2(with_random_amplitudes(grey))
    assert found.shape == (16, 16)
    # Of a real image, and the real part of the result: phases are kept up to a half turn.
    turned = np.abs(np.sin(np.angle(found) - np.angle(np.fft.fft2(grey))))
    assert turned.max() < 1e-6


# ---------------------------------------------------------------- commands


def test_the_command_writes_a_picture_and_its_numbers(tmp_path, capsys):
    net, photo = tmp_path / "net.onnx", tmp_path / "photo.png"
    onnx.save(alexnet_like(), net)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 70, 3), np.uint8)).save(photo)
    given = [
        "figure",
        "overview",
        "--model",
        str(net),
        "--picture",
        str(photo),
        "-o",
        str(tmp_path / "o.png"),
    ]
    assert main(given) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [str(tmp_path / "o.png"), str(tmp_path / "o.csv")]
    with (tmp_path / "o.csv").open(newline="") as stream:
        assert [row["method"] for row in csv.DictReader(stream)] == ["deconvnet", "salinet", "desalinet"]


def test_a_bad_path_leaves_nothing(tmp_path, capsys):
    onnx.save(alexnet_like(), tmp_path / "net.onnx")
    given = ["figure", "lrn", "--model", str(tmp_path / "net.onnx"), "-o", str(tmp_path / "x.txt")]
    assert main(given) == 1
    assert "unknown suffix '.txt'" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


@pytest.mark.heavy
def test_all_of_them_on_the_default_network(tmp_path, capsys):
    photo = tmp_path / "coffee.png"
    zoo.sample("coffee").save(photo)
    assert main(["figure", "all", "--picture", str(photo), "-o", str(tmp_path / "out")]) == 0
    written = {path.name for path in (tmp_path / "out").iterdir()}
    names = [name for name in FIGURES if name != "lrn"]
    assert written == {f"squeezenet1_1.{name}.{end}" for name in names for end in ("png", "csv")}
    assert "no figure lrn" in capsys.readouterr().err


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["light_bvlc_alexnet", "light_vgg19", "light_inception_v1"])
def test_the_papers_architectures(name):
    import test_architectures

    found = Subject(test_architectures.reweighted(name, False), name, recipe.load("caffe"))
    pictures = [("coffee", zoo.sample("coffee"))]
    for figure in ("variants", *(["lrn"] if found.normalises else [])):
        drawn = importlib.import_module(f"revgraph.paper.{figure}").figure(found, pictures)
        assert min(drawn.image.size) > 400
