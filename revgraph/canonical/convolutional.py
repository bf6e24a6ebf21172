"""A classifier's fully connected head becomes convolutions, so that any picture size runs (Sect. 3.5)."""

import math

import numpy as np

from revgraph.canonical.shapes import infer_shapes
from revgraph.errors import RevgraphError, invalid_model
from revgraph.graph import Tensor, attach, computed_inputs, export, gs, static, tidy

# Layers that treat each position alone and keep its channels where they are.
POINTWISE = frozenset(
    {"BatchNormalization", "Cast", "Clip", "Dropout", "Identity", "Relu", "Sigmoid", "Tanh"}
)


def fully_convolutional(graph: gs.Graph) -> gs.Graph:
    """The same network, sliding: where it gave (N, K) it gives (N, K, h, w), 1 x 1 for the size it had.

    Flattening goes, the fully connected layer after it becomes a convolution with a kernel as large as the
    maps were, later ones become 1 x 1; the input's height and width become free.

    Raises:
        RevgraphError: Something behind the flattened maps cannot slide, or their size is not known.
    """
    for node in [node for node in graph.nodes if _flattens(node)]:
        flat, maps = node.outputs[0], node.inputs[0]
        kernel = list(maps.shape[1:])
        if not static(kernel):
            what = f"cannot make node '{node.name}' ({node.op}) slide"
            raise RevgraphError(
                what, "the size of its maps is not known", "export it with a fixed picture size"
            )
        node.op, node.attrs, node.inputs = "Identity", {}, [maps]
        _slide_behind(flat, kernel)
    return _free(graph)


def _flattens(node: gs.Node) -> bool:
    if node.op not in ("Flatten", "Reshape", "Squeeze") or not node.outputs:
        return False
    x, y = node.inputs[0].shape, node.outputs[0].shape
    return x is not None and y is not None and len(x) == 4 and len(y) == 2


def _slide_behind(flat: Tensor, kernel: list[int]) -> None:
    """Rewrite all that stands behind what was (N, K); `kernel` is (C, H, W) of the maps that K flattened."""
    waiting, seen = [(flat, kernel)], set[int]()
    while waiting:
        x, kernel = waiting.pop()
        for reader in list(x.outputs):
            if id(reader) not in seen:
                seen.add(id(reader))
                waiting.append((reader.outputs[0], _slide(reader, x, kernel)))


def _slide(node: gs.Node, x: Tensor, kernel: list[int]) -> list[int]:
    """Rewrite what reads x, which is now maps, and say the maps' (C, H, W) of what it gives."""
    y = node.outputs[0]
    after = [y.shape[-1], 1, 1] if y.shape else kernel
    if node.op in ("Gemm", "MatMul"):
        _connect(node, kernel)
    elif node.op == "Add":
        _add(node, kernel)
    elif node.op in ("Softmax", "LogSoftmax"):
        node.attrs["axis"], after = 1, kernel
    elif _is_batch_flatten(node):
        node.op, node.attrs, node.inputs = "Identity", {}, [x]
        after = kernel
    elif node.op not in POINTWISE or kernel[1:] != [1, 1]:
        what = f"cannot make node '{node.name}' ({node.op}) slide"
        raise RevgraphError(what, "it stands behind the flattened maps", "leave the option out")
    return after


def _is_batch_flatten(node: gs.Node) -> bool:
    """A Reshape or Flatten of (N, K) to itself."""
    x, y = node.inputs[0].shape, node.outputs[0].shape
    return (
        node.op in ("Flatten", "Reshape") and x is not None and y is not None and list(x[1:]) == list(y[1:])
    )


def _connect(node: gs.Node, kernel: list[int]) -> None:
    """y = x W + b becomes the convolution with W as K kernels of the maps' size."""
    weight, bias = node.inputs[1], node.inputs[2:3]
    constants = all(isinstance(tensor, gs.Constant) for tensor in (weight, *bias))
    plain = node.attrs.get("alpha", 1.0) == node.attrs.get("beta", 1.0) == 1.0 and not node.attrs.get(
        "transA", 0
    )
    if not constants or not plain or len(computed_inputs(node)) != 1:
        what = f"cannot make node '{node.name}' ({node.op}) slide"
        raise RevgraphError(what, "it is more than y = x W + b with constant W and b", "leave the option out")
    values = weight.values if node.attrs.get("transB", 0) else weight.values.T
    if values.ndim != 2 or values.shape[1] != math.prod(kernel):
        raise invalid_model(f"node '{node.name}' ({node.op}) has weights {weight.shape} for maps {kernel}")
    kernels = gs.Constant(f"{weight.name}/kernels", np.ascontiguousarray(values).reshape(-1, *kernel))
    node.op, node.attrs = "Conv", {"kernel_shape": kernel[1:]}
    node.inputs = [
        node.inputs[0],
        kernels,
        *(gs.Constant(f"{b.name}/per_kernel", b.values.ravel()) for b in bias),
    ]


def _add(node: gs.Node, kernel: list[int]) -> None:
    """A bias (K,) becomes (K, 1, 1)."""
    for i, tensor in enumerate(node.inputs):
        if isinstance(tensor, gs.Constant):
            values = tensor.values.reshape(-1, 1, 1) if tensor.values.size > 1 else tensor.values
            node.inputs[i] = gs.Constant(f"{tensor.name}/per_channel", values)


def _free(graph: gs.Graph) -> gs.Graph:
    """The graph with free height and width, and the shapes that follow."""
    for x in graph.inputs:
        if x.shape is not None and len(x.shape) == 4:
            last = any(
                node.op == "Transpose" and node.attrs.get("perm") == [0, 3, 1, 2] for node in x.outputs
            )
            x.shape = [x.shape[0], "H", "W", x.shape[3]] if last else [*x.shape[:2], "H", "W"]
    light = export(tidy(graph))
    model = light.as_inputs()
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    result = gs.import_onnx(infer_shapes(model))
    attach(result, light.weights)
    return result
