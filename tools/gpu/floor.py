"""What the arithmetic and the traffic of a forward and a reversed pass take at least."""

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx.shape_inference

PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True, slots=True)
class Peak:
    """What a device was seen to do at most: one large product, one large copy.

    Attributes:
        flops: Floating-point operations per second; a multiplication and an addition are two.
        bandwidth: Bytes per second, read and written.
    """

    flops: float
    bandwidth: float


def measured_peak(device: str, half: bool) -> Peak | None:
    """By torch, TF32 off; None where it is not installed."""
    try:
        import torch
    except ImportError:
        return None
    kind, n = (torch.float16 if half else torch.float32), 8192 if device != "cpu" else 512
    a, b = (torch.randn(n, n, device=device).to(kind) for _ in range(2))
    source = torch.empty((1 << 30) if device != "cpu" else (1 << 24), dtype=torch.uint8, device=device)
    copy = torch.empty_like(source)
    product = _fastest(lambda: torch.mm(a, b), torch, device)
    copying = _fastest(lambda: copy.copy_(source), torch, device)
    return Peak(2 * n**3 / product, 2 * source.numel() / copying)


def _fastest(work: Any, torch: Any, device: str) -> float:
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        work()
        if device != "cpu":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def floor_ms(model: onnx.ModelProto, peak: Peak, half: bool) -> float:
    """The sum over the model's products, each once forward and once reversed, of the longer of its two times.

    A product's traffic is its input, its weights and its output, each once; masks, switches and everything
    that is no product count as free.
    """
    sizes = _sizes(model)
    seconds = 0.0
    for node in model.graph.node:
        if node.op_type in PRODUCTS:
            x, weight, y = (sizes[name] for name in (*node.input[:2], node.output[0]))
            flops = 2 * _terms(node, x, weight, y)
            traffic = sum(map(math.prod, (x, weight, y))) * (2 if half else 4)
            seconds += 2 * max(flops / peak.flops, traffic / peak.bandwidth)
    return 1e3 * seconds


def _terms(node: onnx.NodeProto, x: list[int], weight: list[int], y: list[int]) -> int:
    """Multiplications of one product."""
    if node.op_type == "Conv":
        return math.prod(y) * math.prod(weight[1:])
    if node.op_type == "ConvTranspose":
        return math.prod(x) * math.prod(weight[1:])
    return math.prod(x) * y[-1]


def _sizes(model: onnx.ModelProto) -> dict[str, list[int]]:
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = [*graph.value_info, *graph.input, *graph.output]
    sizes = {v.name: [dim.dim_value for dim in v.type.tensor_type.shape.dim] for v in values}
    return sizes | {tensor.name: list(tensor.dims) for tensor in graph.initializer}


def relative_error(actual: np.ndarray, expected: np.ndarray) -> float:
    """In the norm of both."""
    difference = np.linalg.norm(actual.astype(np.float64) - expected)
    return float(difference / max(np.linalg.norm(expected), 1e-30))
