"""One network at one batch: compiled, checked and timed, each in processes of their own."""

import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from jobs import Job, call

TIMES = (
    *("network", "size", "batch", "variant", "contender", "target", "rounds", "median_ms", "min_ms"),
    *("ratio", "ratio_of_minima", "relative_error", "cosine", "failure"),
)
"""The columns of results.csv."""

COMPILES = (
    *("network", "size", "batch", "variant", "compiler", "target", "seconds", "peak_mib", "imported_mib"),
    *("nodes", "forward_nodes", "reversed_nodes", "fused_nodes", "model_bytes", "fused_bytes", "pair_bytes"),
    *("bottleneck_bytes", "run_mib", "plain_run_mib", "failure"),
)
"""The columns of compile.csv."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What is the same for all networks.

    Attributes:
        variant: Of the eight.
        targets: revgraph's.
        peers: Whether those of requirements.txt take part.
        reps: Most rounds.
        budget: Seconds after which no new round begins, beyond the third.
        threads: Of onnxruntime and of torch.
        cache: A folder for the models, and for the oracle's answers.
        check: Whether the oracle is asked at all.
    """

    variant: str
    targets: list[str]
    peers: bool
    reps: int
    budget: float
    threads: int
    cache: str
    check: bool = True


def measure(network: str, batch: int, size: int, settings: Settings) -> tuple[list[Job], list[Job]]:
    """The rows of both tables; what fails is a row with its error."""
    Path(settings.cache).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=settings.cache) as folder:
        common = {"network": network, "size": size, "batch": batch, "variant": settings.variant}
        job = asdict(settings) | common | _places(Path(folder))
        built = call("networks.py", job)
        if "error" in built:
            return [common | {"failure": built["error"]}], []
        compiles = list(_compile(job, built))
        times = _time(job) if job["compiled"] else []
        return [common | row for row in times], [common | row for row in compiles]


def _places(folder: Path) -> Job:
    names = {"model": "model.onnx", "single": "single.onnx", "part": "part.onnx", "adjoint": "adjoint.onnx"}
    places: Job = {key: str(folder / name) for key, name in names.items()}
    return places | {"folder": str(folder), "progress": str(folder / "progress"), "compiled": {}}


def _compile(job: Job, built: Job) -> Iterator[Job]:
    """A row for each compiler; notes in the job where its files lie."""
    plain = _run_mib(job, job["model"])
    for target in list(job["targets"]):
        folder = Path(job["folder"]) / target
        row = call("compilers.py", job | {"work": "with_revgraph", "target": target, "folder": str(folder)})
        about = built | {"compiler": "revgraph", "target": target, "plain_run_mib": plain}
        if "error" in row:
            job["targets"].remove(target)
            yield about | {"failure": row["error"]}
            continue
        fused = row.pop("fused")
        job["compiled"][target] = {"pair": str(folder / "pair"), "fused": fused}
        job |= {key: row.pop(key) for key in ("at", "input", "y_shape")}
        row["fused_nodes"] = row["forward_nodes"] + row["reversed_nodes"]
        yield about | row | {"run_mib": _run_mib(job, fused), "failure": ""}
    if job["peers"] and job["compiled"]:
        yield _onnx_ad(job, built) | {"plain_run_mib": plain}


def _onnx_ad(job: Job, built: Job) -> Job:
    row = call("compilers.py", job | {"work": "peer_part"})
    if "error" not in row:
        row = call("compilers.py", job | {"work": "with_onnx_ad"})
    job["adjoint_error"] = row.pop("error", "")
    return built | {"compiler": "onnx-ad", "failure": job["adjoint_error"]} | row


def _run_mib(job: Job, file: str) -> float | None:
    return call("compilers.py", job | {"work": "first_run", "file": file}).get("run_mib")


def _time(job: Job) -> list[Job]:
    """Time all; after a crash once more without the contender that caused it."""
    asked = sorted({0, job["batch"] - 1}) if job["check"] else []
    answered = _answers(job, asked)
    job |= {"rows": asked if "lrn" in answered else [], "lrn": answered.get("lrn", [])}
    job["skipped"] = dict[str, str]()
    while True:
        done = call("timing.py", job)
        if "error" not in done:
            return list(done["rows"])
        progress = Path(job["progress"])
        culprit = progress.read_text() if progress.exists() else ""
        if not done.get("died") or not culprit or culprit in job["skipped"]:
            return [{"failure": done["error"]}]
        job["skipped"][culprit] = done["error"]


def _answers(job: Job, rows: list[int]) -> Job:
    """What the oracle says of these images, each by itself."""
    single = job | {"batch": 1, "model": job["single"], "rows": rows}
    if not rows or "error" in call("networks.py", single):
        return {}
    return call("oracle.py", single)
