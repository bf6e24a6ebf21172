"""The networks: nine architectures of the onnx package, five of PyTorch's, and chains for growth."""

import re
from pathlib import Path

import numpy as np
import onnx
import onnx.shape_inference
import onnx.utils
import onnx.version_converter
from jobs import Job, serve
from onnx import helper, numpy_helper

Array = np.ndarray

FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"

NINE = tuple(sorted(path.stem for path in FOLDER.glob("light_*.onnx")))

TORCH = ("vgg16", "googlenet", "resnet50", "alexnet", "squeezenet")
"""Written in `modules.py`: these Captum can take as they are."""

DEFAULT = (*NINE, *TORCH)

TINY = "tiny"
"""A network for testing the bench itself."""


def build(name: str, batch: int, size: int, file: Path) -> None:
    """Write the network of that name, of a static batch and picture size."""
    if name in TORCH:
        import modules

        modules.export(name, batch, size, file)
    elif name in NINE:
        onnx.save(light(name, batch, size), file)
    elif name == TINY:
        onnx.save(chain(2, 8, batch, size), file)
    elif found := re.fullmatch(r"chain-(\d+)", name):
        onnx.save(chain(int(found[1]), 64, batch, size), file)
    else:
        known = ", ".join((*DEFAULT, TINY, "chain-DEPTH"))
        raise ValueError(f"unknown network '{name}' (known: {known})")


def default_size(name: str) -> int:
    return 16 if name == TINY else 224


def pictures(batch: int, size: int, channels: int = 3) -> Array:
    """Seeded images, (N, C, H, W); the first ones of a batch do not depend on how many follow."""
    rows = [np.random.default_rng(100 + i).standard_normal((channels, size, size)) for i in range(batch)]
    return np.stack(rows).astype(np.float32)


def neurons(rows: int, size: int) -> list[int]:
    """The neuron that each row projects onto, as an index into one image's y of that size."""
    return [(7 + 101 * i) % size for i in range(rows)]


# ----- The nine -----


def light(name: str, batch: int, size: int) -> onnx.ModelProto:
    """The package's model with seeded weights for ConstantOfShape, with which every output would tie."""
    model, rng = onnx.load(FOLDER / f"{name}.onnx"), np.random.default_rng(0)
    graph = model.graph
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    readers = {tensor: (node.op_type, i) for node in graph.node for i, tensor in enumerate(node.input)}
    empty = [node for node in graph.node if node.op_type == "ConstantOfShape"]
    kept = [node for node in graph.node if node.op_type != "ConstantOfShape"]
    for node in empty:
        values = _weights(rng, shapes[node.input[0]].tolist(), readers.get(node.output[0]))
        graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
        value = helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, values.shape)
        graph.input.append(value)
    del graph.node[:]
    graph.node.extend(kept)
    _resize(graph, batch, size)
    return model


def _weights(rng: np.random.Generator, shape: list[int], reader: tuple[str, int] | None) -> Array:
    if len(shape) > 1:
        values = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    elif reader in (("BatchNormalization", 1), ("BatchNormalization", 4), ("Unsqueeze", 0)):
        values = rng.uniform(0.5, 1.5, shape)  # scales and variances
    else:
        values = rng.standard_normal(shape) * 0.1
    return values.astype(np.float32)


def _resize(graph: onnx.GraphProto, batch: int, size: int) -> None:
    """Set the batch, and the height and width of the pictures."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    x = next(value for value in graph.input if value.name not in stored)
    for dim, extent in zip(x.type.tensor_type.shape.dim, (batch, 3, size, size), strict=True):
        dim.dim_value = extent
    for value in graph.output:
        value.type.tensor_type.shape.dim[0].dim_value = batch
    for node in graph.node:
        if node.op_type == "Reshape" and node.input[1] in stored:
            shape = numpy_helper.to_array(stored[node.input[1]])
            if shape[0] == 1 and node.input[0] not in stored:
                whole = numpy_helper.from_array(np.array([0, *shape[1:]]), node.input[1])
                stored[node.input[1]].CopyFrom(whole)


# ----- Chains -----


def chain(depth: int, width: int, batch: int, size: int) -> onnx.ModelProto:
    """A stem, `depth` 3x3 convolutions with ReLU, a pool after the first and the second, and a classifier."""
    rng, nodes, weights = np.random.default_rng(0), list[onnx.NodeProto](), list[onnx.TensorProto]()

    def add(op: str, x: str, y: str, shape: tuple[int, ...] = (), **attributes: object) -> str:
        inputs = [x]
        if shape:
            inputs += [f"{y}.weight", f"{y}.bias"]
            weights.append(numpy_helper.from_array(_weights(rng, list(shape), None), inputs[1]))
            weights.append(numpy_helper.from_array(_weights(rng, [shape[0]], None), inputs[2]))
        nodes.append(helper.make_node(op, inputs, [y], name=y, **attributes))
        return y

    at = add("Relu", add("Conv", "x", "stem", (width, 3, 3, 3), strides=[2, 2], pads=[1] * 4), "stem_relu")
    for i in range(1, depth + 1):
        at = add("Conv", at, f"conv{i}", (width, width, 3, 3), pads=[1] * 4)
        at = add("Relu", at, f"relu{i}")
        if i in (1, 2):  # from there on each layer costs the same
            at = add("MaxPool", at, f"pool{i}", kernel_shape=[2, 2], strides=[2, 2])
    at = add("Flatten", add("GlobalAveragePool", at, "gap"), "flat")
    add("Gemm", at, "y", (10, width), transB=1)
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [batch, 3, size, size])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [batch, 10])
    graph = helper.make_graph(nodes, "chain", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


# ----- For the peers -----


def cut(model: onnx.ModelProto, x: str, y: str) -> onnx.ModelProto:
    """The part from x to y, at an opset that onnx-ad takes, with its shapes written in."""
    model.ir_version = max(model.ir_version, 8)
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in stored]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    _remove_dropout(model.graph)
    inferred = onnx.shape_inference.infer_shapes(model)
    part = onnx.utils.Extractor(inferred).extract_model([x], [y])
    if max(entry.version for entry in part.opset_import if not entry.domain) < 16:
        part = onnx.version_converter.convert_version(part, 18)
    return onnx.shape_inference.infer_shapes(part)


def _remove_dropout(graph: onnx.GraphProto) -> None:
    """Dropout does nothing here, but onnx2torch 1.5.15 reads today's Dropout wrongly."""
    passed = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Dropout"}
    kept = [node for node in graph.node if node.op_type != "Dropout"]
    for node in kept:
        node.input[:] = [passed.get(name, name) for name in node.input]
    del graph.node[:]
    graph.node.extend(kept)


def work(job: Job) -> Job:
    file = Path(job["model"])
    build(job["network"], job["batch"], job["size"], file)
    return {"model_bytes": file.stat().st_size, "nodes": len(onnx.load(file).graph.node)}


if __name__ == "__main__":
    serve(work)
