"""PaddlePaddle: the networks as paddle.nn.Layer, exported by Paddle2ONNX."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import paddle
from paddle import Tensor, nn
from record import REFERENCES, record
from weights import HEIGHT, LRN, NORMALISED, WIDTH, Array, weights

# ----- The networks -----

NORM = {"weight": "scale", "bias": "shift", "_mean": "mean", "_variance": "variance"}


class Layers(nn.Layer):
    """A network of given weights: its rectifiers and its LRN can be replaced by ones reversed another way."""

    def __init__(self) -> None:
        super().__init__()
        self.network = type(self).__name__.lower()

    def conv(self, name: str, stride: int = 1, padding: int = 0, groups: int = 1) -> nn.Layer:
        """The convolution of that name, and the BatchNorm that follows it if one does."""
        arrays, normalised = weights(self.network), name in NORMALISED.get(self.network, ())
        out, into, *kernel = arrays[f"{name}.weight"].shape
        bias = False if normalised else None
        layer = nn.Conv2D(into * groups, out, kernel, stride, padding, groups=groups, bias_attr=bias)
        layer.weight.set_value(arrays[f"{name}.weight"])
        if not normalised:
            layer.bias.set_value(arrays[f"{name}.bias"])
            return layer
        norm = nn.BatchNorm2D(out)
        for mine, theirs in NORM.items():
            getattr(norm, mine).set_value(arrays[f"{name}.{theirs}"])
        return nn.Sequential(layer, norm)

    def linear(self, name: str) -> nn.Linear:
        arrays = weights(self.network)
        weight = arrays[f"{name}.weight"].reshape(len(arrays[f"{name}.weight"]), -1).T
        layer = nn.Linear(*weight.shape)
        layer.weight.set_value(np.ascontiguousarray(weight))
        layer.bias.set_value(arrays[f"{name}.bias"])
        return layer


class Plain(Layers):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            self.conv("conv1", padding=2),
            nn.ReLU(),
            nn.MaxPool2D(3, 2, ceil_mode=True),
            self.conv("conv2"),
            nn.ReLU(),
            nn.MaxPool2D(2),
        )
        self.classifier = nn.Sequential(nn.Flatten(), self.linear("fc1"), nn.ReLU(), self.linear("fc2"))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


class Lrn(Layers):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            self.conv("conv1", stride=2, padding=1),
            nn.ReLU(),
            nn.LocalResponseNorm(**LRN),
            nn.MaxPool2D(3, 2),
            self.conv("conv2", padding=1),
            nn.ReLU(),
            nn.LocalResponseNorm(**LRN),
        )
        self.fc = self.linear("fc")

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(paddle.flatten(self.features(x), 1))


class Residual(Layers):
    def __init__(self) -> None:
        super().__init__()
        self.stem = self.conv("stem", padding=1)
        self.pool = nn.MaxPool2D(2)
        self.conv1a, self.conv1b = self.conv("conv1a", padding=1), self.conv("conv1b", padding=1)
        self.conv2a = self.conv("conv2a", stride=2, padding=1)
        self.conv2b = self.conv("conv2b", padding=1)
        self.shortcut = self.conv("shortcut", stride=2)
        self.gap = nn.AdaptiveAvgPool2D(1)
        self.fc = self.linear("fc")
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.stem(x)))
        x = self.relu(self.conv1b(self.relu(self.conv1a(x))) + x)
        x = self.relu(self.conv2b(self.relu(self.conv2a(x))) + self.shortcut(x))
        return self.fc(paddle.flatten(self.gap(x), 1))


class Inception(Layers):
    def __init__(self) -> None:
        super().__init__()
        self.stem = self.conv("stem", stride=2, padding=1)
        self.one = self.conv("one")
        self.three_reduce, self.three = self.conv("three_reduce"), self.conv("three", padding=1)
        self.five_reduce, self.five = self.conv("five_reduce"), self.conv("five", padding=2)
        self.max_pool, self.max_project = nn.MaxPool2D(3, 1, 1), self.conv("max_project")
        self.average_pool = nn.AvgPool2D(3, 1, 1)
        self.average_project = self.conv("average_project")
        self.down = nn.AvgPool2D(2)
        self.last = self.conv("last")
        self.gap = nn.AdaptiveAvgPool2D(1)
        self.fc = self.linear("fc")
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.stem(x))
        branches = [
            self.one(x),
            self.three(self.relu(self.three_reduce(x))),
            self.five(self.relu(self.five_reduce(x))),
            self.max_project(self.max_pool(x)),
            self.average_project(self.average_pool(x)),
        ]
        x = self.down(self.relu(paddle.concat(branches, 1)))
        x = self.relu(self.last(x))
        return self.fc(paddle.flatten(self.gap(x), 1))


class Depthwise(Layers):
    def __init__(self) -> None:
        super().__init__()
        self.stem = self.conv("stem", stride=2, padding=1)
        self.depthwise1 = self.conv("depthwise1", padding=1, groups=8)
        self.project1 = self.conv("project1")
        self.expand2 = self.conv("expand2")
        self.depthwise2 = self.conv("depthwise2", stride=2, padding=1, groups=16)
        self.project2 = self.conv("project2")
        self.gap = nn.AdaptiveAvgPool2D(1)
        self.fc = self.linear("fc")
        self.relu6 = nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu6(self.stem(x))
        x = self.project1(self.relu6(self.depthwise1(x))) + x
        x = self.project2(self.relu6(self.depthwise2(self.relu6(self.expand2(x)))))
        return self.fc(paddle.flatten(self.gap(x), 1))


class Excitation(Layers):
    def __init__(self) -> None:
        super().__init__()
        self.stem = self.conv("stem", stride=2, padding=1)
        self.depthwise = self.conv("depthwise", padding=1, groups=8)
        self.squeeze, self.excite = self.conv("squeeze"), self.conv("excite")
        self.project, self.head = self.conv("project"), self.conv("head")
        self.gap = nn.AdaptiveAvgPool2D(1)
        self.fc = self.linear("fc")
        self.silu, self.gate = nn.Silu(), nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x = self.silu(self.stem(x))
        x = self.silu(self.depthwise(x))
        x = x * self.gate(self.excite(self.silu(self.squeeze(self.gap(x)))))
        x = self.silu(self.head(self.project(x) + shortcut))
        return self.fc(paddle.flatten(self.gap(x), 1))


NETWORKS: Mapping[str, type[Layers]] = {kind.__name__.lower(): kind for kind in Layers.__subclasses__()}


def build(network: str) -> nn.Layer:
    model = NETWORKS[network]()
    model.eval()
    return model


def export(network: str, file: Path) -> None:
    specification = paddle.static.InputSpec([None, 3, HEIGHT, WIDTH], "float32", "x")
    paddle.onnx.export(build(network), str(file.with_suffix("")), [specification])
    mend(file)


def mend(file: Path) -> None:
    """Make LRN pad with 0: Paddle2ONNX 2.1.0 writes whatever lay in memory, such as 4e27."""
    model = onnx.load(file)
    for value in [a for node in model.graph.node if node.op_type == "Pad" for a in node.attribute]:
        if value.name == "value":
            value.f = 0.0
    onnx.save(model, file)


# ----- The references -----


class Passed(paddle.autograd.PyLayer):
    """y of a function, and x_hat of another."""

    @staticmethod
    def forward(ctx, x, function, reverse):
        ctx.reverse = reverse
        return function(x)

    @staticmethod
    def backward(ctx, y_hat):
        return ctx.reverse(y_hat)


class Reversed(nn.Layer):
    """A layer of the same y, whose x_hat is DeConvNet's (`deconv`) or DeSaliNet's (`guided`)."""

    def __init__(self, layer: nn.Layer, how: str) -> None:
        super().__init__()
        self.layer, self.how = layer, how

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.layer, nn.LocalResponseNorm):
            return Passed.apply(x, self.layer, paddle.assign)
        if self.how == "guided":
            return self.layer(Passed.apply(x, paddle.assign, nn.functional.relu))
        return Passed.apply(x, self.layer, nn.functional.relu)


def replace(module: nn.Layer, how: str) -> None:
    """Replace a network's rectifiers and its LRN."""
    for name, child in list(module.named_children()):
        if isinstance(child, (nn.ReLU, nn.ReLU6, nn.Silu, nn.LocalResponseNorm)):
            setattr(module, name, Reversed(child, how))
        else:
            replace(child, how)


def references(network: str, x: Array, p: Array) -> dict[str, np.ndarray]:
    results = {}
    for how in REFERENCES:
        model = build(network)
        if how != "gradient":
            replace(model, how)
        image = paddle.to_tensor(x, stop_gradient=False)
        y = model(image)
        (x_hat,) = paddle.grad(y, image, paddle.to_tensor(p))
        results |= {"y": y.numpy(), how: x_hat.numpy()}
    return results


if __name__ == "__main__":
    record("paddle2onnx", "PaddlePaddle", ["paddlepaddle", "paddle2onnx", "onnx"], export, references)
