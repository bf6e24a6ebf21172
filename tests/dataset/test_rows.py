"""What the rows say, against the explanations of `run` and plain NumPy."""

import io
import itertools
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import networks
import numpy as np
import onnx
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scenes import photograph

import revgraph
from revgraph import neuron, picture, recipe
from revgraph.cli import main
from revgraph.dataset.explaining import Asked, Explaining, Picture
from revgraph.explain import Explainer, Explanation

Row = dict[str, Any]

# Of float32 statistics over a few hundred values: the batch's own kernels differ in rounding alone.
CLOSE = {"rel": 1e-4, "abs": 1e-7}


def rows_of(out: Path) -> list[Row]:
    return list(pq.read_table(out).to_pylist())


def explained(net: Path, path: Path, variant: str, *specs: str, seed: Any = 0) -> Iterator[Explanation]:
    """As `run` explains the picture."""
    session = revgraph.Session(revgraph.compile(net, variant=variant))
    explainer = Explainer(session, recipe.load("imagenet"))
    rng = np.random.default_rng(seed)
    return explainer.explain(picture.read(path), [neuron.parse(spec) for spec in specs], rng)


def check(row: Row, found: Explanation) -> None:
    """The row says of x_hat what plain NumPy does, in float64."""
    x_hat = found.x_hat.astype(np.float64)
    strength = np.abs(x_hat).max(axis=0)
    height, width = strength.shape
    assert (row["channel"], row["error"]) == (found.peak.channel, None)
    assert row["score"] == (None if found.peak.score is None else pytest.approx(found.peak.score, **CLOSE))
    expected = {
        "x_hat_min": x_hat.min(),
        "x_hat_max": x_hat.max(),
        "x_hat_norm": (x_hat**2).sum() ** 0.5,
        "saliency_mean": strength.sum() / strength.size,
        "saliency_max": strength.max(),
    }
    if strength.any():
        middle = np.average(np.indices((height, width)) + 0.5, axis=(1, 2), weights=[strength] * 2)
        expected |= {"saliency_row": middle[0] / height, "saliency_column": middle[1] / width}
    assert {key: row[key] for key in expected} == pytest.approx(expected, **CLOSE)


@pytest.mark.parametrize(
    ("specs", "options"),
    [
        (["max"], []),
        (["max"], ["--batch", "3"]),
        (["class:3"], ["--batch", "2"]),
        (["max", "class:1", "index:2"], []),
        (["max", "centre", "class:0"], ["--batch", "4", "--threads", "2"]),
    ],
    ids=str,
)
@pytest.mark.parametrize("variant", ["desalinet", "deconvnet"])
def test_a_row_is_what_run_shows(
    pictures: Path,
    net: Path,
    command: Any,
    tmp_path: Path,
    specs: list[str],
    options: list[str],
    variant: str,
) -> None:
    given = itertools.chain.from_iterable(("--neuron", spec) for spec in specs if specs != ["max"])
    assert main(command(pictures, tmp_path, "--variant", variant, *given, *options)) == 0
    rows = rows_of(tmp_path)
    paths = sorted(path for path in pictures.rglob("*") if path.suffix in (".png", ".jpg", ".webp"))
    assert [(row["path"], row["neuron"]) for row in rows] == [
        (str(path), spec) for path in paths for spec in specs
    ]
    expected = (found for path in paths for found in explained(net, path, variant, *specs))
    for row, found in zip(rows, expected, strict=True):
        check(row, found)


def test_pictures_draw_each_for_itself(pictures: Path, net: Path, command: Any, tmp_path: Path) -> None:
    """So a picture's neurons do not depend on what ran before, or beside it."""
    for name, batch in (("one", "1"), ("three", "3")):
        options = ["--neuron", "random", "--neuron", "mixture", "--seed", "7", "--batch", batch]
        assert main(command(pictures, tmp_path / name, *options)) == 0
    one, three = (rows_of(tmp_path / name) for name in ("one", "three"))
    assert [row["channel"] for row in one] == [row["channel"] for row in three]
    assert len({row["channel"] for row in one[::2]}) > 1
    second = explained(net, pictures / "b.png", "desalinet", "random", "mixture", seed=[7, 1])
    for row, found in zip(one[2:4], second, strict=True):
        check(row, found)


