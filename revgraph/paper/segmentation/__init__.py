"""Sect. 3.5: reversed networks segment the foreground, and Table 1.

A picture becomes a saliency map (`saliency`), its strongest and weakest pixels the seeds of a graph cut
(`cut`, both by `segment`), whose foreground is held against people's masks (`truth`) over a data set
(`table`, `report`), and shown (`pictures`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

SELECTORS: Mapping[str, str] = {
    "positive": "the strongest class wherever it is positive, as the authors' code has it",
    "indicator": "that class everywhere, as their text does",
}
"""Which neurons are reversed: functions of those names in `saliency`."""

SOLVERS: Mapping[str, str] = {
    "grabcut": "OpenCV's",
    "boykov-jolly": "one cut by the paper's energy",
}
"""How a mask is cut: functions of those names in `cut`."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How pictures are segmented; the defaults are the paper's, but for the solver.

    Attributes:
        shorter: Pixels of a picture's shorter side.
        selector: Which neurons are reversed, of SELECTORS.
        blur: Standard deviation in pixels of the blur of a network's map.
        centred: Whether a network's map is weighted towards the middle.
        solver: How the mask is cut, of SOLVERS.
        smoothness: Energy of a border between equal neighbours, of boykov-jolly; OpenCV's GrabCut has 50.
    """

    shorter: int = 256
    selector: str = "positive"
    blur: float = 0.0
    centred: bool = False
    solver: str = "grabcut"
    smoothness: float = 150.0
