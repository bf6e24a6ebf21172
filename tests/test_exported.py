"""Networks that frameworks exported, against those frameworks' own autodiff: see tools/exporters."""

import json
import runpy
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from layers import assert_close

import revgraph

FOLDER = Path(__file__).parent / "exported"
FILES = sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.glob("*/*.onnx"))
REFERENCES = {"salinet": "gradient", "desalinet": "guided", "deconvnet": "deconv"}

# Another framework adds up in another order, which in float32 errs by about 1e-6 of the largest number. No
# mask and no switch of these networks is so near to a tie that this flips it; a wrong one shows as 1e-2.
RTOL = 1e-4


@cache
def arrays(name):
    with np.load(FOLDER / f"{name}.npz") as file:
        return dict(file)


@cache
def session(name, variant):
    return revgraph.Session(revgraph.compile(FOLDER / f"{name}.onnx", variant=variant), threads=1)


def explain(name, variant, images=slice(None)):
    """y and x_hat."""
    x, p = arrays(name)["x"][images], arrays(name)["p"][images]
    trace = session(name, variant).forward(x)
    return trace.y, session(name, variant).reverse(trace, p)


def nchw(name, x_hat):
    manifest = json.loads((FOLDER / name).with_name("manifest.json").read_text())
    return x_hat.transpose(0, 3, 1, 2) if manifest["layout"] == "NHWC" else x_hat


@pytest.mark.parametrize("variant", REFERENCES)
@pytest.mark.parametrize("name", FILES)
def test_each_agrees_with_its_own_framework(name, variant):
    wanted = arrays(name)
    y, x_hat = explain(name, variant)
    assert_close(y, wanted["y"], RTOL)
    assert_close(x_hat, wanted[REFERENCES[variant]], RTOL)
    # They were exported with a free batch.
    assert_close(explain(name, variant, slice(1))[1], x_hat[:1], RTOL)


@pytest.mark.parametrize("variant", REFERENCES)
@pytest.mark.parametrize("network", sorted({Path(name).name for name in FILES}))
def test_all_frameworks_agree(network, variant):
    names = [name for name in FILES if Path(name).name == network]
    first_y, first = explain(names[0], variant)
    for name in names[1:]:
        y, x_hat = explain(name, variant)
        assert_close(y, first_y, RTOL)
        assert_close(nchw(name, x_hat), nchw(names[0], first), RTOL)


def test_the_table_lists_every_export():
    tools = FOLDER.parents[1] / "tools" / "exporters"
    lines = (tools / "README.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert [row[:4] for row in cells if len(row) == 5][2:] == runpy.run_path(str(tools / "table.py"))[
        "keys"
    ]()
