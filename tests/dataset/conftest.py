"""A small network, and pictures of all kinds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import networks
import onnx
import pytest
from scenes import photograph

pytest.importorskip("pyarrow", reason="the extra batch is not installed")


@pytest.fixture(scope="session")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("net") / "net.onnx"
    onnx.save(networks.cnn(), path)
    return path


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five pictures, two of which have the same name."""
    folder = tmp_path_factory.mktemp("pictures")
    for i, name in enumerate(("a.png", "b.png", "c.jpg", "inner/a.png", "inner/deep/d.webp")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        photograph(i).save(folder / name)
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture
def command(net: Path) -> Callable[..., list[str]]:
    """The command line for an input and options."""

    def made(given: Any, out: Any, *options: str) -> list[str]:
        fixed = ["--model", str(net), "--recipe", "imagenet", "-o", str(out)]
        return ["batch", str(given), *fixed, *options]

    return made
