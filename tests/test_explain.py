"""From a picture to the picture that explains it."""

import dataclasses
import re

import numpy as np
import onnx
import pytest
from networks import cnn, he, model, node, overflowing
from PIL import Image

import revgraph
from revgraph import explain, feeding, neuron, recipe
from revgraph.errors import RevgraphError
from revgraph.finite import NotFiniteError

NAMES = ("tench, Tinca tinca", "goldfish", "great white shark", "tiger shark", "hammerhead")


def plain(**changes):
    """A recipe that feeds RGB / 255 and nothing more."""
    base = recipe.load("caffe")
    fields = {
        "channels": "RGB",
        "scale": 1.0,
        "mean": (0.0,) * 3,
        "std": (1.0,) * 3,
        "labels": None,
    } | changes
    return dataclasses.replace(base, name="plain", **fields)


@pytest.fixture
def named(tmp_path):
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    return plain(labels=recipe.Labels(str(tmp_path / "names.txt"), 5))


def noise(width=10, height=8):
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def session(variant="desalinet", net=None, **options):
    return revgraph.Session(revgraph.compile(net or cnn(), variant=variant, **options))


def run(explainer, *specs, image=None, seed=0):
    neurons = [neuron.parse(spec) for spec in specs]
    return list(explainer.explain(image or noise(), neurons, np.random.default_rng(seed)))


# ----- The explanation -----


def test_it_is_what_the_session_computes(named):
    explainer = explain.Explainer(session(), named)
    (found,) = run(explainer, "class:2")
    x = named.feed(noise(), (8, 8))
    trace = explainer.session.forward(x)
    p = neuron.project(neuron.parse("class:2"), trace.y, np.random.default_rng(0))
    np.testing.assert_array_equal(found.x_hat, explainer.session.reverse(trace, p)[0])
    assert found.crop.size == (8, 8)
    assert found.peak.channel == 2
    assert found.peak.score == pytest.approx(trace.y[0, 2])
    assert found.label == "great white shark"
    assert found.probability == pytest.approx(trace.outputs["prob"][0, 2])
    assert str(found.neuron) == "class:2"
    assert found.vanished is None


def test_x_hat_comes_back_in_rgb():
    rgb, bgr = (explain.Explainer(session(), plain(channels=order)) for order in ("RGB", "BGR"))
    swapped = Image.fromarray(np.asarray(noise())[..., ::-1].copy())
    (a,), (b,) = run(rgb, "max"), run(bgr, "max", image=swapped)
    np.testing.assert_array_equal(a.x_hat[::-1], b.x_hat)


def test_several_neurons_share_one_forward_pass(monkeypatch):
    explainer = explain.Explainer(session(), plain())
    calls = []
    forward = revgraph.Session.forward
    monkeypatch.setattr(revgraph.Session, "forward", lambda *a, **k: calls.append(a) or forward(*a, **k))
    specs = [f"channel:{c}" for c in range(5)]
    together = run(explainer, *specs)
    assert len(calls) == 1
    assert [str(found.neuron) for found in together] == specs
    for spec, found in zip(specs, together, strict=True):
        (alone,) = run(explainer, spec)
        np.testing.assert_allclose(found.x_hat, alone.x_hat, rtol=1e-5, atol=1e-7)


def test_random_is_the_generators():
    explainer = explain.Explainer(session(at="relu1"), plain())
    first, again, other = (run(explainer, "random", seed=seed)[0] for seed in (1, 1, 2))
    assert first.peak == again.peak
    assert first.peak != other.peak
    np.testing.assert_array_equal(first.x_hat, again.x_hat)


def test_random_is_redrawn_until_something_is_left():
    explainer = explain.Explainer(session(at="relu1"), plain())  # at a ReLU, half of all neurons give zero
    assert all(run(explainer, "random", seed=seed)[0].x_hat.any() for seed in range(20))


def test_random_gives_up_after_twenty(monkeypatch):
    weights = {"w": -np.ones((4, 3, 1, 1), np.float32)}
    net = model([node("Conv", "x w", "a"), node("Relu", "a", "y")], ["N", 3, 8, 8], weights)
    explainer = explain.Explainer(session("salinet", net), plain())
    calls = []
    reverse = revgraph.Session.reverse
    monkeypatch.setattr(revgraph.Session, "reverse", lambda *a: calls.append(a) or reverse(*a))
    (found,) = run(explainer, "random")
    assert not found.x_hat.any()
    assert found.vanished == "y"  # p itself is no layer of the network
    assert 21 <= len(calls) <= 22  # the first, twenty more, and one that looks where it vanishes


# ----- Labels and captions -----


@pytest.mark.parametrize(
    ("labels", "summary"),
    [(True, r"great white shark \(2\), score \S+, probability 0\.\d\d"), (False, r"channel 2, score \S+")],
)
def test_the_summary(named, labels, summary):
    (found,) = run(explain.Explainer(session(), named if labels else plain()), "class:2")
    assert re.fullmatch(summary, found.summary)


