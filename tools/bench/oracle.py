"""The right answers: revgraph.reference, the paper's equations in NumPy float64, for single images."""

from pathlib import Path

import numpy as np
import onnx
from jobs import Job, serve
from networks import neurons, pictures

from revgraph import reference


def path(job: Job, lrn: str, row: int) -> Path:
    """Where the answer for one image is kept between runs."""
    name = f"{job['network']}.{job['size']}.{job['variant']}.{lrn}.{row}.npy"
    return Path(job["cache"]) / name


def work(job: Job) -> Job:
    """Answer for each row that is asked for, LRN reversed as the variant does it and by its derivative."""
    model, shape = onnx.load(job["model"]), (1, *job["y_shape"][1:])
    choices = ("own", "bp") if any(node.op_type == "LRN" for node in model.graph.node) else ("own",)
    for row in job["rows"]:
        wanted = [lrn for lrn in choices if not path(job, lrn, row).exists()]
        if not wanted:
            continue
        x = pictures(row + 1, job["size"])[row:]
        p = np.zeros(shape, np.float32)
        p.reshape(-1)[neurons(row + 1, p.size)[row]] = 1
        tensors = reference.forward(model, {job["input"]: x})
        for lrn in wanted:
            options = {"variant": job["variant"], "at": job["at"], "to": job["input"], "p": p}
            choice = None if lrn == "own" else lrn
            x_hat = reference.reverse(model, tensors, **options, lrn=choice)[job["input"]]
            np.save(path(job, lrn, row), x_hat)
    return {"lrn": list(choices)}


if __name__ == "__main__":
    serve(work)
