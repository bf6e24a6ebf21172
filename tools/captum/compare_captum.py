"""Compare Captum and revgraph with the definition, where Captum does not see a network's rectifiers."""

import math
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import captum.attr
import numpy as np
import numpy.typing as npt
import onnx
import torch
from networks import GoogLeNet, MobileNetV2, SqueezeNet, initialise, load
from onnx import numpy_helper
from PIL import Image
from tabulate import tabulate
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.overrides import TorchFunctionMode

import revgraph
from revgraph import panels, picture, recipe, zoo
from revgraph.recipe import Recipe

Array = npt.NDArray[Any]

README = Path(__file__).with_name("README.md")
SHEET = Path(__file__).with_name("guided.webp")
PICTURE = "chelsea"
PACKAGES = ("torch", "captum", "onnx", "onnxscript", "onnxruntime", "revgraph")

METHODS = {
    "guided backpropagation": ("desalinet", captum.attr.GuidedBackprop),
    "deconvolution": ("deconvnet", captum.attr.Deconvolution),
}
"""Our variant and Captum's class."""

# ----- The networks and what they are fed -----


@dataclass(frozen=True, slots=True)
class Case:
    """A network as a user would bring it.

    Attributes:
        name: Of the network.
        rectifiers: How it is written.
        build: Makes it, in float32 and in evaluation mode.
        fed: The recipe by which it sees pictures.
    """

    name: str
    rectifiers: str
    build: Callable[[], nn.Module]
    fed: Recipe

    def x(self, sample: str = PICTURE) -> Array:
        return self.fed.feed(zoo.sample(sample), self.fed.size)


IMAGENET, TRAINED = recipe.load("imagenet"), recipe.load("squeezenet1_1")


def untrained(network: type[nn.Module]) -> nn.Module:
    model = network()
    pictures = [IMAGENET.feed(zoo.sample(name), IMAGENET.size) for name in zoo.SAMPLES]
    initialise(model, torch.from_numpy(np.concatenate(pictures)))
    return model


def squeezenet(relu: Callable[[], Callable[[Tensor], Tensor]]) -> nn.Module:
    """SqueezeNet with the trained weights of the `ndf` package."""
    initializers = onnx.load(zoo.model_path(TRAINED)).graph.initializer
    arrays = {each.name: torch.from_numpy(numpy_helper.to_array(each).copy()) for each in initializers}
    model = SqueezeNet(relu())
    load(model, arrays)
    return model.eval()


CASES = (
    Case("GoogLeNet", "F.relu", partial(untrained, GoogLeNet), IMAGENET),
    Case("MobileNetV2", "nn.ReLU6", partial(untrained, MobileNetV2), IMAGENET),
    Case("SqueezeNet 1.1, trained", "F.relu", partial(squeezenet, lambda: F.relu), TRAINED),
    Case("SqueezeNet 1.1, trained", "nn.ReLU", partial(squeezenet, nn.ReLU), TRAINED),
)

# ----- The definition -----


class Rectifier(torch.autograd.Function):
    """y = min(max(x, 0), high); x_hat = max(y_hat * slope, 0), or max(y_hat, 0) where no slope is given."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, high: float, slope: Tensor | None) -> Tensor:
        ctx.slope = slope
        return x.clamp(0, high)

    @staticmethod
    def backward(ctx: Any, y_hat: Tensor) -> tuple[Tensor, None, None]:
        return torch.relu(y_hat if ctx.slope is None else y_hat * ctx.slope), None, None


class Defined(TorchFunctionMode):
    """While it is entered, every ReLU and ReLU6, function or module, is a Rectifier.

    Attributes:
        met: How many rectifiers there were.
        decisions: The masks (where the method has any) and the switches of max pooling.
    """

    def __init__(self, variant: str) -> None:
        super().__init__()
        self.guided = variant == "desalinet"
        self.met = 0
        self.decisions: list[Array] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is F.relu:
            return self._rectified(args[0], math.inf)
        if function is F.hardtanh and kwargs["min_val"] == 0:  # what nn.ReLU6 calls
            return self._rectified(args[0], kwargs["max_val"])
        if function is F.max_pool2d:
            y, switches = F.max_pool2d(*args, **kwargs | {"return_indices": True})
            self.decisions.append(switches.numpy())
            return y
        return function(*args, **kwargs)

    def _rectified(self, x: Tensor, high: float) -> Tensor:
        self.met += 1
        if not self.guided:
            return Rectifier.apply(x, high, None)
        slope = (x > 0) & (x < high)
        self.decisions.append(slope.numpy())
        return Rectifier.apply(x, high, slope)


def gradient(model: nn.Module, x: Array, label: int, dtype: torch.dtype = torch.float32) -> Array:
    image = torch.from_numpy(x).to(dtype).requires_grad_()
    score = model.to(dtype)(image)[0, label]
    (x_hat,) = torch.autograd.grad(score, image)
    model.float()
    return x_hat.numpy()


# ----- The contenders -----


def by_captum(model: nn.Module, x: Array, label: int, method: type) -> tuple[Array, list[str]]:
    """x_hat, and what Captum warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        x_hat = method(model).attribute(torch.from_numpy(x).requires_grad_(), target=label)
    return x_hat.detach().numpy(), [str(warning.message) for warning in caught]


def by_revgraph(file: onnx.ModelProto, x: Array, label: int, variant: str) -> Array:
    session = revgraph.Session(revgraph.compile(file, variant=variant))
    trace = session.forward(x)
    p = np.zeros_like(trace.y)
    p[0, label] = 1
    return session.reverse(trace, p)


