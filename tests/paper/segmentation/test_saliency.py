"""The maps of Sect. 3.5: which neurons, which size, and the blob."""

import numpy as np
import pytest
from networks import alexnet_like, he, model, node
from PIL import Image
from scenes import scene

import revgraph
from revgraph import RevgraphError, recipe
from revgraph.paper.segmentation.saliency import gaussian, indicator, positive, saliency, shrunk, smoothed
from revgraph.paper.subject import Subject

rng = np.random.default_rng(0)


def test_the_blob_is_one_gaussian_less_four():
    found = gaussian((150, 200))
    rows, columns = np.mgrid[:150, :200]
    expected = np.zeros((150, 200))
    for sign, row, column in [(1, 74.5, 99.5), *((-1, r, c) for r in (0, 149) for c in (0, 199))]:
        near = (abs(rows - row) <= 62) & (abs(columns - column) <= 62)
        expected += sign * near * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * 24.0**2))
    expected = (expected - expected.min()) / np.ptp(expected)
    np.testing.assert_allclose(found, expected, atol=1e-12)  # the same sums in another order
    assert (found.min(), found.max()) == (0, 1)


def test_the_map_is_that_of_the_strongest_class_over_the_whole_picture(subject):
    image, _ = scene(60, 90)
    for method, lrn in (("salinet", "bp"), ("desalinet", "bp"), ("deconvnet", "identity")):
        small = shrunk(image, 48)
        assert small.size == (72, 48)
        found = saliency(subject, method, small, "positive")
        compiled = revgraph.compile(alexnet_like(), variant=method, lrn=lrn, fully_convolutional=True)
        session = revgraph.Session(compiled)
        trace = session.forward(subject.recipe.feed(small, (48, 72)))
        channel = np.unravel_index(trace.y.argmax(), trace.y.shape)[1]
        p = np.zeros_like(trace.y)
        p[:, channel] = trace.y[:, channel] > 0
        assert trace.y.shape[2:] != (1, 1)
        x_hat = session.reverse(trace, p)[0]
        # two targets of one network: float32 rounding
        np.testing.assert_allclose(found.map, abs(x_hat).max(axis=0), rtol=1e-4, atol=1e-6 * abs(x_hat).max())
        assert found.map.shape == (48, 72)


def test_selectors():
    y = np.array([[[[1.0, -2.0, 3.0]], [[4.0, 5.0, -6.0]]]], np.float32)
    assert positive(y, 1).tolist() == [[[[0, 0, 0]], [[1, 1, 0]]]]
    assert indicator(y, 1).tolist() == [[[[0, 0, 0]], [[1, 1, 1]]]]
    assert positive(-abs(y), 0).tolist() == [[[[1, 0, 0]], [[0, 0, 0]]]]


def test_maps_are_changed_beyond_the_paper_only_where_asked():
    m = rng.random((40, 60))
    assert smoothed(m, 0, False) is m
    blurred = smoothed(m, 3, False)
    assert blurred.std() < m.std() / 3
    assert blurred.mean() == pytest.approx(m.mean(), rel=0.05)  # but for the borders
    centred = smoothed(np.ones((40, 60)), 0, True)
    assert np.unravel_index(centred.argmax(), centred.shape) in [(19, 29), (19, 30), (20, 29), (20, 30)]
    assert centred[0, 0] == pytest.approx(np.exp(-((19.5 / (40 / 3)) ** 2 + (29.5 / 20) ** 2) / 2))


def test_pictures_keep_their_shape_unless_very_long():
    assert shrunk(Image.new("L", (300, 100)), 256).size == (768, 256)
    assert shrunk(Image.new("RGB", (7, 5)), 10).size == (14, 10)
    image = scene(60, 90)[0]
    expected = np.asarray(image.resize((72, 48), Image.Resampling.BICUBIC))
    assert (np.asarray(shrunk(image, 48)) == expected).all()
    assert gaussian((1, 1)).tolist() == [[0]]
    with pytest.raises(RevgraphError, match="9 x 1"):
        shrunk(Image.new("RGB", (9, 1)), 256)


def test_a_network_without_a_fully_connected_head_takes_pictures_of_any_shape():
    nodes = [node("Conv", "x w", "c"), node("GlobalAveragePool", "c", "y")]
    net = model(nodes, [1, 3, 24, 24], {"w": he(rng, 4, 3, 3, 3)})
    found = saliency(Subject(net, "net", recipe.load("imagenet")), "salinet", scene(40, 60)[0], "positive")
    assert found.map.shape == (40, 60)


def test_scores_that_are_no_numbers_are_refused():
    nodes = [node("Conv", "x w b", "y")]
    tensors = {"w": he(rng, 2, 3, 3, 3), "b": np.array([0, 3e38], np.float32)}
    tensors["w"][1] *= 1e38
    broken = Subject(model(nodes, ["N", 3, "H", "W"], tensors), "net", recipe.load("imagenet"))
    for selector in ("positive", "indicator"):
        with pytest.raises(RevgraphError, match=r"y holds .* infinite of"):
            saliency(broken, "salinet", scene(40, 60)[0], selector)


def test_the_strongest_class_is_that_of_the_largest_position():
    """Channel 0 is large in one corner, channel 1 a little everywhere."""
    w = np.zeros((2, 3, 1, 1), np.float32)
    w[0, 0], w[1, 1] = 1, 1
    net = model([node("Conv", "x w", "y")], ["N", 3, "H", "W"], {"w": w})
    pixels = np.full((16, 16, 3), (0, 200, 0), np.uint8)
    pixels[:3, :3] = (255, 0, 0)
    subject = Subject(net, "net", recipe.load("imagenet"))
    found = saliency(subject, "salinet", Image.fromarray(pixels), "positive")
    assert found.map[0, 0] > 0
    assert found.map[10, 10] == 0


@pytest.mark.parametrize("turned", [True, False])
def test_networks_with_channels_last_become_free_too(turned):
    nodes = [node("Transpose", "x", "t", perm=[0, 3, 1, 2])] if turned else []
    nodes += [
        node("Conv", "t w" if turned else "x w", "c"),
        node("GlobalAveragePool", "c", "g"),
        node("Flatten", "g", "y"),
    ]
    shape = [1, 24, 24, 3] if turned else [1, 3, 24, 24]
    net = model(nodes, shape, {"w": he(rng, 4, 3, 3, 3)})
    image = scene(40, 60)[0]
    found = saliency(Subject(net, "net", recipe.load("imagenet")), "salinet", image, "positive")
    assert found.map.shape == (40, 60)


def test_a_device_that_wants_sizes_is_given_the_portable_form(monkeypatch):
    opened = []
    monkeypatch.setattr("revgraph.paper.subject.Session", lambda pair, **_: opened.append(pair) or 1 / 0)
    subject = Subject(alexnet_like(), "net", recipe.load("imagenet"), device="cuda")
    with pytest.raises(ZeroDivisionError):
        subject.explainer("salinet", "logits", None, 256)
    assert opened[0].metadata["target"] == "portable"
