"""What is timed on a GPU: each opens what it needs and hands back a call that does the work once.

Inputs lie on the device before, outputs stay there, and each call ends when the device is done.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx.utils

import revgraph
from revgraph.capture import Captured, Graph
from revgraph.runtime import Device, open_light, ort_values
from revgraph.weights import detach

Call = Callable[[], Any]
"""Returns x_hat, on the device; None where the work is a forward pass alone."""

CAPTUM = {"salinet": "Saliency", "desalinet": "GuidedBackprop", "deconvnet": "Deconvolution"}


@dataclass(frozen=True, slots=True)
class Work:
    """One setting of the table.

    Attributes:
        network: Its name in `tools/bench/networks.py`.
        model: The network itself, of a static batch.
        variant: The reversal.
        precision: "fp32", TF32 off everywhere, or "fp16".
        device: "cuda" or "cpu".
        x: (N, 3, H, W), float32.
        p: (N, ...), one neuron in each row.
    """

    network: str
    model: onnx.ModelProto
    variant: str
    precision: str
    device: str
    x: np.ndarray
    p: np.ndarray


def contenders(work: Work, peers: bool) -> Iterator[tuple[str, Callable[[Work], Call]]]:
    """Their names, and how each is opened."""
    yield PLAIN, plain
    yield FUSED, lambda work: fused(work, True)
    yield "revgraph, fused, no CUDA graph", lambda work: fused(work, False)
    yield "revgraph, pair", pair
    if peers:
        yield "torch, forward", torch_forward
        if work.variant in CAPTUM:
            yield CAPTUMS, captum
        if work.variant == "salinet":  # whose reversal is the derivative that torch.compile knows
            yield COMPILED, lambda work: compiled(work, "default")
            yield f"{COMPILED}, reduce-overhead", lambda work: compiled(work, "reduce-overhead")


PLAIN = "onnxruntime, forward"
"""What every time is compared with: the same precision, no taps."""
FUSED = "revgraph, fused"
CAPTUMS = "Captum"
COMPILED = "torch.compile, forward and backward"


def expected(work: Work) -> np.ndarray:
    """x_hat in float32 on the CPU."""
    session = revgraph.Session(revgraph.compile(work.model, variant=work.variant))
    return session.reverse(session.forward(work.x), work.p)


# ----- onnxruntime and revgraph -----


def compilation(work: Work) -> revgraph.Compiled:
    return revgraph.compile(work.model, variant=work.variant, target="cuda", precision=work.precision)


def plain(work: Work) -> Call:
    """The untouched model; in float16 the forward graph without its taps."""
    model = work.model
    if work.precision == "fp16":
        forward = compilation(work).forward
        outputs = [value.name for value in work.model.graph.output]
        inputs = [value.name for value in forward.graph.input]
        model = onnx.utils.Extractor(forward).extract_model(inputs, outputs)
    return _opened(work, model, [model.graph.output[0].name], True)


def fused(work: Work, capture: bool) -> Call:
    return _opened(work, compilation(work).fused(), ["x_hat"], capture)


def _opened(work: Work, model: onnx.ModelProto, names: list[str], capture: bool) -> Call:
    device, light = Device.of(work.device), detach(model)

    def rows(options: Any) -> None:
        options.add_free_dimension_override_by_name("P", len(work.p))

    kind: type[Graph] = Captured if capture else Graph
    weights = ort_values(light.weights)
    session = open_light(light, weights, 0, rows, device, capture)
    inputs = [value.name for value in session.get_inputs()]
    feeds = {name: _placed(work, work.p if name == "p" else work.x) for name in inputs}
    graph = kind(session, device)

    def call() -> Any:
        assert weights is not None  # onnxruntime reads them where they are
        return graph.run(names, feeds, {}).values.get("x_hat")

    return call


def _placed(work: Work, array: np.ndarray) -> Any:
    import onnxruntime

    device = Device.of(work.device)
    return onnxruntime.OrtValue.ortvalue_from_numpy(array, device.kind, device.index)


def pair(work: Work) -> Call:
    """Two runs; the bottleneck stays on the device."""
    session = revgraph.Session(compilation(work), device=work.device)
    x, p = (_placed(work, array) for array in (work.x, work.p))
    return lambda: session.reverse_on_device(session.forward(x), p)


# ----- torch -----


def _module(work: Work) -> tuple[Any, Any, Any]:
    """The network, x and p on the device, in this precision, without TF32."""
    import modules
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    kind = torch.float16 if work.precision == "fp16" else torch.float32
    network = modules.build(work.network).to(work.device, kind)
    x, p = (torch.from_numpy(array).to(work.device, kind) for array in (work.x, work.p))
    return network, x, p


def _done(work: Work) -> None:
    import torch

    if work.device != "cpu":
        torch.cuda.synchronize(work.device)


def torch_forward(work: Work) -> Call:
    import torch

    network, x, _ = _module(work)

    def call() -> None:
        with torch.inference_mode():
            network(x)
        _done(work)

    return call


def captum(work: Work) -> Call:
    import captum.attr

    network, x, p = _module(work)
    method = getattr(captum.attr, CAPTUM[work.variant])(network)
    keywords: Mapping[str, Any] = {"abs": False} if work.variant == "salinet" else {}
    target = p.flatten(1).argmax(1)

    def call() -> Any:
        x_hat = method.attribute(x, target=target, **keywords)
        _done(work)
        return x_hat.detach()

    return call


def compiled(work: Work, mode: str) -> Call:
    import torch

    network, x, p = _module(work)
    optimised, x = torch.compile(network, mode=mode), x.requires_grad_(True)

    def call() -> Any:
        (x_hat,) = torch.autograd.grad(optimised(x), x, p)
        _done(work)
        return x_hat

    return call
