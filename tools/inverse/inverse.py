"""A reversed network with filters to learn: the ONNX graph that revgraph emitted, in PyTorch."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor
from torch.nn import functional

from revgraph import pair, weights
from revgraph.errors import RevgraphError
from revgraph.pair import Compiled

SLOPE = 0.2
"""Of the leaky rectifiers in place of max(., 0), as Dosovitskiy and Brox have them."""

Attributes = Mapping[str, Any]


def _sliced(_: Attributes, x: Tensor, start: Tensor, end: Tensor, axis: Tensor, *steps: Tensor) -> Tensor:
    return x[(slice(None),) * int(axis) + (slice(int(start), int(end)),)]


def _reshaped(_: Attributes, x: Tensor, shape: Tensor) -> Tensor:
    return x.reshape([n or x.shape[i] for i, n in enumerate(shape.tolist())])


def _conv_transposed(a: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """PyTorch pads both ends alike: what it takes off too little is cut off here."""
    before, after = a["pads"][:2], a["pads"][2:]
    common = [min(pads) for pads in zip(before, after, strict=True)]
    y = functional.conv_transpose2d(
        x, weight, bias, a["strides"], common, a["output_padding"], a["group"], a["dilations"]
    )
    kept = [slice(b - c, n - (e - c)) for b, e, c, n in zip(before, after, common, y.shape[2:], strict=True)]
    return y[(..., *kept)]


def _max_unpool(_: Attributes, x: Tensor, places: Tensor, shape: Tensor) -> Tensor:
    flat = x.new_zeros(int(shape.prod()))
    return flat.scatter(0, places.flatten(), x.flatten()).reshape(shape.tolist())


OPERATORS: Mapping[str, Callable[..., Tensor]] = {
    "Add": lambda _, a, b: a + b,
    "Cast": lambda _, x: x.to(torch.float32),
    "Concat": lambda a, *parts: torch.cat(parts, a["axis"]),
    "ConvTranspose": _conv_transposed,
    "Expand": lambda _, x, shape: x.expand(torch.broadcast_shapes(x.shape, shape.tolist())),
    "Identity": lambda _, x: x,
    "MaxUnpool": _max_unpool,
    "Mul": lambda _, a, b: a * b,
    "Range": lambda _, *bounds: torch.arange(*bounds),
    "ReduceProd": lambda a, x: x.prod().reshape([1] * a["keepdims"]),
    "Relu": lambda _, x: functional.leaky_relu(x, SLOPE),
    "Reshape": _reshaped,
    "ScatterElements": lambda a, x, places, values: x.scatter_add(a["axis"], places, values),
    "Shape": lambda a, x: torch.tensor(x.shape[a.get("start", 0) : a.get("end")]),
    "Slice": _sliced,
    "Squeeze": lambda _, x: x.squeeze(),
    "Sum": lambda _, *terms: sum(terms),
}
"""What the portable target writes of convolutions, pools, rectifiers and sums, as ONNX defines it."""


class Inverse(torch.nn.Module):
    """(y, r) -> x_hat through the reversed graph of a compilation.

    Every transposed convolution has filters and a bias to learn, and every max(., 0) is a leaky one; masks
    gate and switches unpool where the variant has them. Unpooling to the centre is a transposed convolution
    too, of each channel by itself, with a single one in its window: it stays that, or is learned as well.

    Args:
        pair: The compilation, for the portable target.
        unit: What x_hat is measured in, so that the module's output has a standard deviation near one.
        fixed: Whether unpooling to the centre stays that.

    Raises:
        RevgraphError: The reversed graph has an operator that is not in OPERATORS.
    """

    def __init__(self, pair: Compiled, unit: float, fixed: bool = False) -> None:
        super().__init__()
        self.pair, self.unit = pair, unit
        graph = pair.reversed.graph
        constants = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in graph.initializer}
        self._nodes = [(node, _attributes(node)) for node in graph.node]
        for node, _ in self._nodes:
            if node.op_type not in OPERATORS:
                what, known = f"cannot learn an inverse past '{node.name}'", ", ".join(OPERATORS)
                raise RevgraphError(what, f"nothing here runs {node.op_type}", f"there are {known}")
        forward = {tensor.name for tensor in pair.forward.graph.initializer}
        groups = {
            node.input[1]: attributes["group"]
            for node, attributes in self._nodes
            if node.op_type == "ConvTranspose" and not (fixed and node.input[1] not in forward)
        }
        self._places = {name: i for i, name in enumerate(groups)}
        self.filters = torch.nn.ParameterList(torch.empty_like(constants.pop(name)) for name in groups)
        self.biases = torch.nn.ParameterList(
            torch.zeros(filters.shape[1] * group)
            for filters, group in zip(self.filters, groups.values(), strict=True)
        )
        self._constants = constants

    def forward(self, y: Tensor, taps: Mapping[str, Tensor]) -> Tensor:
        """x_hat in units, (N, C, H, W)."""
        return self._run(y, taps, lambda place, output: output)

    def settle(self, y: Tensor, taps: Mapping[str, Tensor]) -> None:
        """Random orthogonal filters, each scaled so that its output has a deviation of one on this batch.

        Mishkin and Matas, "All you need is a good init" (ICLR 2016): gates and unpooling thin out what
        passes, by other amounts in each kind of inverse, and all shall start alike.
        """
        for filters in self.filters:
            torch.nn.init.orthogonal_(filters)

        def scaled(place: int, output: Tensor) -> Tensor:
            deviation = output.std().item() or 1.0
            self.filters[place] /= deviation
            return output / deviation

        with torch.no_grad():
            self._run(y, taps, scaled)

    def _run(self, y: Tensor, taps: Mapping[str, Tensor], then: Callable[[int, Tensor], Tensor]) -> Tensor:
        values: dict[str, Tensor] = {**self._constants, **taps, "p": y}
        for node, attributes in self._nodes:
            place = self._places.get(node.input[1]) if node.op_type == "ConvTranspose" else None
            if place is None:
                inputs = [values[name] for name in node.input]
                output = OPERATORS[node.op_type](attributes, *inputs)
            else:
                x, filters, bias = values[node.input[0]], self.filters[place], self.biases[place]
                output = then(place, _conv_transposed(attributes, x, filters, bias))
            values[node.output[0]] = output
        return values["x_hat"]

    def compiled(self, given: str) -> Compiled:
        """The forward graph, and the reversed graph with what was learned: y as p, taps by their names."""
        model = self.pair.reversed
        graph, learned = model.graph, {}
        for name, place in self._places.items():  # not the forward graph's weights, and not named like them
            learned[f"{name}/learned"] = self.filters[place].detach().numpy()
            learned[f"{name}/bias"] = self.biases[place].detach().numpy()
        for node in graph.node:
            if node.op_type == "ConvTranspose" and (name := node.input[1]) in self._places:
                node.input[1:] = [f"{name}/learned", f"{name}/bias"]
            if node.op_type == "Relu":
                node.op_type = "LeakyRelu"
                node.attribute.append(onnx.helper.make_attribute("alpha", SLOPE))
            if node.output[0] == "x_hat":
                node.output[0] = "x_hat/units"
        learned["x_hat/unit"] = np.array(self.unit, np.float32)
        graph.node.append(
            onnx.helper.make_node("Mul", ["x_hat/units", "x_hat/unit"], ["x_hat"], "x_hat/scaled")
        )
        kept = [tensor for tensor in graph.initializer if tensor.name not in self._places]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in learned.items())
        onnx.checker.check_model(model, full_check=True)
        noted = {**self.pair.metadata, "inverse": given}
        return pair.tie(self.pair.name, weights.detach(self.pair.forward), weights.detach(model), noted)


def _attributes(node: onnx.NodeProto) -> Attributes:
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
