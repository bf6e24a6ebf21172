"""Explanations where ONNX models are served: what each serving stack loads.

Each module is imported by the command that needs it.
"""

from dataclasses import dataclass
from pathlib import Path

from revgraph import writing

STACKS = {
    "triton": "a model repository for NVIDIA Triton's ONNX Runtime backend",
    "kserve": "a container of `revgraph serve`, and the InferenceService that KServe runs",
    "web": "a page that runs in the browser",
}
"""The stacks, by name."""

Written = dict[Path, tuple[writing.Content, str]]
"""Files to write, with a line on some of them."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may take.

    Attributes:
        batch: Images that are run at once.
        bytes: Of a request.
        seconds: For its body to arrive, and again for its answer to be there.
    """

    batch: int = 8
    bytes: int = 32 * 2**20
    seconds: float = 30


LIMITS = Limits()
"""The usual ones."""
