"""Sect. 3.5: reversed networks segment the foreground, and Table 1.

A picture becomes a saliency map (`saliency`), its strongest and weakest pixels the seeds of a graph cut
(`cut`, both by `segment`), whose foreground is held against people's masks (`truth`) over a data set
(`table`, `report`), and shown (`pictures`).
"""

from collections.abc import Mapping

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
