"""Table 1 over a data set: a line for each picture and method, kept as it grows, then the means."""

import csv
import io
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from revgraph import parallel, picture, writing
from revgraph.errors import RevgraphError, naming
from revgraph.paper.segmentation import Settings, truth
from revgraph.paper.segmentation.saliency import BASELINE
from revgraph.paper.segmentation.segment import Segmentation, segment, title
from revgraph.paper.segmentation.truth import Case
from revgraph.paper.subject import Subject

Row = dict[str, Any]

PICTURES, SETTINGS = "pictures.csv", "settings.json"
"""Files of a run: what is known of each picture so far, and what it was asked."""

COLUMNS = ("picture", "class", "method", "label", "pp", "iou", "empty", "foreground", "key")

THRESHOLDED, SHUFFLED = "thresholded", "shuffled"


class Run:
    """The segmentation of a data set into a folder, which goes on where it was stopped.

    Args:
        subject: The network.
        cases: The pictures with their masks.
        methods: Variants, or "baseline".
        settings: How.
        shuffled: Whether each network's maps are also tried on other pictures than their own.
        folder: Where the lines are kept.

    Attributes:
        left: What has no lines yet.

    Raises:
        RevgraphError: A picture or mask is not there, or the folder has lines of other settings.
    """

    def __init__(
        self,
        subject: Subject,
        cases: Sequence[Case],
        methods: Sequence[str],
        settings: Settings,
        shuffled: bool,
        folder: Path,
    ) -> None:
        if strange := next((case for case in cases if {"\n", "\r"} & set(case.name)), None):
            raise RevgraphError(f"cannot list '{strange.path}'", "its name has several lines", "rename it")
        if shuffled and len(cases) < 2:
            raise RevgraphError("cannot shuffle maps", "there is one picture", "name several")
        self.subject, self.cases, self.methods, self.settings = subject, cases, methods, settings
        self.partner = _others(cases) if shuffled else {}
        self._folder, self._started = folder, False
        self._asked = {
            "network": subject.digest,
            "recipe": subject.recipe.digest,
            "methods": list(methods),
            **asdict(settings),
            "shuffled": shuffled,
        }
        digests = {case.name: case.digest() for case in cases}
        partners = {name: digests[other.name] for name, other in self.partner.items()}
        self._keys = {name: digest + partners.get(name, "") for name, digest in digests.items()}
        kept = self._kept()
        self.left = [case for case in cases if case.name not in kept]

    def _plan(self) -> list[tuple[str, bool]]:
        """Method, and whether its map is another picture's; the others also have a line without a cut."""
        own = [(method, False) for method in self.methods]
        return own + [(method, True) for method in self.methods if self.partner and method != BASELINE]

    def go(self) -> Iterator[Case]:
        """Segment what is left, several pictures at once, and append the lines of each in its turn.

        Yields:
            The pictures that are done.

        Raises:
            RevgraphError: A picture or a mask cannot be read or used.
        """
        for case, rows in parallel.in_order(
            lambda case: (case, self._rows(case)), self.left, parallel.cores()
        ):
            self._append(rows)
            yield case

    def _rows(self, case: Case) -> list[Row]:
        """A picture's lines."""
        image = picture.read(case.path)
        annotations = [truth.annotation(mask, (image.height, image.width)) for mask in case.masks]
        partner = picture.read(self.partner[case.name].path) if self.partner else None
        rows: list[Row] = []
        for method, another in self._plan():
            with naming(case.path):
                found = segment(self.subject, method, image, self.settings, partner if another else None)
            for how, mask in _masks(found, another).items():
                rows.append(
                    {
                        "picture": case.name,
                        "class": case.group,
                        "method": ", ".join(filter(None, (title(method), how))),
                        "label": found.saliency.label or "",
                        **truth.score(mask, annotations)._asdict(),
                        "empty": int(not found.seeds.any()),
                        "foreground": float(mask.mean()),
                        "key": self._keys[case.name],
                    }
                )
        return rows

    def rows(self) -> list[Row]:
        """The lines of all pictures, in their order.

        Raises:
            RevgraphError: Some are not there.
        """
        kept = self._kept()
        if missing := next((case.name for case in self.cases if case.name not in kept), None):
            why = f"'{missing}' has no lines: another run wrote there too"
            raise RevgraphError(f"cannot finish '{self._folder}'", why, "start it again")
        return [row for case in self.cases for row in kept[case.name]]

    def _append(self, rows: Sequence[Row]) -> None:
        lines = self._folder / PICTURES
        if not self._started:  # not before a picture has gone well, and without what a kill left unfinished
            kept = itertools.chain.from_iterable(self._kept().values())
            asked = json.dumps(self._asked, indent=1).encode()
            writing.write_all({self._folder / SETTINGS: asked, lines: _csv(kept, head=True)})
            self._started = True
        try:
            with lines.open("ab") as stream:
                stream.write(_csv(rows))
        except OSError as error:
            why = error.strerror or str(error)
            raise RevgraphError(f"cannot write '{lines}'", why, "run it again with more room") from error

    def _kept(self) -> dict[str, list[Row]]:
        """The lines of finished pictures, which still are what they were."""
        lines = self._folder / PICTURES
        if not lines.exists():
            return {}
        what, remedy = f"cannot go on in '{self._folder}'", "name another folder with -o"
        try:
            before = dict(json.loads((self._folder / SETTINGS).read_text(encoding="utf-8")))
            found = _by_picture(lines)
        except (OSError, ValueError, TypeError) as error:
            raise RevgraphError(what, "its files are not those of a run", remedy) from error
        asked = json.loads(json.dumps(self._asked))
        if differ := [name for name, value in asked.items() if before.get(name) != value]:
            raise RevgraphError(what, f"it holds a run that differs in {', '.join(differ)}", remedy)
        whole = sum(1 if another else 2 for _, another in self._plan())
        return {
            name: list(found[name, key].values())
            for name, key in self._keys.items()
            if len(found.get((name, key), ())) == whole
        }


