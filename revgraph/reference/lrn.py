"""Local response normalisation as exporters and users write it, in several nodes.

There are too many spellings of a sum over neighbouring channels, by padding, pooling, convolving, slicing and
turning axes. So the group is not read but run: on a few chosen pictures it tells the numbers of

    y_c = x_c / (bias + alpha / n * (sum of x_k^2 over the n channels k around c))^beta

and on a random one whether it is that function.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import onnx

from revgraph.reference.graph import Graph, run
from revgraph.reference.layer import Array, read
from revgraph.reference.table import OPERATORS

ARITHMETIC = {
    *("Add", "Cast", "CastLike", "Clip", "Div", "Exp", "Log", "Max", "Min", "Mul", "Neg", "Pow"),
    *("Reciprocal", "Sqrt", "Sub", "Sum"),
}
WIRING = {
    *("Concat", "Expand", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Slice", "Split", "Squeeze"),
    *("Tile", "Transpose", "Unsqueeze"),
}
SUMS = {"AveragePool", "Conv", "Gemm", "LpPool", "MatMul", "ReduceMean", "ReduceSum", "ReduceSumSquare"}
WRITTEN = {*ARITHMETIC, *WIRING, *SUMS}
SMALL, LARGE, LARGER = 1e-30, 1e30, 1e40


def response(graph: Graph, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """The LRN that ends at this node: the division by the power, or the product with its inverse."""
    y = node.output[0]
    for x in _numerators(graph, node):
        nodes = _nodes(graph, x, y)
        groups = [_Group(graph, nodes, x, y, axis) for axis in (1, graph.tensors[x].ndim - 1) if nodes]
        for group in groups:
            if group.may_be_channels() and (one := group.lrn()) is not None:
                return one
    return None


def _numerators(graph: Graph, node: onnx.NodeProto) -> list[str]:
    """What may be x: the numerator, or a factor, before it was cast too."""
    names = list(node.input[: 1 if node.op_type == "Div" else 2])
    for name in names:
        maker = graph.makers.get(name)
        if maker is not None and maker.op_type in ("Cast", "Identity"):
            names.append(maker.input[0])
    return [name for name in names if name in graph.tensors and graph.tensors[name].ndim > 2]


def _nodes(graph: Graph, x: str, y: str) -> list[onnx.NodeProto]:
    """The nodes from x to y; none if y reads another activation, or is written in other operators."""
    above = graph.above(y, x)
    if graph.tensors[y].shape != graph.tensors[x].shape or not above <= {*graph.makers, *graph.stored}:
        return []
    inside = graph.between(x, y)
    nodes = [node for node in graph.nodes if inside.intersection(node.output)]
    return nodes if all(node.op_type in WRITTEN for node in nodes) else []


@dataclass(frozen=True)
class _Group:
    """The nodes that compute y from x and constants.

    Attributes:
        graph: What they are part of.
        nodes: They, in order.
        x: The input, (N, C, *spatial) or (N, *spatial, C).
        y: The output, in the same shape.
        axis: Where to look for channels.
    """

    graph: Graph
    nodes: list[onnx.NodeProto]
    x: str
    y: str
    axis: int

    @property
    def shape(self) -> tuple[int, ...]:
        return self.graph.tensors[self.x].shape

    @property
    def channels(self) -> int:
        return self.shape[self.axis]

    def may_be_channels(self) -> bool:
        """Axis 1, or the last one of a picture, if no window slides along it as it stands, as over pixels."""
        direct = [node for node in self.nodes if self._input(node).ndim == len(self.shape)]
        return self.axis == 1 or (self.axis > 2 and not any(map(self._slides, direct)))

    def run(self, x: Array) -> Array:
        """The y of another x."""
        tensors = {**self.graph.tensors, self.x: x}
        for node in self.nodes:
            tensors |= run(self.graph.model, node, tensors)
        return tensors[self.y]

    def base(self, channel: int, value: float) -> Array:
        """x / y of each channel, one of which has this value, the others next to none."""
        x = np.full(self.shape, SMALL)
        np.moveaxis(x, self.axis, 0)[channel] = value
        return np.moveaxis(x / self.run(x), self.axis, 0).reshape(self.channels, -1)[:, 0]

    def lrn(self) -> onnx.NodeProto | None:
        with np.errstate(all="ignore"):
            one = self._guess()
            return one if one is not None and self._is(one) else None

    def _guess(self) -> onnx.NodeProto | None:
        """The LRN that this is, if it is one: x / y is bias^beta here, (alpha / n * x^2)^beta there."""
        least, most, more = self.base(0, SMALL), self.base(0, LARGE), self.base(0, LARGER)
        beta = float(np.log(more[0] / most[0]) / np.log(LARGER / LARGE) / 2)
        if not (0 < least[0] < most[0] < math.inf and 0.01 < beta < math.inf):
            return None
        # The window is as wide as the channels that see the first one and those that see the last one.
        apart = math.sqrt(least[0]) * math.sqrt(most[0])
        n = sum(int((base > apart).sum()) for base in (most, self.base(-1, LARGE))) - 1
        bias, share = least[0] ** (1 / beta), most[0] ** (1 / beta) / LARGE**2
        if n < 2 or not self._is_local(n):
            return None
        where = {} if self.axis == 1 else {"axis": self.axis}
        numbers = {"size": n, "alpha": share * n, "beta": beta, "bias": float(bias), **where}
        return onnx.helper.make_node("LRN", [self.x], [self.y], **numbers)

    def _is_local(self, n: int) -> bool:
        """Whether some channel does not see some other, or a window slides: no sum over all of them."""
        size = math.prod(self.shape)
        slid = [node for node in self.nodes if self.graph.tensors[node.output[0]].size == size]
        return n < 2 * self.channels - 1 or any(map(self._slides, slid))

    def _slides(self, node: onnx.NodeProto) -> bool:
        """Whether a window of more than one pixel slides over the node's input."""
        layer = read(self.graph.model, node, self.graph.tensors)
        kernel = layer.inputs[1].shape[2:] if node.op_type == "Conv" else layer.get("kernel_shape", ())
        return max(kernel, default=1) > 1

    def _input(self, node: onnx.NodeProto) -> Array:
        return self.graph.tensors[node.input[0]]

    def _is(self, one: onnx.NodeProto) -> bool:
        """Whether the group does on a random picture what this LRN does."""
        layer = read(self.graph.model, one, {self.x: np.ones(())})
        bias, share = layer.get("bias"), layer.get("alpha") / layer.get("size")
        x = np.random.default_rng(0).standard_normal(self.shape) * math.sqrt(bias / share)
        y = OPERATORS["LRN"].forward(replace(layer, inputs=(x,)), x)
        return np.allclose(self.run(x), y, rtol=1e-6, atol=1e-9 * math.sqrt(bias / share))
