"""onnxruntime: graphs opened and run, on a CPU or on a GPU."""

import contextlib
import ctypes
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from revgraph.errors import RevgraphError, missing_extra
from revgraph.weights import LightModel, Weights

CUDA = "CUDAExecutionProvider"

FLOATS = ("tensor(float)", "tensor(float16)", "tensor(double)")


@dataclass(frozen=True, slots=True)
class Device:
    """Where graphs run.

    Attributes:
        kind: "cpu" or "cuda".
        index: Which of several GPUs.
    """

    kind: str = "cpu"
    index: int = 0

    @classmethod
    def of(cls, name: str) -> "Device":
        """Read "cpu", "cuda" or "cuda:1".

        Raises:
            RevgraphError: It is none of these.
        """
        found = re.fullmatch(r"(cpu)|(cuda)(?::(\d{1,3}))?", name)
        if found is None:
            raise RevgraphError("unknown device", f"'{name}'", "known: cpu, cuda, cuda:0, cuda:1, ...")
        return cls(found[1] or found[2], int(found[3] or 0))

    def providers(self, capture: bool = False) -> list[Any]:
        """onnxruntime's name for it, and options: products in whole float32, as on a CPU, not in TF32.

        Args:
            capture: Whether runs may be captured as CUDA graphs.
        """
        if self.kind == "cpu":
            return ["CPUExecutionProvider"]
        options = {"device_id": str(self.index), "use_tf32": "0", "enable_cuda_graph": str(int(capture))}
        return [(CUDA, options)]


CPU = Device()


def ort_values(weights: Weights) -> dict[str, Any]:
    """The arrays as onnxruntime's values, over the same memory."""
    onnxruntime = package()
    return {name: onnxruntime.OrtValue.ortvalue_from_numpy(values) for name, values in weights.items()}


def package() -> Any:
    """onnxruntime itself.

    Raises:
        RevgraphError: It is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise missing_extra("cannot run a network", "onnxruntime", "cpu") from error
    return onnxruntime


def open_light(
    light: LightModel,
    values: Mapping[str, Any],
    threads: int,
    configure: Callable[[Any], object] | None = None,
    device: Device = CPU,
    capture: bool = False,
) -> Any:
    """An InferenceSession on weights where they are, which are not copied.

    Raises:
        RevgraphError: onnxruntime cannot run the graph, or the device is not there.
    """
    onnxruntime = package()

    names = list(light.weights)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what it logs as errors it also raises
    options.add_external_initializers(names, [values[name] for name in names])
    for name in names:  # the first alone would be copied
        options.add_initializer(name, values[name])
    if configure is not None:
        configure(options)
    try:
        session = onnxruntime.InferenceSession(
            light.model.SerializeToString(), options, providers=device.providers(capture), enable_fallback=0
        )
    except Exception as error:
        raise refused(error) from error
    if device.kind == "cuda" and CUDA not in session.get_providers():
        raise RevgraphError("cannot run on CUDA", "onnxruntime left it out", "see revgraph doctor")
    return session


def exposed(light: LightModel, names: Iterable[str]) -> LightModel:
    """The same with inner tensors as outputs too."""
    model = onnx.ModelProto()
    model.CopyFrom(light.model)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return LightModel(model, light.weights)


def run(
    session: Any, outputs: list[str], feeds: Mapping[str, Any], device: Device = CPU, options: Any = None
) -> list[Any]:
    """The outputs as onnxruntime's values, on the device.

    Args:
        session: What `open_light` gave.
        outputs: Their names.
        feeds: Inputs by name: arrays, onnxruntime's values, or anything else that speaks DLPack.
        device: Where the session runs.
        options: An `onnxruntime.RunOptions`.

    Raises:
        RevgraphError: onnxruntime cannot run the network on these.
    """
    values = {name: ort_value(value) for name, value in feeds.items()}
    try:
        binding = session.io_binding()
        for name, value in values.items():
            binding.bind_ortvalue_input(name, value)
        for name in outputs:
            binding.bind_output(name, device.kind, device.index)
        session.run_with_iobinding(binding, options)
        return list(binding.get_outputs())
    except Exception as error:
        raise refused(error) from error


def run_each_node(model: onnx.ModelProto, feeds: Mapping[str, Any], device: Device = CPU) -> dict[str, Any]:
    """The inputs and what the nodes write as arrays, each node run by itself.

    So each has its own type: within a graph onnxruntime's CPU computes float16 in float32, and rounds only
    what leaves it.

    Raises:
        RevgraphError: onnxruntime cannot run one of the nodes.
    """
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    values = dict(feeds)
    for node in model.graph.node:
        known = weights | values
        read = {name: known[name] for name in _reads(node) if name in known}
        inputs = [
            onnx.helper.make_tensor_value_info(
                name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in read.items()
        ]
        written = [name for name in node.output if name]
        graph = onnx.helper.make_graph(
            [node], node.name, inputs, [onnx.ValueInfoProto(name=name) for name in written]
        )
        alone = onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
        session = open_light(LightModel(alone, {}), {}, 0, device=device)
        results = run(session, written, read, device)
        values |= {name: result.numpy() for name, result in zip(written, results, strict=True)}
    return values


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """What the node reads, and its branches, whose own tensors are among it."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            yield from (value.name for value in graph.output)
            for inner in graph.node:
                yield from _reads(inner)


