"""One node and what it reads, and how an operator is written down: what every family is made of."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx

from revgraph.errors import RevgraphError

Array: TypeAlias = npt.NDArray[Any]
Forward: TypeAlias = Callable[..., Any]
Slope: TypeAlias = Callable[["Layer"], Array]
Reversed: TypeAlias = Callable[["Layer", Array, int], Any]
FLOATS = {
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.BFLOAT16,
}


@dataclass(frozen=True)
class Layer:
    """One node and what it reads: phi_i and its x of Eq. (2).

    Attributes:
        node: The node of the user's model.
        opset: The model's version of the standard operators.
        inputs: The values of the node's inputs; None for an optional one that is left out.
        output: Which of the node's outputs y_hat belongs to.
    """

    node: onnx.NodeProto
    opset: int
    inputs: tuple[Any, ...]
    output: int = 0

    @property
    def x(self) -> Array:
        return np.asarray(self.inputs[0])

    def get(self, name: str, default: Any = None) -> Any:
        values = (onnx.helper.get_attribute_value(a) for a in self.node.attribute if a.name == name)
        value = next(values, default)
        return value.decode() if isinstance(value, bytes) else value

    def get_or_read(self, name: str, position: int) -> Any:
        """Numbers that a later opset moved from an attribute to an input; None where they are left out."""
        read = self.inputs[position] if position < len(self.inputs) else None
        return self.get(name) if read is None else read.tolist()

    def refusal(self, why: str, remedy: str, verb: str = "run") -> RevgraphError:
        name = self.node.name or f"{self.node.op_type} of {self.node.output[0]}"
        return RevgraphError(f"cannot {verb} node {name!r}", why, remedy)


@dataclass(frozen=True)
class Operator:
    """How one operator runs, and how it is reversed.

    Attributes:
        forward: (layer, *inputs) to y (Eq. 2), or to the tuple of its outputs.
        reversed: (layer, y_hat, which input) to that input's x_hat; None if it has none, or the variant's.
        data: The inputs that have an x_hat; None if all do.
        slope: Of a rectifier: layer to dy / dx, shaped like x. Its reversed layer is the variant's.
    """

    forward: Forward
    reversed: Reversed | None = None
    data: tuple[int, ...] | None = (0,)
    slope: Slope | None = None


def read(model: onnx.ModelProto, node: onnx.NodeProto, tensors: Mapping[str, Array]) -> Layer:
    """The node with the values of its inputs."""
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    return Layer(node, opset, tuple(tensor(tensors, name) if name else None for name in node.input))


def tensor(tensors: Mapping[str, Array], name: str) -> Array:
    if name not in tensors:
        why = "it is no feed, no initializer and no output that the reference computes"
        raise RevgraphError(f"no value for {name!r}", why, "feed it, or choose another tensor")
    return tensors[name]


def values_read(node: onnx.NodeProto) -> Sequence[str]:
    """The inputs whose values reach y; of others only the shape or the type does."""
    return node.input[: {"Shape": 0, "Size": 0, "CastLike": 1}.get(node.op_type)]


def dependent(nodes: Iterable[onnx.NodeProto], to: str) -> set[str]:
    """The tensors that `to` flows into; what is computed from shapes alone is constant."""
    names = {to}
    for node in nodes:
        if names.intersection(values_read(node)):
            names.update(node.output)
    return names


def as_is(_layer: Layer, y_hat: Array, _: int) -> Array:
    """x_hat = y_hat."""
    return y_hat


def unbroadcast(y_hat: Array, shape: tuple[int, ...]) -> Array:
    """The transpose of broadcasting from `shape`: the sum over the axes that it stretched."""
    y_hat = y_hat.sum(axis=tuple(range(y_hat.ndim - len(shape))))
    return np.asarray(y_hat.sum(axis=tuple(i for i, n in enumerate(shape) if n == 1), keepdims=True))


def elementwise(slope: Callable[[Layer, int], Any]) -> Reversed:
    """x_hat = y_hat * (dy / dx), the slope given by which operand x is (Eq. 5)."""
    return lambda layer, y_hat, operand: unbroadcast(
        y_hat * slope(layer, operand), layer.inputs[operand].shape
    )


def per_channel(values: Array, x: Array) -> Array:
    """(C,) to (C, 1, ..., 1), which meets x's channels."""
    return values.reshape(*values.shape, *[1] * (x.ndim - 1 - values.ndim))
