"""Which pictures are read, and what the files are called that are made of them."""

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

from revgraph import picture
from revgraph.errors import RevgraphError
from revgraph.neuron import Neuron


def find_pictures(paths: Iterable[str]) -> list[Path]:
    """The pictures named; a folder stands for all pictures in it.

    Raises:
        RevgraphError: A folder holds none.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        inside = [path]
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in picture.SUFFIXES)
        if not inside:
            raise RevgraphError(
                f"no pictures in '{path}'", "no file ends in " + ", ".join(picture.SUFFIXES), "name files"
            )
        found += inside
    return found


def check_output(out: Path) -> None:
    """Refuse, before any work, a picture of a type that is not written.

    Raises:
        RevgraphError: `out` names one.
    """
    if _is_picture(out):
        picture.type_of(out)


def _is_picture(out: Path) -> bool:
    """Whether a result goes to `out` itself, and not into a folder of that name."""
    return out.suffix.lower() in picture.SUFFIXES and not out.is_dir()


def output_paths(out: Path, pictures: Sequence[Path], variant: str, neurons: Sequence[Neuron]) -> list[Path]:
    """Where each neuron of each picture goes: `out` itself if there is one in all, else files in that folder.

    Raises:
        RevgraphError: `out` names one picture, and there are several.
    """
    if _is_picture(out):
        if len(pictures) * len(neurons) > 1:
            count = len(pictures) * len(neurons)
            raise RevgraphError(
                f"cannot write to '{out}'", f"there are {count} results", "name a folder with -o"
            )
        return [out]
    specs = [f".{_slug(str(n))}" for n in neurons] if len(neurons) > 1 else [""]
    return paths_in(out, pictures, [f".{variant}{spec}.png" for spec in specs])


def paths_in(folder: Path, pictures: Sequence[Path], ends: Sequence[str]) -> list[Path]:
    """For each picture, and each end of a name, a file of its own in the folder."""
    taken: dict[str, Path] = {}
    for path, end in itertools.product(pictures, ends):
        stems = itertools.chain([path.stem], (f"{path.stem}_{i}" for i in itertools.count(2)))
        # Some file systems do not tell upper case from lower.
        name = next(name for name in (stem + end for stem in stems) if name.lower() not in taken)
        taken[name.lower()] = folder / name
    return list(taken.values())


def _slug(spec: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in Path(spec).name)
