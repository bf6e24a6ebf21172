"""The main job on a real photograph, from nothing: SqueezeNet v1.1 and scikit-image's cat."""

from pathlib import Path

import numpy as np

from revgraph import neuron, panels, picture, recipe, writing, zoo
from revgraph.compiler import compile
from revgraph.explain import Explainer, Explanation
from revgraph.runtime import Device
from revgraph.session import Session
from revgraph.variants import NAMED, title

NETWORK = "squeezenet1_1"
PHOTOGRAPH = "chelsea"


def demo(folder: Path, threads: int = 0, device: str = "cpu") -> list[tuple[Path, str]]:
    """Compile SqueezeNet for DeSaliNet, explain the photograph, and draw the three named variants in a row.

    Returns:
        The paths written, and what each is.

    Raises:
        RevgraphError: The `demo` extra is not installed, or the folder cannot be written.
    """
    chosen, image = recipe.load(NETWORK), zoo.sample(PHOTOGRAPH)
    model, neurons = zoo.model_path(chosen), [neuron.parse("max")]
    kind = Device.of(device).kind
    target = "portable" if kind == "cpu" else kind  # its files shall run anywhere
    found: dict[str, Explanation] = {}
    for variant in NAMED:
        compiled = compile(model, variant=variant, target=target)
        explainer = Explainer(Session(compiled, threads=threads, device=device), chosen)
        (found[variant],) = explainer.explain(image, neurons, np.random.default_rng(0))
    best = found["desalinet"]
    single, row = folder / f"{PHOTOGRAPH}.desalinet.png", folder / f"{PHOTOGRAPH}.row.png"
    shown = [best.crop, *(picture.image_of(picture.tone_map(found[variant].x_hat)) for variant in NAMED)]
    titles = ["input", *map(title, NAMED)]
    drawn = {
        single: best.draw(f"{NETWORK}, desalinet from {compiled.at}"),
        row: panels.row(shown, titles, f"{NETWORK} from {compiled.at}: {best.summary}"),
    }
    graphs, stale = compiled.contents(compiled.models(folder))
    pictures = {path: picture.encode(image, path) for path, image in drawn.items()}
    writing.write_all({**pictures, **graphs}, stale)
    return [
        (single, best.summary),
        (row, "the three named variants"),
        *((path, compiled.about(path)) for path in graphs),
    ]
