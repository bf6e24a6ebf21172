"""What commands were given, opened: models, compilations, recipes."""

import dataclasses
import os
from pathlib import Path

import revgraph
from revgraph import loading, recipe, zoo
from revgraph.cli.command import Args
from revgraph.errors import RevgraphError
from revgraph.pair import Compiled
from revgraph.recipe import Recipe
from revgraph.runtime import Device


def model(name: str) -> Path:
    """A model file, or the network that a recipe names."""
    known = name in recipe.names() and not os.path.exists(name)
    return zoo.model_path(recipe.load(name)) if known else Path(name)


def compilation(args: Args) -> tuple[Compiled, Recipe]:
    """A folder's compilation, or a model's, and the recipe for its pictures."""
    found = compiled(args)
    return found, recipe_for(args, found)


def compiled(args: Args) -> Compiled:
    """A folder's compilation, or a model's, with notes on what people should know of it."""
    bottleneck = vars(args).get("bottleneck", "plain")
    found = compiled_for(args.model, args.variant, args.at, args.device, bottleneck)
    args.notes += found.notes
    return found


def compiled_for(
    name: str, variant: str | None, at: str | None, device: str, bottleneck: str = "plain"
) -> Compiled:
    """The compilation in a folder, or of a model for a device."""
    if not is_folder(name):
        return revgraph.compile(
            model(name),
            variant=variant or "desalinet",
            at=at,
            target=Device.of(device).kind,
            bottleneck=bottleneck,
        )
    folder = Path(name)
    found = loading.load(folder, variant)
    outputs = {node.name: node.output[0] for node in found.light_forward.model.graph.node}
    if at not in (None, found.at) and outputs.get(at) != found.at:
        why = f"it was compiled at '{found.at}'"
        raise RevgraphError(f"cannot run '{folder}' at '{at}'", why, "compile again with --at")
    return found


def is_folder(name: str) -> bool:
    """Whether it names one: unlike Path's, False for a name that no file can have."""
    return os.path.isdir(name)


def recipe_for(args: Args, network: Compiled) -> Recipe:
    """As `recipe_of`, the model being what was compiled."""
    return recipe_of(args, network.metadata.get("recipe"))


def recipe_of(args: Args, own: str | None) -> Recipe:
    """The recipe asked for, else what the model's metadata say, else ImageNet's usual one."""
    if name := args.recipe or (own if own in recipe.names() else None):  # a model cannot name a file
        return recipe.load(name)
    args.notes.append("no recipe given: fed RGB / 255 with ImageNet's mean and std (choose with --recipe)")
    return dataclasses.replace(recipe.load("imagenet"), labels=None)  # its classes may be anything
