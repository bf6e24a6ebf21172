"""Where the time of a fused file goes, node by node, and what its arithmetic alone would take. See README.md.

The plain model and the fused file run in turn under onnxruntime's profiler; a node's time is its median. The
floor is the plain forward pass and the reversed graph's products (Conv, ConvTranspose, Gemm on the model's
weights): as if masks, switches and changes of layout were free.
"""

import argparse
import json
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import networks
import numpy as np
import onnx
import onnxruntime
from bench import HERE, write
from contenders import options
from tabulate import tabulate

import revgraph
from revgraph.lower.targets import TARGETS

COLUMNS = ("network", "variant", "target", "part", "operator", "nodes", "ms", "of_plain")
PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul")


def main(arguments: Sequence[str] | None = None) -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--networks", nargs="+", default=list(networks.NINE), metavar="NAME")
    made.add_argument("--target", default="cpu", choices=TARGETS)
    made.add_argument("--variant", default="desalinet")
    made.add_argument("--reps", type=int, default=12)
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("-o", "--output", type=Path, default=HERE / "results")
    chosen = made.parse_args(arguments)
    chosen.output.mkdir(parents=True, exist_ok=True)
    rows, floors = [], []
    for network in chosen.networks:
        found = profile(network, chosen)
        rows += found
        plain, fused, floor = (
            sum(row["ms"] for row in found if row["part"] in parts)
            for parts in (("plain",), ("forward", "layout", "reversed", "products"), ("plain", "products"))
        )
        floors.append([network, plain, fused, fused / plain, floor / plain])
        shown = [row for row in found if row["part"] != "plain" and row["of_plain"] >= 0.01]
        heads = [column for column in COLUMNS if column not in ("network", "variant", "target")]
        print(f"\n{network}: plain {plain:.1f} ms, fused {fused:.1f} ms")
        print(tabulate([[row[head] for head in heads] for row in shown], heads, floatfmt=".2f"))
        write(chosen.output / "nodes.csv", COLUMNS, rows)
    print()
    print(tabulate(floors, ["network", "plain ms", "fused ms", "ratio", "floor"], floatfmt=".2f"))


def profile(network: str, chosen: argparse.Namespace) -> list[dict[str, object]]:
    """A row for each part of the file and operator, the largest first."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        networks.build(network, 1, networks.default_size(network), file)
        pair = revgraph.compile(file, variant=chosen.variant, target=chosen.target)
        fused = Path(folder) / "fused.onnx"
        onnx.save(pair.fused(), fused)
        sessions = [_open(path, chosen.threads) for path in (file, fused)]
        x = networks.pictures(1, networks.default_size(network))
        p = next(i for i in sessions[1].get_inputs() if i.name == "p")
        feeds = {
            pair.input: x,
            "p": np.eye(1, int(np.prod(p.shape[1:])), dtype=np.float32).reshape(1, *p.shape[1:]),
        }
        for _ in range(chosen.reps):
            sessions[0].run(None, {pair.input: x})
            sessions[1].run(None, feeds)
        nodes = pair.reversed.graph.node
        parts = {name: _part(node) for node in nodes for name in (node.name, node.output[0])}
        tables = [_nodes(session.end_profiling()) for session in sessions]
    total = sum(ms for _, ms in tables[0].values())
    sums: dict[tuple[str, str], list[float]] = defaultdict(list)
    for table, known in ((tables[0], None), (tables[1], parts)):
        for name, (operator, ms) in table.items():
            part = "layout" if operator.startswith("Reorder") else "forward"
            part = "plain" if known is None else known.get(name.removesuffix("_nchwc"), part)
            sums[part, operator].append(ms)
    about = {"network": network, "variant": chosen.variant, "target": chosen.target}
    return [
        about | {"part": part, "operator": op, "nodes": len(ms), "ms": sum(ms), "of_plain": sum(ms) / total}
        for (part, op), ms in sorted(sums.items(), key=lambda item: -sum(item[1]))
    ]


def _part(node: onnx.NodeProto) -> str:
    """What is emitted with a constant of its own, and not a weight of the model's, is no product."""
    own = len(node.input) > 1 and "constant" in node.input[1].split("/")
    return "products" if node.op_type in PRODUCTS and not own else "reversed"


def _open(file: Path, threads: int) -> onnxruntime.InferenceSession:
    chosen = options(threads, 1)
    chosen.enable_profiling = True
    chosen.profile_file_prefix = str(file.with_suffix(""))
    return onnxruntime.InferenceSession(str(file), chosen, providers=["CPUExecutionProvider"])


def _nodes(file: str) -> dict[str, tuple[str, float]]:
    """Every node's operator and median milliseconds."""
    times: dict[str, list[float]] = defaultdict(list)
    operators = dict[str, str]()
    for event in json.loads(Path(file).read_text(encoding="utf-8")):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            name = event["name"].removesuffix("_kernel_time").removeprefix("fused ")
            times[name].append(event["dur"] / 1000)
            operators[name] = event["args"]["op_name"]
    return {name: (operators[name], statistics.median(found)) for name, found in times.items()}


if __name__ == "__main__":
    main()
