"""One compilation, in a process of its own: how long it takes, how much memory, and what comes out."""

import math
import time
from pathlib import Path

import numpy as np
import onnx
from jobs import Job, peak_mib, serve
from networks import cut


def with_revgraph(job: Job) -> Job:
    """Compile with revgraph; writes the pair and the fused file."""
    import revgraph

    folder, imported = Path(job["folder"]), peak_mib()
    began = time.perf_counter()
    pair = revgraph.compile(job["model"], variant=job["variant"], target=job["target"])
    seconds, peak = time.perf_counter() - began, peak_mib()
    written = [path.stat().st_size for path in pair.save(folder / "pair")]
    (fused,) = pair.save(folder / "fused", fused=True)
    y = pair.light_forward.model.graph.output
    shape = next(_shape(value) for value in y if value.name == pair.at)
    taps = [value for value in y if value.name in pair.taps]
    return {
        "seconds": seconds,
        "peak_mib": peak,
        "imported_mib": imported,
        "fused_bytes": fused.stat().st_size,
        "pair_bytes": sum(written),
        "forward_nodes": len(pair.light_forward.model.graph.node),
        "reversed_nodes": len(pair.light_reversed.model.graph.node),
        "bottleneck_bytes": sum(map(_nbytes, taps)) // shape[0],
        "at": pair.at,
        "input": pair.input,
        "y_shape": shape,
        "fused": str(fused),
    }


def _shape(value: onnx.ValueInfoProto) -> list[int]:
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]


def _nbytes(value: onnx.ValueInfoProto) -> int:
    kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    return math.prod(_shape(value)) * np.dtype(kind).itemsize


def peer_part(job: Job) -> Job:
    """Write the part of the model from x to y that the peers take: theirs ends where revgraph's begins."""
    onnx.save(cut(onnx.load(job["model"]), job["input"], job["at"]), job["part"])
    return {}


def with_onnx_ad(job: Job) -> Job:
    """Compile with onnx-ad, whose rule for Relu is replaced where the variant is not the derivative."""
    import onnx_ad.rules

    rules = onnx_ad.rules.REVERSE
    derivative, imported = rules["Relu"], peak_mib()
    if job["variant"] == "desalinet":
        rules["Relu"] = lambda ctx, node, grads: [ctx.b.op("Relu", derivative(ctx, node, grads))]
    elif job["variant"] == "deconvnet":
        rules["Relu"] = lambda ctx, node, grads: [ctx.b.op("Relu", [grads[0]])]
    began = time.perf_counter()
    model = onnx.load(job["part"])
    names = [job["input"]], [job["at"]]
    done = onnx_ad.reverse(model, inputs=names[0], outputs=names[1], prefix="adj_", layout="onnx")
    seconds, peak = time.perf_counter() - began, peak_mib()
    onnx.save(done, job["adjoint"])
    return {
        "seconds": seconds,
        "peak_mib": peak,
        "imported_mib": imported,
        "fused_bytes": Path(job["adjoint"]).stat().st_size,
        "fused_nodes": len(done.graph.node),
    }


def first_run(job: Job) -> Job:
    """The memory of opening a model in onnxruntime and running it once."""
    import onnxruntime
    from contenders import options

    imported = peak_mib()
    session = onnxruntime.InferenceSession(
        job["file"], options(job["threads"], job["batch"]), providers=["CPUExecutionProvider"]
    )
    shapes = {
        i.name: [n if isinstance(n, int) else job["batch"] for n in i.shape] for i in session.get_inputs()
    }
    session.run(None, {name: np.ones(shape, np.float32) for name, shape in shapes.items()})
    return {"run_mib": peak_mib() - imported}


WORK = {work.__name__: work for work in (with_revgraph, peer_part, with_onnx_ad, first_run)}


def work(job: Job) -> Job:
    return WORK[job["work"]](job)


if __name__ == "__main__":
    serve(work)
