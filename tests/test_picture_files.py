"""Which pictures are read, and what the files are called that are made of them."""

from pathlib import Path

import pytest

from revgraph import neuron, picture_files
from revgraph.errors import RevgraphError


def test_a_folder_stands_for_its_pictures(tmp_path):
    for name in ("b.png", "a.JPG", "notes.txt", "c.webp"):
        (tmp_path / name).touch()
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "d.png").touch()
    found = picture_files.find_pictures([str(tmp_path), "elsewhere.png"])
    assert [path.name for path in found] == ["a.JPG", "b.png", "c.webp", "elsewhere.png"]


def test_a_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(RevgraphError, match=r"no pictures in .*\.png"):
        picture_files.find_pictures([str(tmp_path)])


def outputs(out, pictures, specs=("max",), variant="salinet"):
    neurons = [neuron.parse(spec) for spec in specs]
    return [
        str(p) for p in picture_files.output_paths(Path(out), [Path(p) for p in pictures], variant, neurons)
    ]


def test_one_result_goes_where_it_is_told():
    assert outputs("here.png", ["cat.jpg"]) == ["here.png"]


def test_a_folder_gets_names_that_say_what_they_are():
    assert outputs("out", ["cat.jpg"]) == ["out/cat.salinet.png"]
    assert outputs("out", ["a/cat.jpg", "dog.png"]) == ["out/cat.salinet.png", "out/dog.salinet.png"]
    found = outputs("out", ["cat.jpg"], ["max", "class:3", "index:1,2,3"])
    assert found == [f"out/cat.salinet.{end}.png" for end in ("max", "class-3", "index-1-2-3")]


def test_results_never_share_a_name():
    found = outputs(
        "out", ["a/cat.jpg", "b/cat.jpg", "cat_2.png", "cat.png"], ["max", "max", "x/p.npy", "y/p.npy"]
    )
    assert len(found) == 16
    assert len({path.lower() for path in found}) == 16


def test_names_that_differ_in_case_alone_are_told_apart():
    assert len({path.lower() for path in outputs("out", ["a/Cat.jpg", "b/cat.jpg"])}) == 2


@pytest.mark.parametrize(
    ("pictures", "specs"), [(["a.png", "b.png"], ["max"]), (["a.png"], ["max", "class:1"])]
)
def test_several_results_do_not_fit_in_one_file(pictures, specs):
    with pytest.raises(RevgraphError, match=r"cannot write to 'out\.png': there are 2 results .*-o"):
        outputs("out.png", pictures, specs)


def test_a_folder_may_be_called_like_a_picture(tmp_path):
    (tmp_path / "out.png").mkdir()
    assert outputs(tmp_path / "out.png", ["a.jpg"]) == [str(tmp_path / "out.png" / "a.salinet.png")]
