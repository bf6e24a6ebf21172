"""Wiring: every y_u is a copy of some x_v, or a constant."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from revgraph.reference.layer import Array, Forward, Layer, Operator, as_is, elementwise


def _collected(copies: Array, y_hat: Array, shape: tuple[int, ...]) -> Array:
    """x_hat_v = sum of y_hat_u over the copies u of v (Eq. 5), the positions v counted from 1."""
    bins = np.bincount(copies.ravel(), weights=y_hat.ravel(), minlength=math.prod(shape) + 1)
    return np.asarray(bins[1:].reshape(shape))


def _positions(x: Array) -> Array:
    return np.arange(1, x.size + 1).reshape(x.shape)


def _wiring(forward: Forward) -> Operator:
    """Reversed by sending positions forward."""

    def reversed_(layer: Layer, y_hat: Array, _: int) -> Array:
        copies = forward(layer, _positions(layer.x), *layer.inputs[1:])
        copies = copies[layer.output] if isinstance(copies, tuple) else copies
        return _collected(copies, y_hat, layer.x.shape)

    return Operator(forward, reversed_)


# ----- The same pixels in another shape or order -----


def _flatten(layer: Layer, x: Array) -> Array:
    return x.reshape(math.prod(x.shape[: layer.get("axis", 1)]), -1)


def _reshape(_: Layer, x: Array, shape: Array) -> Array:
    """A 0 keeps its axis, a -1 takes what remains."""
    return x.reshape([int(n) or x.shape[i] for i, n in enumerate(shape)])


def _squeeze(layer: Layer, x: Array, *_: Array) -> Array:
    axes = layer.get_or_read("axes", 1)
    return x.squeeze(None if axes is None else tuple(axes))


def _unsqueeze(layer: Layer, x: Array, *_: Array) -> Array:
    return np.expand_dims(x, tuple(layer.get_or_read("axes", 1)))


def _depth_to_space(layer: Layer, x: Array) -> Array:
    """Channels, named (block, block, C) by DCR and (C, block, block) by CRD, become pixels."""
    (n, c, h, w), b = x.shape, layer.get("blocksize")
    if layer.get("mode", "DCR") == "DCR":
        x = x.reshape(n, b, b, c // b**2, h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        x = x.reshape(n, c // b**2, b, b, h, w).transpose(0, 1, 4, 2, 5, 3)
    return x.reshape(n, c // b**2, h * b, w * b)


def _space_to_depth(layer: Layer, x: Array) -> Array:
    """Pixels become channels, named as in `_depth_to_space`."""
    (n, c, h, w), b = x.shape, layer.get("blocksize")
    x = x.reshape(n, c, h // b, b, w // b, b)
    order = (0, 3, 5, 1, 2, 4) if layer.get("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    return x.transpose(order).reshape(n, c * b**2, h // b, w // b)


# ----- Some of the pixels, or some more than once -----


def _slice(layer: Layer, x: Array, *_: Array) -> Array:
    names = ("starts", "ends", "axes", "steps")
    starts, ends, axes, steps = (layer.get_or_read(name, i) for i, name in enumerate(names, 1))
    index = [slice(None)] * x.ndim
    for axis, *bounds in zip(
        axes or range(len(starts)), starts, ends, steps or [1] * len(starts), strict=True
    ):
        index[axis] = slice(*bounds)
    return x[tuple(index)]


def _split(layer: Layer, x: Array, *_: Array) -> tuple[Array, ...]:
    """Into the given sizes, or as many equal ones as there are outputs, the last what is left."""
    axis, outputs = layer.get("axis", 0), len(layer.node.output)
    sizes = layer.get_or_read("split", 1) or [math.ceil(x.shape[axis] / outputs)] * outputs
    return tuple(np.split(x, np.cumsum(sizes)[:-1], axis))


def _expand(_: Layer, x: Array, shape: Array) -> Array:
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(shape)))


def _dropout(layer: Layer, x: Array, _ratio: Any = None, training: Any = None) -> Array:
    if training is not None and training:
        raise layer.refusal("it drops at random (training_mode)", "export the model for inference")
    return x


# ----- Pixels beside others -----


def _concat_reversed(layer: Layer, y_hat: Array, operand: int) -> Array:
    """x_hat is the part of y_hat that x is of y."""
    axis = layer.get("axis")
    ends = np.cumsum([x.shape[axis] for x in layer.inputs])
    return np.split(y_hat, ends[:-1], axis)[operand]


def _pad(layer: Layer, x: Array, *more: Any) -> Array:
    """The picture continued by a constant, by its mirror image, its edge or itself; negative pads crop."""
    fill = more[1] if len(more) > 1 and more[1] is not None else layer.get("value", 0.0)
    return _padded(layer, x, fill)


def _padded(layer: Layer, x: Array, fill: Any) -> Array:
    pads, axes = layer.get_or_read("pads", 1), layer.get_or_read("axes", 3)
    widths = np.zeros((x.ndim, 2), np.int64)
    widths[range(x.ndim) if axes is None else axes] = np.reshape(pads, (2, -1)).T
    crops = np.maximum(-widths, 0)
    x = x[tuple(slice(before, n - after) for n, (before, after) in zip(x.shape, crops, strict=True))]
    mode, widths = layer.get("mode", "constant"), np.maximum(widths, 0)
    return np.pad(x, widths, constant_values=fill) if mode == "constant" else np.pad(x, widths, mode)


def _pad_reversed(layer: Layer, y_hat: Array, _: int) -> Array:
    """x_hat_v = sum of y_hat_u over the copies u of v (Eq. 5); what met the constant is dropped."""
    return _collected(_padded(layer, _positions(layer.x), 0), y_hat, layer.x.shape)


OPERATORS: Mapping[str, Operator] = {
    "Concat": Operator(lambda layer, *x: np.concatenate(x, layer.get("axis")), _concat_reversed, None),
    "DepthToSpace": _wiring(_depth_to_space),
    "Dropout": Operator(_dropout, as_is),
    "Expand": _wiring(_expand),
    "Flatten": _wiring(_flatten),
    "Gather": _wiring(lambda layer, x, indices: np.take(x, indices, layer.get("axis", 0))),
    "Identity": Operator(lambda _, x: x, as_is),
    "Pad": Operator(_pad, _pad_reversed),
    "Reshape": _wiring(_reshape),
    "Slice": _wiring(_slice),
    "SpaceToDepth": _wiring(_space_to_depth),
    "Split": _wiring(_split),
    "Squeeze": _wiring(_squeeze),
    "Tile": _wiring(lambda _, x, repeats: np.tile(x, repeats)),
    "Transpose": _wiring(lambda layer, x: x.transpose(layer.get("perm"))),
    "Unsqueeze": _wiring(_unsqueeze),
    "Where": Operator(
        lambda _, chosen, a, b: np.where(chosen, a, b),
        elementwise(lambda layer, operand: layer.inputs[0] if operand == 1 else ~layer.inputs[0]),
        (1, 2),
    ),
}
