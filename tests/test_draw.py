"""Drawings: what they show, and what stops them."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import he, model, node

from revgraph.draw import draw
from revgraph.errors import RevgraphError

graphviz = pytest.importorskip("graphviz", reason="the draw extra is not installed")


def small() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    pool = node("MaxPool", "relu1", "pool1", kernel_shape=[2, 2], strides=[2, 2])
    return model(
        [node("Conv", "x w", "conv:1"), node("Relu", "conv:1", "relu1"), pool],
        ["N", 3, 9, 9],
        {"w": he(rng, 4, 3, 3, 3)},
    )


def test_it_shows_both_graphs_and_the_bottleneck(tmp_path: Path) -> None:
    draw(small(), tmp_path / "net.dot")
    text = (tmp_path / "net.dot").read_text()
    for label in (
        "Conv  conv:1",
        "Relu  relu1",
        "Unpool  pool1",
        "Gate  relu1",
        "Rectify  relu1",
        "ConvTransposed  conv:1",
    ):
        assert text.count(label) == 1
    assert text.count("style=dotted") == 2
    assert "N x 4 x 7 x 7" in text
    assert "P x 4 x 3 x 3" in text


def test_a_variant_without_bottleneck_has_no_dotted_arrow(tmp_path: Path) -> None:
    draw(small(), tmp_path / "net.dot", variant="deconvnet-centre")
    assert "dotted" not in (tmp_path / "net.dot").read_text()


def test_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RevgraphError, match=r"unknown suffix '\.bmp' \(known: \.dot, \.svg, \.png, \.pdf\)"):
        draw(small(), tmp_path / "net.bmp")


def test_a_picture_needs_graphviz_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RevgraphError, match=r"install Graphviz, or name a \.dot file"):
        draw(small(), tmp_path / "net.svg")
    assert not list(tmp_path.iterdir())