def ort_value(value: Any) -> Any:
    """An array, a tensor that speaks DLPack, or what is one already, without a copy where that can be."""
    onnxruntime = package()

    if isinstance(value, onnxruntime.OrtValue):
        return value
    if isinstance(value, np.ndarray):
        return onnxruntime.OrtValue.ortvalue_from_numpy(np.asarray(value, order="C"))
    what = f"cannot take a {type(value).__name__}"
    remedy = "give a NumPy array, or a contiguous tensor that speaks DLPack"
    if not hasattr(value, "__dlpack__"):  # onnxruntime before 1.31 would look for it all the same, and crash
        raise RevgraphError(what, "it does not speak DLPack", remedy)
    try:
        return onnxruntime.OrtValue.from_dlpack(value)
    except Exception as error:  # of many kinds, from two libraries
        raise RevgraphError(what, str(error).partition("\n")[0], remedy) from error


def on_host(value: Any) -> np.ndarray | None:
    """The numbers of a floating-point value of onnxruntime's; None where they would have to be fetched."""
    if value.device_name() != "cpu" or value.data_type() not in FLOATS:
        return None
    return np.asarray(value.numpy())


def refused(error: Exception) -> Exception:
    """onnxruntime's own exceptions, or what it throws on bindings, are about the model or its inputs."""
    if type(error).__module__.startswith("onnxruntime") or type(error) is RuntimeError:
        remedy = "check that the model itself runs there"
        return RevgraphError("onnxruntime cannot run this network", str(error), remedy)
    return error


# ---------------------------------------------------------------- what is there


def check_cuda() -> None:
    """Say what is missing of CUDA, before onnxruntime passes it over in silence.

    Raises:
        RevgraphError: Something is.
    """
    onnxruntime, what = package(), "cannot run on CUDA"
    if CUDA not in onnxruntime.get_available_providers():
        why = f"this onnxruntime {onnxruntime.__version__} is built for CPUs"
        remedy = 'pip uninstall onnxruntime, then pip install "revgraph[gpu]"'
        raise RevgraphError(what, why, remedy)
    if missing := missing_library(onnxruntime):
        remedy = 'install an NVIDIA driver and pip install "revgraph[gpu]", which brings CUDA\'s libraries'
        raise RevgraphError(what, missing, remedy)


def missing_library(onnxruntime: Any) -> str | None:
    """Why the CUDA provider cannot be loaded, in the loader's words; None where it can."""
    # Of CUDA's libraries, those that pip installed: the system's are found without, and what it prints is no
    # result.
    with contextlib.suppress(Exception), contextlib.redirect_stdout(io.StringIO()):
        onnxruntime.preload_dlls()
    folder = Path(onnxruntime.__file__).parent / "capi"
    libraries = [*folder.glob("*onnxruntime_providers_cuda.*")]
    if not libraries:
        return f"there is no CUDA provider in '{folder}'"
    try:
        ctypes.CDLL(str(folder / libraries[0].name.replace("cuda", "shared")), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(libraries[0]))
    except OSError as error:
        return str(error)
    return None
