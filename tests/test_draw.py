"""Drawings: what they show, and what stops them."""

import re
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


def test_a_layer_is_level_with_its_reversed_layer_and_the_rule_is_named(tmp_path: Path) -> None:
    """In the order of Fig. 2: x_hat above what it comes from, frames with the rule's name."""
    draw(small(), tmp_path / "net.dot")
    text = (tmp_path / "net.dot").read_text()
    box = {label.split("\n")[0]: name for name, label in re.findall(r'(t\d+) \[label="([^"]*)"', text)}
    levels = {tuple(re.findall(r"t\d+", level)) for level in re.findall(r"rank=same\n([^}]*)}", text)}
    assert levels == {
        (box["Conv  conv:1"], box["ConvTransposed  conv:1"]),
        (box["Relu  relu1"], box["Gate  relu1"]),
        (box["MaxPool  pool1"], box["Unpool  pool1"]),
    }
    assert f"{box['Rectify  relu1']} -> {box['Gate  relu1']} [dir=back]" in text
    assert [text.count(f'label="{rule}"') for rule in ("RU o RU^BP", "MP^BP")] == [1, 1]
    assert f'{box["MaxPool  pool1"]} -> {box["Unpool  pool1"]} [label=" switches "' in text


def test_slopes_leave_from_their_layer(tmp_path: Path) -> None:
    """Not from the nodes that compute them, which are no layers."""
    rng = np.random.default_rng(0)
    net = model(
        [node("Conv", "x w", "c"), node("Tanh", "c", "y")], ["N", 3, 9, 9], {"w": he(rng, 4, 3, 3, 3)}
    )
    draw(net, tmp_path / "net.dot")
    text = (tmp_path / "net.dot").read_text()
    assert set(re.findall(r"(t\d+) ->", text)) <= set(re.findall(r"(t\d+) \[label", text))


def test_what_a_sum_of_branches_adds_is_no_part_of_a_reversed_layer(tmp_path: Path) -> None:
    nodes = [node("Relu", "x", "r"), node("Tanh", "r", "t"), node("Add", "r t", "y")]
    draw(model(nodes, ["N", 3, 9, 9]), tmp_path / "net.dot")
    text = (tmp_path / "net.dot").read_text()
    (added,) = re.findall(r'(t\d+) \[label="Add  r\n', text)
    frames = re.findall(r"subgraph cluster_\w+ {([^}]*)}", text)
    assert len(frames) == 2
    assert [frame for frame in frames if re.search(rf"\b{added}\b", frame)] == []


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
