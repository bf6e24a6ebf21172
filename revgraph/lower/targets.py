"""The targets by name, and what becomes of each when the bottleneck is packed."""

from collections.abc import Callable, Mapping

from revgraph.graph import gs
from revgraph.lower.cpu import BITS, CPU
from revgraph.lower.devices import CUDA, TENSORRT, WEB
from revgraph.lower.packed import packed
from revgraph.lower.portable import PORTABLE
from revgraph.lower.target import Target

TARGETS: dict[str, Target] = {target.name: target for target in (PORTABLE, CPU, CUDA, TENSORRT, WEB)}

ON_CUDA = tuple(target.name for target in (CUDA, TENSORRT, WEB))
"""Those of which every node runs on CUDA."""

Packing = Callable[[Target, gs.Graph], Target]
"""A target and a reversed graph in the middle form -> the target that lowers that graph."""

BOTTLENECKS: Mapping[str, tuple[Mapping[str, Target], Packing]] = {
    "plain": (TARGETS, lambda target, rev: target),
    "packed": (TARGETS | {"cpu": BITS}, packed),
}
"""Ways of handing r over; what is packed is bool masks and positions in the plane."""