def export(model: nn.Module, x: Array) -> onnx.ModelProto:
    return torch.onnx.export(model, (torch.from_numpy(x),), dynamo=True, verbose=False).model_proto


# ----- The comparison -----


@dataclass(frozen=True, slots=True)
class Result:
    """One network by one method; images are x_hats (1, 3, H, W).

    Attributes:
        case: The network.
        method: One of METHODS.
        reference: By definition, in float64.
        single: By definition, in float32.
        flipped: How many masks and switches float32 decides otherwise than float64, and of how many.
        gradient: The plain gradient.
        revgraph: Ours.
        captum: Captum's.
        warned: What Captum warned of.
    """

    case: Case
    method: str
    reference: Array
    single: Array
    flipped: tuple[int, int]
    gradient: Array
    revgraph: Array
    captum: Array
    warned: list[str]

    def row(self) -> list[str]:
        figures = (
            error(self.revgraph, self.reference),
            error(self.captum, self.reference),
            error(self.captum, self.gradient),
            error(self.single, self.reference),
        )
        flips, decisions = self.flipped
        return [
            self.case.name,
            f"`{self.case.rectifiers}`",
            self.method,
            *figures,
            f"{flips} of {decisions:,}",
        ]


HEADS = [
    "network",
    "rectifiers",
    "method",
    "revgraph",
    "Captum",
    "Captum against the plain gradient",
    "the definition in float32",
    "decided otherwise in float32",
]


def error(actual: Array, expected: Array) -> str:
    """The norm of the difference over the norm of what was expected."""
    norm = np.linalg.norm
    return f"{norm(actual.astype(np.float64) - expected) / norm(expected):#.2g}"


def compare(case: Case) -> list[Result]:
    model, x = case.build(), case.x()
    with torch.no_grad():
        label = int(model(torch.from_numpy(x)).argmax())
    file = export(model, x)
    return [_compare(case, method, model, file, x, label) for method in METHODS]


def _compare(
    case: Case, method: str, model: nn.Module, file: onnx.ModelProto, x: Array, label: int
) -> Result:
    variant, captums = METHODS[method]
    with Defined(variant) as double:
        reference = gradient(model, x, label, torch.float64)
    with Defined(variant) as single:
        rounded = gradient(model, x, label)
    rectifiers = sum(node.op_type in ("Relu", "Clip") for node in file.graph.node)
    assert double.met == rectifiers, f"{case.name}: {double.met} of {rectifiers} rectifiers met"
    theirs, warned = by_captum(model, x, label, captums)
    return Result(
        case=case,
        method=method,
        reference=reference,
        single=rounded,
        flipped=differing(single.decisions, double.decisions),
        gradient=gradient(model, x, label),
        revgraph=by_revgraph(file, x, label, variant),
        captum=theirs,
        warned=warned,
    )


def differing(some: Sequence[Array], others: Sequence[Array]) -> tuple[int, int]:
    """How many entries differ, and of how many."""
    flips = sum(int((a != b).sum()) for a, b in zip(some, others, strict=True))
    return flips, sum(a.size for a in some)


# ----- What is written -----


def table(results: Sequence[Result]) -> str:
    return tabulate([result.row() for result in results], HEADS, tablefmt="github", disable_numparse=True)


def warned(results: Sequence[Result]) -> str:
    texts = dict.fromkeys(text for result in results for text in result.warned)
    counts = [(text, sum(text in result.warned for result in results)) for text in texts]
    return "\n".join(f'* in {count} of {len(results)} rows: "{text}"' for text, count in counts)


def sheet(results: Sequence[Result]) -> Image.Image:
    """A row per network, one below the other."""
    rows = [_row(result) for result in results]
    canvas = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), "white")
    top = 0
    for row in rows:
        canvas.paste(row, (0, top))
        top += row.height
    return canvas


def _row(result: Result) -> Image.Image:
    case = result.case
    x_hats = (result.reference, result.revgraph, result.captum)
    images = [picture.image_of(picture.tone_map(case.fed.rgb(x_hat[0]))) for x_hat in x_hats]
    ours, theirs = (error(x_hat, result.reference) for x_hat in x_hats[1:])
    titles = ["input", "by definition", f"revgraph, error {ours}", f"Captum, error {theirs}"]
    crop = case.fed.crop(zoo.sample(PICTURE), case.fed.size)
    caption = f"{case.name}, rectifiers written as {case.rectifiers}"
    if np.array_equal(result.captum, result.gradient):
        caption += ": Captum's is the plain gradient, bit for bit"
    return panels.row([crop, *images], titles, caption)


def versions() -> str:
    return ", ".join(f"{package} {version(package)}" for package in PACKAGES)


def replace(text: str, name: str, content: str) -> str:
    """The text, with what stands between the comments `<!-- name -->` and `<!-- /name -->` replaced."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    pattern = re.compile(f"{re.escape(begin)}.*{re.escape(end)}", re.DOTALL)
    return pattern.sub(lambda _: f"{begin}\n{content}\n{end}", text)


def main() -> None:
    results = [result for case in CASES for result in compare(case)]
    generated = {"table": table(results), "warnings": warned(results), "versions": versions()}
    text = README.read_text(encoding="utf-8")
    for name, content in generated.items():
        print(content, end="\n\n")
        text = replace(text, name, content)
    README.write_text(text, encoding="utf-8")
    guided = [result for result in results if result.method == "guided backpropagation"]
    sheet(guided).save(SHEET, quality=60, method=6)


if __name__ == "__main__":
    main()