def test_a_name_is_as_the_recipe_has_it(named):
    assert run(explain.Explainer(session(), named), "class:0")[0].label == "tench, Tinca tinca"


def test_inner_layers_have_channels_and_positions_and_no_names(named):
    (found,) = run(explain.Explainer(session(at="pool1"), named), "index:3,1,2")
    assert (found.label, found.probability, found.peak.channel, found.peak.position) == (
        None,
        None,
        3,
        (1, 2),
    )
    assert found.summary.startswith("channel 3 at 1, 2, score ")


def test_what_is_no_distribution_gives_no_probability(named):
    net = cnn(softmax=False)
    (found,) = run(explain.Explainer(session(net=net), named), "class:2")
    assert (found.label, found.probability) == ("great white shark", None)


def test_a_projection_of_many_channels_is_called_by_its_spec(named):
    (found,) = run(explain.Explainer(session(), named), "mixture")
    assert found.summary == "mixture"
    assert found.label is None


def test_the_drawing_holds_three_pictures_and_the_caption():
    (found,) = run(explain.Explainer(session(), plain()), "max")
    drawn = found.draw("net, desalinet from logits")
    assert drawn.mode == "RGB"
    assert drawn.width > 3 * 8
    assert np.asarray(drawn).std() > 0


# ----- Which networks take pictures -----


def convolution(shape, channels=3):
    rng = np.random.default_rng(0)
    weights = {"w": he(rng, 4, channels, 3, 3)}
    return model([node("Conv", "x w", "a"), node("Relu", "a", "y")], shape, weights)


@pytest.mark.parametrize("shape", [["N", 3, 5, 9], [1, 3, 5, 9]])
def test_the_models_own_size_comes_first(shape):
    explainer = explain.Explainer(session(net=convolution(shape)), plain(size=(6, 6)))
    assert explainer.size == (5, 9)
    assert run(explainer, "max")[0].x_hat.shape == (3, 5, 9)


def test_the_recipes_size_serves_a_free_one():
    explainer = explain.Explainer(session(net=convolution(["N", 3, "H", "W"])), plain(size=(6, 7)))
    assert explainer.size == (6, 7)
    assert run(explainer, "max")[0].x_hat.shape == (3, 6, 7)


def test_grey_networks_take_grey_recipes():
    grey = plain(channels="L", mean=(0.0,), std=(1.0,))
    explainer = explain.Explainer(session(net=convolution(["N", 1, 8, 8], channels=1)), grey)
    assert run(explainer, "max")[0].x_hat.shape == (3, 8, 8)


@pytest.mark.parametrize(
    ("shape", "channels", "match"),
    [
        (["N", 3, "H", "W"], 3, "neither it nor the recipe fixes their size"),
        (["N", 1, 8, 8], 1, r"its input is \['N', 1, 8, 8\] and recipe 'plain' makes \(N, 3, H, W\)"),
        (["N", 4, 8, 8], 4, r"recipe 'plain'"),
    ],
)
def test_a_network_of_another_kind_is_refused(shape, channels, match):
    with pytest.raises(RevgraphError, match=match):
        explain.Explainer(session(net=convolution(shape, channels)), plain())


def test_a_network_of_sequences_is_refused():
    net = model([node("Relu", "x", "y")], ["N", 3, 8])
    with pytest.raises(RevgraphError, match="cannot feed pictures to this network"):
        explain.Explainer(session(net=net), plain())


def test_a_network_of_a_fixed_batch_takes_no_single_picture():
    with pytest.raises(RevgraphError, match="its batch is fixed at 4"):
        explain.Explainer(session("salinet", cnn(batch=4)), plain())


def test_a_recipe_beyond_float16_is_refused_for_a_network_in_it():
    net = model([node("Relu", "x", "y")], ["N", 3, 8, 8])
    for value in (*net.graph.input, *net.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    session = revgraph.Session(net, variant="identity")
    feeding.Feeder(session.pair, plain(scale=65504.0))
    why = "recipe 'plain' makes numbers up to 65,505, and float16 ends at 65,504"
    with pytest.raises(feeding.NoPicturesError, match=why):
        feeding.Feeder(session.pair, plain(scale=65000.0, mean=(-505.0, 0.0, 0.0)))


def test_what_overflows_is_not_explained():
    explainer = explain.Explainer(revgraph.Session(overflowing(1.0, 1.0, 2e38), variant="salinet"), plain())
    white, rng = Image.new("RGB", (8, 8), "white"), np.random.default_rng(0)
    with pytest.raises(NotFiniteError, match=r"y holds 192 infinite .* the first layer that does is 'y'"):
        list(explainer.explain(white, [neuron.parse("max")], rng))
