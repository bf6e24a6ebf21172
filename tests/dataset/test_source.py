"""Which pictures a data set has, and in what order."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from revgraph import RevgraphError
from revgraph.dataset import places
from revgraph.dataset.source import listed

NAMES = ["a.png", "b.png", "c.jpg", "inner/a.png", "inner/deep/d.webp"]


def within(folder: Path, *names: str) -> list[str]:
    return [str(folder / name) for name in names]


def test_a_folder_is_all_pictures_in_it_and_below(pictures: Path) -> None:
    assert listed(str(pictures)) == within(pictures, *NAMES)


def test_a_picture_and_a_glob(pictures: Path) -> None:
    assert listed(str(pictures / "b.png")) == within(pictures, "b.png")
    assert listed(f"{pictures}/*.png") == within(pictures, "a.png", "b.png")
    assert listed(f"{pictures}/**/*.png") == within(pictures, "a.png", "b.png", "inner/a.png")


def test_lists_keep_their_order_and_what_is_twice(pictures: Path, tmp_path: Path) -> None:
    given = ["b.png", str(tmp_path / "x,y.png"), "inner/a.png", "b.png", "missing.png"]
    expected = [str(pictures / each) for each in given]
    quoted = "".join(f'7,"{each}"\n' for each in given)
    (pictures / "list.csv").write_text("label,path\n" + quoted + "7,\n", encoding="utf-8-sig")
    assert listed(str(pictures / "list.csv")) == expected
    pq.write_table(pa.table({"path": [*given, None], "label": range(6)}), pictures / "list.parquet")
    assert listed(str(pictures / "list.parquet")) == expected


def test_a_uri_is_a_place_too(pictures: Path) -> None:
    (pictures / "uri.csv").write_text("path\nb.png\ns3://elsewhere/c.png\n")
    root = pictures.as_uri()
    assert listed(root) == [f"{root}/{name}" for name in NAMES]
    assert listed(f"{root}/a.png") == [f"{root}/a.png"]
    assert listed(f"{root}/uri.csv") == [f"{root}/b.png", "s3://elsewhere/c.png"]


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("list.csv", b"file,label\na.png,1\n", "no column 'path' (it has file, label)"),
        ("list.csv", b"path\n\xff.png\n", "a CSV file in UTF-8"),
        ("list.csv", b"path\n", "it names none"),
        ("list.csv", b"", "no column 'path'"),
        ("list.parquet", b"PAR1 or not", "cannot read"),
        ("empty", None, "it names none"),
        ("nowhere", b"", "it names none"),
    ],
)
def test_what_names_no_pictures_is_one_line(
    tmp_path: Path, name: str, content: bytes | None, why: str
) -> None:
    path = tmp_path / name
    if content is None:
        path.mkdir()
    elif name != "nowhere":
        path.write_bytes(content)
    with pytest.raises(RevgraphError) as raised:
        listed(str(path))
    assert why in str(raised.value)
    assert name in str(raised.value)


@pytest.mark.parametrize("uri", ["nothing://bucket/a", "file:///no/such/folder/at/all"])
def test_a_uri_that_leads_nowhere_is_one_line(uri: str) -> None:
    with pytest.raises(RevgraphError, match="://"):
        listed(uri)


def test_rows_hold_no_password() -> None:
    assert places.shown("s3://key:secret@bucket/a?b#c.png?endpoint_override=x") == "s3://bucket/a"
    assert places.shown("s3://key:secret@bucket/a#c.png?endpoint_override=x") == "s3://bucket/a#c.png"
    assert places.shown("/photos/a?b@c.png") == "/photos/a?b@c.png"
    assert places.inside("s3://k:s@bucket/in/?region=x", "a.png") == "s3://k:s@bucket/in/a.png?region=x"
