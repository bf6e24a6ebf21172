"""The pictures that excite a channel most, and the part of each that it sees."""

import csv

import numpy as np
import onnx
import pytest
from networks import alexnet_like, model, node, overflowing
from PIL import Image

import revgraph
from revgraph import RevgraphError, recipe
from revgraph.cli import main
from revgraph.paper import receptive, search
from revgraph.paper.subject import Subject


def seen(net: onnx.ModelProto, at: str, position: tuple[int, ...]) -> tuple[slice, ...]:
    subject = Subject(net, "net", recipe.load("imagenet"))
    size = subject.graph.inputs[0].shape[2:]
    return receptive.field(subject.path, "x", size, at, position)


@pytest.mark.parametrize(
    "window",
    [
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4},
        {"kernel_shape": [5, 3], "dilations": [1, 2]},
        {"kernel_shape": [2, 2], "strides": [2, 2]},
    ],
    ids=str,
)
def test_the_field_is_where_the_input_counts(window):
    """Two such convolutions of ones: all that changes the neuron, and no more."""
    ones = np.ones((1, 1, *window["kernel_shape"]), np.float32)
    nodes = [
        node("Conv", "x w", "a", **window),
        node("Relu", "a", "b"),
        node("Conv", "b w", "c", **window),
        node("AveragePool", "c", "y", kernel_shape=[2, 1]),
    ]
    net = model(nodes, ["N", 1, 25, 27], {"w": ones})
    session = revgraph.Session(revgraph.compile(net, variant="salinet"))
    trace = session.forward(np.ones((1, 1, 25, 27), np.float32))
    height, width = trace.y.shape[2:]
    for position in (0, 0), (height // 2, width // 2), (height - 1, width - 1):
        p = np.zeros_like(trace.y)
        p[(0, 0, *position)] = 1
        rows, columns = seen(net, "y", position)
        expected = np.zeros((25, 27), bool)
        expected[rows, columns] = True
        lit = session.reverse(trace, p)[0, 0] != 0
        if "dilations" not in window:
            np.testing.assert_array_equal(lit, expected)
        else:  # with gaps: the box about it
            where = np.argwhere(lit)
            assert (where.min(0).tolist(), (where.max(0) + 1).tolist()) == (
                [rows.start, columns.start], [rows.stop, columns.stop]
            )  # fmt: skip


def test_what_mixes_positions_sees_all():
    assert seen(alexnet_like(), "logits", ()) == (slice(0, 48), slice(0, 48))
    rows, columns = seen(alexnet_like(), "pool1", (0, 0))
    assert (rows, columns) == (slice(0, 7), slice(0, 7))  # two windows of 5 at stride 2


@pytest.fixture
def folder(tmp_path):
    """Pictures, each with a brighter square than the last, elsewhere; and the network."""
    onnx.save(alexnet_like(), tmp_path / "net.onnx")
    (tmp_path / "pictures").mkdir()
    rng = np.random.default_rng(0)
    for i in range(5):
        pixels = rng.integers(0, 20, (48, 48, 3), np.uint8)
        pixels[4 * i : 4 * i + 16, 24:40] += np.uint8(40 * i)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{i}.png")
    return tmp_path


def test_the_strongest_come_first(folder):
    subject = Subject(folder / "net.onnx", "net", recipe.load("imagenet"))
    files = sorted(map(str, (folder / "pictures").iterdir()))
    hits = search.strongest(search.look(subject, "desalinet", "pool3", 2, files), 3)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    explainer = subject.explainer("desalinet", "pool3")
    for hit in hits:
        with Image.open(hit.path) as image:
            y = explainer.session.forward(explainer.feed(image)).y[0]
        assert hit.score == y[2].max() == y[(2, *hit.position)]
    best = {hit.path for hit in search.strongest(search.look(subject, "desalinet", "pool3", 2, files), 9)}
    assert best == set(files)


def test_the_command_writes_the_sheet(folder, capsys):
    given = ["search", str(folder / "pictures"), "--model", str(folder / "net.onnx"), "--at", "pool3"]
    assert main([*given, "--channel", "2", "--top", "4", "-o", str(folder / "sheet.png")]) == 0
    with (folder / "sheet.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 4
    assert all(0 <= int(row["top"]) < int(row["bottom"]) <= 48 for row in rows)
    assert (folder / "sheet.png").exists()
    capsys.readouterr()
    assert main([*given, "--channel", "99", "-o", str(folder / "none.png")]) == 1
    assert "there is no channel 99: 'pool3' has 12 (0 to 11)" in capsys.readouterr().err
    assert not (folder / "none.png").exists()


def test_what_cannot_be_read_is_left_out_and_said(folder, capsys):
    (folder / "pictures" / "2.png").write_bytes(b"no picture")
    (folder / "pictures" / "0a.jpg").write_bytes(b"")
    given = ["search", str(folder / "pictures"), "--model", str(folder / "net.onnx"), "--at", "pool3"]
    assert main([*given, "--channel", "2", "-o", str(folder / "sheet.png")]) == 0
    note = f"2 pictures left out: cannot read picture '{folder / 'pictures' / '0a.jpg'}': the file is empty"
    assert note in capsys.readouterr().err
    with (folder / "sheet.csv").open(newline="") as stream:
        assert sorted(row["path"][-6:] for row in csv.DictReader(stream)) == [
            f"/{i}.png" for i in (0, 1, 3, 4)
        ]
    for path in (folder / "pictures").iterdir():
        path.write_bytes(b"")
    assert main([*given, "--channel", "2", "-o", str(folder / "none.png")]) == 1
    assert "cannot read picture" in capsys.readouterr().err
    assert not (folder / "none.png").exists()


def test_no_picture_is_no_sheet(folder):
    with pytest.raises(SystemExit, match="2"):
        main(["search", str(folder), "--at", "pool3", "--channel", "0", "--top", "0", "-o", "sheet.png"])


def test_an_unknown_layer_is_named(folder):
    subject = Subject(folder / "net.onnx", "net", recipe.load("imagenet"))
    with pytest.raises(RevgraphError, match="no layer 'pool9'"):
        search.strongest(
            search.look(subject, "desalinet", "pool9", 0, [str(folder / "pictures" / "0.png")]), 1
        )


def test_pictures_that_overflow_are_left_out_and_said(folder, capsys):
    """White does, which is fed as 2.2 to 2.6 in three channels; grey does not."""
    net = overflowing(1.0, 1.0, 6e37)
    onnx.save(net, folder / "net.onnx")
    for name, level in ("a", 90), ("b", 255), ("c", 100):
        Image.new("RGB", (8, 8), (level,) * 3).save(folder / "pictures" / f"{name}.png")
    for i in range(5):
        (folder / "pictures" / f"{i}.png").unlink()
    given = ["search", str(folder / "pictures"), "--model", str(folder / "net.onnx"), "--at", "y"]
    given += ["--recipe", "imagenet", "--channel", "0", "-o", str(folder / "sheet.png")]
    assert main(given) == 0
    left_out = (
        f"1 picture left out: '{folder / 'pictures' / 'b.png'}': cannot reverse 'net': y holds 192 infinite"
    )
    assert left_out in capsys.readouterr().err
