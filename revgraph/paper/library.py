"""The libraries of the `experiments` extra, imported when a number or a drawing needs them."""

import importlib
from collections.abc import Mapping
from typing import Any

from revgraph.errors import missing_extra

PACKAGES: Mapping[str, str] = {
    "cv2": "opencv-python-headless",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
}
"""What is installed under another name than it is imported by."""


def library(module: str) -> Any:
    """A module of one of them.

    Raises:
        RevgraphError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise missing_extra(
            "cannot repeat the experiment", PACKAGES.get(name, name), "experiments"
        ) from error
