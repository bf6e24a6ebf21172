"""What is to be learned: a network up to a layer, and the reversed networks that its inverses mirror."""

from dataclasses import replace
from pathlib import Path

import onnx
from onnx.utils import Extractor

import revgraph
from revgraph import recipe, weights, zoo
from revgraph.errors import RevgraphError
from revgraph.pair import Compiled
from revgraph.recipe import Recipe

KINDS = {
    "nothing": "deconvnet-centre",
    "masks": "desalinet-centre",
    "switches": "deconvnet",
    "both": "desalinet",
}
"""What an inverse is given besides y -> the variant whose reversed network is given just that."""

UNPOOLING = {
    "centre": "without switches to the centre of each window, as in Fig. 3",
    "learned": "by a learned up-convolution, to which unpooling by switches is added where they are given",
}

CENTRE, SWITCHED = "/unpoolcentre", "/unpool"
"""What revgraph calls the two ways to reverse a pool, after the pool's own name."""


def subject(given: str) -> tuple[Path, Recipe]:
    """A network's file and how it is fed, from FILE=RECIPE or the name of a recipe that brings a network."""
    chosen = recipe_of(given)
    return Path(given.rpartition("=")[0]) if "=" in given else zoo.model_path(chosen), chosen


def recipe_of(given: str) -> Recipe:
    """How the network is fed."""
    return recipe.load(given.rpartition("=")[2])


def mirrored(model: Path, at: str, size: int, unpooling: str) -> dict[str, Compiled]:
    """For each of KINDS the network up to the layer, and what to learn, for squares of this size.

    Raises:
        RevgraphError: The network cannot be compiled, from this layer or for this size, or its bottleneck is
            more than masks and switches.
    """
    whole = revgraph.compile(model, variant="desalinet", at=at)
    cut = Extractor(whole.forward).extract_model([whole.input], [whole.at])
    del cut.graph.value_info[:]
    x, y = (value[0].type.tensor_type.shape.dim for value in (cut.graph.input, cut.graph.output))
    for dim in x[2:]:
        dim.dim_value = size
    for dim in y[2:]:
        dim.Clear()
    x[0].dim_param = y[0].dim_param = "N"
    cut.graph.name = whole.name
    pairs = {kind: revgraph.compile(cut, variant=variant, at=whole.at) for kind, variant in KINDS.items()}
    for tap in pairs["both"].taps:
        if not tap.endswith(("/mask", "/switches")):
            what, why = f"cannot learn inverses from '{whole.at}'", f"all would be given '{tap}'"
            raise RevgraphError(what, why, "--at a layer before it")
    if unpooling == "learned":
        for kind, less in ("switches", "nothing"), ("both", "masks"):
            pairs[kind] = _with_up_convolutions(pairs[kind], pairs[less])
    return pairs


def _with_up_convolutions(pair: Compiled, centred: Compiled) -> Compiled:
    """What each Unpool gives, plus what the other's transposed convolution gives at the same place.

    Both walk the same forward graph, so that the tensors about their pools have the same names.
    """
    model, other = pair.reversed, centred.reversed.graph
    centres = {node.output[0]: node for node in other.node if node.output[0].endswith(CENTRE)}
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        model.graph.node.append(node)
        unpooled = node.output[0]
        if unpooled.endswith(SWITCHED):
            centre = centres[unpooled.removesuffix(SWITCHED) + CENTRE]
            model.graph.node[-1].output[0] = f"{unpooled}/switched"
            sources = [f"{unpooled}/switched", centre.output[0]]
            model.graph.node.extend([centre, onnx.helper.make_node("Add", sources, [unpooled], unpooled)])
            model.graph.initializer.extend(t for t in other.initializer if t.name == centre.input[1])
    return replace(pair, light_reversed=weights.detach(model))