def _masks(found: Segmentation, another: bool) -> dict[str, np.ndarray]:
    """What is scored, by what its line says beside the method."""
    return {SHUFFLED: found.mask} if another else {"": found.mask, THRESHOLDED: found.seeds > 0}


def _others(cases: Sequence[Case]) -> dict[str, Case]:
    """For each picture another one: its neighbour in a random circle."""
    order = np.random.default_rng(0).permutation(len(cases))
    return {cases[i].name: cases[j] for i, j in zip(order, np.roll(order, 1), strict=True)}


def _by_picture(path: Path) -> dict[tuple[str, str], dict[str, Row]]:
    """Lines by picture and key, then by method; those that a kill or another run damaged are left out.

    Raises:
        ValueError: It is another kind of file.
    """
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    head, _, body = text.partition("\n")
    if head != ",".join(COLUMNS):
        raise ValueError("other columns")
    found: dict[tuple[str, str], dict[str, Row]] = {}
    *lines, _ = body.split("\n")  # what follows the last is not whole
    for row in filter(None, map(_parsed, lines)):
        found.setdefault((row["picture"], row["key"]), {}).setdefault(row["method"], row)
    return found


def _parsed(line: str) -> Row | None:
    """One line, or None where it is not whole."""
    try:
        (cells,) = csv.reader([line])
        row: Row = dict(zip(COLUMNS, cells, strict=True))
        row |= {key: float(row[key]) for key in ("pp", "iou", "foreground")} | {"empty": int(row["empty"])}
    except (ValueError, csv.Error):
        return None
    return row


def _csv(rows: Iterable[Row], head: bool = False) -> bytes:
    text = io.StringIO()
    written = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    if head:
        written.writeheader()
    written.writerows({k: f"{v:.6f}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    return text.getvalue().encode("utf-8", "surrogateescape")
