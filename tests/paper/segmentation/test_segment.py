"""One picture's foreground."""

import dataclasses

import pytest
from scenes import SMALL, scene

from revgraph.paper.segmentation import cut
from revgraph.paper.segmentation.segment import segment


def test_settings_reach_the_map_and_the_cut(subject, monkeypatch):
    seen = []
    monkeypatch.setattr(cut, "segment", lambda *arguments: seen.append(arguments) or arguments[1] > 0)
    image, _ = scene(60, 80)

    def seeds(method, **changes):
        return segment(subject, method, image, dataclasses.replace(SMALL, **changes)).seeds

    plain = {method: seeds(method) for method in ("salinet", "desalinet", "deconvnet", "baseline")}
    shares = {method: (found > 0).mean() for method, found in plain.items()}
    assert shares == pytest.approx(
        {"salinet": 0.05, "desalinet": 0.1, "deconvnet": 0.1, "baseline": 0.1}, abs=0.005
    )
    for changes in ({"blur": 3.0}, {"centred": True}):
        assert (seeds("desalinet", **changes) != plain["desalinet"]).any()
        assert (seeds("baseline", **changes) == plain["baseline"]).all()
    seeds("salinet", solver="boykov-jolly", smoothness=7.0)
    assert seen[-1][2:] == ("boykov-jolly", 7.0)
