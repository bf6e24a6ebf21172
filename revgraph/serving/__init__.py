"""Explanations where ONNX models are served: what each serving stack loads.

Each module is imported by the command that needs it.
"""

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
