"""Two compilations of one network, held against each other."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from layers import weights
from networks import cnn, model, node, overflowing, picture
from PIL import Image

import revgraph
from revgraph import compare, neuron
from revgraph.cli import main
from revgraph.compare import laid_out, saliency
from revgraph.finite import NotFiniteError

EXPORTED = Path(__file__).parent / "exported"
FIRST, *OTHERS = sorted(path.name for path in EXPORTED.iterdir() if path.is_dir())
NETWORKS = sorted(path.stem for path in (EXPORTED / FIRST).glob("*.onnx"))
MAX = neuron.parse("max")


def session(net, variant="desalinet", **options):
    return revgraph.Session(revgraph.compile(net, variant=variant, **options), threads=1)


def held(a, b, x=None, chosen=MAX):
    rng = np.random.default_rng(0)
    return compare.compare(a, b, compare.random_input(a, rng) if x is None else x, chosen, rng)


@pytest.mark.parametrize("variant", ["salinet", "desalinet", "deconvnet-centre"])
@pytest.mark.parametrize("exporter", OTHERS)
@pytest.mark.parametrize("network", NETWORKS)
def test_exports_of_one_network_agree(network, exporter, variant):
    """Whoever exported it, channels first or last; float32 in another order errs by about 1e-6."""
    a, b = (session(EXPORTED / name / f"{network}.onnx", variant) for name in (FIRST, exporter))
    found = held(a, b)
    assert found.error < 1e-4
    assert found.cosine > 1 - 1e-8
    assert found.rank_correlation > 1 - 1e-4
    assert (found.forward_parts, found.reversed_parts) == (None, None)


def test_two_variants_part_where_their_rules_do():
    found = held(session(cnn(), "salinet"), session(cnn(), "desalinet"))
    assert found.forward_parts is None
    assert found.reversed_parts == "conv2"  # relu2 is reversed first, and what it gives is conv2's
    assert found.cosine < 0.99
    assert found.error > 1e-2


def changed(name):
    """The network with another value in one weight."""
    net = cnn()
    tensor = next(t for t in net.graph.initializer if t.name == name)
    values = onnx.numpy_helper.to_array(tensor).copy()
    values.reshape(-1)[0] += 5
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, name))
    return net


@pytest.mark.parametrize(("weight", "layer"), [("w2", "conv2"), ("w3", "logits")])
def test_another_weight_parts_them_at_its_layer(weight, layer):
    a, b = session(cnn(), "salinet"), session(changed(weight), "salinet")
    found = held(a, b, chosen=neuron.parse("class:0"))
    assert found.forward_parts == layer
    assert found.reversed_parts is not None
    assert found.error > 1e-3


def test_what_is_zero_agrees_with_zero_only():
    net = model(
        [node("Conv", "x w", "c"), node("Relu", "c", "y")], ["N", 1, 4, 4], {"w": -(weights(1, 1, 1, 1) ** 2)}
    )
    ones = np.ones((1, 1, 4, 4), np.float32)
    dead, passing = session(net, "salinet"), session(net, "identity")
    assert (held(dead, dead, ones).cosine, held(dead, dead, ones).error) == (1, 0)
    assert (held(dead, passing, ones).cosine, held(dead, passing, ones).rank_correlation) == (0, 0)


def test_networks_of_other_shapes_are_refused():
    smaller = model([node("Conv", "x w", "y")], ["N", 2, 4, 4], {"w": weights(3, 2, 1, 1)})
    with pytest.raises(revgraph.RevgraphError, match="the two networks differ in the input: one is"):
        held(session(cnn()), session(smaller))
    with pytest.raises(revgraph.RevgraphError, match="differ in the layer compared"):
        held(session(cnn()), session(cnn(), at="conv2"))


def test_figures_are_those_of_numpy():
    a, b = session(cnn(), "salinet"), session(cnn(), "identity")
    found = held(a, b)
    x, y = (x_hat.astype(np.float64).ravel() for x_hat in found.x_hats)
    np.testing.assert_allclose(found.cosine, x @ y / np.sqrt((x @ x) * (y @ y)))
    np.testing.assert_allclose(found.error, np.sqrt(((x - y) ** 2).sum() / (x @ x)))
    maps = [np.abs(x_hat[0]).max(axis=0).ravel() for x_hat in found.x_hats]
    ranks = [map_.argsort().argsort() for map_ in maps]  # no two pixels tie
    np.testing.assert_allclose(found.rank_correlation, np.corrcoef(ranks)[0, 1])


# ----- The command -----


@pytest.fixture
def files(tmp_path):
    onnx.save(cnn(), tmp_path / "a.onnx")
    onnx.save(changed("w2"), tmp_path / "b.onnx")
    for name in "one", "two":
        pixels = np.random.default_rng(len(name)).integers(0, 256, (12, 10, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    return tmp_path


def test_models_and_folders(files, capsys):
    revgraph.compile(files / "a.onnx", variant="salinet").save(files / "out")
    assert main(["compare", str(files / "out"), str(files / "a.onnx"), "--variant", "salinet", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row.pop("relative error") < 1e-6  # a model is compiled for this machine, the folder for any
    assert row == {
        "picture": "a random input",
        "neuron": "max",
        "cosine": 1.0,
        "rank correlation": 1.0,
        "forward parts at": "-",
        "reversed parts at": "-",
    }


def test_pictures_are_drawn_side_by_side(files, capsys):
    arguments = [str(files / name) for name in ("a.onnx", "b.onnx", "one.png", "two.png")]
    assert main(["compare", *arguments, "--recipe", "imagenet", "-o", str(files / "sheets")]) == 0
    heads, *rows = capsys.readouterr().out.splitlines()
    assert heads.split()[:2] == ["path", "picture"]
    paths = [Path(row.split()[0]) for row in rows]
    assert [path.name for path in paths] == ["one.compare.png", "two.compare.png"]
    for path in paths:
        with Image.open(path) as sheet:
            assert sheet.width > 4 * 192


def test_a_layer_and_a_variant_for_each(files, capsys):
    arguments = ["compare", *[str(files / "a.onnx")] * 2, "--variant", "salinet", "--variant", "identity"]
    assert main([*arguments, "--at", "conv2", "--at", "relu2", "--json", "--neuron", "channel:3"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["neuron"] == "channel:3"
    assert row["cosine"] < 1


def test_networks_that_differ_are_one_line(files, capsys):
    net = model([node("Conv", "x w", "y")], ["N", 2, 4, 4], {"w": weights(3, 2, 1, 1)})
    onnx.save(net, files / "c.onnx")
    assert main(["compare", str(files / "a.onnx"), str(files / "c.onnx")]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("revgraph: error: the two networks differ in the input")


# ----- Pictures for networks with channels last -----


def test_channels_last_are_explained_like_channels_first(files, capsys):
    for name in "tf2onnx", "torchscript":
        path = EXPORTED / name / "inception.onnx"
        output = files / f"{name}.png"
        assert (
            main(["run", str(path), str(files / "one.png"), "--recipe", "imagenet", "-o", str(output)]) == 0
        )
    with Image.open(files / "tf2onnx.png") as a, Image.open(files / "torchscript.png") as b:
        height = a.height - 40  # the captions name other layers
        pixels = [np.asarray(image, int)[:height] for image in (a, b)]
    assert (np.abs(pixels[0] - pixels[1]) > 2).mean() < 0.01


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--variant salinet --variant identity --variant desalinet", "--variant was given 3 times"),
        ("--at y --at y --at y", "--at was given 3 times"),
        ("-o sheets", "cannot draw 'sheets': no picture was named"),
    ],
)
def test_options_that_cannot_be_followed_are_one_line(files, capsys, options, message):
    assert main(["compare", *[str(files / "a.onnx")] * 2, *options.split()]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1


def test_a_network_that_overflows_is_named():
    """Not compared as if NaN were a number."""
    nets = overflowing(1.0, 1.0, 1e36), overflowing(1.0, 1e30, 1e36)
    a, b = (revgraph.Session(net, variant="salinet") for net in nets)
    x = np.ones((1, 3, 8, 8), np.float32)
    compare.compare(a, a, x, neuron.parse("max"), np.random.default_rng(0))
    with pytest.raises(
        NotFiniteError, match=r"y holds 192 infinite of 192 .* the first layer that does is 'y'"
    ):
        compare.compare(a, b, x, neuron.parse("max"), np.random.default_rng(0))


# ----- Channels first or last -----


@pytest.mark.parametrize("channels", [1, 3])
def test_the_saliency_map_is_over_the_channels_wherever_they_lie(channels):
    x_hat = picture(channels, 5, 7)
    expected = np.abs(x_hat).max(axis=0)
    np.testing.assert_array_equal(saliency(x_hat), expected)
    np.testing.assert_array_equal(saliency(np.moveaxis(x_hat, 0, -1)), expected)


def test_an_array_takes_the_layout_that_fits():
    x = picture(2, 3, 5, 7)
    assert laid_out(x, ["N", 3, 5, 7], "x") is x
    np.testing.assert_array_equal(laid_out(x, ["N", 5, 7, 3], "x"), x.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(laid_out(x.transpose(0, 2, 3, 1), [1, 3, None, "W"], "x"), x)
    with pytest.raises(revgraph.RevgraphError, match="the two networks differ in x: one is \\[2, 3, 5, 7\\]"):
        laid_out(x, ["N", 4, 5, 7], "x")