def test_maps_are_the_saliency_map(pictures: Path, net: Path, command: Any, tmp_path: Path) -> None:
    for maps in ("png", "float16"):
        assert main(command(pictures, tmp_path / maps, "--maps", maps)) == 0
    (found,) = explained(net, pictures / "a.png", "desalinet", "max")
    strength = np.abs(found.x_hat).max(axis=0)
    row = rows_of(tmp_path / "png")[0]
    drawn = np.asarray(Image.open(io.BytesIO(row["map"])))
    np.testing.assert_allclose(drawn / 255, picture.grey(found.x_hat), atol=0.5 / 255 + 1e-6)
    table = pq.read_table(tmp_path / "float16")
    kept = np.array(table["map"].to_pylist(), np.float16)
    assert kept.shape == (5, 8, 8)
    # float16 has 11 bits.
    np.testing.assert_allclose(kept[0] * table["saliency_max"][0].as_py(), strength, rtol=2**-10, atol=1e-6)


def test_classes_have_names_and_chances(net: Path, pictures: Path, command: Any, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("zero\none\ntwo\nthree\nfour\n")
    (tmp_path / "five.toml").write_text(
        'title = "t"\n[input]\nchannels = "RGB"\nscale = 1.0\nmean = [0, 0, 0]\nstd = [1, 1, 1]\n'
        '[labels]\nfile = "names.txt"\ncount = 5\n'
    )
    out = tmp_path / "rows"
    given = [
        "batch",
        str(pictures),
        "--model",
        str(net),
        "--recipe",
        str(tmp_path / "five.toml"),
        "-o",
        str(out),
    ]
    assert main(given) == 0
    for row in rows_of(out):
        assert row["class"] == ["zero", "one", "two", "three", "four"][row["channel"]]
        assert 0.2 < row["probability"] <= 1


def test_odd_pictures_are_what_run_reads(net: Path, command: Any, tmp_path: Path) -> None:
    """CMYK, 16-bit grey, alpha, animated, palette, turned by EXIF: as `picture.read` reads them."""
    folder = tmp_path / "odd"
    folder.mkdir()
    photo = photograph(3)
    photo.convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(np.arange(24 * 16, dtype=np.uint16).reshape(16, 24) * 170).save(folder / "deep.png")
    clear = photo.copy()
    clear.putalpha(Image.linear_gradient("L").resize(photo.size))
    clear.save(folder / "alpha.png")
    photo.save(folder / "moving.gif", save_all=True, append_images=[photograph(4)], duration=100)
    turned = Image.Exif()
    turned[0x0112] = 6
    photo.transpose(Image.Transpose.ROTATE_90).save(folder / "turned.png", exif=turned)
    photo.save(folder / "plain.png")
    assert main(command(folder, tmp_path / "rows")) == 0
    rows = {Path(row["path"]).name: row for row in rows_of(tmp_path / "rows")}
    assert len(rows) == 6
    for name, row in rows.items():
        check(row, next(explained(net, folder / name, "desalinet", "max")))
    shown = {name: {key: row[key] for key in row if key != "path"} for name, row in rows.items()}
    assert shown["turned.png"] == shown["plain.png"] == shown["moving.gif"]
    assert shown["alpha.png"] != shown["plain.png"]


def bomb(width: int, height: int) -> bytes:
    """A PNG that says it is so large."""
    small = io.BytesIO()
    Image.new("1", (8, 8)).save(small, "PNG")
    data = bytearray(small.getvalue())
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("batch", ["1", "3", "16"])
def test_what_cannot_be_read_is_a_row_with_its_error(
    pictures: Path, command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], batch: str
) -> None:
    whole = (pictures / "c.jpg").read_bytes()
    bad = {
        "cut.jpg": whole[: len(whole) // 2],
        "empty.png": b"",
        "huge.png": bomb(30000, 30000),
        "large.png": bomb(10000, 10000),
        "text.png": b"no picture at all",
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    listing = [
        pictures / "a.png",
        *(tmp_path / name for name in bad),
        tmp_path / "missing.png",
        tmp_path,
        pictures / "b.png",
    ]
    (tmp_path / "list.csv").write_text("path\n" + "".join(f"{path}\n" for path in listing))
    out = tmp_path / "rows"
    assert main(command(tmp_path / "list.csv", out, "--maps", "float16", "--batch", batch)) == 0
    said = capsys.readouterr()
    assert f"{out}  9 pictures  9 rows  7 errors" in said.out
    assert "note: 7 rows of 9" in said.err
    rows = rows_of(out)
    assert [row["path"] for row in rows] == [str(path) for path in listing]
    assert [row["error"] is None for row in rows] == [True, *[False] * 7, True]
    for row in rows[1:-1]:
        assert Path(row["path"]).name in row["error"]
        assert all(value is None for key, value in row.items() if key not in ("path", "neuron", "error"))
    for word, row in zip(
        ("cut", "empty", "too large", "too large", "not a picture", "no such", "folder"),
        rows[1:],
        strict=False,
    ):
        assert word in row["error"]
    assert main(command(pictures, tmp_path / "alone")) == 0
    alone = rows_of(tmp_path / "alone")[0]
    assert rows[0]["x_hat_norm"] == pytest.approx(alone["x_hat_norm"], **CLOSE)


@pytest.mark.parametrize(
    ("gains", "bright", "error"),
    [((1.0, 2e38), 255, "y holds 192 infinite of 192"), ((1e20, 1e30), 0, "x_hat holds 3 infinite of 192")],
)
def test_values_that_are_not_finite_are_errors(
    tmp_path: Path, gains: tuple[float, float], bright: int, error: str
) -> None:
    """White overflows on the way to y; black does not, and everything does on the way back."""
    weights = {name: np.full((3, 3, 1, 1), gain, np.float32) for name, gain in zip("vw", gains, strict=True)}
    nodes = [networks.node("Conv", "x v", "a"), networks.node("Conv", "a w", "y")]
    weights["v"] = weights["v"] * np.eye(3, dtype=np.float32)[..., None, None]
    raw = replace(recipe.load("imagenet"), mean=(0.0,) * 3, std=(1.0,) * 3)
    pair = revgraph.compile(networks.model(nodes, ["N", 3, 8, 8], weights), variant="salinet")
    for name, level in ("a.png", bright), ("b.png", 100):
        Image.new("RGB", (8, 8), (level,) * 3).save(tmp_path / name)
    explaining = Explaining(Asked(pair, raw, (neuron.parse("max"),)), batch=2)
    rows = explaining.rows([Picture(0, str(tmp_path / "a.png")), Picture(1, str(tmp_path / "b.png"))])
    assert error in rows[0]["error"]
    if bright:  # the other one of the same batch is as it should be
        assert rows[1]["x_hat_max"] == np.float32(2e38)


def test_nothing_left_has_no_centre(tmp_path: Path, pictures: Path) -> None:
    net = networks.model(
        [networks.node("Conv", "x w", "y")], ["N", 3, 8, 8], {"w": np.zeros((2, 3, 8, 8), np.float32)}
    )
    explaining = Explaining(
        Asked(revgraph.compile(net, variant="salinet"), recipe.load("imagenet"), (neuron.parse("max"),))
    )
    (row,) = explaining.rows([Picture(0, str(pictures / "a.png"))])
    assert row["saliency_max"] == 0
    assert row["saliency_row"] is None


def test_a_network_of_one_picture_at_a_time(pictures: Path, tmp_path: Path) -> None:
    onnx.save(networks.cnn(batch=1), tmp_path / "one.onnx")
    given = [
        "batch",
        str(pictures),
        "--model",
        str(tmp_path / "one.onnx"),
        "--recipe",
        "imagenet",
        "--batch",
        "4",
    ]
    assert main([*given, "-o", str(tmp_path / "rows")]) == 0
    assert len(rows_of(tmp_path / "rows")) == 5


def test_channels_last(pictures: Path, net: Path, tmp_path: Path, command: Any) -> None:
    """As exported from Keras: x is (N, H, W, C)."""
    first = networks.node("Transpose", "x", "planes", perm=[0, 3, 1, 2])
    inner = onnx.load(net)
    for each in inner.graph.node:
        each.input[:] = ["planes" if name == "x" else name for name in each.input]
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in inner.graph.initializer}
    onnx.save(networks.model([first, *inner.graph.node], ["N", 8, 8, 3], weights), tmp_path / "last.onnx")
    assert main(command(pictures, tmp_path / "first")) == 0
    given = ["batch", str(pictures), "--model", str(tmp_path / "last.onnx"), "--recipe", "imagenet"]
    assert main([*given, "-o", str(tmp_path / "last")]) == 0
    for one, other in zip(rows_of(tmp_path / "first"), rows_of(tmp_path / "last"), strict=True):
        numbers = [key for key, value in one.items() if isinstance(value, float)]
        assert {k: one[k] for k in numbers} == pytest.approx({k: other[k] for k in numbers}, **CLOSE)
