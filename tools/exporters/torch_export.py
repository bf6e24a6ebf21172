"""PyTorch: the networks as nn.Module, exported by the TorchScript exporter and by the dynamo exporter."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from record import REFERENCES, record
from torch import Tensor, nn
from weights import LRN, NORMALISED, Array, images, projection, weights

# ----- The networks -----


class Layers(nn.Module):
    """A network of given weights: its rectifiers and its LRN can be replaced by ones reversed another way."""

    def __init__(self, network: str) -> None:
        super().__init__()
        self._arrays = weights(network)
        self._normalised = NORMALISED.get(network, ())

    def conv(self, name: str, stride: int = 1, padding: int = 0, groups: int = 1) -> nn.Module:
        """The convolution of that name, and the BatchNorm that follows it if one does."""
        out, into, *kernel = self._arrays[f"{name}.weight"].shape
        normalised = name in self._normalised
        layer = nn.Conv2d(into * groups, out, kernel, stride, padding, groups=groups, bias=not normalised)
        _set(layer.weight, self._arrays[f"{name}.weight"])
        if not normalised:
            _set(layer.bias, self._arrays[f"{name}.bias"])
            return layer
        norm = nn.BatchNorm2d(out)
        for mine, theirs in NORM.items():
            _set(getattr(norm, mine), self._arrays[f"{name}.{theirs}"])
        return nn.Sequential(layer, norm)

    def linear(self, name: str) -> nn.Module:
        weight = self._arrays[f"{name}.weight"].reshape(len(self._arrays[f"{name}.weight"]), -1)
        layer = nn.Linear(weight.shape[1], weight.shape[0])
        _set(layer.weight, weight)
        _set(layer.bias, self._arrays[f"{name}.bias"])
        return layer


NORM = {"weight": "scale", "bias": "shift", "running_mean": "mean", "running_var": "variance"}


def _set(parameter: Tensor, values: Array) -> None:
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(values))


class Plain(Layers):
    def __init__(self) -> None:
        super().__init__("plain")
        self.features = nn.Sequential(
            self.conv("conv1", padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            self.conv("conv2"),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(nn.Flatten(), self.linear("fc1"), nn.ReLU(), self.linear("fc2"))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


class Lrn(Layers):
    def __init__(self) -> None:
        super().__init__("lrn")
        self.features = nn.Sequential(
            self.conv("conv1", stride=2, padding=1),
            nn.ReLU(),
            nn.LocalResponseNorm(**LRN),
            nn.MaxPool2d(3, 2),
            self.conv("conv2", padding=1),
            nn.ReLU(),
            nn.LocalResponseNorm(**LRN),
        )
        self.fc = self.linear("fc")

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.flatten(self.features(x), 1))


class Residual(Layers):
    def __init__(self) -> None:
        super().__init__("residual")
        self.stem = self.conv("stem", padding=1)
        self.pool = nn.MaxPool2d(2)
        self.conv1a, self.conv1b = self.conv("conv1a", padding=1), self.conv("conv1b", padding=1)
        self.conv2a = self.conv("conv2a", stride=2, padding=1)
        self.conv2b = self.conv("conv2b", padding=1)
        self.shortcut = self.conv("shortcut", stride=2)
        self.gap = nn.AdaptiveAvgPool2d(1)
        self.fc = self.linear("fc")
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.stem(x)))
        x = self.relu(self.conv1b(self.relu(self.conv1a(x))) + x)
        x = self.relu(self.conv2b(self.relu(self.conv2a(x))) + self.shortcut(x))
        return self.fc(torch.flatten(self.gap(x), 1))


class Inception(Layers):
    def __init__(self) -> None:
        super().__init__("inception")
        self.stem = self.conv("stem", stride=2, padding=1)
        self.one = self.conv("one")
        self.three_reduce, self.three = self.conv("three_reduce"), self.conv("three", padding=1)
        self.five_reduce, self.five = self.conv("five_reduce"), self.conv("five", padding=2)
        self.max_pool, self.max_project = nn.MaxPool2d(3, 1, 1), self.conv("max_project")
        self.average_pool = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
        self.average_project = self.conv("average_project")
        self.down = nn.AvgPool2d(2)
        self.last = self.conv("last")
        self.gap = nn.AdaptiveAvgPool2d(1)
        self.fc = self.linear("fc")
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.stem(x))
        branches = (
            self.one(x),
            self.three(self.relu(self.three_reduce(x))),
            self.five(self.relu(self.five_reduce(x))),
            self.max_project(self.max_pool(x)),
            self.average_project(self.average_pool(x)),
        )
        x = self.down(self.relu(torch.cat(branches, 1)))
        x = self.relu(self.last(x))
        return self.fc(torch.flatten(self.gap(x), 1))


class Depthwise(Layers):
    def __init__(self) -> None:
        super().__init__("depthwise")
        self.stem = self.conv("stem", stride=2, padding=1)
        self.depthwise1 = self.conv("depthwise1", padding=1, groups=8)
        self.project1 = self.conv("project1")
        self.expand2 = self.conv("expand2")
        self.depthwise2 = self.conv("depthwise2", stride=2, padding=1, groups=16)
        self.project2 = self.conv("project2")
        self.gap = nn.AdaptiveAvgPool2d(1)
        self.fc = self.linear("fc")
        self.relu6 = nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu6(self.stem(x))
        x = self.project1(self.relu6(self.depthwise1(x))) + x
        x = self.project2(self.relu6(self.depthwise2(self.relu6(self.expand2(x)))))
        return self.fc(torch.flatten(self.gap(x), 1))


class Excitation(Layers):
    def __init__(self) -> None:
        super().__init__("excitation")
        self.stem = self.conv("stem", stride=2, padding=1)
        self.depthwise = self.conv("depthwise", padding=1, groups=8)
        self.squeeze, self.excite = self.conv("squeeze"), self.conv("excite")
        self.project, self.head = self.conv("project"), self.conv("head")
        self.gap = nn.AdaptiveAvgPool2d(1)
        self.fc = self.linear("fc")
        self.silu, self.gate = nn.SiLU(), nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x = self.silu(self.stem(x))
        x = self.silu(self.depthwise(x))
        x = x * self.gate(self.excite(self.silu(self.squeeze(self.gap(x)))))
        x = self.silu(self.head(self.project(x) + shortcut))
        return self.fc(torch.flatten(self.gap(x), 1))


NETWORKS: Mapping[str, type[Layers]] = {kind.__name__.lower(): kind for kind in Layers.__subclasses__()}


def build(network: str) -> nn.Module:
    return NETWORKS[network]().eval()


# ----- The exporters -----


def torchscript(network: str, file: Path) -> None:
    torch.onnx.export(
        build(network),
        (torch.from_numpy(images()),),
        file,
        dynamo=False,
        input_names=["x"],
        output_names=["y"],
        dynamic_axes={"x": {0: "batch"}, "y": {0: "batch"}},
    )


def dynamo(network: str, file: Path) -> None:
    torch.onnx.export(
        build(network),
        (torch.from_numpy(images()),),
        file,
        dynamo=True,
        input_names=["x"],
        output_names=["y"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        external_data=False,
    )


# ----- The references -----


class Passed(torch.autograd.Function):
    """y of a function, and x_hat of another."""

    @staticmethod
    def forward(ctx, x, function, reverse):
        ctx.reverse = reverse
        return function(x)

    @staticmethod
    def backward(ctx, y_hat):
        return ctx.reverse(y_hat), None, None


class Reversed(nn.Module):
    """A layer of the same y, whose x_hat is DeConvNet's (`deconv`) or DeSaliNet's (`guided`)."""

    def __init__(self, layer: nn.Module, how: str) -> None:
        super().__init__()
        self.layer, self.how = layer, how

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.layer, nn.LocalResponseNorm):
            return Passed.apply(x, self.layer, torch.clone)
        if self.how == "guided":
            return self.layer(Passed.apply(x, torch.clone, torch.relu))
        return Passed.apply(x, self.layer, torch.relu)


def replace(module: nn.Module, how: str) -> None:
    """Replace a network's rectifiers and its LRN."""
    for name, child in module.named_children():
        if isinstance(child, (nn.ReLU, nn.ReLU6, nn.SiLU, nn.LocalResponseNorm)):
            setattr(module, name, Reversed(child, how))
        else:
            replace(child, how)


def references(network: str, x: Array, p: Array, dtype: torch.dtype = torch.float32) -> dict[str, np.ndarray]:
    results = {}
    for how in REFERENCES:
        model = build(network).to(dtype)
        if how != "gradient":
            replace(model, how)
        image = torch.from_numpy(x).to(dtype).requires_grad_()
        y = model(image)
        (x_hat,) = torch.autograd.grad(y, image, torch.from_numpy(p).to(dtype))
        results |= {"y": y.detach().numpy(), how: x_hat.numpy()}
    return results


def check_seeds() -> None:
    """No mask and no switch is so near a tie that float32 could flip it: float64 gives the same."""
    for network in NETWORKS:
        single = references(network, images(), projection())
        for name, array in references(network, images(), projection(), torch.float64).items():
            error = np.abs(single[name] - array).max() / np.abs(array).max()
            assert error < 1e-5, f"{network}, {name}: {error:.0e} (choose other seeds)"


EXPORTERS: Mapping[str, Callable[[str, Path], None]] = {"torchscript": torchscript, "dynamo": dynamo}

if __name__ == "__main__":
    check_seeds()
    for exporter, export in EXPORTERS.items():
        record(exporter, "PyTorch", ["torch", "onnx", "onnxscript"], export, references)
