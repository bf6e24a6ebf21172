"""The same input gives the same bytes in every process; tools/versions compares those of every Python."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import revgraph

SCRIPT = Path(__file__).parents[1] / "tools" / "versions" / "digests.py"


def digests(network: str, out: Path, seed: str) -> dict[str, str]:
    """What the network compiles to in a process whose sets are in an order of their own."""
    ran = subprocess.run(
        [sys.executable, str(SCRIPT), "--networks", network, "--keep", str(out / seed)],
        check=True,
        env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(revgraph.__file__).parents[1])},
        stdout=subprocess.PIPE,
        text=True,
    )
    return dict(json.loads(ran.stdout))


@pytest.mark.parametrize("network", ["mixed", "opset9", "dynamo-excitation", "tf2onnx-lrn"])
def test_the_same_input_gives_the_same_bytes(network: str, tmp_path: Path) -> None:
    first, second = (digests(network, tmp_path, seed) for seed in ("0", "12345"))
    assert len(set(first.values())) > 10
    assert first == second
