"""Open graphs; on a GPU what one does for a shape is captured as a CUDA graph, and replayed in one launch.

A replay reads and writes the memory that was captured, and what lies between. So inputs are copied to where
they were then; outputs lie outside onnxruntime's own memory, and are not written again while in use: a place
is lent to one caller at a time.
"""

import contextlib
import itertools
import threading
import weakref
from collections import defaultdict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from revgraph.errors import RevgraphError
from revgraph.lower.targets import ON_CUDA
from revgraph.pair import Compiled
from revgraph.runtime import Device, package, refused, run

Values = Mapping[str, Any]
"""onnxruntime's values by name."""

MOST = 16
"""Captures of one graph: each keeps memory for all that it reads and writes."""

_numbers = itertools.count(1)
_locks = defaultdict[int, threading.RLock](threading.RLock)


def capturable(pair: Compiled, device: Device) -> bool:
    """Whether a compilation may be captured there."""
    return device.kind == "cuda" and pair.metadata["target"] in ON_CUDA


def exclusive(device: Device) -> contextlib.AbstractContextManager[object]:
    """Hold a GPU for one thread: while one captures no other may use it, of whatever session."""
    return _locks[device.index] if device.kind == "cuda" else contextlib.nullcontext()


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Results:
    """What a run gave.

    Attributes:
        values: The outputs.
        place: Where they lie, lent as long as this object lives; None where they are the caller's own.
    """

    values: Values
    place: "Place | None" = None

    def __post_init__(self) -> None:
        if self.place is not None:
            weakref.finalize(self, self.place.free.append, self.place).atexit = False

    def array(self, name: str) -> np.ndarray:
        """An output, to keep."""
        found = self.values[name].numpy()
        return np.array(found) if self.place is not None else found


class Graph:
    """An open graph, of which every run is by itself."""

    def __init__(self, session: Any, device: Device) -> None:
        self.session, self.device = session, device

    def run(self, names: list[str], feeds: Values, held: Values, lasting: bool = False) -> Results:
        """Run it.

        Args:
            names: The outputs asked for.
            feeds: Inputs, of this run.
            held: Further inputs.
            lasting: Whether these lie at a place, and so do not move while the session is open.
        """
        values = run(self.session, names, {**feeds, **held}, self.device)
        return Results(dict(zip(names, values, strict=True)))


class Captured(Graph):
    """An open graph that is captured for what it meets a second time. One thread at a time may run it."""

    def __init__(self, session: Any, device: Device) -> None:
        super().__init__(session, device)
        self._free = dict[Hashable, list[Place] | None]()
        self._places = 0

    def run(self, names: list[str], feeds: Values, held: Values, lasting: bool = False) -> Results:
        if held and not lasting:
            return Results(self._once(names, {**feeds, **held}))
        shapes = [(name, value.data_type(), *value.shape()) for name, value in feeds.items()]
        key = (*names, *shapes, *map(id, held.values()))
        free = self._free.get(key)
        if free:
            place = free.pop()
            self._places -= 1  # should it fail it is not used again
            place.replay(feeds)
            self._places += 1
            return Results(place.outputs, place)
        values = self._once(names, {**feeds, **held})
        if key not in self._free:
            self._free[key] = []
        elif free is not None and self._places < MOST:
            place = Place(self, feeds, held, values, free)
            try:
                place.replay(feeds)
            except RevgraphError:
                self._free[key] = None  # it runs, and cannot be captured
                return Results(self._once(names, {**feeds, **held}))
            self._places += 1
            return Results(values, place)
        return Results(values)

    def _once(self, names: list[str], feeds: Values) -> dict[str, Any]:
        """The outputs of a run that is not captured, copied to where no replay writes."""
        values = run(self.session, names, feeds, self.device, _options("-1"))
        return {name: copied(value, self.device) for name, value in zip(names, values, strict=True)}


class Place:
    """Memory that a captured graph reads from and writes to.

    Attributes:
        outputs: What a replay writes.
        free: The places of the same capture that nobody uses.
    """

    def __init__(
        self, graph: Captured, feeds: Values, held: Values, outputs: Values, free: "list[Place]"
    ) -> None:
        self.outputs, self.free = outputs, free
        self._graph, self._held, self._options = graph, held, _options(str(next(_numbers)))
        self._inputs = {name: _like(value, graph.device) for name, value in feeds.items()}
        self._binding = graph.session.io_binding()
        for name, value in {**self._inputs, **held}.items():
            self._binding.bind_ortvalue_input(name, value)
        for name, value in outputs.items():
            self._binding.bind_ortvalue_output(name, value)

    def replay(self, feeds: Values) -> None:
        """Run on these inputs; the first time that is captured."""
        try:
            for name, value in feeds.items():
                self._inputs[name].update_inplace(value)
            self._graph.session.run_with_iobinding(self._binding, self._options)
        except Exception as error:
            raise refused(error) from error


def copied(value: Any, device: Device) -> Any:
    """A value of its own on the device."""
    copy = _like(value, device)
    copy.update_inplace(value)
    return copy


def _like(value: Any, device: Device) -> Any:
    """Memory for such a value, on the device and outside of any session's."""
    shape, kind = value.shape(), value.element_type()
    return package().OrtValue.ortvalue_from_shape_and_type(shape, kind, device.kind, device.index)


def _options(graph: str) -> Any:
    options = package().RunOptions()
    options.add_run_config_entry("gpu_graph_id", graph)
    return options
