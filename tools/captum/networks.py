"""The networks, as plain torch modules written the way torchvision writes them."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

Function = Callable[[Tensor], Tensor]

CLASSES = 1000

# ----- GoogLeNet: the ReLU is a function -----


class BasicConv2d(nn.Module):
    def __init__(self, into: int, out: int, kernel: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(into, out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class Inception(nn.Module):
    """Four branches: 1x1, 3x3, 3x3 again (torchvision's stand-in for 5x5), pooled."""

    def __init__(
        self, into: int, one: int, second: tuple[int, int], third: tuple[int, int], pooled: int
    ) -> None:
        super().__init__()
        self.branch1 = BasicConv2d(into, one, 1)
        self.branch2 = nn.Sequential(BasicConv2d(into, second[0], 1), BasicConv2d(*second, 3, padding=1))
        self.branch3 = nn.Sequential(BasicConv2d(into, third[0], 1), BasicConv2d(*third, 3, padding=1))
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(3, 1, padding=1, ceil_mode=True), BasicConv2d(into, pooled, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class GoogLeNet(nn.Module):
    """Szegedy et al., arXiv:1409.4842, without the auxiliary classifiers."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            BasicConv2d(3, 64, 7, stride=2, padding=3),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            BasicConv2d(64, 64, 1),
            BasicConv2d(64, 192, 3, padding=1),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            Inception(192, 64, (96, 128), (16, 32), 32),
            Inception(256, 128, (128, 192), (32, 96), 64),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            Inception(480, 192, (96, 208), (16, 48), 64),
            Inception(512, 160, (112, 224), (24, 64), 64),
            Inception(512, 128, (128, 256), (24, 64), 64),
            Inception(512, 112, (144, 288), (32, 64), 64),
            Inception(528, 256, (160, 320), (32, 128), 128),
            nn.MaxPool2d(2, 2, ceil_mode=True),
            Inception(832, 256, (160, 320), (32, 128), 128),
            Inception(832, 384, (192, 384), (48, 128), 128),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(1024, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.flatten(self.avgpool(self.features(x)), 1)
        return self.fc(self.dropout(x))


# ----- MobileNetV2: the rectifier is the module nn.ReLU6 -----


def _conv_norm(into: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(into, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(out)]


class InvertedResidual(nn.Module):
    def __init__(self, into: int, out: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = into * expansion
        expand = [*_conv_norm(into, hidden, 1), nn.ReLU6(inplace=True)] if expansion > 1 else []
        depthwise = [*_conv_norm(hidden, hidden, 3, stride, groups=hidden), nn.ReLU6(inplace=True)]
        self.conv = nn.Sequential(*expand, *depthwise, *_conv_norm(hidden, out, 1))
        self.residual = stride == 1 and into == out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(nn.Module):
    """Sandler et al., arXiv:1801.04381."""

    STAGES = (  # expansion, channels, blocks, stride of the first block
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )

    def __init__(self) -> None:
        super().__init__()
        layers = [*_conv_norm(3, 32, 3, stride=2), nn.ReLU6(inplace=True)]
        into = 32
        for expansion, out, blocks, stride in self.STAGES:
            for block in range(blocks):
                layers.append(InvertedResidual(into, out, 1 if block else stride, expansion))
                into = out
        self.features = nn.Sequential(*layers, *_conv_norm(into, 1280, 1), nn.ReLU6(inplace=True))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


# ----- SqueezeNet: either way -----


class Fire(nn.Module):
    def __init__(self, into: int, squeezed: int, expanded: int, relu: Function) -> None:
        super().__init__()
        self.squeeze1x1 = nn.Conv2d(into, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.squeeze1x1(x))
        return torch.cat([self.relu(self.expand1x1(x)), self.relu(self.expand3x3(x))], 1)


class SqueezeNet(nn.Module):
    """SqueezeNet 1.1 (Iandola et al., arXiv:1602.07360) up to the logits.

    Args:
        relu: F.relu, or an nn.ReLU: y is the same.
    """

    def __init__(self, relu: Function) -> None:
        super().__init__()
        self.relu = relu
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv1 = nn.Conv2d(3, 64, 3, 2)
        self.fire2, self.fire3 = Fire(64, 16, 64, relu), Fire(128, 16, 64, relu)
        self.fire4, self.fire5 = Fire(128, 32, 128, relu), Fire(256, 32, 128, relu)
        self.fire6, self.fire7 = Fire(256, 48, 192, relu), Fire(384, 48, 192, relu)
        self.fire8, self.fire9 = Fire(384, 64, 256, relu), Fire(512, 64, 256, relu)
        self.conv10 = nn.Conv2d(512, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.conv1(x)))
        x = self.pool(self.fire3(self.fire2(x)))
        x = self.pool(self.fire5(self.fire4(x)))
        x = self.fire9(self.fire8(self.fire7(self.fire6(x))))
        return self.relu(self.conv10(x)).mean((2, 3))


# ----- Weights -----


def load(model: nn.Module, arrays: Mapping[str, Tensor]) -> None:
    """Give every convolution its arrays `<name>/weight` and `<name>/bias`."""
    model.load_state_dict({name.replace("/", "."): array for name, array in arrays.items()})


def initialise(model: nn.Module, pictures: Tensor) -> None:
    """Seeded He weights, and BatchNorm statistics such that each layer normalises these pictures."""
    torch.manual_seed(0)
    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if isinstance(layer, nn.Linear):
            nn.init.zeros_(layer.bias)
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    model.eval()
    for norm in norms:
        norm.train().momentum = 1.0
    with torch.no_grad():
        model(pictures)
    model.eval()
